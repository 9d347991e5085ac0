"""Sends encoded OTLP requests: one attempt for one call; retries are the queue's business.

What may be retried, and partial success: OTLP specification, sections "OTLP/gRPC Response", "OTLP/HTTP
Response" and "Retryable Response Codes". The exporters of opentelemetry-exporter-otlp are not used: they
take SDK objects only (six times the encoding time), hide partial success, and retry inside the call.
"""

from __future__ import annotations

import gzip
import http.client
import socket
import ssl
from typing import TYPE_CHECKING, Protocol
from urllib.parse import urlsplit

from autotrace import __version__
from autotrace.export.otlp_endpoint import GRPC, Endpoint
from autotrace.export.queue import BACKEND_REJECTED, BACKEND_UNREACHABLE, Outcome, Result

if TYPE_CHECKING:
    import grpc

_GRPC_METHOD = {
    "traces": "/opentelemetry.proto.collector.trace.v1.TraceService/Export",
    "metrics": "/opentelemetry.proto.collector.metrics.v1.MetricsService/Export",
}
_GRPC_RETRYABLE = frozenset(
    {
        "CANCELLED",
        "DEADLINE_EXCEEDED",
        "RESOURCE_EXHAUSTED",
        "ABORTED",
        "OUT_OF_RANGE",
        "UNAVAILABLE",
        "DATA_LOSS",
    }
)
_HTTP_RETRYABLE = frozenset({429, 502, 503, 504})
_LONGEST_RETRY_AFTER_SECONDS = 60.0
_LONGEST_ERROR_BODY = 300


class Sender(Protocol):
    """A connection to one OTLP endpoint."""

    def send(self, body: bytes) -> Result:
        """Send one encoded request and say what became of it."""

    def close(self) -> None:
        """Close the connection; breaks off a `send` in another thread."""


def open_sender(endpoint: Endpoint) -> Sender:
    """Make the sender of an endpoint. Nothing is connected before the first `send`."""
    return GrpcSender(endpoint) if endpoint.protocol == GRPC else HttpSender(endpoint)


class GrpcSender:
    """OTLP/gRPC. The `grpc` module is imported at the first `send`: it takes 17 MB and a good while."""

    def __init__(self, endpoint: Endpoint) -> None:
        self._endpoint = endpoint
        self._channel: grpc.Channel | None = None
        self._closed = False

    def send(self, body: bytes) -> Result:
        import grpc

        if self._closed:
            return _unreachable(self._endpoint, "the exporter is shut down")
        if self._channel is None:
            self._channel = self._open()
        export = self._channel.unary_unary(_GRPC_METHOD[self._endpoint.signal])
        try:
            answer = export(
                body, timeout=self._endpoint.timeout, metadata=tuple(self._endpoint.headers.items())
            )
        except grpc.RpcError as error:
            code, details = error.code().name, error.details() or ""
            if code in _GRPC_RETRYABLE:
                return _unreachable(self._endpoint, f"{code}: {details}")
            return _rejected(self._endpoint, f"{code}: {details}")
        except ValueError as error:
            # grpc raises this for a call on a channel that close() has closed meanwhile.
            return _unreachable(self._endpoint, str(error))
        return _accepted(self._endpoint, answer)

    def close(self) -> None:
        self._closed = True
        if self._channel is not None:
            self._channel.close()

    def _open(self) -> grpc.Channel:
        import grpc

        options = (
            ("grpc.primary_user_agent", f"autotrace/{__version__}"),
            # The queue has a back-off of its own; grpc's (up to 120 s) would hide a recovery from it.
            ("grpc.initial_reconnect_backoff_ms", 200),
            ("grpc.max_reconnect_backoff_ms", 2000),
        )
        compression = grpc.Compression.Gzip if self._endpoint.gzip else grpc.Compression.NoCompression
        if not self._endpoint.secure:
            return grpc.insecure_channel(self._endpoint.target, options, compression)
        credentials = grpc.ssl_channel_credentials(
            _content(self._endpoint.certificate),
            _content(self._endpoint.client_key),
            _content(self._endpoint.client_certificate),
        )
        return grpc.secure_channel(self._endpoint.target, credentials, options, compression)


class HttpSender:
    """OTLP/HTTP with protobuf bodies over one kept-alive connection."""

    def __init__(self, endpoint: Endpoint) -> None:
        self._endpoint = endpoint
        self._path = urlsplit(endpoint.url).path or "/"
        self._headers = {
            "content-type": "application/x-protobuf",
            "user-agent": f"autotrace/{__version__}",
            **({"content-encoding": "gzip"} if endpoint.gzip else {}),
            **endpoint.headers,
        }
        self._connection: http.client.HTTPConnection | None = None
        self._closed = False

    def send(self, body: bytes) -> Result:
        if self._endpoint.gzip:
            body = gzip.compress(body, compresslevel=6)
        # A kept-alive connection may have been closed by the other side since: one new one is tried then.
        for fresh in (self._connection is None, True):
            if self._closed:
                return _unreachable(self._endpoint, "the exporter is shut down")
            try:
                response = self._request(body)
                answer = response.read()
            except (OSError, http.client.HTTPException) as error:
                self._drop_connection()
                stale = isinstance(error, (ConnectionError, http.client.BadStatusLine))
                if stale and not fresh:
                    continue
                return _unreachable(self._endpoint, _reason(error))
            return self._result(response, answer)
        raise AssertionError("the second attempt always returns")

    def close(self) -> None:
        self._closed = True
        connection = self._connection
        if connection is not None and connection.sock is not None:
            try:
                # Unlike close(), this wakes a thread that waits in recv.
                connection.sock.shutdown(socket.SHUT_RDWR)
            except OSError:
                return

    def _request(self, body: bytes) -> http.client.HTTPResponse:
        if self._connection is None:
            self._connection = self._connect()
        self._connection.request("POST", self._path, body, self._headers)
        return self._connection.getresponse()

    def _connect(self) -> http.client.HTTPConnection:
        target, timeout = self._endpoint.target, self._endpoint.timeout
        if not self._endpoint.secure:
            return http.client.HTTPConnection(target, timeout=timeout)
        context = ssl.create_default_context(cafile=self._endpoint.certificate or None)
        if self._endpoint.client_certificate:
            context.load_cert_chain(self._endpoint.client_certificate, self._endpoint.client_key or None)
        return http.client.HTTPSConnection(target, timeout=timeout, context=context)

    def _drop_connection(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def _result(self, response: http.client.HTTPResponse, answer: bytes) -> Result:
        status = response.status
        if 200 <= status < 300:
            return _accepted(self._endpoint, answer)
        what = f"HTTP status {status} {response.reason}"
        if status in _HTTP_RETRYABLE:
            return _unreachable(self._endpoint, what, _retry_after(response.getheader("retry-after")))
        return _rejected(self._endpoint, f"{what} {_status_message(answer)}".rstrip())


def _accepted(endpoint: Endpoint, answer: bytes) -> Result:
    """An empty answer is full success; otherwise it may say that part of the request was refused."""
    if not answer:
        return Result(Outcome.SENT)
    from google.protobuf.message import DecodeError
    from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceResponse

    try:
        # The metrics response has the same fields under another name.
        partial = ExportTraceServiceResponse.FromString(answer).partial_success
    except DecodeError:
        return Result(Outcome.SENT)
    if partial.rejected_spans <= 0:
        return Result(Outcome.SENT)
    problem = f"{endpoint.url} refused {partial.rejected_spans} items of a batch: {partial.error_message}"
    return Result(Outcome.SENT, BACKEND_REJECTED, problem, partial.rejected_spans)


def _unreachable(endpoint: Endpoint, why: str, retry_after: float = 0.0) -> Result:
    problem = (
        f"cannot send {endpoint.signal} to {endpoint.url} ({endpoint.protocol}): {why}; trying again, "
        "check that an OTLP receiver listens there"
    )
    return Result(Outcome.RETRY, BACKEND_UNREACHABLE, problem, retry_after=retry_after)


def _rejected(endpoint: Endpoint, why: str) -> Result:
    problem = (
        f"{endpoint.url} ({endpoint.protocol}) refuses {endpoint.signal}: {why}; they are dropped, "
        "check the endpoint, its protocol and OTEL_EXPORTER_OTLP_HEADERS"
    )
    return Result(Outcome.DROPPED, BACKEND_REJECTED, problem)


def _reason(error: Exception) -> str:
    return (isinstance(error, OSError) and error.strerror) or str(error) or type(error).__name__


def _retry_after(value: str | None) -> float:
    """Seconds of a Retry-After field (RFC 9110 section 10.2.3); its date form is not honoured."""
    if value is None or not (value.isascii() and value.isdigit()):
        return 0.0
    return min(float(value), _LONGEST_RETRY_AFTER_SECONDS)


def _status_message(answer: bytes) -> str:
    """The message of the google.rpc.Status in an error answer, or the answer if it is readable text."""
    if not answer:
        return ""
    from google.protobuf.message import DecodeError
    from google.rpc.status_pb2 import Status

    try:
        message = str(Status.FromString(answer).message)
    except DecodeError:
        message = answer.decode("utf-8", "replace")
    return "".join(c if c.isprintable() else " " for c in message[:_LONGEST_ERROR_BODY]).strip()


def _content(path: str) -> bytes | None:
    if not path:
        return None
    with open(path, "rb") as file:  # noqa: PTH123
        return file.read()
