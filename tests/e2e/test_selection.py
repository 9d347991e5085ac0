"""Which processes are watched: by port, by executable; never the agent itself."""

from __future__ import annotations

import json
import os
import secrets
import shutil
import subprocess
import sys
import sysconfig
import time
import urllib.request
from pathlib import Path

from harness import (
    SERVICES,
    Traced,
    cli,
    drive,
    free_ports,
    read_spans,
    running,
    wait_for,
)
from kernel_state import entries

from autotrace.discovery.selection import Selection


def _backend(port: int, tmp_path: Path, python: str = sys.executable) -> list[str]:
    return [python, str(SERVICES / "backend.py"), str(port), str(tmp_path / "log")]


def test_by_port_a_server_that_starts_later(tmp_path: Path) -> None:
    port, other = free_ports(2)
    with Traced(tmp_path / "agent", [], ("--port", str(port))) as agent:
        wait_for(agent.status, "the agent")
        assert agent.watched() == set()
        with (
            running(_backend(port, tmp_path), port) as server,
            running(_backend(other, tmp_path / ".."), other) as stranger,
        ):
            wait_for(lambda: server.pid in agent.watched(), "the server to be watched")
            assert stranger.pid not in agent.watched()
            drive(port, [f"/id/{i}" for i in range(40)])
            drive(other, [f"/other/{i}" for i in range(40)])
            result = agent.finish()
    result.check_ledger()
    assert sorted(s.path for s in result.spans) == sorted(f"/id/{i}" for i in range(40))


def test_by_executable_what_starts_before_and_later(tmp_path: Path) -> None:
    first, second, other = free_ports(3)
    name = f"at-e2e-{secrets.token_hex(4)}"
    shutil.copy(Path(sys.executable).resolve(), tmp_path / name)
    python = str(tmp_path / name)
    (tmp_path / "second").mkdir()
    (tmp_path / "other").mkdir()
    with (
        running(_backend(first, tmp_path, python), first),
        Traced(tmp_path / "agent", [], ("--exe", name[:-2] + "*")) as agent,
    ):
        wait_for(lambda: len(agent.watched()) == 1, "the running process to be found")
        with (
            running(_backend(second, tmp_path / "second", python), second),
            running(_backend(other, tmp_path / "other"), other),
        ):
            for port in (first, second, other):
                drive(port, [f"/{port}/{i}" for i in range(20)])
            wait_for(lambda: len(agent.watched()) == 2, "the later process to be shown")
            result = agent.finish()
    result.check_ledger()
    expected = [f"/{port}/{i}" for port in (first, second) for i in range(20)]
    assert sorted(s.path for s in result.spans) == sorted(expected)
    assert {s.service for s in result.spans} == {name}


def test_the_agent_never_watches_itself(tmp_path: Path) -> None:
    """Not if its own port is named, and not if its own executable is."""
    (metrics,) = free_ports(1)
    name = f"at-e2e-{secrets.token_hex(4)}"
    shutil.copy(Path(sys.executable).resolve(), tmp_path / name)
    spans = tmp_path / "spans.jsonl"
    paths = os.pathsep.join([str(Path.cwd()), sysconfig.get_path("purelib"), sysconfig.get_path("platlib")])
    command = [
        *(str(tmp_path / name), "-m", "autotrace.cli", "run", "--exe", name, "--port", str(metrics)),
        *("--metrics-port", str(metrics), "--json", str(spans), "--console", "off"),
        *("--runtime-dir", str(tmp_path / "run")),
    ]
    with subprocess.Popen(command, env={**os.environ, "PYTHONPATH": paths}, start_new_session=True) as agent:
        try:
            wait_for(lambda: (tmp_path / "run" / f"{agent.pid}.sock").exists(), "the agent")
            for _ in range(10):
                urllib.request.urlopen(f"http://127.0.0.1:{metrics}/metrics", timeout=10).read()
                time.sleep(0.25)
            asked = cli("status", "--json", "--runtime-dir", str(tmp_path / "run"))
        finally:
            agent.terminate()
    assert json.loads(asked.stdout)["processes"] == []
    assert json.loads(asked.stdout)["ledger"]["exchanges"]["seen"] == 0
    assert read_spans(spans) == []


def _dead(agent: Traced) -> list[int]:
    """The processes that the kernel side watches and that do not run (any more)."""
    watched = [int(entry["key"]) for entry in entries(agent.process.pid, "watched")]
    return [pid for pid in watched if not Selection().runs(pid)]


def test_programs_that_end_before_they_are_watched(tmp_path: Path) -> None:
    """The kernel side tells of a program that starts; by the time it is selected it may be gone."""
    name = f"at-e2e-{secrets.token_hex(4)}"
    shutil.copy("/bin/true", tmp_path / name)
    with Traced(tmp_path / "agent", [], ("--exe", name)) as agent:
        wait_for(agent.status, "the agent")
        for _ in range(100):
            subprocess.run([str(tmp_path / name)], check=True)
        time.sleep(1)
        assert not _dead(agent)
        agent.finish()


def test_children_that_are_waited_for_late(tmp_path: Path) -> None:
    """A zombie of a server that is selected by its port is not watched again every second."""
    (port,) = free_ports(1)
    program = (
        "import os, socket, sys, time\n"
        f"s = socket.socket(); s.bind(('127.0.0.1', {port})); s.listen()\n"
        "[os._exit(0) for _ in range(20) if not os.fork()]\ntime.sleep(60)\n"
    )
    with Traced(tmp_path / "agent", [], ("--port", str(port))) as agent:
        wait_for(agent.status, "the agent")
        with running([sys.executable, "-c", program], port) as server:
            wait_for(lambda: server.pid in agent.watched(), "the server to be watched")
            time.sleep(1.5)
            assert not _dead(agent)
            agent.finish()
