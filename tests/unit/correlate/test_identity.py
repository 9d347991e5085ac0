"""Ids: repeatable, different where they must be, never zero."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from autotrace.correlate.identity import Identity
from autotrace.model import Role

KEY = "10.0.0.1:4000 to 10.0.0.2:80, byte 123"


def test_the_same_events_give_the_same_ids() -> None:
    assert Identity(b"host").ids(KEY, Role.CLIENT, 5) == Identity(b"host").ids(KEY, Role.CLIENT, 5)


def test_ends_times_hosts_and_keys_differ() -> None:
    identity = Identity(b"host")
    ids = [
        identity.ids(KEY, Role.CLIENT, 5),
        identity.ids(KEY, Role.SERVER, 5),
        identity.ids(KEY, Role.CLIENT, 6),
        identity.ids(KEY[:-1] + "4", Role.CLIENT, 5),
        Identity(b"other").ids(KEY, Role.CLIENT, 5),
    ]
    assert len({span_id for span_id, _ in ids}) == len({trace_id for _, trace_id in ids}) == len(ids)


@given(st.text(), st.integers(0, 2**63))
def test_ids_fit_and_are_not_zero(path: str, start_ns: int) -> None:
    span_id, trace_id = Identity(b"").ids(path, Role.SERVER, start_ns)
    assert 0 < span_id < 2**64
    assert 0 < trace_id < 2**128
