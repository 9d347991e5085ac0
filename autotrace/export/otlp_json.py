"""Spans as a line of the OTLP file format: an `ExportTraceServiceRequest` in OTLP/JSON.

Sources: the OTLP specification, section "JSON Protobuf Encoding" (lower-camel names, trace and span ids in
hex, enums as numbers, unknown means absent), and "OTLP File Exporter" (one request per line). 64-bit numbers
are strings, as proto3 JSON says.
"""

from __future__ import annotations

import json
from math import isfinite

from autotrace import __version__
from autotrace.export.otlp_spans import (
    ATTRIBUTES_REMEMBERED,
    by_process,
    is_int64,
    span_flags,
    utf8,
)
from autotrace.model import AttributeValue, Process, Role, Span

_KIND = {Role.SERVER: 2, Role.CLIENT: 3}
"""`Span.SpanKind` of trace.proto."""

_STATUS_ERROR = 2
"""`Status.StatusCode` of trace.proto."""

_quote = json.JSONEncoder(ensure_ascii=False).encode


class TraceJsonEncoder:
    """Encodes batches. It remembers encoded attributes, most of which come again with the next span."""

    def __init__(self) -> None:
        self._scope = f'{{"name":"autotrace","version":{_quote(__version__)}}}'
        self._attributes: dict[tuple[str, AttributeValue, type], str] = {}

    def encode(self, spans: list[Span]) -> str:
        """One line, without its end."""
        groups = [self._resource_spans(process, group) for process, group in by_process(spans)]
        return f'{{"resourceSpans":[{",".join(groups)}]}}'

    def _resource_spans(self, process: Process, spans: list[Span]) -> str:
        resource = ",".join([_key_value(key, value) for key, value in process.resource.items()])
        encoded = ",".join([self._span(span) for span in spans])
        return (
            f'{{"resource":{{"attributes":[{resource}]}},'
            f'"scopeSpans":[{{"scope":{self._scope},"spans":[{encoded}]}}]}}'
        )

    def _span(self, span: Span) -> str:
        state = f'"traceState":{_text(span.trace_state)},' if span.trace_state else ""
        parent = f'"parentSpanId":"{span.parent_span_id:016x}",' if span.parent_span_id else ""
        status = ""
        if span.is_error:
            message = f'"message":{_text(span.status_message)},' if span.status_message else ""
            status = f',"status":{{{message}"code":{_STATUS_ERROR}}}'
        known = self._attributes
        attributes = ",".join(
            [
                known.get((key, value, type(value))) or self._remember(key, value)
                for key, value in span.attributes.items()
            ]
        )
        return (
            f'{{"traceId":"{span.trace_id:032x}","spanId":"{span.span_id:016x}",{state}{parent}'
            f'"flags":{span_flags(span)},"name":{_text(span.name)},"kind":{_KIND[span.role]},'
            f'"startTimeUnixNano":"{span.start_unix_ns}","endTimeUnixNano":"{span.end_unix_ns}",'
            f'"attributes":[{attributes}]{status}}}'
        )

    def _remember(self, key: str, value: AttributeValue) -> str:
        encoded = _key_value(key, value)
        if isinstance(value, float):
            # Rare, and no good as a key: 0.0 equals -0.0, NaN not even itself.
            return encoded
        if len(self._attributes) >= ATTRIBUTES_REMEMBERED:
            self._attributes.clear()
        self._attributes[key, value, type(value)] = encoded
        return encoded


def _text(value: str) -> str:
    """A JSON string."""
    return _quote(utf8(value))


def _key_value(key: str, value: AttributeValue) -> str:
    return f'{{"key":{_text(key)},"value":{_any_value(value)}}}'


def _any_value(value: AttributeValue) -> str:
    if isinstance(value, str):
        return f'{{"stringValue":{_text(value)}}}'
    if isinstance(value, bool):
        return f'{{"boolValue":{"true" if value else "false"}}}'
    if isinstance(value, int):
        return f'{{"{"intValue" if is_int64(value) else "stringValue"}":"{value}"}}'
    if isinstance(value, float):
        # proto3 JSON has strings for what JSON numbers cannot say.
        number = (
            repr(value)
            if isfinite(value)
            else {"inf": '"Infinity"', "-inf": '"-Infinity"'}.get(str(value), '"NaN"')
        )
        return f'{{"doubleValue":{number}}}'
    return f'{{"arrayValue":{{"values":[{",".join(map(_any_value, value))}]}}}}'
