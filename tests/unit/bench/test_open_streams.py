"""What the memory of many open streams is measured with does what it says."""

from bench.open_streams import keep


def test_every_call_is_seen_and_nothing_is_kept_of_closed_connections() -> None:
    kept = keep(5, 30)
    # 20 one after the other, then twice 30 at once.
    assert kept.exchanges == {"seen": 5 * 80, "emitted": 5 * 80}
    assert kept.connections == 0
    assert kept.empty > 0
