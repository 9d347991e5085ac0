"""Options win over one signal's variables, those over the general ones."""

from pathlib import Path

import pytest

from autotrace.export.otlp_endpoint import (
    GRPC,
    HTTP_PROTOBUF,
    Endpoint,
    OtlpConfigError,
    metric_interval,
    resolve,
)

BASE = "OTEL_EXPORTER_OTLP_ENDPOINT"
OWN = "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT"


def traces(url: str | None = None, protocol: str | None = None, **environ: str) -> Endpoint:
    return resolve("traces", url, protocol, environ)


@pytest.mark.parametrize(
    ("url", "protocol", "environ", "expected"),
    [
        (None, None, {}, (GRPC, "http://localhost:4317")),
        (None, HTTP_PROTOBUF, {}, (HTTP_PROTOBUF, "http://localhost:4318/v1/traces")),
        ("http://c:4317", None, {}, (GRPC, "http://c:4317")),
        ("c:4317", None, {}, (GRPC, "http://c:4317")),
        ("http://c:4318", None, {}, (HTTP_PROTOBUF, "http://c:4318/v1/traces")),
        ("http://c:4318/", None, {}, (HTTP_PROTOBUF, "http://c:4318/v1/traces")),
        ("https://c/otlp", None, {}, (HTTP_PROTOBUF, "https://c/otlp/v1/traces")),
        ("http://c:4318/v1/metrics", None, {}, (HTTP_PROTOBUF, "http://c:4318/v1/traces")),
        ("c:4317", None, {"OTEL_EXPORTER_OTLP_INSECURE": "false"}, (GRPC, "https://c:4317")),
        ("http://c:4318", GRPC, {}, (GRPC, "http://c:4318")),
        (None, None, {BASE: "http://b:4318"}, (HTTP_PROTOBUF, "http://b:4318/v1/traces")),
        (None, None, {BASE: "http://b:1", OWN: "http://o:4318/x"}, (HTTP_PROTOBUF, "http://o:4318/x")),
        ("http://c:9", None, {OWN: "http://o:4318/x"}, (GRPC, "http://c:9")),
        (None, None, {"OTEL_EXPORTER_OTLP_PROTOCOL": GRPC, BASE: "http://b:4318"}, (GRPC, "http://b:4318")),
    ],
)
def test_where(
    url: str | None, protocol: str | None, environ: dict[str, str], expected: tuple[str, str]
) -> None:
    endpoint = resolve("traces", url, protocol, environ)
    assert (endpoint.protocol, endpoint.url) == expected


def test_how(tmp_path: Path) -> None:
    certificate = tmp_path / "ca.pem"
    certificate.write_text("x")
    endpoint = traces(
        "https://c:4317",
        OTEL_EXPORTER_OTLP_HEADERS="Api-Key=a%20b, x=1",
        OTEL_EXPORTER_OTLP_TIMEOUT="3000",
        OTEL_EXPORTER_OTLP_TRACES_TIMEOUT="4500",
        OTEL_EXPORTER_OTLP_COMPRESSION="gzip",
        OTEL_EXPORTER_OTLP_CERTIFICATE=str(certificate),
    )
    assert endpoint.headers == {"api-key": "a b", "x": "1"}
    assert endpoint.timeout == 4.5
    assert endpoint.gzip
    assert endpoint.secure
    assert endpoint.target == "c:4317"
    assert endpoint.certificate == str(certificate)


@pytest.mark.parametrize(
    ("url", "protocol", "environ"),
    [
        ("ftp://c", None, {}),
        ("http://", None, {}),
        ("http://c:notaport", None, {}),
        ("http://c:99999", None, {}),
        ("http://[::1", None, {}),
        (None, "http/json", {}),
        (None, None, {"OTEL_EXPORTER_OTLP_TIMEOUT": "soon"}),
        (None, None, {"OTEL_EXPORTER_OTLP_TIMEOUT": "-1"}),
        (None, None, {"OTEL_EXPORTER_OTLP_COMPRESSION": "zstd"}),
        (None, None, {"OTEL_EXPORTER_OTLP_HEADERS": "novalue"}),
        (None, None, {"OTEL_EXPORTER_OTLP_CERTIFICATE": "does/not/exist.pem"}),
    ],
)
def test_nonsense_is_one_sentence(url: str | None, protocol: str | None, environ: dict[str, str]) -> None:
    with pytest.raises(OtlpConfigError) as caught:
        resolve("traces", url, protocol, environ)
    assert "\n" not in str(caught.value)
    assert ": " in str(caught.value)


def test_metric_interval() -> None:
    assert metric_interval({}) == 60
    assert metric_interval({"OTEL_METRIC_EXPORT_INTERVAL": "2500"}) == 2.5
    with pytest.raises(OtlpConfigError):
        metric_interval({"OTEL_METRIC_EXPORT_INTERVAL": "0"})
