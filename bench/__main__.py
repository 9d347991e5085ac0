"""`make bench`, or `python -m bench`: measure, print a table, write build/bench.json. See docs/performance.md."""

from __future__ import annotations

import argparse
import os
import shutil
import sys
import tempfile
import time
from pathlib import Path

from autotrace.errors import AutotraceError
from bench import footprint, grpc, keepalive, open_streams, replay, tls
from bench.figures import Figures
from bench.programs import BenchError

_RESULT = Path(__file__).resolve().parent.parent / "build" / "bench.json"
_GROUPS = ("replay", "streams", "start", "memory", "keepalive", "otlp", "grpc", "bpf", "tls")
_WITHOUT_ROOT = frozenset({"replay", "streams"})
_SOME_RUNS = 3
"""Runs of what repeats well or takes long."""


def main() -> int:
    options = _options()
    groups = options.only or list(_GROUPS)
    if problem := _problem(groups):
        print(f"Error: {problem}", file=sys.stderr)
        return 1
    figures = Figures()
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="autotrace-bench-") as directory:
        try:
            for group in groups:
                print(f"==> {group}", flush=True)
                _measure(group, figures, Path(directory) / group, options)
        except (BenchError, AutotraceError) as error:
            print(f"Error: {error}", file=sys.stderr)
            return 1
    figures.write(_RESULT)
    print(f"\n{figures.table()}\n")
    print(f"{time.monotonic() - began:.0f} s, load average {os.getloadavg()[0]:.2f}; written to {_RESULT}")
    return 0


def _measure(group: str, figures: Figures, directory: Path, options: argparse.Namespace) -> None:
    directory.mkdir()
    runs, seconds, say = options.runs, options.seconds, _say
    if group == "replay":
        replay.measure(figures, directory / "recording.bin", options.requests, runs, say)
    elif group == "streams":
        open_streams.measure(figures, min(runs, _SOME_RUNS), say)
    elif group == "start":
        footprint.measure_start(figures, directory, runs, say)
    elif group == "memory":
        footprint.measure_memory(figures, directory, min(runs, _SOME_RUNS), say)
    elif group == "keepalive":
        keepalive.measure_pairs(figures, directory, runs, seconds, say)
    elif group == "otlp":
        keepalive.measure_otlp_pairs(figures, directory, min(runs, _SOME_RUNS), seconds, say)
    elif group == "grpc":
        grpc.measure(figures, directory, runs, seconds, say)
    elif group == "tls":
        tls.measure_hits(figures, directory, say)
        tls.measure_load(figures, directory, min(runs, _SOME_RUNS), seconds, say)
    else:
        keepalive.measure_bpf(figures, directory, min(runs, _SOME_RUNS), seconds, say)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument(
        "--only", nargs="+", choices=_GROUPS, metavar="GROUP", help=f"any of {', '.join(_GROUPS)}"
    )
    parser.add_argument("--runs", type=int, default=5, help="runs of each measurement (default 5)")
    parser.add_argument("--seconds", type=int, default=3, help="length of one load (default 3)")
    parser.add_argument(
        "--requests", type=int, default=7000, help="requests in the replayed recording, 3 exchanges each"
    )
    return parser.parse_args()


def _problem(groups: list[str]) -> str:
    """Why this cannot be measured here, in one sentence; empty if it can."""
    if set(groups) <= _WITHOUT_ROOT:
        return ""
    if os.geteuid():
        return "tracing needs root: run `sudo make bench`, or `python -m bench --only replay`."
    for program in ("nginx", "wrk"):
        if shutil.which(program) is None:
            return f"{program} is not installed: install the package {program}, or choose --only replay."
    if "grpc" in groups and grpc.go() is None:
        return "Go is not installed, which builds the gRPC pair: install it, or choose groups by --only."
    return ""


def _say(text: str) -> None:
    print(f"    {text}", flush=True)


if __name__ == "__main__":
    sys.exit(main())
