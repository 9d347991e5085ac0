"""The names behind the public face of opentelemetry-exporter-otlp are where autotrace looks for them.

If a test here fails after an update of that library, correct autotrace/export/otlp_library.py and `_MADE_FOR`.
"""

import inspect
from typing import Any

import pytest
from opentelemetry.exporter.otlp.proto.grpc import metric_exporter as grpc_metrics
from opentelemetry.exporter.otlp.proto.grpc import trace_exporter as grpc_traces
from opentelemetry.exporter.otlp.proto.http import metric_exporter as http_metrics
from opentelemetry.exporter.otlp.proto.http import trace_exporter as http_traces

from autotrace.export.otlp_endpoint import OtlpConfigError
from autotrace.export.otlp_library import grpc_attempt, http_attempt


@pytest.mark.parametrize("exporter", [grpc_traces.OTLPSpanExporter, grpc_metrics.OTLPMetricExporter])
def test_a_grpc_exporter_holds_a_stub_headers_and_a_timeout(exporter: Any) -> None:
    made = exporter(endpoint="http://127.0.0.1:1", headers={"a": "b"}, timeout=3)
    assert callable(made._client.Export)
    assert ("a", "b") in tuple(made._headers)
    assert made._timeout == 3
    assert grpc_attempt(made)
    made.shutdown()


@pytest.mark.parametrize("exporter", [http_traces.OTLPSpanExporter, http_metrics.OTLPMetricExporter])
def test_an_http_exporter_holds_a_client_that_sends_once(exporter: Any) -> None:
    made = exporter(endpoint="http://127.0.0.1:1", timeout=3)
    assert list(inspect.signature(made._client._submit).parameters) == ["data", "timeout"]
    assert list(inspect.signature(made._client._compress).parameters) == ["serialized_data"]
    assert made._client._timeout == 3
    assert http_attempt(made)
    made.shutdown()


@pytest.mark.parametrize("attempt", [grpc_attempt, http_attempt])
def test_another_library_is_told_in_one_sentence(attempt: Any) -> None:
    with pytest.raises(OtlpConfigError, match="install opentelemetry-exporter-otlp"):
        attempt(object())
