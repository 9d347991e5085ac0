"""/metrics for Prometheus: RED metrics, the service graph, and the agent's own books.

OpenTelemetry names become Prometheus names as its compatibility specification says: dots to underscores, the
unit as a suffix, `job` is the service's name, and `target_info` carries the rest of the resource.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from threading import Thread
from typing import Any
from wsgiref.simple_server import WSGIServer

from prometheus_client import CollectorRegistry, ProcessCollector, start_http_server
from prometheus_client.metrics_core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    InfoMetricFamily,
    Metric,
)
from prometheus_client.registry import Collector

from autotrace import __version__
from autotrace.ledger import Ledger
from autotrace.model import RedSnapshot

DEFAULT_HOST = "127.0.0.1"
DEFAULT_PORT = 9464


class PrometheusError(Exception):
    """/metrics cannot be served; the text is one sentence for the user."""


def resolve_address(value: str | None, environ: Mapping[str, str]) -> tuple[str, int]:
    """Where /metrics listens.

    `value` is `HOST:PORT`, `:PORT`, `PORT` or `HOST`; what it leaves out comes from the environment variables
    `OTEL_EXPORTER_PROMETHEUS_HOST` and `_PORT`, else it is 127.0.0.1 and 9464. Raises PrometheusError.
    """
    host = environ.get("OTEL_EXPORTER_PROMETHEUS_HOST", "").strip() or DEFAULT_HOST
    port = environ.get("OTEL_EXPORTER_PROMETHEUS_PORT", "").strip() or str(DEFAULT_PORT)
    if value:
        before, colon, after = value.rpartition(":")
        if value.endswith("]"):
            host = value
        elif colon:
            host, port = before or host, after
        elif value.isdigit():
            port = value
        else:
            host = value
    if not (port.isascii() and port.isdigit() and int(port) < 65536):
        raise PrometheusError(f"{port!r} is not a port for /metrics: write the address as HOST:PORT")
    return host.strip("[]"), int(port)


class MetricsCollector(Collector):
    """Turns the RED metrics and the ledger into Prometheus metric families at each scrape."""

    def __init__(self, collect_red: Callable[[], RedSnapshot], ledger: Ledger) -> None:
        self._collect_red = collect_red
        self._ledger = ledger

    def collect(self) -> Iterator[Metric]:
        yield from red_families(self._collect_red())
        yield from ledger_families(self._ledger.snapshot())

    def describe(self) -> Iterable[Metric]:
        """Nothing: names are not known before exchanges are, and registering must not collect."""
        return []


class PrometheusServer:
    """Serves /metrics from a thread, as text or OpenMetrics, whichever the scraper asks for."""

    def __init__(self, host: str, port: int, collect_red: Callable[[], RedSnapshot], ledger: Ledger) -> None:
        """Listen on `host`:`port` (0: any free port). Raises PrometheusError if that is not possible."""
        registry = CollectorRegistry(auto_describe=False)
        registry.register(MetricsCollector(collect_red, ledger))
        ProcessCollector(registry=registry)
        self._server: WSGIServer
        self._thread: Thread
        try:
            self._server, self._thread = start_http_server(port, host, registry)
        except (OSError, OverflowError) as error:
            why = getattr(error, "strerror", None) or str(error)
            raise PrometheusError(
                f"cannot serve /metrics on {host}:{port}: {why}; choose another address or port"
            ) from None
        self.host = host
        self.port: int = self._server.server_port

    @property
    def url(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"http://{host}:{self.port}/metrics"

    def shutdown(self) -> None:
        """Stop listening."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(1.0)


def red_families(snapshot: RedSnapshot) -> Iterator[Metric]:
    """The duration histograms of every service, the service graph and `target_info`."""
    bounds = [*(str(bound) for bound in snapshot.bounds), "+Inf"]
    server = Metric("http_server_request_duration_seconds", "Duration of HTTP server requests.", "histogram")
    client = Metric("http_client_request_duration_seconds", "Duration of HTTP client requests.", "histogram")
    rpc_server = Metric("rpc_server_call_duration_seconds", "Duration of incoming remote calls.", "histogram")
    rpc_client = Metric("rpc_client_call_duration_seconds", "Duration of outgoing remote calls.", "histogram")
    target = InfoMetricFamily("target", "Resource attributes of a service.", labels=["job"])
    for service in snapshot.services:
        job = _job(service.resource, service.service)
        for family, points in (
            (server, service.server),
            (client, service.client),
            (rpc_server, service.rpc_server),
            (rpc_client, service.rpc_client),
        ):
            for point in points:
                _add_histogram(
                    family, bounds, {"job": job, **_named(point.attributes)}, point.counts, point.sum
                )
        rest = {
            key: value
            for key, value in service.resource.items()
            if key not in {"service.name", "service.namespace"}
        }
        target.add_sample("target_info", {"job": job, **_named(rest)}, 1)
    yield server
    yield client
    yield rpc_server
    yield rpc_client
    yield target
    yield from _graph_families(snapshot, bounds)


def _graph_families(snapshot: RedSnapshot, bounds: list[str]) -> Iterator[Metric]:
    graph = "traces_service_graph_request"
    total = Metric(graph, "Requests between two services.", "counter")
    failed = Metric(f"{graph}_failed", "Failed requests between two services.", "counter")
    server = Metric(f"{graph}_server_seconds", "Duration as the server saw it.", "histogram")
    client = Metric(f"{graph}_client_seconds", "Duration as the client saw it.", "histogram")
    for edge in snapshot.edges:
        labels = _named(edge.attributes)
        total.add_sample(f"{graph}_total", labels, edge.total)
        failed.add_sample(f"{graph}_failed_total", labels, edge.failed)
        if any(edge.server_counts):
            _add_histogram(server, bounds, labels, edge.server_counts, edge.server_sum)
        if any(edge.client_counts):
            _add_histogram(client, bounds, labels, edge.client_counts, edge.client_sum)
    yield total
    yield failed
    yield server
    yield client


def ledger_families(snapshot: dict[str, Any]) -> Iterator[Metric]:
    """The agent's own books: exchanges, spans by exporter, notes, and the kernel's counters."""
    info = InfoMetricFamily("autotrace_build", "Version of the agent.")
    info.add_metric([], {"version": __version__})
    yield info

    exchanges = snapshot["exchanges"]
    yield CounterMetricFamily("autotrace_exchanges_seen", "Exchanges that began.", exchanges["seen"])
    yield CounterMetricFamily(
        "autotrace_exchanges_emitted", "Exchanges that were handed to the exporters.", exchanges["emitted"]
    )
    dropped = CounterMetricFamily(
        "autotrace_exchanges_dropped", "Exchanges that gave no span.", labels=["reason"]
    )
    for reason, n in exchanges["dropped"].items():
        dropped.add_metric([reason], n)
    yield dropped
    yield GaugeMetricFamily(
        "autotrace_exchanges_in_flight", "Exchanges that have not ended.", exchanges["in_flight"]
    )

    spans = CounterMetricFamily(
        "autotrace_export_spans",
        "Spans that left an exporter; result is sent or the reason they were dropped.",
        labels=["exporter", "result"],
    )
    queued = GaugeMetricFamily("autotrace_export_queued_spans", "Spans that wait.", labels=["exporter"])
    for name, account in snapshot["exporters"].items():
        spans.add_metric([name, "sent"], account["sent"])
        for reason, n in account["dropped"].items():
            spans.add_metric([name, reason], n)
        queued.add_metric([name], account["queued"])
    yield spans
    yield queued

    notes = CounterMetricFamily(
        "autotrace_notes",
        "Facts that are not exchanges, by the stage that found them.",
        labels=["stage", "what"],
    )
    for stage, facts in snapshot["notes"].items():
        for what, n in facts.items():
            notes.add_metric([stage, what], n)
    yield notes

    kernel = CounterMetricFamily(
        "autotrace_kernel_records", "The kernel side's counters (enum at_counter).", labels=["counter"]
    )
    for name, n in snapshot["kernel"].items():
        kernel.add_metric([name], n)
    yield kernel


def _add_histogram(
    family: Metric, bounds: list[str], labels: dict[str, str], counts: list[int], total: float
) -> None:
    so_far = 0
    for bound, count in zip(bounds, counts, strict=True):
        so_far += count
        family.add_sample(f"{family.name}_bucket", {**labels, "le": bound}, so_far)
    family.add_sample(f"{family.name}_count", labels, so_far)
    family.add_sample(f"{family.name}_sum", labels, total)


def _job(resource: dict[str, str | int], service: str) -> str:
    namespace = resource.get("service.namespace")
    return f"{namespace}/{service}" if namespace else service


def _named(attributes: dict[str, Any]) -> dict[str, str]:
    return {
        "".join(c if c.isascii() and c.isalnum() else "_" for c in key): (
            str(value).lower() if isinstance(value, bool) else str(value)
        )
        for key, value in attributes.items()
    }
