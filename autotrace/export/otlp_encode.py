"""Spans as an OTLP `ExportTraceServiceRequest`, in protobuf.

Field numbers: opentelemetry-proto, trace/v1/trace.proto, common/v1/common.proto, resource/v1/resource.proto.
Version 1 of these is frozen, so the numbers never change.
"""

from __future__ import annotations

import struct

from autotrace import __version__
from autotrace.export.otlp_wire import key_value, length_tag, message, scope, tag, text, varint
from autotrace.model import AttributeValue, Process, Role, Span

KIND = {Role.SERVER: 2, Role.CLIENT: 3}
"""`Span.SpanKind` of trace.proto."""

STATUS_ERROR = 2
"""`Status.StatusCode` of trace.proto."""

_ATTRIBUTE_FIELD = 9
_ATTRIBUTE_TAG = length_tag(_ATTRIBUTE_FIELD)
_VALUE_TAG = length_tag(2)
_STRING_TAG = length_tag(1)
_ATTRIBUTES_REMEMBERED = 8192
_HEAD = struct.Struct(">2sQQ2sQ")
_TIMES = struct.Struct("<cQcQ")
_PARENT_TAG = length_tag(4) + varint(8)
_STATE_TAG = length_tag(3)
_NAME_TAG = length_tag(5)
_TRACE_ID_TAG = length_tag(1) + varint(16)
_SPAN_ID_TAG = length_tag(2) + varint(8)
_START_TAG = tag(7, 1)
_END_TAG = tag(8, 1)
_SPAN_TAG = length_tag(2)
_KIND_FIELD = {role: tag(6, 0) + varint(kind) for role, kind in KIND.items()}
_LOW_64 = 0xFFFFFFFFFFFFFFFF


def span_flags(span: Span) -> int:
    """`Span.flags` of trace.proto: whether the parent is known to be in another process (bits 8 and 9)."""
    return 0x300 if span.parent_span_id and span.role is Role.SERVER else 0x100


_FLAGS_LOCAL = tag(16, 5) + struct.pack("<I", 0x100)
_FLAGS_REMOTE = tag(16, 5) + struct.pack("<I", 0x300)


def by_process(spans: list[Span]) -> list[tuple[Process, list[Span]]]:
    """Group spans by watched process, which is one Resource each; order is kept."""
    groups: dict[int, tuple[Process, list[Span]]] = {}
    for span in spans:
        group = groups.get(id(span.process))
        if group is None:
            group = groups[id(span.process)] = (span.process, [])
        group[1].append(span)
    return list(groups.values())


class TraceEncoder:
    """Encodes batches. It remembers encoded attributes, most of which come again with the next span."""

    def __init__(self) -> None:
        self._scope = message(1, scope(__version__))
        self._keys: dict[str, bytes] = {}
        self._texts: dict[tuple[str, str], bytes] = {}
        self._others: dict[tuple[str, AttributeValue, type], bytes] = {}

    def encode(self, spans: list[Span]) -> bytes:
        """The serialised `ExportTraceServiceRequest` of a batch."""
        return b"".join(
            message(1, self._resource_spans(process, group)) for process, group in by_process(spans)
        )

    def _resource_spans(self, process: Process, spans: list[Span]) -> bytes:
        resource = b"".join(key_value(1, key, value) for key, value in process.resource.items())
        parts = [self._scope]
        for span in spans:
            data = self._span(span)
            parts += (_SPAN_TAG, varint(len(data)), data)
        return message(1, resource) + message(2, b"".join(parts))

    def _span(self, span: Span) -> bytes:
        name = span.name.encode("utf-8", "replace")
        parts = [
            _HEAD.pack(
                _TRACE_ID_TAG, span.trace_id >> 64, span.trace_id & _LOW_64, _SPAN_ID_TAG, span.span_id
            )
        ]
        if span.trace_state:
            state = span.trace_state.encode("utf-8", "replace")
            parts += (_STATE_TAG, varint(len(state)), state)
        if span.parent_span_id:
            parts += (_PARENT_TAG, span.parent_span_id.to_bytes(8, "big"))
        parts += (
            _NAME_TAG,
            varint(len(name)),
            name,
            _KIND_FIELD[span.role],
            _TIMES.pack(_START_TAG, span.start_unix_ns, _END_TAG, span.end_unix_ns),
        )
        texts = self._texts
        others = self._others
        for key, value in span.attributes.items():
            if type(value) is str:
                encoded = texts.get((key, value))
                if encoded is None:
                    encoded = self._remember_text(key, value)
            else:
                # The type is part of the key: True equals 1, and 1.0 as well.
                encoded = others.get((key, value, type(value)))
                if encoded is None:
                    encoded = self._remember_other(key, value)
            parts.append(encoded)
        if span.is_error:
            status = text(2, span.status_message) if span.status_message else b""
            parts.append(message(15, status + tag(3, 0) + varint(STATUS_ERROR)))
        parts.append(_FLAGS_REMOTE if span_flags(span) & 0x200 else _FLAGS_LOCAL)
        return b"".join(parts)

    def _remember_text(self, key: str, value: str) -> bytes:
        if len(self._texts) >= _ATTRIBUTES_REMEMBERED:
            self._texts.clear()
        # The same bytes as key_value() gives, with the key's part made once.
        head = self._keys.get(key)
        if head is None:
            if len(self._keys) >= _ATTRIBUTES_REMEMBERED:
                self._keys.clear()
            head = self._keys[key] = text(1, key)
        data = value.encode("utf-8", "replace")
        size = varint(len(data))
        inner = len(data) + len(size) + 1
        inner_size = varint(inner)
        whole = varint(len(head) + 1 + len(inner_size) + inner)
        encoded = self._texts[key, value] = b"".join(
            (_ATTRIBUTE_TAG, whole, head, _VALUE_TAG, inner_size, _STRING_TAG, size, data)
        )
        return encoded

    def _remember_other(self, key: str, value: AttributeValue) -> bytes:
        encoded = key_value(_ATTRIBUTE_FIELD, key, value)
        if isinstance(value, float):
            # Rare, and no good as a key: 0.0 equals -0.0, NaN not even itself.
            return encoded
        if len(self._others) >= _ATTRIBUTES_REMEMBERED:
            self._others.clear()
        self._others[key, value, type(value)] = encoded
        return encoded
