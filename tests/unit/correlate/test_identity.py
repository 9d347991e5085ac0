"""Ids: repeatable, different where they must be, never zero."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from autotrace.correlate.identity import Identity
from autotrace.model import Role

KEY = ("tcp", ("10.0.0.1", 4000), ("10.0.0.2", 80), 123, 0)


def test_the_same_events_give_the_same_ids() -> None:
    assert Identity(b"host").ids(KEY, Role.CLIENT, 5) == Identity(b"host").ids(KEY, Role.CLIENT, 5)


def test_ends_times_hosts_and_keys_differ() -> None:
    identity = Identity(b"host")
    ids = [
        identity.ids(KEY, Role.CLIENT, 5),
        identity.ids(KEY, Role.SERVER, 5),
        identity.ids(KEY, Role.CLIENT, 6),
        identity.ids((*KEY[:3], 124, 0), Role.CLIENT, 5),
        Identity(b"other").ids(KEY, Role.CLIENT, 5),
    ]
    assert len({each.span_id for each in ids}) == len({each.trace_id for each in ids}) == len(ids)


@given(st.text(), st.integers(0, 2**63))
def test_ids_fit_and_are_not_zero(path: str, start_ns: int) -> None:
    ids = Identity(b"").ids(("unix", path), Role.SERVER, start_ns)
    assert 0 < ids.span_id < 2**64
    assert 0 < ids.trace_id < 2**128
