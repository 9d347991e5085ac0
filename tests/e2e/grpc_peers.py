"""Runs a gRPC server and a client of it under the agent: services/grpc_peer.py says what they do."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from harness import SERVICES, Result
from pairs import run_pair

PYTHON = f"{sys.executable} {SERVICES}/grpc_peer.py"
CALLS, AT_ONCE = 350, 100


def build_go(directory: Path) -> str:
    """The program of services/gogrpc; the test is skipped if its modules cannot be had."""
    go = shutil.which("go") or "/usr/local/go/bin/go"
    if not Path(go).exists():
        pytest.skip("needs Go")
    program = directory / "gogrpc"
    command = [go, "build", "-o", str(program), "."]
    environment = {**os.environ, "CGO_ENABLED": "0"}
    built = subprocess.run(
        command, cwd=SERVICES / "gogrpc", env=environment, capture_output=True, text=True, timeout=280
    )
    if built.returncode and "dial tcp" in built.stderr:
        pytest.skip("the Go modules of gRPC-Go cannot be downloaded here")
    assert not built.returncode, built.stderr
    return str(program)


def run_calls(
    directory: Path,
    server: str,
    client: str,
    *,
    options: tuple[str, ...] = (),
    kinds: str = "",
    calls: int = CALLS,
    at_once: int = AT_ONCE,
) -> Result:
    """`server` and `client` are commands that lack their PORT and what follows. The agent sees both from their
    start. The logs are server.log and client.log in `directory`."""
    return run_pair(
        directory,
        f"{server} {{port}} {{dir}}/server.log",
        f"{client} {{port}} {{dir}}/client.log {calls} {at_once} {kinds}",
        options,
    )
