"""What the pipeline keeps of HTTP/2 connections: little of an idle one, and no more than is open of a busy one."""

from __future__ import annotations

import gc
import tracemalloc
from collections.abc import Callable, Iterator
from functools import lru_cache
from pathlib import Path

import pipeline_caller
import pytest
from hpack import Encoder
from http2_walker import PREFACE, Walker, frame
from pipeline_caller import hand_over

import autotrace
from autotrace.ledger import Ledger
from autotrace.metrics import RedMetrics
from autotrace.model import ConnectionOpened, Direction, Frames, Process
from autotrace.pipeline import Pipeline
from autotrace.protocols import http2_hpack

RX, TX = Direction.RX, Direction.TX
SERVER = Process(10, "/srv/cart", {"service.name": "cart"}, "go", frozenset())
PACKAGE = Path(autotrace.__file__).parent
"""Not by its name: the folder that it was cloned into often has the same."""

IDLE_MAX = 10 * 1024
STREAM_MAX = 3 * 1024
"""Bytes for an idle connection, and for an open stream."""

WAYS = ("recurring", "paths that differ", "trace headers in the table", "trace headers beside the table")


def opened(number: int) -> ConnectionOpened:
    return ConnectionOpened(1, number, 10, 2, number, 0, 1, "10.0.0.1", 80, "10.0.0.2", number, True, None)


class Client:
    """One connection to the watched server, made before its first call."""

    def __init__(self, pipeline: Pipeline, number: int, way: str) -> None:
        self.pipeline = pipeline
        self.number = number
        self.way = way
        self.walker = Walker(RX)
        self.encoders = Encoder(), Encoder()
        self.stream = -1
        self.records: list[Frames] = []
        hand_over(pipeline, opened(number))
        self.move(RX, PREFACE + frame(4, 0, 0))
        self.move(TX, frame(4, 0, 0))

    def move(self, direction: Direction, data: bytes) -> None:
        record = self.walker.move(direction, data)
        if record is not None:
            self.records.append(record._replace(conn=self.number))
            hand_over(self.pipeline, self.records[-1])

    def ask(self) -> int:
        self.stream += 2
        named = f"{self.number:016x}{self.stream:016x}"
        path = f"/shop.Cart/Get{self.stream:032x}" if self.way == "paths that differ" else "/shop.Cart/Get"
        fields = [
            (":method", "POST"), (":scheme", "http"), (":path", path, self.way == "paths that differ"),
            (":authority", "cart.shop.svc.cluster.local:50051"), ("content-type", "application/grpc"),
            ("user-agent", "grpc-go/1.75.0"), ("te", "trailers"), ("grpc-timeout", "999999u"),
        ]  # fmt: skip
        if self.way.startswith("trace"):
            beside = self.way == "trace headers beside the table"
            fields.append(("traceparent", f"00-{named}-{self.stream:016x}-01", beside))
        head = frame(1, 4, self.stream, self.encoders[RX].encode(fields))
        self.move(RX, head + frame(0, 1, self.stream, b"\0\0\0\0\x05hello"))
        return self.stream

    def answer(self, stream: int) -> None:
        encode = self.encoders[TX].encode
        head = frame(1, 4, stream, encode([(":status", "200"), ("content-type", "application/grpc")]))
        trailers = frame(1, 5, stream, encode([("grpc-status", "0"), ("grpc-message", "")]))
        self.move(TX, head + frame(0, 0, stream, b"\0\0\0\0\x05hello") + trailers)


@pytest.fixture
def pipeline() -> Pipeline:
    ledger = Ledger()
    return Pipeline(
        process_of=lambda _pid: SERVER,
        emit=None,
        stop_capture=lambda _connection: None,
        forget=lambda _connection: None,
        ledger=ledger,
        metrics=RedMetrics(ledger),
        host=b"this host",
        wall_offset_ns=0,
        exchange_timeout_ns=60_000_000_000,
        route_limit=100,
    )


@pytest.fixture
def allocated(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[], int]]:
    """How many bytes the pipeline's stages have allocated for connections.

    Metrics are kept by method, and texts may be shared by connections: neither counts in a connection's favour or
    against it.
    """
    monkeypatch.setattr(http2_hpack, "_short_text", lru_cache(maxsize=64)(http2_hpack._text))
    tracemalloc.start(1)
    stages = [
        tracemalloc.Filter(True, f"{PACKAGE}/*"),
        tracemalloc.Filter(True, pipeline_caller.__file__),
        tracemalloc.Filter(False, f"{PACKAGE}/metrics.py"),
        tracemalloc.Filter(False, f"{PACKAGE}/correlate/*"),
    ]

    def bytes_of_stages() -> int:
        gc.collect()
        traces = tracemalloc.take_snapshot().filter_traces(stages[:2]).filter_traces(stages[2:])
        return sum(one.size for one in traces.statistics("filename"))

    yield bytes_of_stages
    tracemalloc.stop()


@pytest.mark.parametrize("way", WAYS)
def test_an_idle_connection(pipeline: Pipeline, allocated: Callable[[], int], way: str) -> None:
    def use(numbers: range) -> list[Client]:
        clients = [Client(pipeline, number, way) for number in numbers]
        for client in clients:
            for _ in range(60):
                client.answer(client.ask())
        return clients

    kept = use(range(1, 2))  # what is kept of methods
    before = allocated()
    count = 20
    kept += use(range(2, 2 + count))
    each = (allocated() - before) / count
    assert pipeline.connections == len(kept)
    assert each < IDLE_MAX, way


def test_a_hundred_streams_on_each_connection(pipeline: Pipeline, allocated: Callable[[], int]) -> None:
    """Connections share nothing that grows, so a thousand take ten times what these take: 300 MB at most."""
    model = Client(pipeline, 1, "recurring")
    streams = [model.ask() for _ in range(100)]
    asked = model.records[:]
    for stream in streams:
        model.answer(stream)
    answered = model.records[len(asked) :]
    others = range(2, 101)
    before = allocated()
    for number in others:
        hand_over(pipeline, opened(number))
        for record in asked:
            hand_over(pipeline, record._replace(conn=number))
    assert (allocated() - before) / (100 * len(others)) < STREAM_MAX
    for number in others:
        for record in answered:
            hand_over(pipeline, record._replace(conn=number))
    assert (allocated() - before) / len(others) < IDLE_MAX
    assert pipeline.connections == 100
