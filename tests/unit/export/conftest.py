"""Spans, and real OTLP receivers on loopback."""

from __future__ import annotations

import contextlib
import gzip
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import grpc
import pytest
from opentelemetry.proto.collector.metrics.v1 import metrics_service_pb2, metrics_service_pb2_grpc
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2, trace_service_pb2_grpc

from autotrace.model import Process, Role, Span

T0 = 1_700_000_000_000_000_000


@pytest.fixture(scope="session")
def make_span() -> Callable[..., Span]:
    process = Process(7, "/bin/shop", {"service.name": "shop", "process.pid": 7})

    def make(i: int = 1, **changes: Any) -> Span:
        fields: dict[str, Any] = {
            "trace_id": 0xA000_0000_0000_0000_0000_0000_0000_0000 + i,
            "span_id": 0xB000_0000_0000_0000 + i,
            "parent_span_id": 0,
            "name": "GET /item/{id}",
            "role": Role.SERVER,
            "start_unix_ns": T0,
            "end_unix_ns": T0 + 2_000_000,
            "attributes": {"http.request.method": "GET", "http.response.status_code": 200},
            "is_error": False,
            "status_message": "",
            "process": process,
        }
        return Span(**{**fields, **changes})

    return make


class Receiver:
    """What a backend was sent, and how it is told to answer."""

    def __init__(self) -> None:
        self.traces: list[trace_service_pb2.ExportTraceServiceRequest] = []
        self.metrics: list[metrics_service_pb2.ExportMetricsServiceRequest] = []
        self.headers: list[dict[str, str]] = []
        self.fail: Any = None
        self.retry_after = ""
        self.rejected = 0
        self.hang = threading.Event()
        self.hang.set()
        self.port = 0
        self.stop: Callable[[], None] = lambda: None

    def span_ids(self) -> list[int]:
        return [
            int.from_bytes(span.span_id, "big")
            for request in self.traces
            for resource in request.resource_spans
            for scope in resource.scope_spans
            for span in scope.spans
        ]

    def response(self) -> trace_service_pb2.ExportTraceServiceResponse:
        response = trace_service_pb2.ExportTraceServiceResponse()
        if self.rejected:
            response.partial_success.rejected_spans = self.rejected
            response.partial_success.error_message = "no room"
        return response


def start_grpc(receiver: Receiver, port: int = 0) -> None:
    class Traces(trace_service_pb2_grpc.TraceServiceServicer):
        def Export(self, request: Any, context: Any) -> Any:  # noqa: N802
            receiver.hang.wait(30)
            if receiver.fail is not None:
                context.abort(receiver.fail, "as told")
            receiver.headers.append(dict(context.invocation_metadata()))
            receiver.traces.append(request)
            return receiver.response()

    class Metrics(metrics_service_pb2_grpc.MetricsServiceServicer):
        def Export(self, request: Any, context: Any) -> Any:  # noqa: N802
            receiver.metrics.append(request)
            return metrics_service_pb2.ExportMetricsServiceResponse()

    server = grpc.server(ThreadPoolExecutor(4), options=[("grpc.so_reuseport", 0)])
    trace_service_pb2_grpc.add_TraceServiceServicer_to_server(Traces(), server)
    metrics_service_pb2_grpc.add_MetricsServiceServicer_to_server(Metrics(), server)
    receiver.port = server.add_insecure_port(f"127.0.0.1:{port}")
    server.start()
    receiver.stop = lambda: server.stop(0).wait(5)


def start_http(receiver: Receiver, port: int = 0) -> None:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            receiver.hang.wait(30)
            if self.headers.get("content-encoding") == "gzip":
                body = gzip.decompress(body)
            receiver.headers.append(dict(self.headers.items()))
            status, answer = 200, receiver.response().SerializeToString()
            if receiver.fail is not None:
                status, answer = receiver.fail, b"as told"
            elif self.path == "/v1/metrics":
                receiver.metrics.append(metrics_service_pb2.ExportMetricsServiceRequest.FromString(body))
            else:
                assert self.path == "/v1/traces"
                receiver.traces.append(trace_service_pb2.ExportTraceServiceRequest.FromString(body))
            self.send_response(status)
            self.send_header("content-length", str(len(answer)))
            if receiver.retry_after:
                self.send_header("retry-after", receiver.retry_after)
            self.end_headers()
            with contextlib.suppress(ConnectionError):  # nobody waits for it any more
                self.wfile.write(answer)

        def log_message(self, *args: object) -> None:
            """Stay quiet."""

    server = ThreadingHTTPServer(("127.0.0.1", port), Handler)
    server.daemon_threads = True
    receiver.port = server.server_port
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()

    def stop() -> None:
        server.shutdown()
        server.server_close()

    receiver.stop = stop


@pytest.fixture(params=["grpc", "http/protobuf"])
def protocol(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def start(protocol: str) -> Callable[..., None]:
    return start_grpc if protocol == "grpc" else start_http


@pytest.fixture
def receiver(start: Callable[..., None]) -> Iterator[Receiver]:
    receiver = Receiver()
    start(receiver)
    yield receiver
    receiver.hang.set()
    receiver.stop()


@pytest.fixture
def eventually() -> Callable[[Callable[[], bool]], None]:
    def wait(condition: Callable[[], bool], seconds: float = 20.0) -> None:
        end = time.monotonic() + seconds
        while not condition():
            assert time.monotonic() < end, "it did not happen"
            time.sleep(0.01)

    return wait
