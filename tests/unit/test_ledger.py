"""The books balance whatever is entered, from any number of threads."""

import json
from threading import Thread

from hypothesis import given
from hypothesis import strategies as st

from autotrace.ledger import Ledger, render_snapshot

REASONS = st.sampled_from(["malformed", "swept", "unpaired"])


@given(
    seen=st.integers(0, 500), emitted=st.integers(0, 200), drops=st.dictionaries(REASONS, st.integers(1, 50))
)
def test_exchange_account_balances(seen: int, emitted: int, drops: dict[str, int]) -> None:
    ledger = Ledger()
    ledger.seen(seen)
    ledger.emitted(emitted)
    for reason, n in drops.items():
        ledger.dropped(reason, n)
    exchanges = ledger.snapshot()["exchanges"]
    assert exchanges["seen"] == exchanges["emitted"] + sum(drops.values()) + exchanges["in_flight"]
    assert exchanges["dropped"] == drops
    assert ledger.balance(in_flight=seen - emitted - sum(drops.values())) == 0


def test_balance_tells_how_many_are_missing() -> None:
    ledger = Ledger()
    ledger.seen(10)
    ledger.emitted(6)
    ledger.dropped("swept", 1)
    assert ledger.balance(in_flight=2) == 1


def test_lost_requests_are_seen_and_dropped() -> None:
    ledger = Ledger()
    ledger.seen(3)
    ledger.emitted(3)
    ledger.kernel({"sent": 6, "lost_request": 4})
    ledger.kernel({"sent": 9, "lost_request": 7})
    assert ledger.snapshot()["exchanges"] == {
        "seen": 10,
        "emitted": 3,
        "dropped": {"ring_full": 7},
        "in_flight": 0,
    }
    assert ledger.balance() == 0


def test_exporter_account_computes_what_is_queued() -> None:
    ledger = Ledger()
    account = ledger.exporter("otlp")
    assert ledger.exporter("otlp") is account
    for _ in range(5):
        account.accept()
    account.send(2)
    account.drop("queue_full")
    assert (account.accepted, account.sent, account.dropped, account.queued) == (5, 2, {"queue_full": 1}, 2)


def test_render_says_everything_in_lines() -> None:
    ledger = Ledger()
    ledger.seen(1190)
    ledger.emitted(1190)
    ledger.kernel({"lost_request": 10, "lost_chunk": 0})
    ledger.exporter("otlp").accept(3)
    ledger.exporter("otlp").send(1)
    ledger.note("http1", "malformed_request")
    ledger.note("http1", "malformed_request", 2)
    assert ledger.render().splitlines() == [
        "exchanges: seen 1200 = emitted 1190 + dropped 10 (ring_full 10); in flight 0",
        "export otlp: accepted 3 = sent 1 + dropped 0; queued 2",
        "http1: malformed_request 3",
        "kernel: lost_request 10",
    ]
    assert render_snapshot(json.loads(json.dumps(ledger.snapshot()))) == ledger.render()


def test_no_entry_is_lost_between_threads() -> None:
    ledger = Ledger()

    def work() -> None:
        for _ in range(2000):
            ledger.note("stage", "fact")
            ledger.exporter("e").accept()

    threads = [Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for _ in range(8000):
        ledger.seen()
        ledger.emitted()
    for thread in threads:
        thread.join()
    assert ledger.snapshot()["exchanges"]["emitted"] == 8000
    assert ledger.balance() == 0
    assert ledger.snapshot()["notes"] == {"stage": {"fact": 8000}}
    assert ledger.exporter("e").accepted == 8000
