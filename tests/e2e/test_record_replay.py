"""What was recorded gives the same spans again, without root and without the kernel."""

from __future__ import annotations

import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from harness import (
    AUTOTRACE,
    POWERLESS,
    SERVICES,
    SpanRecord,
    Traced,
    drive,
    free_ports,
    listening,
    log_entries,
    nginx_config,
    read_spans,
    running,
    shell,
    wait_for,
)


def _by_id(spans: list[SpanRecord]) -> dict[tuple[str, str], SpanRecord]:
    return {(span.trace_id, span.span_id): span for span in spans}


def _services(tmp_path: Path, front: int, back: int) -> list[str]:
    config = nginx_config(
        tmp_path / "nginx",
        front,
        'location / { proxy_pass http://back; proxy_http_version 1.1; proxy_set_header Connection ""; }',
        f"upstream back {{ server 127.0.0.1:{back}; keepalive 8; }}",
    )
    return shell(f"nginx -c {config}", f"{sys.executable} {SERVICES}/backend.py {back} {tmp_path}/log 10")


@pytest.mark.skipif(not shutil.which("setpriv"), reason="setpriv is not installed")
def test_a_replay_gives_the_spans_of_the_run(tmp_path: Path) -> None:
    front, back = free_ports(2)
    recording, again = tmp_path / "events.bin", tmp_path / "again.jsonl"
    paths = [f"/status/{(200, 404, 503)[i % 3]}/{i}" for i in range(300)]
    with Traced(tmp_path / "agent", _services(tmp_path, front, back), ("--record", str(recording))) as agent:
        wait_for(lambda: listening(front) and listening(back), "nginx and the backend")
        drive(front, paths, concurrency=8)
        result = agent.finish()
    result.check_ledger()
    assert len(result.spans) == 3 * len(paths)
    assert recording.stat().st_mode & 0o077 == 0

    replay = subprocess.run(
        [*POWERLESS, *AUTOTRACE, "replay", str(recording), "--json", str(again), "--console", "off"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert _by_id(read_spans(again)) == _by_id(result.spans)
    said = [line.removeprefix("autotrace: ") for line in result.said.splitlines()]
    assert next(line for line in said if line.startswith("exchanges:")) in replay.stderr.splitlines()


def test_record_saves_events_and_emits_nothing(tmp_path: Path) -> None:
    (port,) = free_ports(1)
    recording, again = tmp_path / "events.bin", tmp_path / "again.jsonl"
    paths = [f"/status/{(200, 404)[i % 2]}/{i}" for i in range(50)]
    server = [sys.executable, str(SERVICES / "backend.py"), str(port), str(tmp_path / "log")]
    with running(server, port) as service:
        recorder = subprocess.Popen(
            [*AUTOTRACE, "record", str(recording), "--pid", str(service.pid), "--runtime-dir", str(tmp_path)],
            stdout=subprocess.PIPE,
        )
        try:
            wait_for(lambda: (tmp_path / f"{recorder.pid}.sock").exists(), "the recorder")
            drive(port, paths, concurrency=4)
            time.sleep(0.3)
        finally:
            recorder.send_signal(signal.SIGINT)
            said, _ = recorder.communicate(timeout=20)
    assert recorder.returncode == 0
    assert said == b""
    subprocess.run(
        [*AUTOTRACE, "replay", str(recording), "--json", str(again)], check=True, capture_output=True
    )
    found = sorted((span.path, span.status) for span in read_spans(again))
    assert found == sorted((entry["path"], entry["status"]) for entry in log_entries(tmp_path / "log"))


def test_a_recording_that_cannot_be_written_on(tmp_path: Path) -> None:
    """A full disk ends the recording with one sentence, not the run."""
    (port,) = free_ports(1)
    command = shell(f"{sys.executable} {SERVICES}/backend.py {port} {tmp_path}/log")
    with Traced(tmp_path / "agent", command, ("--record", "/dev/full")) as agent:
        wait_for(lambda: listening(port), "the backend")
        drive(port, [f"/id/{i}" for i in range(100)])
        wait_for(lambda: "No space left" in agent.said(), "the agent to say so")
        drive(port, [f"/id/{i}" for i in range(100, 200)])
        result = agent.finish()
    result.check_ledger()
    assert len(result.spans) == 200
    (sentence,) = [line for line in result.said.splitlines() if "/dev/full" in line]
    assert "No space left on device" in sentence


def test_record_ends_when_it_cannot_write(tmp_path: Path) -> None:
    (port,) = free_ports(1)
    server = [sys.executable, str(SERVICES / "backend.py"), str(port), str(tmp_path / "log")]
    with running(server, port) as service:
        recorder = subprocess.Popen(
            [*AUTOTRACE, "record", "/dev/full", "--pid", str(service.pid), "--runtime-dir", str(tmp_path)],
            stderr=subprocess.PIPE,
            text=True,
        )
        wait_for(lambda: (tmp_path / f"{recorder.pid}.sock").exists(), "the recorder")
        drive(port, [f"/id/{i}" for i in range(100)])
        _, said = recorder.communicate(timeout=20)
    assert recorder.returncode == 1
    assert "Traceback" not in said
    assert [line for line in said.splitlines() if "No space left on device" in line]
