"""gRPC's words for methods, deadlines, statuses and messages."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from autotrace.model import Rpc
from autotrace.protocols import grpc

RELAXED = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])


@pytest.mark.parametrize(
    ("content_type", "expected"),
    [
        ("application/grpc", True),
        ("application/grpc+proto", True),
        ("Application/gRPC; charset=x", True),
        ("application/grpc-web", False),
        ("application/grpcish", False),
        ("application/json", False),
        ("", False),
    ],
)
def test_what_is_grpc(content_type: str, expected: bool) -> None:
    assert grpc.is_grpc({"content-type": content_type}) is expected
    assert not grpc.is_grpc({})


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("1S", 1_000_000_000),
        ("99999999n", 99_999_999),
        ("5m", 5_000_000),
        ("2H", 7_200_000_000_000),
        ("3M", 180_000_000_000),
        ("7u", 7000),
        ("", 0),
        ("S", 0),
        ("123456789n", 0),
        ("-1S", 0),
        ("1s", 0),
        ("\u0661S", 0),
    ],
)
def test_timeouts(text: str, expected: int) -> None:
    assert grpc.timeout_ns(text) == expected
    assert grpc.call("/a.B/C", {"grpc-timeout": text}) == Rpc("grpc", "a.B/C", expected)


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        ("0", "OK"),
        ("14", "UNAVAILABLE"),
        ("16", "UNAUTHENTICATED"),
        ("17", "UNKNOWN"),
        ("x", "UNKNOWN"),
        ("", ""),
    ],
)
def test_statuses(code: str, expected: str) -> None:
    assert grpc.status_name(code) == expected


@RELAXED
@given(
    st.lists(st.tuples(st.integers(0, 70_000), st.lists(st.integers(1, 9), max_size=6)), max_size=8),
    st.data(),
)
def test_messages_are_counted_if_each_begins_with_a_frame(
    messages: list[tuple[int, list[int]]], data: st.DataObject
) -> None:
    """Frames cut them anywhere."""
    counter = grpc.MessageCounter()
    for size, lengths in messages:
        text = b"\0" + size.to_bytes(4, "big") + b"x" * size
        for length in [*lengths, data.draw(st.integers(1, 20_000)), len(text)]:
            counter.frame(len(text[:length]), text[:length][:5].ljust(5, b"\0"))
            text = text[length:]
    assert counter.whole == len(messages)


def test_a_prefix_that_is_cut_is_no_message_yet() -> None:
    counter = grpc.MessageCounter()
    counter.frame(3, b"\0\0\0\0\0")
    assert (counter.count, counter.whole) == (0, None)
    counter.frame(2, b"\0\2\0\0\0")
    assert (counter.count, counter.whole) == (1, None)
    counter.frame(2, b"")
    assert counter.whole == 1


def test_a_prefix_of_which_a_part_was_not_told_is_not_counted() -> None:
    counter = grpc.MessageCounter()
    counter.frame(3, b"\0\0\0\0\0")
    counter.frame(4, b"")
    counter.frame(7, b"\0\0\0\0\2")
    assert counter.whole is None


def test_a_message_that_is_cut_is_not_counted() -> None:
    counter = grpc.MessageCounter()
    counter.frame(10, b"\0\0\0\0\x10")
    assert counter.whole is None
    counter.frame(20, b"")
    assert counter.whole is None
    assert counter.count is None
