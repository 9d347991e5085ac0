"""Options win over one signal's variables, those over the general ones."""

from pathlib import Path

import pytest

from autotrace.export.otlp_endpoint import (
    GRPC,
    HTTP_PROTOBUF,
    OtlpConfigError,
    metric_interval,
    resolve,
)

BASE = "OTEL_EXPORTER_OTLP_ENDPOINT"
OWN = "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT"


@pytest.mark.parametrize(
    ("url", "protocol", "environ", "expected"),
    [
        ("", "", {}, (GRPC, "http://localhost:4317")),
        ("", HTTP_PROTOBUF, {}, (HTTP_PROTOBUF, "http://localhost:4318/v1/traces")),
        ("http://c:4317", "", {}, (GRPC, "http://c:4317")),
        ("c:4317", "", {}, (GRPC, "http://c:4317")),
        ("http://c:4318", "", {}, (HTTP_PROTOBUF, "http://c:4318/v1/traces")),
        ("http://c:4318/", "", {}, (HTTP_PROTOBUF, "http://c:4318/v1/traces")),
        ("https://c/otlp", "", {}, (HTTP_PROTOBUF, "https://c/otlp/v1/traces")),
        ("http://c:4318/v1/metrics", "", {}, (HTTP_PROTOBUF, "http://c:4318/v1/traces")),
        ("c:4317", "", {"OTEL_EXPORTER_OTLP_INSECURE": "false"}, (GRPC, "https://c:4317")),
        ("http://c:4318", GRPC, {}, (GRPC, "http://c:4318")),
        ("", "", {BASE: "http://b:4318"}, (HTTP_PROTOBUF, "http://b:4318/v1/traces")),
        ("", "", {BASE: "http://b:1", OWN: "http://o:4318/x"}, (HTTP_PROTOBUF, "http://o:4318/x")),
        ("http://c:9", "", {OWN: "http://o:4318/x"}, (GRPC, "http://c:9")),
        ("", "", {"OTEL_EXPORTER_OTLP_PROTOCOL": GRPC, BASE: "http://b:4318"}, (GRPC, "http://b:4318")),
    ],
)
def test_where(url: str, protocol: str, environ: dict[str, str], expected: tuple[str, str]) -> None:
    endpoint = resolve("traces", url, protocol, environ)
    assert (endpoint.protocol, endpoint.url) == expected


def test_tls_is_the_scheme_s(tmp_path: Path) -> None:
    certificate = tmp_path / "ca.pem"
    certificate.write_text("x")
    environ = {"OTEL_EXPORTER_OTLP_CERTIFICATE": str(certificate), "OTEL_EXPORTER_OTLP_INSECURE": "true"}
    assert resolve("traces", "https://c:4317", "", environ).secure
    assert not resolve("traces", "http://c:4317", "", environ).secure
    assert not resolve("traces", "c:4317", "", environ).secure


def test_compression_of_one_signal_wins() -> None:
    environ = {"OTEL_EXPORTER_OTLP_COMPRESSION": "gzip", "OTEL_EXPORTER_OTLP_TRACES_COMPRESSION": "none"}
    assert resolve("traces", "", "", environ).uncompressed
    assert not resolve("metrics", "", "", environ).uncompressed
    assert resolve("metrics", "", "", {}).uncompressed


@pytest.mark.parametrize(
    ("url", "protocol", "environ"),
    [
        ("ftp://c", "", {}),
        ("http://", "", {}),
        ("http://c:notaport", "", {}),
        ("http://c:99999", "", {}),
        ("http://[::1", "", {}),
        ("", "http/json", {}),
        ("", "", {"OTEL_EXPORTER_OTLP_CERTIFICATE": "does/not/exist.pem"}),
    ],
)
def test_nonsense_is_one_sentence(url: str, protocol: str, environ: dict[str, str]) -> None:
    with pytest.raises(OtlpConfigError) as caught:
        resolve("traces", url, protocol, environ)
    assert "\n" not in str(caught.value)
    assert ": " in str(caught.value)


def test_metric_interval() -> None:
    assert metric_interval({}) == 60
    assert metric_interval({"OTEL_METRIC_EXPORT_INTERVAL": "2500"}) == 2.5
    with pytest.raises(OtlpConfigError):
        metric_interval({"OTEL_METRIC_EXPORT_INTERVAL": "0"})
