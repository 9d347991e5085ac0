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
@given(st.lists(st.integers(0, 70_000), max_size=8), st.integers(1000, 20_000))
def test_messages_are_counted_if_each_begins_with_a_frame(sizes: list[int], frame_max: int) -> None:
    counter = grpc.MessageCounter()
    for size in sizes:
        left = grpc.PREFIX + size
        prefix = b"\0" + size.to_bytes(4, "big")
        while left:
            length = min(left, frame_max)
            counter.frame(length, prefix)
            left -= length
            prefix = b""
    assert counter.whole == len(sizes)


def test_a_message_that_is_cut_is_not_counted() -> None:
    counter = grpc.MessageCounter()
    counter.frame(10, b"\0\0\0\0\x10")
    assert counter.whole is None
    counter.frame(20, b"")
    assert counter.whole is None
    assert counter.count is None
