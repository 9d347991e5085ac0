"""Spans as an OTLP `ExportTraceServiceRequest`, built from the message classes of opentelemetry-proto."""

from __future__ import annotations

from collections.abc import Mapping

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, InstrumentationScope
from opentelemetry.proto.resource.v1.resource_pb2 import Resource
from opentelemetry.proto.trace.v1 import trace_pb2

from autotrace import __version__
from autotrace.export.otlp_spans import (
    ATTRIBUTES_REMEMBERED,
    by_process,
    is_int64,
    span_flags,
    utf8,
)
from autotrace.model import AttributeValue, Role, Span

_KIND = {Role.SERVER: trace_pb2.Span.SPAN_KIND_SERVER, Role.CLIENT: trace_pb2.Span.SPAN_KIND_CLIENT}


def scope() -> InstrumentationScope:
    """The scope of everything autotrace reports."""
    return InstrumentationScope(name="autotrace", version=__version__)


def resource(attributes: Mapping[str, AttributeValue]) -> Resource:
    """The message of a resource with these attributes."""
    message = Resource()
    for key, value in attributes.items():
        attribute = message.attributes.add(key=utf8(key))
        set_value(attribute.value, value)
    return message


def set_value(message: AnyValue, value: AttributeValue) -> None:
    """Write an attribute's value into a new AnyValue."""
    if isinstance(value, str):
        message.string_value = utf8(value)
    elif isinstance(value, bool):
        message.bool_value = value
    elif isinstance(value, int):
        if is_int64(value):
            message.int_value = value
        else:
            message.string_value = str(value)
    elif isinstance(value, float):
        message.double_value = value
    else:
        message.array_value.SetInParent()
        for item in value:
            set_value(message.array_value.values.add(), item)


class TraceEncoder:
    """Encodes batches. It remembers encoded attributes, most of which come again with the next span."""

    def __init__(self) -> None:
        self._scope = scope()
        self._attributes: dict[tuple[str, AttributeValue, type], bytes] = {}

    def encode(self, spans: list[Span]) -> ExportTraceServiceRequest:
        """The request that carries a batch: one ResourceSpans for each process."""
        request = ExportTraceServiceRequest()
        for process, group in by_process(spans):
            resource_spans = request.resource_spans.add(resource=resource(process.resource))
            messages = resource_spans.scope_spans.add(scope=self._scope).spans
            for span in group:
                self._write(messages.add(), span)
        return request

    def _write(self, message: trace_pb2.Span, span: Span) -> None:
        known = self._attributes
        # Serialised messages that are joined parse as one with all their attributes
        # (https://protobuf.dev/programming-guides/encoding/#last-one-wins): half the time of adding each.
        message.MergeFromString(
            b"".join(
                [
                    # The type is part of the key: True equals 1.
                    known.get((key, value, type(value))) or self._remember(key, value)
                    for key, value in span.attributes.items()
                ]
            )
        )
        message.trace_id = span.trace_id.to_bytes(16, "big")
        message.span_id = span.span_id.to_bytes(8, "big")
        if span.parent_span_id:
            message.parent_span_id = span.parent_span_id.to_bytes(8, "big")
        if span.trace_state:
            message.trace_state = utf8(span.trace_state)
        message.name = utf8(span.name)
        message.kind = _KIND[span.role]
        message.start_time_unix_nano = span.start_unix_ns
        message.end_time_unix_nano = span.end_unix_ns
        message.flags = span_flags(span)
        if span.is_error:
            message.status.code = trace_pb2.Status.STATUS_CODE_ERROR
            message.status.message = utf8(span.status_message)

    def _remember(self, key: str, value: AttributeValue) -> bytes:
        """A serialised Span that has this attribute and nothing else."""
        # A new message each time: one that is written again and again keeps the memory of all it ever held.
        span = trace_pb2.Span()
        attribute = span.attributes.add()
        attribute.key = utf8(key)
        set_value(attribute.value, value)
        encoded: bytes = span.SerializeToString()
        if isinstance(value, float):
            # Rare, and no good as a key: 0.0 equals -0.0, NaN not even itself.
            return encoded
        if len(self._attributes) >= ATTRIBUTES_REMEMBERED:
            self._attributes.clear()
        self._attributes[key, value, type(value)] = encoded
        return encoded
