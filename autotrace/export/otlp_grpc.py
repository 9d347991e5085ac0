"""OTLP/gRPC by the exporters of opentelemetry-exporter-otlp."""

from __future__ import annotations

from typing import TYPE_CHECKING

import grpc
from opentelemetry.exporter.otlp.proto.grpc.metric_exporter import OTLPMetricExporter
from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter

from autotrace.export.otlp_endpoint import Endpoint
from autotrace.export.otlp_library import grpc_attempt
from autotrace.export.otlp_send import accepted, rejected, unreachable
from autotrace.export.queue import Result

if TYPE_CHECKING:
    from google.protobuf.message import Message

_RETRYABLE = frozenset(
    {
        grpc.StatusCode.CANCELLED,
        grpc.StatusCode.DEADLINE_EXCEEDED,
        grpc.StatusCode.RESOURCE_EXHAUSTED,
        grpc.StatusCode.ABORTED,
        grpc.StatusCode.OUT_OF_RANGE,
        grpc.StatusCode.UNAVAILABLE,
        grpc.StatusCode.DATA_LOSS,
    }
)
_CHANNEL_OPTIONS = (
    # The queue has a back-off of its own; grpc's (up to 120 s) would hide a recovery from it.
    ("grpc.initial_reconnect_backoff_ms", 200),
    ("grpc.max_reconnect_backoff_ms", 2000),
)


class GrpcSender:
    """Sends requests to one gRPC endpoint."""

    def __init__(self, endpoint: Endpoint) -> None:
        self._endpoint = endpoint
        exporter = OTLPSpanExporter if endpoint.signal == "traces" else OTLPMetricExporter
        self._exporter = exporter(
            endpoint=endpoint.url,
            insecure=not endpoint.secure,
            # The library knows the variable's value "gzip", but not "none".
            compression=grpc.Compression.NoCompression if endpoint.uncompressed else None,
            channel_options=_CHANNEL_OPTIONS,  # type: ignore[arg-type]  # says it takes a pair of texts only
        )
        self._attempt = grpc_attempt(self._exporter)
        self._closed = False

    def send(self, request: Message) -> Result:
        try:
            return accepted(self._endpoint, self._attempt(request))
        except grpc.RpcError as error:
            why = f"{error.code().name}: {error.details() or ''}"
            outcome = unreachable if error.code() in _RETRYABLE else rejected
            return outcome(self._endpoint, why)
        except ValueError as error:
            # A call on a channel that is closed meanwhile, or headers that gRPC cannot carry.
            outcome = unreachable if self._closed else rejected
            return outcome(self._endpoint, str(error))

    def close(self) -> None:
        self._closed = True
        self._exporter.shutdown()
