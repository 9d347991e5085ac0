"""Remote calls: the OpenTelemetry conventions for RPC, in spans and in metrics."""

from __future__ import annotations

import pytest

from autotrace.ledger import Ledger
from autotrace.metrics import RedMetrics
from autotrace.model import (
    Confidence,
    Connection,
    Context,
    Exchange,
    Link,
    LinkMethod,
    Process,
    Role,
    Rpc,
    Span,
)
from autotrace.routes import RouteTemplater
from autotrace.rpc import SERVER_ERRORS
from autotrace.spans import SpanMaker

PROCESS = Process(10, "/usr/bin/cart", {"service.name": "cart"})
CODES = ("CANCELLED", "INVALID_ARGUMENT", "NOT_FOUND", "PERMISSION_DENIED", "UNAUTHENTICATED", *SERVER_ERRORS)


def call(
    role: Role = Role.SERVER, status: str = "OK", error: str = "", method: str = "shop.Cart/Add"
) -> Exchange:
    return Exchange(
        Connection(1, 10, 2, 1, 0, 3, "10.0.0.1", 50051, "10.0.0.2", 4000, True, None),
        role,
        Context(100, 10, 11, 0, 1, 0),
        1,
        "POST",
        "/shop.Cart/Add",
        "2",
        {"host": "cart:50051"},
        100,
        end_ns=250,
        status=200,
        error=error,
        link=Link(LinkMethod.WIRE, Confidence.EXACT, "because", 0xA, 0xB, 0xC),
        stream=5,
        rpc=Rpc("grpc", method, 1_500_000_000, status, 1, None),
        request_body_size=12,
    )


def make(exchange: Exchange) -> Span:
    span = SpanMaker({10: PROCESS}.get, RouteTemplater(), 0).make(exchange)
    assert span is not None
    return span


def test_a_span() -> None:
    span = make(call())
    assert (span.name, span.is_error) == ("shop.Cart/Add", False)
    wanted = {
        "rpc.system.name": "grpc",
        "rpc.method": "shop.Cart/Add",
        "rpc.response.status_code": "OK",
        "server.address": "cart",
        "server.port": 50051,
        "network.peer.address": "10.0.0.2",
        "autotrace.rpc.timeout": 1.5,
        "autotrace.rpc.request.messages": 1,
        "autotrace.rpc.request.size": 12,
    }
    assert wanted.items() <= span.attributes.items()
    assert not [name for name in span.attributes if name.startswith(("http.", "url."))]
    assert "autotrace.rpc.response.messages" not in span.attributes


@pytest.mark.parametrize("status", CODES)
def test_a_client_fails_with_any_code_and_a_server_with_its_own(status: str) -> None:
    client, server = make(call(Role.CLIENT, status)), make(call(Role.SERVER, status))
    assert (client.is_error, client.attributes["error.type"]) == (True, status)
    assert server.is_error is (status in SERVER_ERRORS)
    assert server.attributes.get("error.type", status) == status


def test_a_call_without_a_status() -> None:
    span = make(call(status="", error="ECONNRESET"))
    assert (span.is_error, span.attributes["error.type"]) == (True, "ECONNRESET")
    assert "rpc.response.status_code" not in span.attributes
    missed = make(call(status=""))
    assert (missed.is_error, missed.attributes["autotrace.response.missed"]) == (False, True)


def test_a_call_whose_method_is_not_known() -> None:
    exchange = call(method="")
    exchange.partial = True
    span = make(exchange)
    assert (span.name, span.attributes["rpc.method"]) == ("grpc", "_OTHER")
    assert span.attributes["autotrace.request.partial"] is True


def test_metrics() -> None:
    metrics = RedMetrics(Ledger())
    for exchange in (call(), call(), call(Role.CLIENT, "NOT_FOUND"), call(status="NOT_FOUND")):
        metrics.observe(exchange, PROCESS, "")
    (service,) = metrics.collect().services
    assert not service.server + service.client
    assert [(point.attributes, sum(point.counts)) for point in service.rpc_server] == [
        ({"rpc.system.name": "grpc", "rpc.method": "shop.Cart/Add", "rpc.response.status_code": "OK"}, 2),
        (
            {
                "rpc.system.name": "grpc",
                "rpc.method": "shop.Cart/Add",
                "rpc.response.status_code": "NOT_FOUND",
            },
            1,
        ),
    ]
    (point,) = service.rpc_client
    assert point.attributes == {
        "rpc.system.name": "grpc",
        "rpc.method": "shop.Cart/Add",
        "rpc.response.status_code": "NOT_FOUND",
        "error.type": "NOT_FOUND",
        "server.address": "cart",
        "server.port": 50051,
    }


def test_methods_over_the_cap_are_one_series() -> None:
    metrics = RedMetrics(Ledger(), max_series_per_service=2)
    for i in range(5):
        metrics.observe(call(method=f"a.B/{i}"), PROCESS, "")
    (service,) = metrics.collect().services
    assert [sum(point.counts) for point in service.rpc_server] == [1, 1, 3]
    assert service.rpc_server[2].attributes == {"otel.metric.overflow": True}
