"""Every exchange is counted once, in the right series, bucket and edge."""

from bisect import bisect_left

import pytest
from hypothesis import given
from hypothesis import strategies as st

from autotrace.ledger import Ledger
from autotrace.metrics import DURATION_BOUNDS, RedMetrics
from autotrace.model import Connection, Context, Exchange, HistogramPoint, Process, RedSnapshot, Role

AT = Context(0, 1, 1, 0, 0, 0)
CONNECTION = Connection(1, 1, 2, 1, 0, 1, "10.0.0.1", 40000, "10.0.0.2", 8080, True, None)


def process(service: str, **resource: str) -> Process:
    return Process(1, "/bin/x", {"service.name": service, "process.pid": 1, "host.name": "h", **resource})


def exchange(
    role: Role = Role.SERVER,
    *,
    method: str = "GET",
    status: int = 200,
    seconds: float = 0.02,
    error: str = "",
    host: str = "",
) -> Exchange:
    headers = {"host": host} if host else {}
    start = 10**12
    end = start + round(seconds * 1e9)
    return Exchange(
        CONNECTION, role, AT, 0, method, "/", "1.1", headers, start, end_ns=end, status=status, error=error
    )


def only(points: list[HistogramPoint]) -> HistogramPoint:
    (point,) = points
    return point


def edges(snapshot: RedSnapshot) -> dict[tuple[object, object, object], tuple[int, int, int, int]]:
    return {
        (e.attributes["client"], e.attributes["server"], e.attributes.get("connection_type")): (
            e.total,
            e.failed,
            sum(e.server_counts),
            sum(e.client_counts),
        )
        for e in snapshot.edges
    }


def test_server_series_has_the_conventions_attributes() -> None:
    red = RedMetrics(Ledger())
    red.observe(exchange(status=503), process("shop"), "/item/{id}")
    (service,) = red.collect().services
    assert service.service == "shop"
    assert service.resource == {"service.name": "shop", "host.name": "h"}
    assert service.client == []
    assert only(service.server).attributes == {
        "http.request.method": "GET",
        "url.scheme": "http",
        "http.response.status_code": 503,
        "error.type": "503",
        "http.route": "/item/{id}",
        "network.protocol.version": "1.1",
    }


def test_client_series_names_its_server() -> None:
    red = RedMetrics(Ledger())
    red.observe(exchange(Role.CLIENT, status=404, host="[::1]:81"), process("shop"), "/a")
    red.observe(exchange(Role.CLIENT, status=0, error="ECONNREFUSED", method=""), process("shop"), "")
    found = [point.attributes for point in red.collect().services[0].client]
    assert found[0]["error.type"] == "404"
    assert (found[0]["server.address"], found[0]["server.port"], found[0]["url.template"]) == (
        "::1",
        81,
        "/a",
    )
    assert found[1] == {
        "http.request.method": "_OTHER",
        "url.scheme": "http",
        "error.type": "ECONNREFUSED",
        "network.protocol.version": "1.1",
        "server.address": "10.0.0.2",
        "server.port": 8080,
    }


@pytest.mark.parametrize(
    ("host", "expected"),
    [
        ("shop", ("shop", 8080)),
        ("shop:99", ("shop", 99)),
        ("[::1]", ("::1", 8080)),
        ("shop:99999999", ("shop", 8080)),
        ("shop:x", ("shop", 8080)),
    ],
)
def test_host_header_is_split(host: str, expected: tuple[str, int]) -> None:
    red = RedMetrics(Ledger())
    red.observe(exchange(Role.CLIENT, host=host), process("a"), "")
    attributes = only(red.collect().services[0].client).attributes
    assert (attributes["server.address"], attributes["server.port"]) == expected


def test_4xx_is_an_error_for_the_client_only() -> None:
    red = RedMetrics(Ledger())
    red.observe(exchange(status=404), process("a"), "")
    red.observe(exchange(Role.CLIENT, status=404), process("a"), "")
    (service,) = red.collect().services
    assert "error.type" not in only(service.server).attributes
    assert only(service.client).attributes["error.type"] == "404"


@given(st.lists(st.floats(0, 100), min_size=1, max_size=50))
def test_histogram_equals_counting_by_hand(durations: list[float]) -> None:
    red = RedMetrics(Ledger())
    for seconds in durations:
        red.observe(exchange(seconds=seconds), process("a"), "/")
    expected = [0] * (len(DURATION_BOUNDS) + 1)
    exact = [round(seconds * 1e9) * 1e-9 for seconds in durations]
    for seconds in exact:
        expected[bisect_left(DURATION_BOUNDS, seconds)] += 1
    point = only(red.collect().services[0].server)
    assert point.counts == expected
    assert point.sum == pytest.approx(sum(exact))
    assert sum(point.fine.values()) == len(durations)


def test_a_duration_on_a_bound_belongs_below_it() -> None:
    red = RedMetrics(Ledger())
    red.observe(exchange(seconds=0.005), process("a"), "/")
    assert only(red.collect().services[0].server).counts[0] == 1


def test_series_over_the_cap_fall_into_one() -> None:
    ledger = Ledger()
    red = RedMetrics(ledger, max_series_per_service=3)
    for i in range(10):
        red.observe(exchange(), process("a"), f"/{i}")
    red.observe(exchange(), process("b"), "/other")
    a, b = red.collect().services
    assert len(a.server) == 4
    assert a.server[-1].attributes == {"otel.metric.overflow": True}
    assert sum(a.server[-1].counts) == 7
    assert sum(sum(point.counts) for point in (*a.server, *b.server)) == 11
    assert ledger.snapshot()["notes"] == {"metrics": {"series_overflow": 7}}


def test_services_over_the_cap_fall_into_one() -> None:
    ledger = Ledger()
    red = RedMetrics(ledger, max_services=2, max_edges=2)
    for i in range(6):
        red.observe(exchange(), process(f"s{i}"), "/")
    snapshot = red.collect()
    assert [service.service for service in snapshot.services] == ["s0", "s1", "otel.metric.overflow"]
    assert sum(sum(point.counts) for point in snapshot.services[-1].server) == 4
    assert sum(edge.total for edge in snapshot.edges) == 6
    assert len(snapshot.edges) == 3
    assert ledger.snapshot()["notes"]["metrics"] == {"service_overflow": 4, "edge_overflow": 4}


def test_joined_pair_is_one_edge_counted_once() -> None:
    red = RedMetrics(Ledger())
    web, shop = process("web"), process("shop")
    red.observe(exchange(status=500), shop, "/", web)
    red.observe(exchange(Role.CLIENT, status=500), web, "/", shop)
    assert edges(red.collect()) == {("web", "shop", None): (1, 1, 1, 1)}


def test_edges_with_one_watched_end_are_virtual() -> None:
    red = RedMetrics(Ledger())
    red.observe(exchange(), process("web"), "/")
    red.observe(exchange(Role.CLIENT, host="db.example:80"), process("web"), "/")
    assert edges(red.collect()) == {
        ("user", "web", "virtual_node"): (1, 0, 1, 0),
        ("web", "db.example:80", "virtual_node"): (1, 0, 0, 1),
    }
