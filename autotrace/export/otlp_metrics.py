"""RED metrics as an OTLP `ExportMetricsServiceRequest`, built from the message classes of opentelemetry-proto.

Service-graph metrics stand under a resource of the agent itself, because an edge belongs to two services.
"""

from __future__ import annotations

from collections.abc import Mapping

from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import KeyValue
from opentelemetry.proto.metrics.v1.metrics_pb2 import (
    AGGREGATION_TEMPORALITY_CUMULATIVE,
    Histogram,
    HistogramDataPoint,
    Metric,
    NumberDataPoint,
    Sum,
)

from autotrace.export.otlp_encode import resource, scope, set_value
from autotrace.export.otlp_spans import utf8
from autotrace.model import HistogramPoint, RedSnapshot, ServiceEdge

SERVER_DURATION = ("http.server.request.duration", "Duration of HTTP server requests.")
CLIENT_DURATION = ("http.client.request.duration", "Duration of HTTP client requests.")
RPC_SERVER_DURATION = (
    "rpc.server.call.duration",
    "Measures the duration of an incoming Remote Procedure Call (RPC).",
)
RPC_CLIENT_DURATION = (
    "rpc.client.call.duration",
    "Measures the duration of an outgoing Remote Procedure Call (RPC).",
)
GRAPH_TOTAL = ("traces_service_graph_request_total", "Requests between two services.")
GRAPH_FAILED = ("traces_service_graph_request_failed_total", "Failed requests between two services.")
GRAPH_SERVER = ("traces_service_graph_request_server_seconds", "Duration as the server saw it.")
GRAPH_CLIENT = ("traces_service_graph_request_client_seconds", "Duration as the client saw it.")


def encode_metrics(snapshot: RedSnapshot) -> ExportMetricsServiceRequest:
    """The request that carries a snapshot: one ResourceMetrics for each service."""
    request = ExportMetricsServiceRequest()
    for service in snapshot.services:
        metrics = []
        if service.server:
            metrics.append(_histogram(snapshot, SERVER_DURATION, service.server))
        if service.client:
            metrics.append(_histogram(snapshot, CLIENT_DURATION, service.client))
        if service.rpc_server:
            metrics.append(_histogram(snapshot, RPC_SERVER_DURATION, service.rpc_server))
        if service.rpc_client:
            metrics.append(_histogram(snapshot, RPC_CLIENT_DURATION, service.rpc_client))
        _add(request, service.resource, metrics)
    if snapshot.edges:
        _add(request, {"service.name": "autotrace"}, _graph(snapshot))
    return request


def _add(
    request: ExportMetricsServiceRequest, attributes: Mapping[str, str | int], metrics: list[Metric]
) -> None:
    message = request.resource_metrics.add(resource=resource(attributes))
    message.scope_metrics.add(scope=scope(), metrics=metrics)


def _graph(snapshot: RedSnapshot) -> list[Metric]:
    edges = snapshot.edges
    server = [HistogramPoint(e.attributes, e.server_counts, e.server_sum, {}) for e in edges]
    client = [HistogramPoint(e.attributes, e.client_counts, e.client_sum, {}) for e in edges]
    return [
        _counter(snapshot, GRAPH_TOTAL, [(edge, edge.total) for edge in edges]),
        _counter(snapshot, GRAPH_FAILED, [(edge, edge.failed) for edge in edges]),
        _histogram(snapshot, GRAPH_SERVER, [point for point in server if any(point.counts)]),
        _histogram(snapshot, GRAPH_CLIENT, [point for point in client if any(point.counts)]),
    ]


def _histogram(snapshot: RedSnapshot, name: tuple[str, str], points: list[HistogramPoint]) -> Metric:
    data_points = [
        HistogramDataPoint(
            attributes=_attributes(point.attributes),
            start_time_unix_nano=snapshot.start_unix_ns,
            time_unix_nano=snapshot.time_unix_ns,
            count=sum(point.counts),
            sum=point.sum,
            bucket_counts=point.counts,
            explicit_bounds=snapshot.bounds,
        )
        for point in points
    ]
    histogram = Histogram(data_points=data_points, aggregation_temporality=AGGREGATION_TEMPORALITY_CUMULATIVE)
    return Metric(name=name[0], description=name[1], unit="s", histogram=histogram)


def _counter(snapshot: RedSnapshot, name: tuple[str, str], values: list[tuple[ServiceEdge, int]]) -> Metric:
    data_points = [
        NumberDataPoint(
            attributes=_attributes(edge.attributes),
            start_time_unix_nano=snapshot.start_unix_ns,
            time_unix_nano=snapshot.time_unix_ns,
            as_int=value,
        )
        for edge, value in values
    ]
    total = Sum(
        data_points=data_points,
        aggregation_temporality=AGGREGATION_TEMPORALITY_CUMULATIVE,
        is_monotonic=True,
    )
    return Metric(name=name[0], description=name[1], unit="{request}", sum=total)


def _attributes(attributes: Mapping[str, str | int | bool]) -> list[KeyValue]:
    messages = []
    for key, value in attributes.items():
        messages.append(KeyValue(key=utf8(key)))
        set_value(messages[-1].value, value)
    return messages
