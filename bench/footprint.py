"""How fast the agent starts, and how much memory it keeps."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

from bench.figures import Figures
from bench.programs import Agent, file_server, wrk

_EXCHANGES = 100_000
_SLICE_SECONDS = 1
_PAUSE_SECONDS = 0.5


def measure_start(figures: Figures, directory: Path, runs: int, say: Callable[[str], None]) -> None:
    """From executing `autotrace run` to its message that the probes are attached. The first start is not counted:
    it may have to compile the Python files."""
    with file_server(directory) as nginx:
        for run in range(runs + 1):
            with Agent(directory, ["--pid", str(nginx.pid)]) as agent:
                if run:
                    figures.add("agent_start_to_attached_s", "s", agent.started)
                    say(f"start {run} of {runs}: {agent.started:.2f} s")


def measure_memory(figures: Figures, directory: Path, runs: int, say: Callable[[str], None]) -> None:
    """Resident memory of an agent that serves /metrics, after 100,000 exchanges, and how much came with the
    second half of them."""
    for run in range(runs):
        with (
            file_server(directory / f"memory-{run}") as nginx,
            Agent(directory, ["--pid", str(nginx.pid)]) as agent,
        ):
            half = _resident_mb_after(agent, directory, nginx.port, _EXCHANGES // 2)
            whole = _resident_mb_after(agent, directory, nginx.port, _EXCHANGES)
            figures.add("agent_rss_mb_after_100k", "MB", whole)
            figures.add("agent_rss_growth_mb_50k_to_100k", "MB", whole - half)
            say(f"run {run + 1} of {runs}: {whole:.1f} MB")


def _resident_mb_after(agent: Agent, directory: Path, port: int, exchanges: int) -> float:
    while agent.emitted() < exchanges:
        wrk(directory, port, _SLICE_SECONDS)
        time.sleep(_PAUSE_SECONDS)
    return agent.resident_mb()
