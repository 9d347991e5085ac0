"""The user side alone: how many exchanges a second one core takes from the kernel's record to OTLP bytes."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from autotrace.discovery.processes import from_dict
from autotrace.discovery.table import ProcessTable
from autotrace.export.otlp_encode import TraceEncoder
from autotrace.kernel.decode import decode
from autotrace.ledger import Ledger
from autotrace.metrics import RedMetrics
from autotrace.model import Span
from autotrace.pipeline import Pipeline
from autotrace.recording import Entry, Kind, read
from bench import conversations, grpc_conversations
from bench.figures import Figures

_BATCH = 512
"""Spans in one OTLP request, as the exporters' queue makes them."""


class Replayed(NamedTuple):
    """What one replay took: seconds of CPU time, exchanges, and bytes of OTLP."""

    seconds: float
    exchanges: int
    otlp_bytes: int


class _Encoding:
    """Takes spans and encodes them in batches, as the OTLP exporter does."""

    def __init__(self) -> None:
        self._encoder = TraceEncoder()
        self._batch: list[Span] = []
        self.size = 0

    def take(self, span: Span) -> None:
        self._batch.append(span)
        if len(self._batch) == _BATCH:
            self.flush()

    def flush(self) -> None:
        self.size += len(self._encoder.encode(self._batch).SerializeToString())
        self._batch.clear()


def measure(figures: Figures, path: Path, requests: int, runs: int, say: Callable[[str], None]) -> None:
    """Exchanges a second of HTTP/1.1 and of gRPC, with and without making OTLP of the spans. The first replay of
    each is not counted."""
    for protocol, write in (
        ("http1", conversations.write_recording),
        ("grpc", grpc_conversations.write_recording),
    ):
        exchanges = write(path, requests)
        entries = load(path)
        say(f"{protocol}: recording of {exchanges} exchanges")
        replay(entries, encode=True)
        for run in range(runs):
            spans = replay(entries, encode=False)
            whole = replay(entries, encode=True)
            figures.add(f"replay_{protocol}_exchanges_per_s", "exchanges/s", whole.exchanges / whole.seconds)
            figures.add(f"replay_{protocol}_spans_per_s", "exchanges/s", spans.exchanges / spans.seconds)
            say(f"run {run + 1} of {runs}: {whole.exchanges / whole.seconds:.0f} exchanges/s")


def load(path: Path) -> list[Entry]:
    """The entries of a recording, read before any clock runs."""
    return list(read(path))


def replay(entries: list[Entry], encode: bool) -> Replayed:
    """Replay a recording once: decode every record, and with `encode` make OTLP requests of the spans.

    Raises ValueError if not every exchange of the recording became a span.
    """
    ledger = Ledger()
    processes = ProcessTable(lambda _pid: None)
    encoding = _Encoding()
    emit: Callable[[Span], object] = encoding.take if encode else lambda _span: None
    meta = entries[0].json()
    pipeline = Pipeline(
        process_of=processes.get,
        emit=emit,
        stop_capture=lambda _connection: None,
        forget=lambda _connection: None,
        ledger=ledger,
        metrics=RedMetrics(ledger),
        host=str(meta["host"]).encode(),
        wall_offset_ns=int(meta["wall_offset_ns"]),
        exchange_timeout_ns=60 * 1_000_000_000,
        route_limit=200,
    )
    record = Kind.RECORD  # a look-up in an enumeration costs what no agent pays
    began = time.process_time()
    for kind, payload in entries:
        if kind is record:
            pipeline.event(decode(payload))
        elif kind is Kind.PROCESS:
            processes.add(from_dict(Entry(kind, payload).json()))
        elif kind is Kind.TICK:
            pipeline.tick(Entry(kind, payload).tick())
    if encode:
        encoding.flush()
    seconds = time.process_time() - began
    books = ledger.snapshot()["exchanges"]
    if books["seen"] != books["emitted"] or not books["seen"]:
        raise ValueError(f"the replay did not make a span of every exchange: {books}")
    return Replayed(seconds, books["seen"], encoding.size)
