"""What a scrape gives, parsed back; and that the shipped dashboard asks for nothing else."""

import json
import re
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
from prometheus_client.metrics_core import Metric
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families

from autotrace.export.prometheus import PrometheusError, PrometheusServer, resolve_address
from autotrace.ledger import Ledger
from autotrace.model import HistogramPoint, RedSnapshot, ServiceEdge, ServiceMetrics

BOUNDS = (0.005, 0.1, 1.0)
SERVER_POINT = HistogramPoint(
    {
        "http.request.method": "GET",
        "http.route": '/q"uo\\te\n',
        "http.response.status_code": 503,
        "error.type": "503",
    },
    [3, 2, 0, 1],
    4.5,
    {},
)
CLIENT_POINT = HistogramPoint(
    {"http.request.method": "GET", "server.address": "db", "server.port": 80}, [0, 1, 0, 0], 0.05, {}
)
OVERFLOW_POINT = HistogramPoint({"otel.metric.overflow": True}, [1, 0, 0, 0], 0.001, {})
RED = RedSnapshot(
    1,
    2,
    BOUNDS,
    [
        ServiceMetrics(
            "shop",
            {"service.name": "shop", "service.namespace": "eu", "host.name": "h1"},
            [SERVER_POINT, OVERFLOW_POINT],
            [CLIENT_POINT],
            [],
            [],
        )
    ],
    [
        ServiceEdge({"client": "web", "server": "shop"}, 6, 1, [3, 2, 0, 1], 4.5, [0, 5, 0, 1], 5.0),
        ServiceEdge(
            {"client": "user", "server": "web", "connection_type": "virtual_node"},
            6,
            1,
            [0, 5, 0, 1],
            5.5,
            [0, 0, 0, 0],
            0.0,
        ),
    ],
)


@pytest.fixture
def ledger() -> Ledger:
    ledger = Ledger()
    ledger.seen(10)
    ledger.emitted(7)
    ledger.dropped("swept", 2)
    ledger.kernel({"lost_request": 4, "sent": 40})
    ledger.note("http1", "malformed_request", 3)
    ledger.exporter("otlp").accept(7)
    ledger.exporter("otlp").send(4)
    ledger.exporter("otlp").drop("queue_full", 2)
    return ledger


@pytest.fixture
def server(ledger: Ledger) -> Iterator[PrometheusServer]:
    server = PrometheusServer("127.0.0.1", 0, lambda: RED, ledger)
    yield server
    server.shutdown()


def scrape(url: str, accept: str = "") -> str:
    request = urllib.request.Request(url, headers={"Accept": accept} if accept else {})
    with urllib.request.urlopen(request, timeout=10) as response:
        return str(response.read().decode())


def samples(families: Iterator[Metric]) -> dict[tuple[str, frozenset[tuple[str, str]]], float]:
    return {(s.name, frozenset(s.labels.items())): s.value for f in families for s in f.samples}


def key(name: str, **labels: str) -> tuple[str, frozenset[tuple[str, str]]]:
    return name, frozenset(labels.items())


def test_histograms_come_back_as_they_were(server: PrometheusServer) -> None:
    found = samples(text_string_to_metric_families(scrape(server.url)))
    labels = {
        "job": "eu/shop",
        "http_request_method": "GET",
        "http_route": '/q"uo\\te\n',
        "http_response_status_code": "503",
        "error_type": "503",
    }
    name = "http_server_request_duration_seconds"
    assert [found[key(f"{name}_bucket", le=le, **labels)] for le in ("0.005", "0.1", "1.0", "+Inf")] == [
        3,
        5,
        5,
        6,
    ]
    assert found[key(f"{name}_count", **labels)] == 6
    assert found[key(f"{name}_sum", **labels)] == 4.5
    assert found[key(f"{name}_count", job="eu/shop", otel_metric_overflow="true")] == 1
    client = {"job": "eu/shop", "http_request_method": "GET", "server_address": "db", "server_port": "80"}
    assert found[key("http_client_request_duration_seconds_count", **client)] == 1
    assert found[key("target_info", job="eu/shop", host_name="h1")] == 1


def test_service_graph_has_tempos_names(server: PrometheusServer) -> None:
    found = samples(text_string_to_metric_families(scrape(server.url)))
    edge = {"client": "web", "server": "shop"}
    user = {"client": "user", "server": "web", "connection_type": "virtual_node"}
    graph = "traces_service_graph_request"
    assert found[key(f"{graph}_total", **edge)] == 6
    assert found[key(f"{graph}_failed_total", **edge)] == 1
    assert found[key(f"{graph}_server_seconds_sum", **edge)] == 4.5
    assert found[key(f"{graph}_client_seconds_bucket", le="0.1", **edge)] == 5
    assert found[key(f"{graph}_total", **user)] == 6
    assert key(f"{graph}_client_seconds_count", **user) not in found


def test_the_ledger_balances_on_metrics_too(server: PrometheusServer) -> None:
    found = samples(text_string_to_metric_families(scrape(server.url)))
    dropped = {
        dict(labels)["reason"]: value
        for (name, labels), value in found.items()
        if name == "autotrace_exchanges_dropped_total"
    }
    assert dropped == {"swept": 2, "ring_full": 4}
    seen = found[key("autotrace_exchanges_seen_total")]
    emitted = found[key("autotrace_exchanges_emitted_total")]
    assert seen == emitted + sum(dropped.values()) + found[key("autotrace_exchanges_in_flight")] == 14
    assert found[key("autotrace_export_spans_total", exporter="otlp", result="sent")] == 4
    assert found[key("autotrace_export_spans_total", exporter="otlp", result="queue_full")] == 2
    assert found[key("autotrace_export_queued_spans", exporter="otlp")] == 1
    assert found[key("autotrace_notes_total", stage="http1", what="malformed_request")] == 3
    assert found[key("autotrace_kernel_records_total", counter="sent")] == 40
    assert found[key("process_resident_memory_bytes")] > 0


def test_openmetrics_on_request(server: PrometheusServer) -> None:
    text = scrape(server.url, "application/openmetrics-text; version=1.0.0")
    assert text.endswith("# EOF\n")
    found = samples(parse_openmetrics(text))
    assert found[key("traces_service_graph_request_total", client="web", server="shop")] == 6


def test_a_port_in_use_is_one_sentence(server: PrometheusServer, ledger: Ledger) -> None:
    with pytest.raises(PrometheusError) as caught:
        PrometheusServer("127.0.0.1", server.port, lambda: RED, ledger)
    assert str(caught.value) == (
        f"cannot serve /metrics on 127.0.0.1:{server.port}: Address already in use; "
        "choose another address or port"
    )


@pytest.mark.parametrize(("host", "port"), [("127.0.0.1", 70000), ("not an address", 0)])
def test_nonsense_is_one_sentence(host: str, port: int, ledger: Ledger) -> None:
    with pytest.raises(PrometheusError, match="cannot serve /metrics on"):
        PrometheusServer(host, port, lambda: RED, ledger)


@pytest.mark.parametrize(
    ("value", "environ", "expected"),
    [
        (None, {}, ("127.0.0.1", 9464)),
        (None, {"OTEL_EXPORTER_PROMETHEUS_HOST": "0.0.0.0"}, ("0.0.0.0", 9464)),
        (None, {"OTEL_EXPORTER_PROMETHEUS_PORT": "9999"}, ("127.0.0.1", 9999)),
        ("0.0.0.0:1", {"OTEL_EXPORTER_PROMETHEUS_PORT": "9999"}, ("0.0.0.0", 1)),
        (":5", {}, ("127.0.0.1", 5)),
        ("5", {}, ("127.0.0.1", 5)),
        ("[::1]:7", {}, ("::1", 7)),
        ("[::1]", {}, ("::1", 9464)),
        ("localhost", {}, ("localhost", 9464)),
    ],
)
def test_address(value: str | None, environ: dict[str, str], expected: tuple[str, int]) -> None:
    assert resolve_address(value, environ) == expected


@pytest.mark.parametrize("value", ["host:", "host:x", "host:70000", "host:-1"])
def test_a_bad_address_is_one_sentence(value: str) -> None:
    with pytest.raises(PrometheusError, match="is not a port for /metrics: write the address as HOST:PORT"):
        resolve_address(value, {})


def test_the_port_is_free_after_shutdown(ledger: Ledger) -> None:
    first = PrometheusServer("127.0.0.1", 0, lambda: RED, ledger)
    first.shutdown()
    PrometheusServer("127.0.0.1", first.port, lambda: RED, ledger).shutdown()


def test_the_dashboard_asks_for_metrics_that_exist(server: PrometheusServer) -> None:
    path = Path(__file__).parents[3] / "deploy" / "grafana" / "autotrace-red.json"
    dashboard = json.loads(path.read_text())
    queries = [target["expr"] for panel in dashboard["panels"] for target in panel.get("targets", [])]
    queries += [v["query"]["query"] for v in dashboard["templating"]["list"] if v["type"] == "query"]
    names: set[str] = set()
    labels: set[str] = set()
    for family in text_string_to_metric_families(scrape(server.url)):
        for sample in family.samples:
            names.add(sample.name)
            labels |= set(sample.labels)
    asked = {
        name
        for query in queries
        for name in re.findall(r"\b(?:http|traces|autotrace|process)_\w+(?=[{\[,)])", query)
    }
    by = {
        name
        for query in queries
        for group in re.findall(r"by \(([^)]*)\)", query)
        for name in group.split(", ")
    }
    matched = {name for query in queries for name in re.findall(r"(\w+)(?:=~|!=|=)\"", query)}
    assert len(queries) > 15
    assert asked - by - names == set()
    # Prometheus adds `instance` itself when it scrapes.
    assert (by | matched) - labels - {"instance"} == set()
