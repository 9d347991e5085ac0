"""A Go server that calls another one: exchanges, goroutines, and never a false parent."""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from collections import Counter
from pathlib import Path

import pytest
from harness import SERVICES, Traced, drive, free_ports, listening, log_entries, shell, wait_for

from autotrace.kernel.decode import decode
from autotrace.model import Chunk, Direction
from autotrace.recording import Kind, read

REQUESTS = 1500
CONCURRENCY = 50


def _build(directory: Path) -> tuple[Path, Path]:
    front, back = directory / "gofront", directory / "goback"
    go = shutil.which("go") or "/usr/local/go/bin/go"
    environment = {**os.environ, "CGO_ENABLED": "0", "GO111MODULE": "off"}
    command = [go, "build", "-o", str(front), "main.go"]
    subprocess.run(command, cwd=SERVICES / "gohttp", env=environment, check=True)
    shutil.copy(front, back)
    return front, back


@pytest.mark.parametrize("keep_alive", [True, False])
def test_a_go_service_and_its_backend(tmp_path: Path, keep_alive: bool) -> None:
    front, back = _build(tmp_path)
    front_port, back_port = free_ports(2)
    recording = tmp_path / "recording"
    commands = [
        f"{back} {back_port} {tmp_path}/back.log",
        f"{front} {front_port} {tmp_path}/front.log {back_port}",
    ]
    with Traced(
        tmp_path / "agent", shell(*commands), ("--record", str(recording), "--ring-size", "64MiB")
    ) as agent:
        wait_for(lambda: listening(front_port) and listening(back_port), "the Go services")
        # The first request makes the agent look at the programs; the offset of goid is known from then on.
        assert drive(front_port, ["/call/first"]) == [200]
        time.sleep(0.5)
        paths = [f"/call/{i}" for i in range(REQUESTS)]
        assert set(drive(front_port, paths, CONCURRENCY, keep_alive)) == {200}
        result = agent.finish()
    result.check_ledger()
    assert not result.dropped, result.said
    asked = Counter(["/call/first", *paths])
    for spans, log in (
        (result.server("gofront"), "front.log"),
        (result.client("gofront"), "back.log"),
        (result.server("goback"), "back.log"),
    ):
        assert Counter(span.path for span in spans) == asked
        assert Counter(entry["path"] for entry in log_entries(tmp_path / log)) == asked
        assert {(span.status, span.error) for span in spans} == {(200, False)}
    by_id = {span.span_id: span for span in result.spans}
    assert {span.link for span in result.server("goback")} == {"wire"}
    assert all(by_id[s.parent_id].path == s.path for s in result.spans if s.parent_id), "a false parent"
    _check_goroutines(
        recording, {span.pid for span in result.server("gofront")}, {span.pid for span in result.spans}
    )


def _check_goroutines(recording: Path, front: set[int], all_pids: set[int]) -> None:
    """Every byte moved by a Go program has a goroutine, once the program is known; a connection of a server has one
    goroutine that reads its requests."""
    chunks = [decode(entry.payload) for entry in read(recording) if entry.kind is Kind.RECORD]
    moved = [chunk for chunk in chunks if isinstance(chunk, Chunk) and chunk.at.pid in all_pids]
    known = [chunk for chunk in moved if chunk.at.task]
    assert len(known) >= len(moved) - 8
    readers: dict[int, set[int]] = {}
    for chunk in known:
        if chunk.at.pid in front and chunk.direction is Direction.RX and chunk.data.startswith(b"GET "):
            readers.setdefault(chunk.conn, set()).add(chunk.at.task)
    assert readers
    assert {len(tasks) for tasks in readers.values()} <= {1, 2}, (
        "the connection's goroutine and its background read"
    )
