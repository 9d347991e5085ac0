"""Trace headers: what the four documents call valid is read, everything else counts as absent."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from autotrace.correlate.trace_headers import TraceContext, trace_context

T = "4bf92f3577b34da6a3ce929d0e0e4736"
S = "00f067aa0ba902b7"
TRACE, SPAN = int(T, 16), int(S, 16)
SHORT = int(T[16:], 16)


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        ({"traceparent": f"00-{T}-{S}-01"}, TraceContext(TRACE, SPAN, True, "", "traceparent")),
        ({"traceparent": f"00-{T}-{S}-00"}, TraceContext(TRACE, SPAN, False, "", "traceparent")),
        ({"traceparent": f"00-{T}-{S}-03"}, TraceContext(TRACE, SPAN, True, "", "traceparent")),
        ({"traceparent": f"01-{T}-{S}-01-extra-2"}, TraceContext(TRACE, SPAN, True, "", "traceparent")),
        ({"traceparent": f"cc-{T}-{S}-01"}, TraceContext(TRACE, SPAN, True, "", "traceparent")),
        (
            {"traceparent": f"00-{T}-{S}-01", "tracestate": "a=1,b=2"},
            TraceContext(TRACE, SPAN, True, "a=1,b=2", "traceparent"),
        ),
        (
            {"traceparent": f"00-{T}-{S}-01", "tracestate": "a=" + "x" * 511},
            TraceContext(TRACE, SPAN, True, "", "traceparent"),
        ),
        ({"b3": f"{T}-{S}"}, TraceContext(TRACE, SPAN, True, "", "b3")),
        ({"b3": f"{T}-{S}-0"}, TraceContext(TRACE, SPAN, False, "", "b3")),
        ({"b3": f"{T}-{S}-d-{S}"}, TraceContext(TRACE, SPAN, True, "", "b3")),
        ({"b3": f"{T[16:]}-{S}-1"}, TraceContext(SHORT, SPAN, True, "", "b3")),
        ({"x-b3-traceid": T, "x-b3-spanid": S}, TraceContext(TRACE, SPAN, True, "", "x-b3-traceid")),
        (
            {"x-b3-traceid": T, "x-b3-spanid": S, "x-b3-sampled": "0"},
            TraceContext(TRACE, SPAN, False, "", "x-b3-traceid"),
        ),
        (
            {"x-b3-traceid": T, "x-b3-spanid": S, "x-b3-sampled": "false", "x-b3-flags": "1"},
            TraceContext(TRACE, SPAN, True, "", "x-b3-traceid"),
        ),
        ({"uber-trace-id": f"{T}:{S}:0:1"}, TraceContext(TRACE, SPAN, True, "", "uber-trace-id")),
        ({"uber-trace-id": f"{T[16:]}:{S[2:]}:{S}:0"}, TraceContext(SHORT, SPAN, False, "", "uber-trace-id")),
        ({"uber-trace-id": f"{T}%3A{S}%3a0%3A3"}, TraceContext(TRACE, SPAN, True, "", "uber-trace-id")),
    ],
)
def test_valid_headers(headers: dict[str, str], expected: TraceContext) -> None:
    assert trace_context(headers) == expected


@pytest.mark.parametrize(
    "value",
    [
        "",
        f"ff-{T}-{S}-01",
        f"00-{'0' * 32}-{S}-01",
        f"00-{T}-{'0' * 16}-01",
        f"00-{T.upper()}-{S}-01",
        f"00-{T}-{S}-01-extra",
        f"00-{T}-{S}-01-",
        f"00-{T}-{S}-1",
        f"01-{T}-{S}-01extra",
        f"01-{T}-{S}-01, 01-{T}-{S}-01",
        f" 00-{T}-{S}-01",
        f"00-{T}-{S}-01\n",
        f"00-{T[1:]}-{S}-01",
        f"00-{T}-{S}-0\u0661",
    ],
)
def test_invalid_traceparent(value: str) -> None:
    assert trace_context({"traceparent": value}) is None


@pytest.mark.parametrize(
    "headers",
    [
        {"b3": "0"},
        {"b3": "d"},
        {"b3": f"{T}-{S}-2"},
        {"b3": f"{T[1:]}-{S}"},
        {"b3": f"{T}-{'0' * 16}"},
        {"x-b3-traceid": T},
        {"x-b3-spanid": S},
        {"x-b3-traceid": T, "x-b3-spanid": S[1:]},
        {"uber-trace-id": f"{T}:{S}:0"},
        {"uber-trace-id": f"0:{S}:0:1"},
        {"uber-trace-id": f"{T}0:{S}:0:1"},
        {"tracestate": "a=1"},
        {},
    ],
)
def test_other_invalid_headers(headers: dict[str, str]) -> None:
    assert trace_context(headers) is None


def test_an_invalid_header_leaves_the_word_to_the_next() -> None:
    context = trace_context({"traceparent": "rubbish", "b3": "0", "uber-trace-id": f"{T}:{S}:0:1"})
    assert context is not None
    assert context.header == "uber-trace-id"


def test_traceparent_comes_before_the_others() -> None:
    context = trace_context({"traceparent": f"00-{T}-{S}-01", "b3": f"{S}-{S}"})
    assert context is not None
    assert context.trace_id == TRACE


@given(st.integers(1, 2**128 - 1), st.integers(1, 2**64 - 1), st.integers(0, 255))
def test_every_valid_traceparent_is_read(trace: int, span: int, flags: int) -> None:
    context = trace_context({"traceparent": f"00-{trace:032x}-{span:016x}-{flags:02x}"})
    assert context == TraceContext(trace, span, bool(flags & 1), "", "traceparent")


NAMES = ("traceparent", "tracestate", "b3", "x-b3-traceid", "x-b3-spanid", "x-b3-sampled", "x-b3-flags")
VALUES = st.one_of(
    st.text(max_size=80),
    st.text("0123456789abcdefABCDEF-:%3,", max_size=80),
    st.sampled_from((f"00-{T}-{S}-01", f"{T}-{S}-1", T, S, f"{T}:{S}:0:1")).flatmap(
        lambda valid: st.builds(
            lambda at, new: valid[:at] + new + valid[at + 1 :],
            st.integers(0, len(valid)),
            st.text(max_size=2),
        )
    ),
)


@given(st.dictionaries(st.sampled_from((*NAMES, "uber-trace-id")), VALUES))
def test_no_header_raises_and_no_id_is_zero_or_too_long(headers: dict[str, str]) -> None:
    context = trace_context(headers)
    if context is not None:
        assert 0 < context.trace_id < 2**128
        assert 0 < context.span_id < 2**64
        assert context.trace_state.isascii()
        assert context.header in headers
