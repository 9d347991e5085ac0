"""What the user side keeps of open gRPC streams: `python -m bench.open_streams CONNECTIONS STREAMS`.

Made-up records of a watched server go through the stages, as in a replay, in a process of its own, for memory is
that of a process. Prints what `Kept` says as JSON.
"""

from __future__ import annotations

import gc
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from autotrace import abi
from autotrace.kernel.decode import decode
from autotrace.ledger import Ledger
from autotrace.metrics import RedMetrics
from autotrace.pipeline import Pipeline
from bench.figures import Figures
from bench.grpc_conversations import SETTINGS, Headers, frame, process
from bench.programs import BenchError
from bench.writer import End, Writer

_CONNECTIONS, _STREAMS = 1000, 100
_WARM = 20
"""Calls of each connection, one after the other, before it counts as idle."""

_PID, _PORT = 1001, 8080
_METHODS = 16
_RX, _TX = abi.Direction.RX, abi.Direction.TX


class Kept(NamedTuple):
    """Resident memory in bytes: with no connection yet, with all of them idle, with all streams open, with all
    ended, with all open and all ended once more, with all connections closed. `exchanges` is the ledger's account,
    `connections` is how many the stages still know at the end."""

    empty: int
    idle: int
    opened: int
    ended: int
    opened_again: int
    ended_again: int
    closed: int
    exchanges: dict[str, int]
    connections: int


def measure(figures: Figures, runs: int, say: Callable[[str], None]) -> None:
    """Memory of 1,000 connections: for one that is idle, and with 100 streams open on each. Raises BenchError."""
    for run in range(runs):
        command = [sys.executable, "-m", "bench.open_streams", str(_CONNECTIONS), str(_STREAMS)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            raise BenchError(f"The streams could not be measured: {done.stderr}")
        kept = Kept(**json.loads(done.stdout))
        figures.add("streams_kib_per_idle_connection", "KiB", (kept.idle - kept.empty) / _CONNECTIONS / 1024)
        figures.add(
            "streams_kib_per_open_stream", "KiB", (kept.opened - kept.idle) / _CONNECTIONS / _STREAMS / 1024
        )
        figures.add("streams_rss_mb_all_open", "MB", kept.opened / 1e6)
        figures.add("streams_rss_growth_mb_second_time", "MB", (kept.opened_again - kept.opened) / 1e6)
        figures.add("streams_rss_mb_all_ended", "MB", kept.ended_again / 1e6)
        say(f"run {run + 1} of {runs}: {kept.opened / 1e6:.0f} MB with all streams open")


def keep(connections: int, streams: int) -> Kept:
    """Open and end so many streams on so many connections, twice. Raises ValueError if a call is missing in the
    ledger."""
    ledger = Ledger()
    server = process(_PID, "server")
    pipeline = Pipeline(
        process_of=lambda _pid: server,
        emit=lambda _span: None,
        stop_capture=lambda _connection: None,
        forget=lambda _connection: None,
        ledger=ledger,
        metrics=RedMetrics(ledger),
        host=b"bench",
        wall_offset_ns=0,
        exchange_timeout_ns=60 * 1_000_000_000,
        route_limit=200,
    )
    writer = Writer(lambda record: pipeline.event(decode(record)))
    # Every connection says the same, so that what is said takes no memory of its own.
    headers, calls = Headers("shop.example:8080"), range(_WARM + 2 * streams)
    asked = [headers.call(2 * call + 1, f"/shop.Front/Method{call % _METHODS}") for call in calls]
    answered = [headers.answer(2 * call + 1) for call in calls]
    ends = [
        End(4096 + number, _PID, _PORT, 1024 + number, 1000, 5_000_000_000) for number in range(connections)
    ]
    memory = [_resident()]
    for end in ends:
        writer.opened(end)
        for direction in (_RX, _TX):
            writer.framed(end, direction, frame(SETTINGS, 0, 0, b""), 0)
        for call in calls[:_WARM]:
            writer.framed(end, _RX, asked[call], 0)
            writer.framed(end, _TX, answered[call], 0)
    memory.append(_resident())
    for first in (_WARM, _WARM + streams):
        for call in calls[first : first + streams]:
            for end in ends:
                writer.framed(end, _RX, asked[call], 0)
        memory.append(_resident())
        for end in ends:
            for call in calls[first : first + streams]:
                writer.framed(end, _TX, answered[call], 0)
        pipeline.tick(writer.now)
        memory.append(_resident())
    for end in ends:
        writer.closed(end)
    memory.append(_resident())
    books = ledger.snapshot()["exchanges"]
    if books["seen"] != connections * (_WARM + 2 * streams):
        raise ValueError(f"calls are missing: {books}")
    empty, idle, opened, ended, opened_again, ended_again, closed = memory
    exchanges = {name: int(books[name]) for name in ("seen", "emitted")}
    return Kept(
        empty, idle, opened, ended, opened_again, ended_again, closed, exchanges, pipeline.connections
    )


def _resident() -> int:
    gc.collect()
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


if __name__ == "__main__":
    print(json.dumps(keep(int(sys.argv[1]), int(sys.argv[2]))._asdict()))
