"""1,000 connections with 100 requests open on each, all at once: every one is told, in bounded memory."""

from __future__ import annotations

import os
import re
import shutil
import sys
from pathlib import Path

import pytest
from harness import SERVICES, Traced, free_ports, listening, log_entries, shell, wait_for

CONNECTIONS, STREAMS = 1000, 100
COUNT = CONNECTIONS * STREAMS
RING = 64 << 20
"""Bytes: no record is lost, however late the agent comes to run."""

RESIDENT_MAX = 700_000_000
"""Bytes, after both ends of all streams were open."""

JOINED_MAX = 65_536
"""Calls that the wire rung remembers at once; those beyond are counted."""


def resident(pid: int) -> int:
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def emitted(agent: Traced) -> int:
    status = agent.status()
    return int(status["ledger"]["exchanges"]["emitted"]) if status else 0


@pytest.mark.skipif(not shutil.which("h2load"), reason="needs h2load (Debian: nghttp2-client)")
def test_all_streams_open_at_once(tmp_path: Path) -> None:
    (port,) = free_ports(1)
    go, done = tmp_path / "go", tmp_path / "done"
    load = f"h2load -n {COUNT} -c {CONNECTIONS} -m {STREAMS} http://127.0.0.1:{port}/held > {tmp_path}/h2load"
    command = shell(
        f"(ulimit -n 4096; exec {sys.executable} {SERVICES}/h2_hold.py {port} {tmp_path}/server.log {COUNT})",
        f"(until [ -e {go} ]; do sleep 0.1; done; ulimit -n 4096; {load}; touch {done}; exec sleep 100)",
    )
    options = ("--ring-size", str(RING), "--json", os.devnull)
    with Traced(tmp_path / "agent", command, options) as agent:
        wait_for(lambda: listening(port), "the server")
        go.touch()
        wait_for(done.exists, "the client")
        wait_for(lambda: emitted(agent) == 2 * COUNT, "all spans")
        kept = resident(agent.process.pid)
        result = agent.finish()
    assert log_entries(tmp_path / "server.log") == [{"requests": COUNT, "connections": CONNECTIONS}]
    assert re.search(rf"status codes: {COUNT} 2xx", (tmp_path / "h2load").read_text())
    assert result.ledger == {"seen": 2 * COUNT, "emitted": 2 * COUNT, "dropped": 0, "in_flight": 0}, (
        result.said
    )
    assert f"correlate: wire_evicted {COUNT - JOINED_MAX}\n" in result.said
    assert kept < RESIDENT_MAX
