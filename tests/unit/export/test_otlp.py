"""OTLP against real receivers, over gRPC and HTTP."""

import logging
import os
import socket
import threading
from collections.abc import Callable
from typing import Any

import grpc
import pytest

from autotrace.export.otlp import OtlpMetricsPusher, OtlpSpanExporter
from autotrace.export.otlp_endpoint import OtlpConfigError, resolve
from autotrace.export.queue import SpanQueue
from autotrace.ledger import Ledger
from autotrace.model import RedSnapshot, ServiceEdge, ServiceMetrics, Span

MakeSpan = Callable[..., Span]
Eventually = Callable[[Callable[[], bool]], None]

UNAVAILABLE = {"grpc": grpc.StatusCode.UNAVAILABLE, "http/protobuf": 503}
BAD = {"grpc": grpc.StatusCode.INVALID_ARGUMENT, "http/protobuf": 400}


def queue_to(port: int, protocol: str, ledger: Ledger) -> SpanQueue:
    endpoint = resolve("traces", f"http://127.0.0.1:{port}", protocol, os.environ)
    exporter = OtlpSpanExporter(endpoint)
    account = ledger.exporter("otlp")
    return SpanQueue(
        exporter,
        account,
        name="otlp",
        capacity=1000,
        batch_size=100,
        max_delay=0.05,
        retry_initial=0.05,
        retry_max=0.2,
    )


@pytest.fixture
def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def assert_balanced(ledger: Ledger) -> None:
    account = ledger.exporter("otlp")
    assert account.queued == 0
    assert account.accepted == account.sent + sum(account.dropped.values())


def test_delivers(receiver: Any, protocol: str, make_span: MakeSpan, monkeypatch: pytest.MonkeyPatch) -> None:
    ledger = Ledger()
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_HEADERS", "api-key=secret")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_COMPRESSION", "none")
    queue = queue_to(receiver.port, protocol, ledger)
    spans = [make_span(i) for i in range(250)]
    for span in spans:
        queue.put(span)
    queue.shutdown(10)
    assert receiver.span_ids() == [span.span_id for span in spans]
    (service, _) = receiver.traces[0].resource_spans[0].resource.attributes
    assert service.value.string_value == "shop"
    assert receiver.headers[0]["api-key"] == "secret"
    assert ledger.exporter("otlp").sent == 250
    assert_balanced(ledger)


def test_delivers_compressed(
    receiver: Any, protocol: str, make_span: MakeSpan, monkeypatch: pytest.MonkeyPatch
) -> None:
    ledger = Ledger()
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_TRACES_COMPRESSION", "gzip")
    queue = queue_to(receiver.port, protocol, ledger)
    queue.put(make_span(1))
    queue.shutdown(10)
    assert receiver.span_ids() == [make_span(1).span_id]
    if protocol == "http/protobuf":  # gRPC's server does not tell
        assert receiver.headers[0]["Content-Encoding"] == "gzip"
    assert_balanced(ledger)


def test_spans_wait_for_a_backend_that_is_down(
    receiver: Any,
    start: Callable[..., None],
    protocol: str,
    make_span: MakeSpan,
    eventually: Eventually,
    caplog: pytest.LogCaptureFixture,
) -> None:
    ledger = Ledger()
    with caplog.at_level(logging.WARNING, "autotrace"):
        receiver.stop()
        queue = queue_to(receiver.port, protocol, ledger)
        for i in range(300):
            queue.put(make_span(i))
        eventually(lambda: len(caplog.records) == 1)
        start(receiver, receiver.port)
        eventually(lambda: ledger.exporter("otlp").sent == 300)
        queue.shutdown()
    assert len(receiver.span_ids()) == 300
    first, second = (record.message for record in caplog.records)
    assert f"127.0.0.1:{receiver.port}" in first
    assert second == "export to otlp works again; 0 spans were dropped meanwhile"
    assert_balanced(ledger)


def test_shutdown_with_nobody_listening(protocol: str, free_port: int, make_span: MakeSpan) -> None:
    ledger = Ledger()
    queue = queue_to(free_port, protocol, ledger)
    for i in range(1200):
        queue.put(make_span(i))
    queue.shutdown(0.5)
    assert ledger.exporter("otlp").dropped == {"queue_full": 200, "backend_unreachable": 1000}
    assert_balanced(ledger)


def test_a_backend_that_hangs_does_not_hold_up_shutdown(
    receiver: Any, protocol: str, make_span: MakeSpan
) -> None:
    ledger = Ledger()
    receiver.hang.clear()
    queue = queue_to(receiver.port, protocol, ledger)
    for i in range(1200):
        queue.put(make_span(i))
    queue.shutdown(0.3)
    assert sum(ledger.exporter("otlp").dropped.values()) == 1200
    assert not queue._thread.is_alive()
    assert_balanced(ledger)


def test_unavailable_is_tried_again(
    receiver: Any, protocol: str, make_span: MakeSpan, eventually: Eventually
) -> None:
    ledger = Ledger()
    receiver.fail = UNAVAILABLE[protocol]
    queue = queue_to(receiver.port, protocol, ledger)
    queue.put(make_span(1))
    eventually(lambda: ledger.exporter("otlp").queued == 1 and queue._last_reason == "backend_unreachable")
    receiver.fail = None
    eventually(lambda: ledger.exporter("otlp").sent == 1)
    queue.shutdown()
    assert_balanced(ledger)


def test_refused_batches_are_dropped_and_counted(
    receiver: Any, protocol: str, make_span: MakeSpan, caplog: pytest.LogCaptureFixture
) -> None:
    ledger = Ledger()
    receiver.fail = BAD[protocol]
    with caplog.at_level(logging.WARNING, "autotrace"):
        queue = queue_to(receiver.port, protocol, ledger)
        for i in range(250):
            queue.put(make_span(i))
        queue.shutdown(10)
    assert ledger.exporter("otlp").dropped == {"backend_rejected": 250}
    (record,) = caplog.records
    assert "as told" in record.message
    assert_balanced(ledger)


def test_partial_success_is_counted(receiver: Any, protocol: str, make_span: MakeSpan) -> None:
    ledger = Ledger()
    receiver.rejected = 2
    queue = queue_to(receiver.port, protocol, ledger)
    for i in range(5):
        queue.put(make_span(i))
    queue.shutdown(10)
    account = ledger.exporter("otlp")
    batches = len(receiver.traces)
    assert (account.sent, account.dropped) == (5 - 2 * batches, {"backend_rejected": 2 * batches})
    assert_balanced(ledger)


def test_http_reconnects_when_the_kept_connection_was_closed(make_span: MakeSpan) -> None:
    """A receiver that closes after every answer without saying so."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            for _ in range(2):
                connection, _ = listener.accept()
                with connection, connection.makefile("rb") as lines:
                    length = 0
                    while (line := lines.readline()) != b"\r\n":
                        name, _, value = line.partition(b":")
                        length = int(value) if name.lower() == b"content-length" else length
                    lines.read(length)
                    connection.sendall(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n")

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        exporter = OtlpSpanExporter(resolve("traces", url, "http/protobuf", {}))
        outcomes = [exporter.export([make_span()]).outcome.value for _ in range(2)]
        exporter.shutdown()
        thread.join(5)
    assert outcomes == ["sent", "sent"]


@pytest.mark.parametrize("protocol", ["http/protobuf"], indirect=True)
def test_the_wait_that_a_backend_asks_for(make_span: MakeSpan, receiver: Any, protocol: str) -> None:
    receiver.fail, receiver.retry_after = 429, "7"
    exporter = OtlpSpanExporter(resolve("traces", f"http://127.0.0.1:{receiver.port}", protocol, {}))
    result = exporter.export([make_span()])
    exporter.shutdown()
    assert (result.outcome.value, result.retry_after) == ("retry", 7.0)


def test_refused_connection_is_told_in_few_words(protocol: str, free_port: int, make_span: MakeSpan) -> None:
    exporter = OtlpSpanExporter(resolve("traces", f"http://127.0.0.1:{free_port}", protocol, {}))
    result = exporter.export([make_span()])
    exporter.shutdown()
    assert result.outcome.value == "retry"
    assert "Connection refused" in result.problem
    assert "object at 0x" not in result.problem


@pytest.mark.parametrize(
    ("variable", "value"),
    [("OTEL_EXPORTER_OTLP_TIMEOUT", "soon"), ("OTEL_EXPORTER_OTLP_COMPRESSION", "zstd")],
)
def test_a_variable_that_the_library_cannot_use(
    variable: str, value: str, free_port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(variable, value)
    with pytest.raises(OtlpConfigError) as caught:
        OtlpSpanExporter(resolve("traces", f"http://127.0.0.1:{free_port}", "grpc", os.environ))
    assert value in str(caught.value)
    assert "OTEL_EXPORTER_OTLP_" in str(caught.value)


def test_headers_that_cannot_be_sent_cost_the_batch_and_are_told(
    receiver: Any, protocol: str, make_span: MakeSpan, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_HEADERS", "api-key=a%0Ab")
    exporter = OtlpSpanExporter(resolve("traces", f"http://127.0.0.1:{receiver.port}", protocol, {}))
    result = exporter.export([make_span()])
    exporter.shutdown()
    assert result.outcome.value == "dropped"
    assert "OTEL_EXPORTER_OTLP_HEADERS" in result.problem


def test_metrics_are_pushed(receiver: Any, protocol: str, eventually: Eventually) -> None:
    ledger = Ledger()
    counts = [1] * 15
    edge = ServiceEdge({"client": "user", "server": "shop"}, 15, 0, counts, 1.0, counts, 1.0)
    snapshot = RedSnapshot(
        1,
        2,
        tuple(map(float, range(14))),
        [ServiceMetrics("shop", {"service.name": "shop"}, [], [], [], [])],
        [edge],
    )
    endpoint = resolve("metrics", f"http://127.0.0.1:{receiver.port}", protocol, {})
    pusher = OtlpMetricsPusher(endpoint, lambda: snapshot, ledger, interval=0.02)
    eventually(lambda: len(receiver.metrics) > 1)
    pusher.shutdown()
    assert len(receiver.metrics[0].resource_metrics) == 2
    assert ledger.snapshot()["notes"]["otlp_metrics"] == {"push_sent": len(receiver.metrics)}


def test_a_failed_push_is_noted(protocol: str, free_port: int, caplog: pytest.LogCaptureFixture) -> None:
    ledger = Ledger()
    snapshot = RedSnapshot(1, 2, (), [ServiceMetrics("shop", {"service.name": "shop"}, [], [], [], [])], [])
    endpoint = resolve("metrics", f"http://127.0.0.1:{free_port}", protocol, {})
    with caplog.at_level(logging.WARNING, "autotrace"):
        OtlpMetricsPusher(endpoint, lambda: snapshot, ledger, interval=100).shutdown()
    assert ledger.snapshot()["notes"] == {"otlp_metrics": {"push_failed": 1}}
    assert len(caplog.records) == 1
