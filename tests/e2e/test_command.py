"""A command under the agent: its output, its exit code and its signals are its own."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from harness import (
    Traced,
    cli,
    wait_for,
)


def _run(tmp_path: Path, *command: str) -> subprocess.CompletedProcess[str]:
    quiet = ("--metrics-port", "0", "--console", "off", "--runtime-dir", str(tmp_path))
    return cli("run", *quiet, "--", *command)


@pytest.mark.parametrize(
    ("script", "code"),
    [("exit 0", 0), ("exit 7", 7), ("kill -KILL $$", 128 + 9), ("kill -TERM $$", 128 + 15)],
)
def test_the_exit_code_is_the_commands(tmp_path: Path, script: str, code: int) -> None:
    ended = _run(tmp_path, "sh", "-c", f"echo out; echo err >&2; {script}")
    assert ended.returncode == code
    assert ended.stdout == "out\n"
    assert "err\n" in ended.stderr


@pytest.mark.parametrize("name", ["SIGTERM", "SIGINT", "SIGHUP", "SIGUSR1"])
def test_signals_are_passed_on(tmp_path: Path, name: str) -> None:
    ready = tmp_path / "ready"
    trap = f"trap 'echo got {name}; exit 5' {name.removeprefix('SIG')}"
    script = f"{trap}; touch {ready}; while :; do sleep 0.05; done"
    with Traced(tmp_path / "agent", ["sh", "-c", script]) as agent:
        wait_for(ready.exists, "the command to be ready")
        agent.process.send_signal(getattr(signal, name))
        assert agent.process.wait(20) == 5
    assert agent.said().count(f"got {name}") == 1
    assert "exchanges: seen 0 = emitted 0 + dropped 0; in flight 0" in agent.said()


def test_the_agent_stands_back_and_the_command_does_not(tmp_path: Path) -> None:
    command = "import os; print(os.nice(0), os.getpriority(os.PRIO_PROCESS, os.getppid()))"
    ended = _run(tmp_path, sys.executable, "-c", command)
    own = os.getpriority(os.PRIO_PROCESS, 0)
    assert ended.stdout == f"{own} {max(own, 5)}\n"


def test_the_agent_may_open_more_files_and_the_command_may_not(tmp_path: Path) -> None:
    """A shell's usual limit is less than the probes of many programs need."""
    command = (
        "import os, resource as r; [print(r.prlimit(pid, r.RLIMIT_NOFILE)) for pid in (0, os.getppid())]"
    )
    quiet = ("--metrics-port", "0", "--console", "off", "--runtime-dir", str(tmp_path))
    ended = cli("run", *quiet, "--", sys.executable, "-c", command, before=("prlimit", "--nofile=30:5000"))
    assert ended.stdout == "(30, 5000)\n(5000, 5000)\n", ended.stderr
