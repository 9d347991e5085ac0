"""Where OTLP goes and how: options first, then the environment variables of OpenTelemetry.

Source: OpenTelemetry specification, "OTLP Exporter Configuration". A variable for one signal
(`OTEL_EXPORTER_OTLP_TRACES_...`) wins over the general one (`OTEL_EXPORTER_OTLP_...`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal
from urllib.parse import unquote, urlsplit

Signal = Literal["traces", "metrics"]

GRPC = "grpc"
HTTP_PROTOBUF = "http/protobuf"

_DEFAULT_URL = {GRPC: "http://localhost:4317", HTTP_PROTOBUF: "http://localhost:4318"}
_HTTP_PORT = 4318
_DEFAULT_TIMEOUT_SECONDS = 10.0


class OtlpConfigError(ValueError):
    """The OTLP settings make no sense; the text is one sentence for the user."""


@dataclass(frozen=True, slots=True)
class Endpoint:
    """One signal's destination. For HTTP `url` is the full one; for gRPC only its host and port count.

    `timeout` is in seconds. `certificate` and the client's two are paths of PEM files, "" if not set.
    """

    signal: Signal
    protocol: str
    url: str
    secure: bool
    headers: dict[str, str]
    timeout: float
    gzip: bool
    certificate: str
    client_certificate: str
    client_key: str

    @property
    def target(self) -> str:
        """`host:port`, as gRPC wants it."""
        return urlsplit(self.url).netloc


def resolve(signal: Signal, url: str | None, protocol: str | None, environ: Mapping[str, str]) -> Endpoint:
    """Find the endpoint of a signal. `url` and `protocol` are the user's options, None if not given.

    Raises OtlpConfigError for an unknown protocol or compression, a bad URL, timeout or header list, or a
    certificate file that does not exist.
    """

    def setting(name: str) -> str:
        own = environ.get(f"OTEL_EXPORTER_OTLP_{signal.upper()}_{name}", "").strip()
        return own or environ.get(f"OTEL_EXPORTER_OTLP_{name}", "").strip()

    own_url = environ.get(f"OTEL_EXPORTER_OTLP_{signal.upper()}_ENDPOINT", "").strip()
    base_url = environ.get("OTEL_EXPORTER_OTLP_ENDPOINT", "").strip()
    chosen = url or own_url or base_url
    chosen_protocol = protocol or setting("PROTOCOL") or _protocol_of(chosen)
    if chosen_protocol not in _DEFAULT_URL:
        raise OtlpConfigError(
            f"OTLP protocol {chosen_protocol!r} is not supported: use {GRPC} or {HTTP_PROTOBUF}"
        )
    chosen = chosen or _DEFAULT_URL[chosen_protocol]
    if "://" not in chosen:
        # A scheme decides about TLS; without one only an explicit "not insecure" asks for it.
        chosen = f"{'https' if setting('INSECURE').lower() == 'false' else 'http'}://{chosen}"
    _check_url(chosen)
    if chosen_protocol == HTTP_PROTOBUF and not (own_url and not url):
        chosen = _with_signal_path(chosen, signal)
    compression = setting("COMPRESSION").lower() or "none"
    if compression not in {"none", "gzip"}:
        raise OtlpConfigError(f"OTLP compression {compression!r} is not supported: use gzip or none")
    return Endpoint(
        signal=signal,
        protocol=chosen_protocol,
        url=chosen,
        secure=urlsplit(chosen).scheme == "https",
        headers=_headers(setting("HEADERS")),
        timeout=_timeout(setting("TIMEOUT")),
        gzip=compression == "gzip",
        certificate=_file(setting("CERTIFICATE")),
        client_certificate=_file(setting("CLIENT_CERTIFICATE")),
        client_key=_file(setting("CLIENT_KEY")),
    )


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


def _headers(value: str) -> dict[str, str]:
    """Parse `name=value,name=value` with percent-encoded values (W3C Baggage syntax, without properties)."""
    headers: dict[str, str] = {}
    for item in filter(None, (part.strip() for part in value.split(","))):
        name, equals, content = item.partition("=")
        if not equals or not name.strip():
            raise OtlpConfigError(
                f"OTLP header {item!r} has no value: write headers as NAME=VALUE,NAME=VALUE"
            )
        headers[unquote(name.strip()).lower()] = unquote(content.strip())
    return headers


def _timeout(value: str) -> float:
    """Milliseconds in the variable, as the specification says of every duration; seconds here."""
    if not value:
        return _DEFAULT_TIMEOUT_SECONDS
    if not (value.isascii() and value.isdigit() and int(value)):
        raise OtlpConfigError(
            f"OTLP timeout {value!r} is not a whole number of milliseconds above 0: correct it"
        )
    return int(value) / 1000


def _file(path: str) -> str:
    if path and not Path(path).is_file():
        raise OtlpConfigError(f"OTLP certificate file {path} cannot be read: check the path")
    return path
