"""What `python -m bench.vm` runs in its guest: one flavour, measured by a clock that counts instructions.

A virtual nanosecond is half an instruction (`-icount shift=1`), so every CPU time here is a number of
instructions. What is measured is read and run once before, for while the guest waits for a file its clock races.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from pathlib import Path

from autotrace.errors import AutotraceError
from bench.figures import Figures
from bench.keepalive import Plain, Traced, bpf_statistics, pair, traced_run
from bench.programs import BenchError, Nginx, file_server, otlp_sink

_NS_PER_INSTRUCTION = 2
_INSTRUCTIONS_PER_US = 1e3 / _NS_PER_INSTRUCTION
_INSTRUCTIONS_PER_SECOND = 1e9 / _NS_PER_INSTRUCTION
_WARM_UP_SECONDS = 1


def main() -> int:
    options = _options()
    figures = Figures()
    # In memory: what is written must not wait for another machine.
    with tempfile.TemporaryDirectory(prefix="autotrace-bench-", dir="/dev/shm") as directory:
        try:
            _measure(figures, Path(directory), options)
        except (BenchError, AutotraceError) as error:
            print(f"Error: {error}", file=sys.stderr)
            return 1
    Path(options.samples).write_text(json.dumps(figures.samples()))
    return 0


def _measure(figures: Figures, directory: Path, options: argparse.Namespace) -> None:
    flavour, runs, seconds = options.flavour, options.runs, options.seconds
    hooks = ["--hooks", flavour]
    with file_server(directory) as nginx:
        pair(0, directory, nginx, _WARM_UP_SECONDS, hooks)
        for run in range(runs):
            plain, traced = pair(run, directory, nginx, seconds, hooks)
            _add_pair(figures, flavour, plain, traced)
            _say(f"pair {run + 1} of {runs}: {_speeds(plain, traced)}")
        for run in range(options.bpf_runs):
            with bpf_statistics():
                _add_bpf(figures, flavour, traced_run(directory, nginx, seconds, hooks))
            _say(f"run {run + 1} of {options.bpf_runs} with the kernel's BPF statistics")
        for run in range(options.otlp_runs):
            plain, traced, receiver_seconds = _otlp_pair(run, directory, nginx, seconds, hooks)
            _add_otlp(figures, flavour, plain, traced, receiver_seconds)
            _say(f"pair {run + 1} of {options.otlp_runs} with OTLP: {_speeds(plain, traced)}")


def _otlp_pair(
    run: int, directory: Path, nginx: Nginx, seconds: int, hooks: list[str]
) -> tuple[Plain, Traced, float]:
    """A pair whose agent sends spans to a receiver in the guest, and the receiver's CPU time."""
    with otlp_sink(directory / f"otlp-{run}") as sink:
        to_sink = ["--otlp", f"http://127.0.0.1:{sink.port}", "--otlp-protocol", "http/protobuf"]
        plain, traced = pair(run, directory, nginx, seconds, hooks + to_sink)
        return plain, traced, sink.worker_cpu_seconds()


def _speeds(plain: Plain, traced: Traced) -> str:
    without, load = plain.load, traced.plain.load
    return (
        f"{without.rps:.0f} requests/s, {load.rps:.0f} traced; p99 {without.p99_us} us, {load.p99_us} traced"
    )


def _add_pair(figures: Figures, flavour: str, plain: Plain, traced: Traced) -> None:
    load, without, books = traced.plain.load, plain.load, traced.books
    figures.add_all(
        "ratio",
        [
            (f"{flavour}_nginx_rps_ratio", load.rps / without.rps),
            (f"{flavour}_nginx_p50_ratio", load.p50_us / without.p50_us),
            (f"{flavour}_nginx_p99_ratio", load.p99_us / without.p99_us),
            (f"{flavour}_nginx_cpu_ratio", traced.plain.cpu_us / plain.cpu_us),
        ],
    )
    figures.add_all(
        "requests/s", [(f"{flavour}_nginx_rps_without", without.rps), (f"{flavour}_nginx_rps_with", load.rps)]
    )
    figures.add_all(
        "instructions",
        [
            (f"{flavour}_nginx_instructions_per_request_without", plain.cpu_us * _INSTRUCTIONS_PER_US),
            (f"{flavour}_nginx_instructions_per_request_with", traced.plain.cpu_us * _INSTRUCTIONS_PER_US),
            (f"{flavour}_agent_instructions_per_request", _per_request(traced.agent_cpu_seconds, traced)),
        ],
    )
    figures.add_all(
        "ratio",
        [
            (f"{flavour}_agent_after_load_share", traced.agent_cpu_after_load / traced.agent_cpu_seconds),
            (f"{flavour}_spans_share", books.emitted / traced.requests),
            (f"{flavour}_accounted_share", (books.emitted + books.dropped) / traced.requests),
        ],
    )


def _add_bpf(figures: Figures, flavour: str, traced: Traced) -> None:
    instructions = traced.bpf_ns / _NS_PER_INSTRUCTION
    figures.add(f"{flavour}_bpf_runs_per_request", "runs", traced.bpf_runs / traced.requests)
    figures.add(f"{flavour}_bpf_instructions_per_request", "instructions", instructions / traced.requests)


def _add_otlp(figures: Figures, flavour: str, plain: Plain, traced: Traced, receiver_seconds: float) -> None:
    load, without = traced.plain.load, plain.load
    figures.add(f"{flavour}_otlp_nginx_rps_ratio", "ratio", load.rps / without.rps)
    figures.add(f"{flavour}_otlp_nginx_p99_ratio", "ratio", load.p99_us / without.p99_us)
    figures.add_all(
        "instructions",
        [
            (
                f"{flavour}_otlp_agent_instructions_per_request",
                _per_request(traced.agent_cpu_seconds, traced),
            ),
            (f"{flavour}_otlp_receiver_instructions_per_request", _per_request(receiver_seconds, traced)),
        ],
    )
    figures.add(f"{flavour}_otlp_spans_share", "ratio", traced.books.emitted / traced.requests)


def _per_request(cpu_seconds: float, traced: Traced) -> float:
    """Instructions for each of the requests that nginx had, for CPU time in the guest."""
    return cpu_seconds / traced.requests * _INSTRUCTIONS_PER_SECOND


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench.in_guest", description=__doc__)
    parser.add_argument("flavour", help="flavour of the socket hooks")
    parser.add_argument("samples", help="where to write the samples, as JSON")
    parser.add_argument("--runs", type=int, required=True, help="pairs of runs")
    parser.add_argument("--bpf-runs", type=int, required=True, help="runs with the kernel's BPF statistics")
    parser.add_argument("--otlp-runs", type=int, required=True, help="pairs with an agent that sends spans")
    parser.add_argument("--seconds", type=int, required=True, help="length of one load")
    return parser.parse_args()


def _say(text: str) -> None:
    print(f"    {text}", flush=True)


if __name__ == "__main__":
    sys.exit(main())
