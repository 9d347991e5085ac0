"""What is sent is the message that OpenTelemetry's own encoder makes of the same span."""

import math
from collections.abc import Callable

from hypothesis import given
from hypothesis import strategies as st
from opentelemetry.exporter.otlp.proto.common.trace_encoder import encode_spans
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.util.instrumentation import InstrumentationScope
from opentelemetry.trace import SpanContext, SpanKind, Status, StatusCode, TraceFlags, TraceState

from autotrace import __version__
from autotrace.export.otlp_encode import TraceEncoder
from autotrace.export.otlp_metrics import encode_metrics
from autotrace.model import HistogramPoint, Process, RedSnapshot, Role, ServiceEdge, ServiceMetrics, Span

INT64 = st.integers(-(2**63), 2**63 - 1)
TEXT = st.text(max_size=200)
VALUES = st.one_of(
    TEXT, INT64, st.booleans(), st.floats(allow_nan=False), st.lists(TEXT, max_size=3).map(tuple)
)
ATTRIBUTES = st.dictionaries(TEXT.filter(bool), VALUES, max_size=8)
PROCESSES = st.builds(
    Process,
    pid=st.just(1),
    executable=st.just("/x"),
    resource=st.dictionaries(TEXT.filter(bool), st.one_of(TEXT, INT64), max_size=4),
)
NANOS = st.integers(0, 2**64 - 1)
SPANS = st.builds(
    Span,
    trace_id=st.integers(1, 2**128 - 1),
    span_id=st.integers(1, 2**64 - 1),
    parent_span_id=st.integers(0, 2**64 - 1),
    name=TEXT,
    role=st.sampled_from(Role),
    start_unix_ns=NANOS,
    end_unix_ns=NANOS,
    attributes=ATTRIBUTES,
    is_error=st.booleans(),
    status_message=TEXT,
    process=PROCESSES,
    trace_state=st.sampled_from(["", "a=1", "vendor=x,other=y"]),
)


def by_the_library(span: Span) -> ExportTraceServiceRequest:
    remote = span.role is Role.SERVER
    state = TraceState.from_header([span.trace_state])
    context = SpanContext(span.trace_id, span.span_id, False, TraceFlags(1), state)
    parent = SpanContext(span.trace_id, span.parent_span_id, remote) if span.parent_span_id else None
    status = Status(StatusCode.ERROR, span.status_message) if span.is_error else Status()
    readable = ReadableSpan(
        name=span.name,
        context=context,
        parent=parent,
        resource=Resource(span.process.resource),
        attributes=span.attributes,
        kind=SpanKind.SERVER if remote else SpanKind.CLIENT,
        status=status,
        start_time=span.start_unix_ns,
        end_time=span.end_unix_ns,
        instrumentation_scope=InstrumentationScope("autotrace", __version__),
    )
    request = encode_spans([readable])
    # An empty message and an absent one mean the same; ours leaves it out.
    for resource in request.resource_spans:
        for scope in resource.scope_spans:
            for encoded in scope.spans:
                if not span.is_error:
                    encoded.ClearField("status")
    return request


@given(SPANS)
def test_equals_the_library(span: Span) -> None:
    assert TraceEncoder().encode([span]) == by_the_library(span)


@given(st.lists(SPANS, max_size=6))
def test_a_batch_holds_each_span_under_its_process(spans: list[Span]) -> None:
    encoder = TraceEncoder()
    request = encoder.encode(spans)
    found = [s.span_id for r in request.resource_spans for scope in r.scope_spans for s in scope.spans]
    assert sorted(found) == sorted(span.span_id.to_bytes(8, "big") for span in spans)
    assert len(request.resource_spans) == len({id(span.process) for span in spans})
    # The second time most attributes come from what the encoder remembers.
    assert encoder.encode(spans) == request


def test_equal_values_of_different_types_stay_apart(make_span: Callable[..., Span]) -> None:
    encoder = TraceEncoder()
    for value, kind in ((1, "int_value"), (True, "bool_value"), (1.0, "double_value"), ("1", "string_value")):
        request = encoder.encode([make_span(attributes={"k": value})])
        (attribute,) = request.resource_spans[0].scope_spans[0].spans[0].attributes
        assert attribute.value.WhichOneof("value") == kind


def test_zero_keeps_its_sign(make_span: Callable[..., Span]) -> None:
    encoder = TraceEncoder()
    for value in (0.0, -0.0):
        request = encoder.encode([make_span(attributes={"k": value})])
        (attribute,) = request.resource_spans[0].scope_spans[0].spans[0].attributes
        assert math.copysign(1, attribute.value.double_value) == math.copysign(1, value)


def test_a_number_of_more_than_64_bits_becomes_text(make_span: Callable[..., Span]) -> None:
    numbers = {"least": -(2**63), "below": -(2**63) - 1, "most": 2**63 - 1, "above": 2**63}
    (encoded,) = TraceEncoder().encode([make_span(attributes=numbers)]).resource_spans[0].scope_spans[0].spans
    assert {a.key: a.value.int_value or a.value.string_value for a in encoded.attributes} == {
        "least": -(2**63),
        "below": "-9223372036854775809",
        "most": 2**63 - 1,
        "above": "9223372036854775808",
    }


def test_text_that_is_no_utf8_is_still_sent(make_span: Callable[..., Span]) -> None:
    span = make_span(name="GET /\udcff", attributes={"url.path": "/\udcff", "f": math.inf})
    request = TraceEncoder().encode([span])
    encoded = request.resource_spans[0].scope_spans[0].spans[0]
    assert encoded.name == "GET /?"
    assert encoded.attributes[0].value.string_value == "/?"


def test_many_different_values_do_not_grow_the_encoder(make_span: Callable[..., Span]) -> None:
    encoder = TraceEncoder()
    for i in range(20_000):
        encoder.encode([make_span(attributes={"url.path": f"/{i}", "n": i})])
    assert len(encoder._attributes) <= 8192


def test_metrics() -> None:
    counts = [0] * 14 + [3]
    point = HistogramPoint({"http.request.method": "GET", "http.response.status_code": 200}, counts, 1.5, {})
    overflow = HistogramPoint({"otel.metric.overflow": True}, counts, 2.5, {})
    edge = ServiceEdge({"client": "a", "server": "b"}, 3, 1, counts, 1.5, [0] * 15, 0.0)
    bounds = tuple(float(i) for i in range(14))
    snapshot = RedSnapshot(
        10, 20, bounds, [ServiceMetrics("a", {"service.name": "a"}, [point, overflow], [], [], [])], [edge]
    )
    request = encode_metrics(snapshot)
    service, graph = request.resource_metrics
    assert service.resource.attributes[0].value.string_value == "a"
    (metric,) = service.scope_metrics[0].metrics
    assert (metric.name, metric.unit) == ("http.server.request.duration", "s")
    assert metric.histogram.aggregation_temporality == 2
    first, second = metric.histogram.data_points
    assert (first.start_time_unix_nano, first.time_unix_nano, first.count, first.sum) == (10, 20, 3, 1.5)
    assert list(first.bucket_counts) == counts
    assert tuple(first.explicit_bounds) == bounds
    assert {a.key: a.value.string_value or a.value.int_value for a in first.attributes} == point.attributes
    assert second.attributes[0].value.bool_value is True
    metrics = {metric.name: metric for metric in graph.scope_metrics[0].metrics}
    total = metrics["traces_service_graph_request_total"].sum
    assert total.is_monotonic
    assert total.data_points[0].as_int == 3
    assert {a.key: a.value.string_value for a in total.data_points[0].attributes} == edge.attributes
    assert metrics["traces_service_graph_request_failed_total"].sum.data_points[0].as_int == 1
    assert metrics["traces_service_graph_request_server_seconds"].histogram.data_points[0].count == 3
    assert not metrics["traces_service_graph_request_client_seconds"].histogram.data_points
