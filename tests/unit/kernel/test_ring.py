"""What is taken out of a ring: every finished record, once and in order, whatever stands between them."""

from __future__ import annotations

import struct

from hypothesis import given
from hypothesis import strategies as st

from autotrace.kernel.ring import _Fence, finished_records

BUSY, DISCARDED = 1 << 31, 1 << 30


def in_ring(payload: bytes, flag: int = 0) -> bytes:
    """A record as the kernel lays it out: its head, then its bytes, filled up to 8."""
    record = struct.pack("=II", len(payload) | flag, 0x1234) + payload
    return record + b"\xee" * (-len(record) % 8)


@given(
    st.lists(st.tuples(st.binary(max_size=40), st.sampled_from([0, 0, 0, DISCARDED, BUSY]))),
    st.integers(0, 5),
    st.booleans(),
)
def test_finished_records_are_taken_in_order_up_to_the_first_that_is_not(
    written: list[tuple[bytes, int]], words_before: int, weakly_ordered: bool
) -> None:
    start = 8 * words_before
    busy = next((i for i, (_, flag) in enumerate(written) if flag == BUSY), len(written))
    ring = [in_ring(payload, flag) for payload, flag in written]
    data = b"\xff" * start + b"".join(ring)
    records, end = finished_records(data, start, len(data), _Fence() if weakly_ordered else None)
    assert records == [payload for payload, flag in written[:busy] if flag != DISCARDED]
    assert end == start + sum(map(len, ring[:busy]))


def test_what_stands_behind_the_end_is_not_read() -> None:
    first, second = in_ring(b"first"), in_ring(b"second")
    assert finished_records(first + second, 0, len(first)) == ([b"first"], len(first))
    assert finished_records(first + second, 0, 0) == ([], 0)


def test_a_record_that_begins_before_the_end_is_taken_whole() -> None:
    first, second = in_ring(b"first"), in_ring(b"second")
    assert finished_records(first + second, 0, len(first) + 1) == (
        [b"first", b"second"],
        len(first) + len(second),
    )
