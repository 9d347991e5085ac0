"""The lines of the file are the same requests that go out in protobuf."""

import base64
import json
import logging
import math
import resource
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from google.protobuf import json_format
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from autotrace.export.json_file import JsonFileError, JsonFileExporter
from autotrace.export.otlp_encode import TraceEncoder
from autotrace.export.otlp_json import TraceJsonEncoder
from autotrace.export.queue import Outcome, SpanQueue
from autotrace.ledger import Ledger
from autotrace.model import Process, Role, Span

MakeSpan = Callable[..., Span]

TEXT = st.text(max_size=60)
VALUES = st.one_of(
    TEXT,
    st.integers(-(2**63), 2**63 - 1),
    st.booleans(),
    st.floats(allow_nan=False) | st.just(math.nan),
    st.lists(TEXT, max_size=3).map(tuple),
)
SPANS = st.builds(
    Span,
    trace_id=st.integers(1, 2**128 - 1),
    span_id=st.integers(1, 2**64 - 1),
    parent_span_id=st.integers(0, 2**64 - 1),
    name=TEXT,
    role=st.sampled_from(Role),
    start_unix_ns=st.integers(0, 2**64 - 1),
    end_unix_ns=st.integers(0, 2**64 - 1),
    attributes=st.dictionaries(TEXT, VALUES, max_size=6),
    is_error=st.booleans(),
    status_message=TEXT,
    process=st.builds(
        Process,
        pid=st.just(1),
        executable=st.just("/x"),
        resource=st.dictionaries(TEXT, st.one_of(TEXT, st.integers(0, 9)), max_size=3),
    ),
    trace_state=TEXT,
)


def parse(line: str) -> ExportTraceServiceRequest:
    """Read OTLP/JSON: proto3 JSON but for ids, which are hex there and base64 in proto3 JSON."""

    def to_base64(fields: dict[str, Any]) -> dict[str, Any]:
        for key in ("traceId", "spanId", "parentSpanId"):
            if key in fields:
                fields[key] = base64.b64encode(bytes.fromhex(fields[key])).decode()
        return fields

    document = json.loads(line, object_hook=to_base64)
    return json_format.ParseDict(document, ExportTraceServiceRequest())


@given(st.lists(SPANS, max_size=5))
def test_a_line_is_the_protobuf_request(spans: list[Span]) -> None:
    encoder = TraceJsonEncoder()
    expected = TraceEncoder().encode(spans)
    for line in (encoder.encode(spans), encoder.encode(spans)):
        assert "\n" not in line
        # Compared as bytes: a NaN in a message is not equal to itself. (JSON has one NaN, doubles have many.)
        assert parse(line).SerializeToString(deterministic=True) == expected.SerializeToString(
            deterministic=True
        )


def test_names_and_types_are_those_of_the_specification(make_span: MakeSpan) -> None:
    span = make_span(
        1, parent_span_id=5, is_error=True, status_message="m", attributes={"n": 200, "d": math.inf}
    )
    (resource_spans,) = json.loads(TraceJsonEncoder().encode([span]))["resourceSpans"]
    assert resource_spans["scopeSpans"][0]["scope"]["name"] == "autotrace"
    assert resource_spans["scopeSpans"][0]["spans"] == [
        {
            "traceId": "a0000000000000000000000000000001",
            "spanId": "b000000000000001",
            "parentSpanId": "0000000000000005",
            "flags": 0x300,
            "name": "GET /item/{id}",
            "kind": 2,
            "startTimeUnixNano": "1700000000000000000",
            "endTimeUnixNano": "1700000000002000000",
            "attributes": [
                {"key": "n", "value": {"intValue": "200"}},
                {"key": "d", "value": {"doubleValue": "Infinity"}},
            ],
            "status": {"message": "m", "code": 2},
        }
    ]


def test_text_that_is_no_utf8_is_still_written(make_span: MakeSpan) -> None:
    line = TraceJsonEncoder().encode([make_span(name="GET /\udcff", attributes={"p": "/\udcff\n"})])
    span = parse(line.encode().decode()).resource_spans[0].scope_spans[0].spans[0]
    assert (span.name, span.attributes[0].value.string_value) == ("GET /?", "/?\n")


def test_writes_a_line_for_each_batch(tmp_path: Path, make_span: MakeSpan) -> None:
    ledger, path = Ledger(), tmp_path / "spans.jsonl"
    account = ledger.exporter("json")
    path.write_text("")
    queue = SpanQueue(JsonFileExporter(str(path)), account, name="json", batch_size=10, max_delay=0.01)
    spans = [make_span(i) for i in range(100)]
    for span in spans:
        queue.put(span)
    queue.shutdown()
    requests = [parse(line) for line in path.read_text().splitlines()]
    found = [s.span_id for r in requests for s in r.resource_spans[0].scope_spans[0].spans]
    assert found == [span.span_id.to_bytes(8, "big") for span in spans]
    assert (account.sent, account.queued, account.dropped) == (100, 0, {})


def test_a_full_disk_is_said_once_and_counted(make_span: MakeSpan, caplog: pytest.LogCaptureFixture) -> None:
    account = Ledger().exporter("json")
    with caplog.at_level(logging.WARNING, "autotrace"):
        queue = SpanQueue(JsonFileExporter("/dev/full"), account, name="json", batch_size=5)
        for i in range(50):
            queue.put(make_span(i))
        queue.shutdown()
    assert account.dropped == {"disk_full": 50}
    assert account.queued == 0
    (record,) = caplog.records
    assert record.message == (
        "cannot write spans to /dev/full: No space left on device; they are dropped until it works again"
    )


def test_a_half_written_line_is_taken_back(tmp_path: Path, make_span: MakeSpan) -> None:
    """A file size limit stops a write in the middle, as a full disk does."""
    path = tmp_path / "spans.jsonl"
    exporter = JsonFileExporter(str(path))
    assert exporter.export([make_span(1)]).outcome is Outcome.SENT
    size = path.stat().st_size
    old_limit = resource.getrlimit(resource.RLIMIT_FSIZE)
    old_handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (size + 20, old_limit[1]))
        result = exporter.export([make_span(2)])
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, old_limit)
        signal.signal(signal.SIGXFSZ, old_handler)
    assert (result.outcome, result.reason) == (Outcome.DROPPED, "disk_full")
    assert path.stat().st_size == size
    assert exporter.export([make_span(3)]).outcome is Outcome.SENT
    exporter.shutdown()
    assert [parse(line).resource_spans[0].scope_spans[0].spans[0].span_id[-1] for line in path.open()] == [
        1,
        3,
    ]


def test_a_path_that_cannot_be_opened(tmp_path: Path) -> None:
    with pytest.raises(JsonFileError, match=r"cannot write spans to .*: Is a directory; give --json"):
        JsonFileExporter(str(tmp_path))


def test_standard_output() -> None:
    program = """
from autotrace.export.json_file import JsonFileExporter
from autotrace.model import Process, Role, Span
process = Process(1, "/x", {"service.name": "s"})
exporter = JsonFileExporter("-")
exporter.export([Span(1, 2, 0, "GET", Role.CLIENT, 3, 4, {}, False, "", process)])
exporter.shutdown()
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert parse(done.stdout).resource_spans[0].scope_spans[0].spans[0].name == "GET"
