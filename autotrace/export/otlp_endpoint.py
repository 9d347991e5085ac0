"""Where OTLP goes: options first, then the environment variables of OpenTelemetry.

The exporters of opentelemetry-exporter-otlp read the variables for headers, TLS, compression and time-outs
themselves. What they leave open is decided here: which protocol, and what is wrong with a setting.

Source: OpenTelemetry specification, "OTLP Exporter Configuration". A variable for one signal
(`OTEL_EXPORTER_OTLP_TRACES_...`) wins over the general one (`OTEL_EXPORTER_OTLP_...`).
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Literal, NamedTuple
from urllib.parse import urlsplit

Signal = Literal["traces", "metrics"]

GRPC = "grpc"
HTTP_PROTOBUF = "http/protobuf"

_DEFAULT_URL = {GRPC: "http://localhost:4317", HTTP_PROTOBUF: "http://localhost:4318"}
_HTTP_PORT = 4318


class OtlpConfigError(ValueError):
    """The OTLP settings make no sense; the text is one sentence for the user."""


class Endpoint(NamedTuple):
    """One signal's destination. For HTTP `url` is the full one; for gRPC only its scheme, host and port count.

    `uncompressed` is true if that was asked for or nothing was.
    """

    signal: Signal
    protocol: str
    url: str
    uncompressed: bool

    @property
    def secure(self) -> bool:
        return self.url.startswith("https:")


def resolve(signal: Signal, url: str, protocol: str, environ: Mapping[str, str]) -> Endpoint:
    """Find the endpoint of a signal. `url` and `protocol` are the user's options, "" if not given.

    Raises OtlpConfigError for an unknown protocol, a bad URL, or a certificate file that does not exist.
    """

    def setting(name: str) -> str:
        own = environ.get(f"OTEL_EXPORTER_OTLP_{signal.upper()}_{name}", "").strip()
        return own or environ.get(f"OTEL_EXPORTER_OTLP_{name}", "").strip()

    own_url = environ.get(f"OTEL_EXPORTER_OTLP_{signal.upper()}_ENDPOINT", "").strip()
    chosen = url or setting("ENDPOINT")
    protocol = protocol or setting("PROTOCOL") or _protocol_of(chosen)
    if protocol not in _DEFAULT_URL:
        raise OtlpConfigError(f"OTLP protocol {protocol!r} is not supported: use {GRPC} or {HTTP_PROTOBUF}")
    chosen = chosen or _DEFAULT_URL[protocol]
    if "://" not in chosen:
        # A scheme decides about TLS; without one only an explicit "not insecure" asks for it.
        chosen = f"{'https' if setting('INSECURE').lower() == 'false' else 'http'}://{chosen}"
    _check_url(chosen)
    if protocol == HTTP_PROTOBUF and (url or not own_url):
        chosen = _with_signal_path(chosen, signal)
    for name in ("CERTIFICATE", "CLIENT_CERTIFICATE", "CLIENT_KEY"):
        if setting(name) and not Path(setting(name)).is_file():
            raise OtlpConfigError(f"OTLP certificate file {setting(name)} cannot be read: check the path")
    return Endpoint(signal, protocol, chosen, setting("COMPRESSION").lower() in {"", "none"})


def metric_interval(environ: Mapping[str, str]) -> float:
    """Seconds between two pushes of metrics: `OTEL_METRIC_EXPORT_INTERVAL` (milliseconds), 60 by default.

    Raises OtlpConfigError.
    """
    value = environ.get("OTEL_METRIC_EXPORT_INTERVAL", "").strip() or "60000"
    if not (value.isascii() and value.isdigit() and int(value)):
        raise OtlpConfigError(
            f"OTEL_METRIC_EXPORT_INTERVAL {value!r} is not a number of milliseconds: correct it"
        )
    return int(value) / 1000


def _protocol_of(url: str) -> str:
    """gRPC is the default but where the port or the path is HTTP's."""
    if not url:
        return GRPC
    try:
        parts = urlsplit(url if "://" in url else f"//{url}")
        is_http = parts.port == _HTTP_PORT or bool(parts.path.strip("/"))
    except ValueError:
        # Not a URL; resolve() says so.
        return GRPC
    return HTTP_PROTOBUF if is_http else GRPC


def _check_url(url: str) -> None:
    try:
        parts = urlsplit(url)
        usable = parts.scheme in {"http", "https"} and bool(parts.hostname) and parts.port != 0
    except ValueError:
        usable = False
    if not usable:
        raise OtlpConfigError(f"OTLP endpoint {url!r} is not a URL: write it as http://HOST:PORT")


def _with_signal_path(url: str, signal: Signal) -> str:
    base = url.rstrip("/")
    for other in ("/v1/traces", "/v1/metrics"):
        base = base.removesuffix(other)
    return f"{base}/v1/{signal}"
