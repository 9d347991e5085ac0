"""OTLP over gRPC and HTTP: spans and metrics arrive, whatever state the backend is in."""

from __future__ import annotations

import sys
from collections import Counter
from pathlib import Path

import pytest
from harness import (
    SERVICES,
    Result,
    Traced,
    drive,
    free_ports,
    listening,
    log_entries,
    running,
    shell,
    wait_for,
)

PROTOCOLS = {"grpc": "grpc", "http": "http/protobuf"}


def _receiver(protocol: str, port: int, log: Path, delay: float = 0) -> list[str]:
    return [sys.executable, str(SERVICES / "otlp_receiver.py"), protocol, str(port), str(log), str(delay)]


def _otlp(protocol: str, port: int) -> tuple[str, ...]:
    return ("--otlp", f"http://127.0.0.1:{port}", "--otlp-protocol", PROTOCOLS[protocol])


def _backend(port: int, tmp_path: Path) -> list[str]:
    return shell(f"{sys.executable} {SERVICES}/backend.py {port} {tmp_path}/log")


def _received(log: Path) -> Counter[tuple[str, str, str, str]]:
    return Counter(
        (span["trace_id"], span["span_id"], span["name"], span["service"])
        for request in (log_entries(log) if log.exists() else [])
        for span in request.get("spans", ())
    )


def _all_of(result: Result) -> Counter[tuple[str, str, str, str]]:
    return Counter((span.trace_id, span.span_id, span.name, span.service) for span in result.spans)


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_otlp(tmp_path: Path, protocol: str) -> None:
    port, otlp = free_ports(2)
    log = tmp_path / "received"
    with (
        running(_receiver(protocol, otlp, log), otlp),
        Traced(tmp_path / "agent", _backend(port, tmp_path), _otlp(protocol, otlp)) as agent,
    ):
        wait_for(lambda: listening(port), "the backend")
        drive(port, [f"/status/{(200, 503)[i % 2]}/{i}" for i in range(120)], concurrency=4)
        result = agent.finish()
    result.check_ledger()
    assert len(result.spans) == 120
    assert _received(log) == _all_of(result)
    assert result.exported("otlp") == {"accepted": 120, "sent": 120}
    metrics = [name for request in log_entries(log) for name in request.get("metrics", ())]
    assert "http.server.request.duration" in metrics


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_a_backend_that_comes_later(tmp_path: Path, protocol: str) -> None:
    port, otlp = free_ports(2)
    log = tmp_path / "received"
    with Traced(tmp_path / "agent", _backend(port, tmp_path), _otlp(protocol, otlp)) as agent:
        wait_for(lambda: listening(port), "the backend")
        drive(port, [f"/id/{i}" for i in range(50)])
        wait_for(lambda: "cannot send traces" in agent.said(), "the agent to find no receiver")
        drive(port, [f"/id/{i}" for i in range(50, 100)])
        with running(_receiver(protocol, otlp, log), otlp):
            wait_for(lambda: _received(log).total() == 100, "all spans to be received", 25)
            drive(port, [f"/id/{i}" for i in range(100, 150)])
            result = agent.finish()
    result.check_ledger()
    assert _received(log) == _all_of(result)
    assert result.exported("otlp") == {"accepted": 150, "sent": 150}
    assert result.said.count("cannot send traces") == 1
    assert "Traceback" not in result.said


def test_a_backend_that_never_comes(tmp_path: Path) -> None:
    port, otlp = free_ports(2)
    with Traced(tmp_path / "agent", _backend(port, tmp_path), _otlp("grpc", otlp)) as agent:
        wait_for(lambda: listening(port), "the backend")
        drive(port, [f"/id/{i}" for i in range(50)])
        result = agent.finish()
    result.check_ledger()
    assert result.code == 0
    assert result.exported("otlp") == {"accepted": 50, "backend_unreachable": 50}


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_a_slow_backend_delays_nothing_else(tmp_path: Path, protocol: str) -> None:
    port, otlp = free_ports(2)
    log = tmp_path / "received"
    with (
        running(_receiver(protocol, otlp, log, delay=2), otlp),
        Traced(tmp_path / "agent", _backend(port, tmp_path), _otlp(protocol, otlp)) as agent,
    ):
        wait_for(lambda: listening(port), "the backend")
        for burst in range(2):
            drive(port, [f"/id/{burst}x{i}" for i in range(400)], concurrency=4)
            # The other exporter has them all while the receiver is still at its first answer.
            wait_for(
                lambda burst=burst: (
                    agent.json.exists() and agent.json.read_text().count('"spanId"') == 400 * (burst + 1)
                ),
                "the spans of a burst in the file",
                2.5,
            )
        result = agent.finish()
    result.check_ledger()
    assert len(result.spans) == 800
    account = result.exported("otlp")
    assert account.pop("accepted") == sum(account.values()) == 800
    assert "queued" not in account
