"""OTLP/HTTP with protobuf bodies by the exporters of opentelemetry-exporter-otlp."""

from __future__ import annotations

import socket
from contextlib import suppress
from typing import TYPE_CHECKING, Any
from weakref import WeakSet

import requests
from google.protobuf.message import DecodeError
from google.rpc.status_pb2 import Status
from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceResponse
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceResponse
from requests.adapters import HTTPAdapter
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.connectionpool import HTTPConnectionPool, HTTPSConnectionPool

from autotrace.export.otlp_endpoint import Endpoint
from autotrace.export.otlp_library import http_attempt
from autotrace.export.otlp_send import accepted, rejected, unreachable
from autotrace.export.queue import Outcome, Result

if TYPE_CHECKING:
    from google.protobuf.message import Message

_RETRYABLE = frozenset({429, 502, 503, 504})
_LONGEST_RETRY_AFTER_SECONDS = 60.0
_LONGEST_ERROR_BODY = 300


class HttpSender:
    """Sends requests to one HTTP endpoint over one kept-alive connection."""

    def __init__(self, endpoint: Endpoint) -> None:
        self._endpoint = endpoint
        session = requests.Session()
        adapter = _BreakableAdapter()
        session.mount("http://", adapter)
        session.mount("https://", adapter)
        if endpoint.signal == "traces":
            self._response: Any = ExportTraceServiceResponse
            self._exporter: Any = OTLPSpanExporter(endpoint.url, session=session)
        else:
            self._response = ExportMetricsServiceResponse
            self._exporter = OTLPMetricExporter(endpoint.url, session=session)
        self._attempt = http_attempt(self._exporter)

    def send(self, request: Message) -> Result:
        answer = self._attempt(request.SerializeToString())
        if answer.error is not None:
            # ValueError: a URL or a header that cannot be sent. Everything else is the network's.
            outcome = rejected if isinstance(answer.error, ValueError) else unreachable
            return outcome(self._endpoint, _reason(answer.error))
        status = answer.status_code or 0
        what = f"HTTP status {status} {answer.reason}"
        if status in _RETRYABLE:
            return unreachable(self._endpoint, what, _retry_after(answer.headers().get("retry-after")))
        if not 200 <= status < 300:
            return rejected(self._endpoint, f"{what} {_status_message(answer.content())}".rstrip())
        try:
            return accepted(self._endpoint, self._response.FromString(answer.content()))
        except DecodeError:
            return Result(Outcome.SENT)

    def close(self) -> None:
        self._exporter.shutdown()


class _BreakableAdapter(HTTPAdapter):
    """What carries a session's requests; `close` also breaks off one that another thread waits for."""

    def __init__(self) -> None:
        self._closed = False
        self._connections: WeakSet[HTTPConnection] = WeakSet()
        super().__init__()

    def init_poolmanager(self, *args: Any, **kwargs: Any) -> None:
        super().init_poolmanager(*args, **kwargs)
        adapter = self

        class Connection(HTTPConnection):
            def connect(self) -> None:
                adapter._connections.add(self)
                super().connect()
                adapter._check_open()

        class SecureConnection(HTTPSConnection):
            def connect(self) -> None:
                adapter._connections.add(self)
                super().connect()
                adapter._check_open()

        class Pool(HTTPConnectionPool):
            ConnectionCls = Connection

        class SecurePool(HTTPSConnectionPool):
            ConnectionCls = SecureConnection

        self.poolmanager.pool_classes_by_scheme = {"http": Pool, "https": SecurePool}

    def send(self, *args: Any, **kwargs: Any) -> requests.Response:
        self._check_open()
        return super().send(*args, **kwargs)

    def close(self) -> None:
        self._closed = True
        for connection in list(self._connections):
            if connection.sock is not None:
                with suppress(OSError):
                    # Unlike close(), this wakes a thread that waits in recv; and it is not TLS's shutdown.
                    socket.socket.shutdown(connection.sock, socket.SHUT_RDWR)
        super().close()

    def _check_open(self) -> None:
        if self._closed:
            raise ConnectionAbortedError("the exporter is shut down")


def _reason(error: BaseException) -> str:
    """The operating system's words, if they are at the bottom of the error; else the error's own."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, OSError) and cause.strerror:
            return cause.strerror
        cause = cause.__cause__ or cause.__context__
    return str(error) or type(error).__name__


def _retry_after(value: str | None) -> float:
    """Seconds of a Retry-After field (RFC 9110 section 10.2.3); its date form is not honoured."""
    if value is None or not (value.isascii() and value.isdigit()):
        return 0.0
    return min(float(value), _LONGEST_RETRY_AFTER_SECONDS)


def _status_message(answer: bytes) -> str:
    """The message of the google.rpc.Status in an error answer, or the answer if it is readable text."""
    try:
        message = str(Status.FromString(answer).message)
    except DecodeError:
        message = answer.decode("utf-8", "replace")
    return "".join(c if c.isprintable() else " " for c in message[:_LONGEST_ERROR_BODY]).strip()
