"""What became of a request that was sent once; retries are the queue's business.

Source: OTLP specification, sections "OTLP/gRPC Response", "OTLP/HTTP Response", "Retryable Response Codes".
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

from autotrace.export.otlp_endpoint import GRPC, Endpoint, OtlpConfigError
from autotrace.export.queue import BACKEND_REJECTED, BACKEND_UNREACHABLE, Outcome, Result

if TYPE_CHECKING:
    from google.protobuf.message import Message


class Sender(Protocol):
    """An exporter of opentelemetry-exporter-otlp, for one endpoint."""

    def send(self, request: Message) -> Result:
        """Send one request and say what became of it."""

    def close(self) -> None:
        """Close the connection; breaks off a `send` in another thread."""


def open_sender(endpoint: Endpoint) -> Sender:
    """Make the sender of an endpoint. Nothing is connected before the first `send`.

    What the protocol needs is imported here: gRPC's part takes 24 MB, HTTP's 16. Raises OtlpConfigError if
    the library cannot use the `OTEL_EXPORTER_OTLP_...` variables.
    """
    try:
        if endpoint.protocol == GRPC:
            from autotrace.export.otlp_grpc import GrpcSender

            return GrpcSender(endpoint)
        from autotrace.export.otlp_http import HttpSender

        return HttpSender(endpoint)
    except OtlpConfigError:
        raise
    except Exception as error:
        # The library has no error type of its own: a bad variable is a ValueError, a RuntimeError, ...
        raise OtlpConfigError(
            f"OTLP {endpoint.signal} cannot be sent to {endpoint.url}: {error}; "
            "correct the OTEL_EXPORTER_OTLP_ variables"
        ) from error


def accepted(endpoint: Endpoint, response: Any) -> Result:
    """The backend took the request, or said in its response message that it took part of it only."""
    partial = response.partial_success
    rejected = partial.rejected_spans if endpoint.signal == "traces" else partial.rejected_data_points
    if rejected <= 0:
        return Result(Outcome.SENT)
    problem = f"{endpoint.url} refused {rejected} items of a batch: {partial.error_message}"
    return Result(Outcome.SENT, BACKEND_REJECTED, problem, rejected)


def unreachable(endpoint: Endpoint, why: str, retry_after: float = 0.0) -> Result:
    """The same request may be taken later."""
    problem = (
        f"cannot send {endpoint.signal} to {endpoint.url} ({endpoint.protocol}): {why}; trying again, "
        "check that an OTLP receiver listens there"
    )
    return Result(Outcome.RETRY, BACKEND_UNREACHABLE, problem, retry_after=retry_after)


def rejected(endpoint: Endpoint, why: str) -> Result:
    """The request will never be taken."""
    problem = (
        f"{endpoint.url} ({endpoint.protocol}) refuses {endpoint.signal}: {why}; they are dropped, "
        "check the endpoint, its protocol and OTEL_EXPORTER_OTLP_HEADERS"
    )
    return Result(Outcome.DROPPED, BACKEND_REJECTED, problem)
