"""An agent at work: it answers questions, and ends in order."""

from __future__ import annotations

import json
import os
import signal
import sys
from pathlib import Path

import pytest
from harness import (
    SERVICES,
    Traced,
    cli,
    drive,
    free_ports,
    log_entries,
    running,
    wait_for,
)


def _backend(port: int, tmp_path: Path, python: str = sys.executable) -> list[str]:
    return [python, str(SERVICES / "backend.py"), str(port), str(tmp_path / "log")]


def test_status_explain_and_doctor(tmp_path: Path) -> None:
    (port,) = free_ports(1)
    with (
        running(_backend(port, tmp_path), port) as server,
        running(["sleep", "60"]) as stranger,
        Traced(tmp_path / "agent", [], ("--pid", str(server.pid))) as agent,
    ):
        wait_for(lambda: server.pid in agent.watched(), "the agent to watch the server")
        drive(port, [f"/id/{i}" for i in range(50)])
        wait_for(
            lambda: agent.status()["ledger"]["exchanges"]["emitted"] == 50, "the agent to have all spans"
        )
        status = agent.status()
        assert status["pid"] == agent.process.pid
        assert status["memory_bytes"] > 1 << 20
        assert [each["service"] for each in status["processes"]] == ["backend"]
        runtime_dir = ("--runtime-dir", str(agent.runtime_dir))
        shown = cli("status", *runtime_dir).stdout
        assert "seen 50 = emitted 50 + dropped 0" in shown
        assert str(server.pid) in shown
        for process, watching in ((server, [agent.process.pid]), (stranger, [])):
            explained = json.loads(cli("explain", str(process.pid), "--json", *runtime_dir).stdout)
            assert explained["watched_by"] == watching
        assert "by the agent with pid" in cli("explain", str(server.pid), *runtime_dir).stdout
        doctor = cli("doctor", "--json")
        assert doctor.returncode == 0
        assert all(each["ok"] for each in json.loads(doctor.stdout) if each["needed"])
        result = agent.finish()
    assert result.code == 0
    result.check_ledger()
    assert not list(agent.runtime_dir.glob("*"))


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_stop_flushes_everything(tmp_path: Path, number: signal.Signals) -> None:
    (port,) = free_ports(1)
    with (
        running(_backend(port, tmp_path), port) as server,
        Traced(tmp_path / "agent", [], ("--pid", str(server.pid))) as agent,
    ):
        wait_for(lambda: server.pid in agent.watched(), "the agent to watch the server")
        drive(port, [f"/id/{i}" for i in range(300)], concurrency=4, keep_alive=False)
        os.kill(agent.process.pid, number)
        assert agent.process.wait(20) == 0
        result = agent.finish(quiet=0)
        assert server.poll() is None
    result.check_ledger()
    assert sorted(s.path for s in result.spans) == sorted(e["path"] for e in log_entries(tmp_path / "log"))
