"""RED metrics as an OTLP `ExportMetricsServiceRequest`, in protobuf.

Field numbers: opentelemetry-proto, metrics/v1/metrics.proto. Service-graph metrics stand under a resource of
the agent itself, because an edge belongs to two services.
"""

from __future__ import annotations

from autotrace import __version__
from autotrace.export.otlp_wire import (
    double,
    fixed64,
    key_value,
    message,
    number_field,
    packed_double,
    packed_fixed64,
    scope,
    text,
)
from autotrace.model import HistogramPoint, RedSnapshot, ServiceEdge

_CUMULATIVE = 2
_HISTOGRAM_ATTRIBUTES = 9
_NUMBER_ATTRIBUTES = 7

SERVER_DURATION = ("http.server.request.duration", "Duration of HTTP server requests.")
CLIENT_DURATION = ("http.client.request.duration", "Duration of HTTP client requests.")
GRAPH_TOTAL = ("traces_service_graph_request_total", "Requests between two services.")
GRAPH_FAILED = ("traces_service_graph_request_failed_total", "Failed requests between two services.")
GRAPH_SERVER = ("traces_service_graph_request_server_seconds", "Duration as the server saw it.")
GRAPH_CLIENT = ("traces_service_graph_request_client_seconds", "Duration as the client saw it.")


def encode_metrics(snapshot: RedSnapshot) -> bytes:
    """The serialised `ExportMetricsServiceRequest` of a snapshot: one ResourceMetrics for each service."""
    parts = []
    for service in snapshot.services:
        metrics = b""
        if service.server:
            metrics += _histogram(snapshot, SERVER_DURATION, service.server)
        if service.client:
            metrics += _histogram(snapshot, CLIENT_DURATION, service.client)
        parts.append(_resource_metrics(service.resource, metrics))
    if snapshot.edges:
        parts.append(_resource_metrics({"service.name": "autotrace"}, _graph(snapshot)))
    return b"".join(parts)


def _resource_metrics(resource: dict[str, str | int], metrics: bytes) -> bytes:
    attributes = b"".join(key_value(1, key, value) for key, value in resource.items())
    return message(1, message(1, attributes) + message(2, message(1, scope(__version__)) + metrics))


def _graph(snapshot: RedSnapshot) -> bytes:
    edges = snapshot.edges
    server = [HistogramPoint(e.attributes, e.server_counts, e.server_sum, {}) for e in edges]
    client = [HistogramPoint(e.attributes, e.client_counts, e.client_sum, {}) for e in edges]
    return (
        _counter(snapshot, GRAPH_TOTAL, [(edge, edge.total) for edge in edges])
        + _counter(snapshot, GRAPH_FAILED, [(edge, edge.failed) for edge in edges])
        + _histogram(snapshot, GRAPH_SERVER, [point for point in server if any(point.counts)])
        + _histogram(snapshot, GRAPH_CLIENT, [point for point in client if any(point.counts)])
    )


def _metric(name: tuple[str, str], unit: str, data: bytes) -> bytes:
    return message(2, text(1, name[0]) + text(2, name[1]) + text(3, unit) + data)


def _histogram(snapshot: RedSnapshot, name: tuple[str, str], points: list[HistogramPoint]) -> bytes:
    bounds = packed_double(7, snapshot.bounds)
    times = fixed64(2, snapshot.start_unix_ns) + fixed64(3, snapshot.time_unix_ns)
    data = b"".join(
        message(
            1,
            b"".join(key_value(_HISTOGRAM_ATTRIBUTES, k, v) for k, v in point.attributes.items())
            + times
            + fixed64(4, sum(point.counts))
            + double(5, point.sum)
            + packed_fixed64(6, point.counts)
            + bounds,
        )
        for point in points
    )
    return _metric(name, "s", message(9, data + number_field(2, _CUMULATIVE)))


def _counter(snapshot: RedSnapshot, name: tuple[str, str], values: list[tuple[ServiceEdge, int]]) -> bytes:
    times = fixed64(2, snapshot.start_unix_ns) + fixed64(3, snapshot.time_unix_ns)
    data = b"".join(
        message(
            1,
            b"".join(key_value(_NUMBER_ATTRIBUTES, k, v) for k, v in edge.attributes.items())
            + times
            + fixed64(6, value),
        )
        for edge, value in values
    )
    return _metric(name, "{request}", message(7, data + number_field(2, _CUMULATIVE) + number_field(3, 1)))
