"""Every name that autotrace uses from behind the public face of opentelemetry-exporter-otlp.

The public `export()` of its exporters takes spans of the SDK only, hides partial success, and tries again
inside the call, where a span is neither sent nor dropped. The queue and the ledger need one attempt and its
answer. So the exporters are made and closed through their public face, and one attempt goes through the
client that they hold: gRPC's stub, or the HTTP client.

tests/unit/export/test_otlp_library.py fails if a version of the library moves these names.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from opentelemetry.exporter.otlp.version import __version__

from autotrace.export.otlp_endpoint import OtlpConfigError

if TYPE_CHECKING:
    from google.protobuf.message import Message
    from opentelemetry.exporter.http.transport._base import BaseHTTPResult

_MADE_FOR = "1.45"


def grpc_attempt(exporter: Any) -> Callable[[Message], Any]:
    """What sends a request once through a gRPC exporter and returns the response message.

    The returned call raises `grpc.RpcError`, and ValueError once the exporter is shut down. Raises
    OtlpConfigError if the library is not the one this was made for.
    """
    try:
        export, headers, timeout = exporter._client.Export, exporter._headers, exporter._timeout
    except AttributeError as error:
        raise _wrong_version(error) from error
    return lambda request: export(request, metadata=headers, timeout=timeout)


def http_attempt(exporter: Any) -> Callable[[bytes], BaseHTTPResult]:
    """What sends a serialised request once through an HTTP exporter, compressed if that was asked for.

    A kept connection that turns out to be dead is replaced and does not count as an attempt. The returned
    call raises nothing: the error is in the result. Raises OtlpConfigError as `grpc_attempt` does.
    """
    try:
        client = exporter._client
        submit, compress, timeout = client._submit, client._compress, client._timeout
    except AttributeError as error:
        raise _wrong_version(error) from error
    return lambda body: submit(compress(body), timeout)


def _wrong_version(error: AttributeError) -> OtlpConfigError:
    return OtlpConfigError(
        f"opentelemetry-exporter-otlp {__version__} is not made like {_MADE_FOR} ({error}): "
        f"install opentelemetry-exporter-otlp {_MADE_FOR}"
    )
