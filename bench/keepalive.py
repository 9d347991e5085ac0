"""What the agent costs nginx at saturation: a 1 kB file over 8 keep-alive connections, with and without it.

Runs with and without the agent come in pairs, in alternating order, so that what else the machine does meets
both. A ratio is that of one pair.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from autotrace.kernel.libbpf import Libbpf, errno_name
from bench.figures import Figures
from bench.programs import Agent, BenchError, Books, Load, Nginx, file_server, otlp_sink, wrk

_WARM_UP_SECONDS = 1
_SETTLE_SECONDS = 0.5
_SETTLED_SHARE = 0.1
_SETTLES = 40
"""After a load the agent works off what waits in its ring, until it uses less than a tenth of a CPU."""

_BPF_STATS_RUN_TIME = 0
"""BPF_STATS_RUN_TIME of enum bpf_stats_type (include/uapi/linux/bpf.h)."""


class Plain(NamedTuple):
    """nginx under load. `cpu_us` is the worker's CPU time for a request, in microseconds."""

    load: Load
    cpu_us: float


class Traced(NamedTuple):
    """The same with an agent. `requests` is how many nginx had meanwhile, by its own count.

    `agent_cpu_after_load` is the part of the agent's CPU time that came when the load was over.
    """

    plain: Plain
    agent_cpu_seconds: float
    agent_cpu_after_load: float
    books: Books
    requests: int
    bpf_runs: int
    bpf_ns: int


def measure_pairs(
    figures: Figures, directory: Path, runs: int, seconds: int, say: Callable[[str], None]
) -> None:
    """The figures of an agent that serves /metrics."""
    with file_server(directory) as nginx:
        for run in range(runs):
            plain, traced = pair(run, directory, nginx, seconds, [])
            add_ratios(figures, "nginx_keepalive", plain, traced.plain)
            figures.add("nginx_keepalive_rps_without", "requests/s", plain.load.rps)
            figures.add("nginx_keepalive_rps_with", "requests/s", traced.plain.load.rps)
            figures.add("nginx_cpu_us_per_request_without", "us", plain.cpu_us)
            figures.add("nginx_cpu_us_per_request_with", "us", traced.plain.cpu_us)
            figures.add("nginx_keepalive_cpu_ratio", "ratio", traced.plain.cpu_us / plain.cpu_us)
            add_accounts(figures, traced)
            say(
                f"pair {run + 1} of {runs}: {plain.load.rps:.0f} requests/s, {traced.plain.load.rps:.0f} traced"
            )


def measure_otlp_pairs(
    figures: Figures, directory: Path, runs: int, seconds: int, say: Callable[[str], None]
) -> None:
    """The ratios of an agent that sends every span by OTLP to a receiver on this machine too."""
    with file_server(directory) as nginx, otlp_sink(directory) as sink:
        options = ["--otlp", f"http://127.0.0.1:{sink.port}", "--otlp-protocol", "http/protobuf"]
        for run in range(runs):
            plain, traced = pair(run, directory, nginx, seconds, options)
            add_ratios(figures, "nginx_otlp", plain, traced.plain)
            say(
                f"pair {run + 1} of {runs}: {plain.load.rps:.0f} requests/s, {traced.plain.load.rps:.0f} traced"
            )


def measure_bpf(
    figures: Figures, directory: Path, runs: int, seconds: int, say: Callable[[str], None]
) -> None:
    """Runs and time of the BPF programs, by the kernel's own statistics, which slow everything else down.

    wrk is not watched, but its system calls run the programs too, which return at once: they are in the figures.
    """
    with file_server(directory) as nginx:
        for run in range(runs):
            with bpf_statistics():
                traced = traced_run(directory, nginx, seconds, [])
            figures.add("bpf_runs_per_request", "runs", traced.bpf_runs / traced.requests)
            figures.add("bpf_us_per_request", "us", traced.bpf_ns / traced.requests / 1e3)
            say(
                f"run {run + 1} of {runs}: {traced.bpf_runs / traced.requests:.2f} BPF program runs a request"
            )


@contextmanager
def bpf_statistics() -> Iterator[None]:
    """The kernel counts the runs of BPF programs and their time. Raises BenchError if it does not."""
    statistics = Libbpf().bpf_enable_stats(_BPF_STATS_RUN_TIME)
    if statistics < 0:
        raise BenchError(f"The kernel's BPF statistics cannot be switched on: {errno_name(statistics)}")
    try:
        yield
    finally:
        os.close(statistics)


def pair(run: int, directory: Path, nginx: Nginx, seconds: int, options: list[str]) -> tuple[Plain, Traced]:
    if run % 2:
        traced = traced_run(directory, nginx, seconds, options)
        return plain_run(directory, nginx, seconds), traced
    return plain_run(directory, nginx, seconds), traced_run(directory, nginx, seconds, options)


def plain_run(directory: Path, nginx: Nginx, seconds: int) -> Plain:
    """Load on nginx, after a short one that is not measured. Raises BenchError."""
    wrk(directory, nginx.port, _WARM_UP_SECONDS)
    cpu, requests = nginx.worker_cpu_seconds(), nginx.requests()
    load = wrk(directory, nginx.port, seconds)
    used = nginx.worker_cpu_seconds() - cpu
    return Plain(load, used / (nginx.requests() - requests) * 1e6)


def traced_run(directory: Path, nginx: Nginx, seconds: int, options: list[str]) -> Traced:
    """Load on nginx while an agent watches it. Raises BenchError."""
    with Agent(directory, ["--pid", str(nginx.pid), *options]) as agent:
        before = nginx.requests() - 1  # the question itself is a request that the agent sees
        runs_before, ns_before = agent.bpf_statistics()
        cpu = agent.cpu_seconds()
        plain = plain_run(directory, nginx, seconds)
        under_load = agent.cpu_seconds() - cpu
        settle(agent)
        used = agent.cpu_seconds() - cpu
        requests = nginx.requests() - before
        runs, ns = agent.bpf_statistics()
        books = agent.stop()
        return Traced(plain, used, used - under_load, books, requests, runs - runs_before, ns - ns_before)


def settle(agent: Agent) -> None:
    """Wait until the agent has worked off what waits in its ring. Raises BenchError."""
    for _ in range(_SETTLES):
        before = agent.cpu_seconds()
        time.sleep(_SETTLE_SECONDS)
        if agent.cpu_seconds() - before < _SETTLED_SHARE * _SETTLE_SECONDS:
            return
    raise BenchError(f"The agent was still busy {_SETTLES * _SETTLE_SECONDS:g} seconds after the load.")


def add_ratios(figures: Figures, name: str, plain: Plain, traced: Plain) -> None:
    """Add what became of throughput and latency, as ratios of one pair."""
    figures.add(f"{name}_rps_ratio", "ratio", traced.load.rps / plain.load.rps)
    figures.add(f"{name}_p50_ratio", "ratio", traced.load.p50_us / plain.load.p50_us)
    figures.add(f"{name}_p99_ratio", "ratio", traced.load.p99_us / plain.load.p99_us)


def add_accounts(figures: Figures, traced: Traced) -> None:
    books = traced.books
    figures.add("agent_cpu_us_per_exchange", "us", traced.agent_cpu_seconds / books.emitted * 1e6)
    figures.add("spans_share", "ratio", (books.emitted + books.dropped) / traced.requests)
    figures.add("spans_emitted_share", "ratio", books.emitted / traced.requests)
