"""Trace headers that others made: the spans join their traces."""

from __future__ import annotations

import http.client
import sys
from pathlib import Path

import pytest
from harness import SERVICES, Traced, drive, free_ports, listening, log_entries, nginx_config, shell, wait_for

TRACE = "0af7651916cd43dd8448eb211c80319c"
SPAN = "b7ad6b7169203331"
CARRIERS = {
    "traceparent": {"traceparent": f"00-{TRACE}-{SPAN}-01"},
    "b3-single": {"b3": f"{TRACE}-{SPAN}-1"},
    "b3-multi": {"X-B3-TraceId": TRACE, "X-B3-SpanId": SPAN, "X-B3-Sampled": "1"},
    "uber": {"uber-trace-id": f"{TRACE}:{SPAN}:0:1"},
}


def _get(port: int, path: str, headers: dict[str, str]) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
    connection.request("GET", path, headers=headers)
    assert connection.getresponse().status == 200
    connection.close()


def _backend(port: int, log: Path) -> str:
    return f"{sys.executable} {SERVICES}/backend.py {port} {log}"


def _nginx(tmp_path: Path, front: int, back: int) -> str:
    proxy = f"location / {{ proxy_pass http://127.0.0.1:{back}; }}"
    return f"nginx -c {nginx_config(tmp_path / 'nginx', front, proxy)}"


@pytest.mark.parametrize("carrier", CARRIERS)
def test_a_proxy_passes_the_header_on(tmp_path: Path, carrier: str) -> None:
    """client header -> nginx server -> nginx client -> backend server, all in the client's trace."""
    front, back = free_ports(2)
    command = shell(_nginx(tmp_path, front, back), _backend(back, tmp_path / "log"))
    with Traced(tmp_path / "agent", command) as agent:
        wait_for(lambda: listening(front) and listening(back), "nginx and the backend")
        _get(front, "/id/with", CARRIERS[carrier])
        _get(front, "/id/without", {})
        result = agent.finish()
    result.check_ledger()
    chains = {path: [s for s in result.spans if s.path == path] for path in ("/id/with", "/id/without")}
    for spans in chains.values():
        incoming, call, served = (
            *(s for s in spans if s.service == "nginx" and s.kind == "server"),
            *(s for s in spans if s.service == "nginx" and s.kind == "client"),
            *(s for s in spans if s.service == "backend"),
        )
        assert (call.parent_id, served.parent_id) == (incoming.span_id, call.span_id)
        assert served.link == "wire"
        assert incoming.trace_id == call.trace_id == served.trace_id
        joined = incoming.path == "/id/with"
        assert incoming.link == ("header" if joined else "none")
        assert incoming.parent_id == (SPAN if joined else "")
        assert (incoming.trace_id == TRACE) is joined


def test_a_malformed_header_counts_as_none(tmp_path: Path) -> None:
    (back,) = free_ports(1)
    with Traced(tmp_path / "agent", shell(_backend(back, tmp_path / "log"))) as agent:
        wait_for(lambda: listening(back), "the backend")
        _get(back, "/id/1", {"traceparent": f"00-{'0' * 32}-{SPAN}-01"})
        _get(back, "/id/2", {"traceparent": "nonsense", "b3": "1"})
        result = agent.finish()
    result.check_ledger()
    assert [s.link for s in result.spans] == ["none", "none"]
    assert all(s.parent_id == "" and s.trace_id != TRACE for s in result.spans)


def test_a_process_that_reports_its_own_spans(tmp_path: Path) -> None:
    """It has no client span of ours too, and what it calls stands below its own."""
    front, back = free_ports(2)
    command = shell(
        f"{sys.executable} {SERVICES}/front_instrumented.py {front} {back} {tmp_path}/sdk",
        _backend(back, tmp_path / "log"),
    )
    with Traced(tmp_path / "agent", command) as agent:
        wait_for(lambda: listening(front) and listening(back), "the services")
        _get(front, "/id/with", CARRIERS["traceparent"])
        drive(front, [f"/id/{i}" for i in range(40)], concurrency=4)
        result = agent.finish()
    result.check_ledger()
    own = {entry["path"]: entry for entry in log_entries(tmp_path / "sdk")}
    assert len(own) == 41
    assert result.dropped == {"reported_by_process": 41}
    assert result.client() == []
    served = {s.path: s for s in result.server("backend")}
    assert served.keys() == own.keys()
    for path, span in served.items():
        assert (span.trace_id, span.parent_id) == (own[path]["trace_id"], own[path]["span_id"])
        assert span.link == "header"
    incoming = {s.path: s for s in result.server("front_instrumented")}
    assert incoming.keys() == own.keys()
    assert (incoming["/id/with"].trace_id, incoming["/id/with"].parent_id) == (TRACE, SPAN)
