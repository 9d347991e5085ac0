"""What the agent costs a gRPC-Go server at saturation: unary calls, 50 at once on one connection.

Runs with and without the agent come in pairs, in alternating order, and a ratio is that of one pair.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from bench.figures import Figures
from bench.keepalive import settle
from bench.programs import Agent, BenchError, Books, Load, cpu_seconds, free_port, running

_SOURCES = Path(__file__).parent / "grpc_pair"
_PROGRAM = Path(__file__).resolve().parent.parent / "build" / "bench" / "grpc_pair"
_CONCURRENCY = 50
_PATIENCE = 30.0
"""Seconds that a load may take more than it should."""

_RESULT = re.compile(r"^RESULT (\d+) (\d+) (\d+) (\d+) (\d+) (\d+)$", re.MULTILINE)


class _Server(NamedTuple):
    pid: int
    port: int


class _Plain(NamedTuple):
    """A server under load. `cpu_us` is its CPU time for a call; `calls` are all, those of the warm-up too."""

    load: Load
    cpu_us: float
    calls: int


class _Traced(NamedTuple):
    """The same with an agent that watches the server."""

    plain: _Plain
    agent_cpu_seconds: float
    books: Books


def measure(figures: Figures, directory: Path, runs: int, seconds: int, say: Callable[[str], None]) -> None:
    """The figures of an agent that serves /metrics. Raises BenchError."""
    _build()
    port = free_port()
    with running([str(_PROGRAM), "server", str(port)], port, {}) as pid:
        server = _Server(pid, port)
        for run in range(runs):
            if run % 2:
                traced = _traced_run(directory, server, seconds)
                plain = _plain_run(server, seconds)
            else:
                plain = _plain_run(server, seconds)
                traced = _traced_run(directory, server, seconds)
            _add(figures, plain, traced)
            say(f"pair {run + 1} of {runs}: {plain.load.rps:.0f} calls/s, {traced.plain.load.rps:.0f} traced")


def _add(figures: Figures, plain: _Plain, traced: _Traced) -> None:
    without, under = plain.load, traced.plain.load
    books, calls = traced.books, traced.plain.calls
    ratios = (
        ("grpc_go_rps_ratio", under.rps / without.rps),
        ("grpc_go_p50_ratio", under.p50_us / without.p50_us),
        ("grpc_go_p99_ratio", under.p99_us / without.p99_us),
        ("grpc_go_cpu_ratio", traced.plain.cpu_us / plain.cpu_us),
        ("grpc_go_spans_share", (books.emitted + books.dropped) / calls),
        ("grpc_go_spans_emitted_share", books.emitted / calls),
    )
    figures.add_all("ratio", ratios)
    figures.add_all("calls/s", (("grpc_go_rps_without", without.rps), ("grpc_go_rps_with", under.rps)))
    times = (
        ("grpc_go_cpu_us_per_call_without", plain.cpu_us),
        ("grpc_go_cpu_us_per_call_with", traced.plain.cpu_us),
        ("grpc_agent_cpu_us_per_exchange", traced.agent_cpu_seconds / books.emitted * 1e6),
    )
    figures.add_all("us", times)


def go() -> str | None:
    """Go's compiler, None if there is none."""
    return os.environ.get("GO") or shutil.which("go")


def _build() -> None:
    _PROGRAM.parent.mkdir(parents=True, exist_ok=True)
    command = [go() or "go", "build", "-o", str(_PROGRAM), "."]
    environment = {**os.environ, "CGO_ENABLED": "0"}
    built = subprocess.run(
        command, cwd=_SOURCES, env=environment, capture_output=True, text=True, check=False
    )
    if built.returncode:
        raise BenchError(f"The gRPC pair cannot be built: {built.stderr.strip()}")


def _load(port: int, seconds: int) -> tuple[Load, int]:
    command = [str(_PROGRAM), "client", str(port), str(seconds), str(_CONCURRENCY)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=seconds + _PATIENCE, check=False)
    found = _RESULT.search(done.stdout)
    if found is None:
        raise BenchError(f"The gRPC client gave no result: {done.stdout}{done.stderr}")
    calls, microseconds, p50, p99, failed, everything = map(int, found.groups())
    if failed:
        raise BenchError(f"{failed} of {everything} calls failed")
    return Load(calls, calls / microseconds * 1e6, p50, p99), everything


def _plain_run(server: _Server, seconds: int) -> _Plain:
    cpu = cpu_seconds(server.pid)
    load, calls = _load(server.port, seconds)
    return _Plain(load, (cpu_seconds(server.pid) - cpu) / calls * 1e6, calls)


def _traced_run(directory: Path, server: _Server, seconds: int) -> _Traced:
    with Agent(directory, ["--pid", str(server.pid)]) as agent:
        cpu = agent.cpu_seconds()
        plain = _plain_run(server, seconds)
        settle(agent)
        used = agent.cpu_seconds() - cpu
        return _Traced(plain, used, agent.stop())
