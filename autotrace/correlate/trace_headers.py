"""Trace context that a request carries in its headers.

Read in this order, the first that is present decides: `traceparent` (W3C Trace Context, level 1 and 2), `b3`,
`x-b3-*` (github.com/openzipkin/b3-propagation), `uber-trace-id` (Jaeger client libraries). A malformed header
counts as absent, as all four documents say.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final, NamedTuple

TRACE_STATE_MAX = 512
"""Characters of `tracestate` that must be carried on (W3C Trace Context, section 3.3.1.5)."""

_TRACEPARENT = re.compile(r"([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(-[^,]*)?", re.ASCII)
_B3 = re.compile(
    r"([0-9a-f]{16}(?:[0-9a-f]{16})?)-([0-9a-f]{16})(?:-([01d])(?:-[0-9a-f]{16})?)?", re.ASCII | re.IGNORECASE
)
_B3_TRACE_ID = re.compile(r"[0-9a-f]{16}(?:[0-9a-f]{16})?", re.ASCII | re.IGNORECASE)
_B3_SPAN_ID = re.compile(r"[0-9a-f]{16}", re.ASCII | re.IGNORECASE)
# The colons are percent-encoded by some clients. Ids may lack leading zeros; the third field is deprecated.
_UBER = re.compile(
    r"([0-9a-f]{1,32})(?::|%3A)([0-9a-f]{1,16})(?::|%3A)[0-9a-f]{1,16}(?::|%3A)([0-9a-f]{1,2})",
    re.ASCII | re.IGNORECASE,
)
_TRACE_STATE = re.compile(r"[\x20-\x7e]*", re.ASCII)

_DECIDING: Final = frozenset({"traceparent", "b3", "x-b3-traceid", "uber-trace-id"})


class TraceContext(NamedTuple):
    """The ids are never 0. `sampled` is true unless the header denies it. `header` is the header's name."""

    trace_id: int
    span_id: int
    sampled: bool
    trace_state: str
    header: str


def trace_context(headers: Mapping[str, str]) -> TraceContext | None:
    """Read the trace context from headers with names in lower case; None if there is none that is valid."""
    if _DECIDING.isdisjoint(headers):
        return None
    value = headers.get("traceparent")
    if value is not None and (context := _traceparent(value, headers.get("tracestate", ""))):
        return context
    value = headers.get("b3")
    if value is not None and (context := _b3_single(value)):
        return context
    value = headers.get("x-b3-traceid")
    if value is not None and (context := _b3_multi(value, headers)):
        return context
    value = headers.get("uber-trace-id")
    if value is not None:
        return _uber_trace_id(value)
    return None


def _context(
    trace_id: str, span_id: str, sampled: bool, header: str, trace_state: str = ""
) -> TraceContext | None:
    trace, span = int(trace_id, 16), int(span_id, 16)
    return TraceContext(trace, span, sampled, trace_state, header) if trace and span else None


def _traceparent(value: str, trace_state: str) -> TraceContext | None:
    """Section 3.2. Versions to come may add fields at the end; version ff is invalid."""
    match = _TRACEPARENT.fullmatch(value)
    if match is None or match[1] == "ff" or (match[1] == "00" and match[5] is not None):
        return None
    if len(trace_state) > TRACE_STATE_MAX or not _TRACE_STATE.fullmatch(trace_state):
        trace_state = ""
    return _context(match[2], match[3], bool(int(match[4], 16) & 1), "traceparent", trace_state)


def _b3_single(value: str) -> TraceContext | None:
    match = _B3.fullmatch(value)
    return _context(match[1], match[2], match[3] != "0", "b3") if match else None


def _b3_multi(trace_id: str, headers: Mapping[str, str]) -> TraceContext | None:
    span_id = headers.get("x-b3-spanid", "")
    if not _B3_TRACE_ID.fullmatch(trace_id) or not _B3_SPAN_ID.fullmatch(span_id):
        return None
    sampled = headers.get("x-b3-flags") == "1" or headers.get("x-b3-sampled", "1").lower() not in (
        "0",
        "false",
    )
    return _context(trace_id, span_id, sampled, "x-b3-traceid")


def _uber_trace_id(value: str) -> TraceContext | None:
    """jaegertracing.io, "Propagation Format"; flag 1 is sampled, flag 2 is debug."""
    match = _UBER.fullmatch(value)
    return _context(match[1], match[2], bool(int(match[3], 16) & 3), "uber-trace-id") if match else None
