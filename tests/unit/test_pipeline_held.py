"""Spans at and below a call whose parent shows late: they wait, and then have their place."""

from __future__ import annotations

import itertools

import pytest

from autotrace import pipeline as pipeline_module
from autotrace.correlate.answers import WAIT_NS
from autotrace.correlate.streams import SURE_AFTER_READS
from autotrace.ledger import Ledger
from autotrace.metrics import RedMetrics
from autotrace.model import (
    ConnectionOpened,
    Context,
    Direction,
    Frames,
    FramesOrigin,
    Process,
    ProcessExited,
    Role,
    Span,
)
from autotrace.pipeline import Pipeline

RX, TX = Direction.RX, Direction.TX
POOL, BACKEND = 10, 20
HELPER = 99
RUNGS = {POOL: frozenset({"thread", "stream-thread", "answer"}), BACKEND: frozenset({"thread"})}
END_STREAM_END_HEADERS = 5
GET = b"\x82\x84\x86"  # RFC 7541 appendix A: GET, /, http
OK = b"\x88"


def head(stream: int, block: bytes) -> bytes:
    return len(block).to_bytes(3) + bytes([1, END_STREAM_END_HEADERS]) + stream.to_bytes(4) + block


class Host:
    """A gRPC-like server with a pool of threads, and the backend that it calls, both on this host."""

    def __init__(self) -> None:
        self.clock = itertools.count(1_000_000)
        self.ledger = Ledger()
        self.spans: list[Span] = []
        self.pipeline = Pipeline(
            process_of=lambda pid: Process(
                pid, "", {"service.name": str(pid)}, rungs=RUNGS.get(pid, frozenset())
            ),
            emit=self.spans.append,
            stop_capture=lambda connection: None,
            forget=lambda connection: None,
            ledger=self.ledger,
            metrics=RedMetrics(self.ledger),
            host=b"this host",
            wall_offset_ns=0,
            exchange_timeout_ns=60_000_000_000,
            route_limit=100,
        )
        self.numbers: dict[tuple[int, Direction], int] = {}
        self.streams = itertools.count(1, 2)
        self.open(1, POOL, 50051, 40000)
        self.open(2, POOL, 40001, 50052)
        self.open(3, BACKEND, 50052, 40001)
        for _ in range(SURE_AFTER_READS + 1):
            stream = next(self.streams)
            self.request(stream)
            self.answer(stream, tid=5, task=1)
        self.spans.clear()

    def open(self, conn: int, pid: int, local: int, remote: int) -> None:
        ends = ("127.0.0.1", local, "127.0.0.1", remote)
        self.pipeline.event(ConnectionOpened(next(self.clock), conn, pid, 2, conn, 0, 1, *ends, True, None))

    def frames(self, conn: int, pid: int, direction: Direction, data: bytes, tid: int, task: int = 0) -> None:
        number = self.numbers[conn, direction] = self.numbers.get((conn, direction), 0) + 1
        at = Context(next(self.clock), pid, tid, task, 1, 0)
        origin = FramesOrigin.START if number == 1 else FramesOrigin.FOLLOWS
        self.pipeline.event(Frames(conn, direction, number, 100 * number, data, 0, origin, at))

    def request(self, stream: int) -> None:
        self.frames(1, POOL, RX, head(stream, GET), HELPER)

    def answer(self, stream: int, tid: int, task: int) -> None:
        self.frames(1, POOL, TX, head(stream, OK), tid, task)

    def call(self, stream: int, tid: int, task: int) -> None:
        """A call from its request to its answer, at both ends."""
        self.frames(2, POOL, TX, head(stream, GET), tid, task)
        self.frames(3, BACKEND, RX, head(stream, GET), 70)
        self.frames(3, BACKEND, TX, head(stream, OK), 70)
        self.frames(2, POOL, RX, head(stream, OK), HELPER)

    def in_flight(self) -> int:
        return int(self.ledger.snapshot()["exchanges"]["in_flight"])


@pytest.fixture
def host() -> Host:
    host = Host()
    host.request(101)
    host.request(103)
    host.call(1, tid=1, task=11)
    assert not host.spans
    assert host.in_flight() == 4
    return host


def test_held_spans_come_with_their_place(host: Host) -> None:
    host.answer(101, tid=1, task=11)
    server, back, call = host.spans
    assert (server.role, back.role, call.role) == (Role.SERVER, Role.SERVER, Role.CLIENT)
    assert call.parent_span_id == server.span_id
    assert back.parent_span_id == call.span_id
    assert {span.trace_id for span in host.spans} == {server.trace_id}
    assert call.attributes["autotrace.link.method"] == "answer"
    assert call.attributes["autotrace.link.confidence"] == "conditional"
    assert "autotrace.link.candidates" not in call.attributes
    host.answer(103, tid=2, task=22)
    assert host.in_flight() == 0


@pytest.mark.parametrize("end", ["time", "exit", "stop", "full"])
def test_held_spans_come_as_a_trace_of_their_own_if_no_parent_shows(
    host: Host, end: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = next(host.clock)
    if end == "time":
        host.pipeline.tick(now + WAIT_NS)
    elif end == "exit":
        host.pipeline.event(ProcessExited(now, POOL))
        host.pipeline.tick(now + 1_000_000_000)
    elif end == "stop":
        host.pipeline.finish(now)
    else:
        monkeypatch.setattr(pipeline_module, "_HELD_MAX", 2)
        host.frames(2, POOL, TX, head(3, GET), 1, 11)
        host.frames(2, POOL, RX, head(3, OK), HELPER)
    call = next(span for span in host.spans if span.role is Role.CLIENT)
    (back,) = (span for span in host.spans if span.parent_span_id == call.span_id)
    assert back.trace_id == call.trace_id
    assert call.parent_span_id == 0
    assert call.attributes["autotrace.link.method"] == "none"


def test_what_ends_after_the_parent_has_shown_is_in_its_trace(host: Host) -> None:
    host.answer(101, tid=1, task=11)
    host.spans.clear()
    host.request(105)
    host.frames(2, POOL, TX, head(3, GET), 4, 44)
    host.frames(3, BACKEND, RX, head(3, GET), 70)
    host.frames(3, BACKEND, TX, head(3, OK), 70)
    host.frames(2, POOL, RX, head(3, OK), HELPER)
    host.request(107)
    host.frames(2, POOL, TX, head(5, GET), 4, 44)
    host.frames(3, BACKEND, RX, head(5, GET), 70)
    host.frames(2, POOL, RX, head(5, OK), HELPER)
    host.answer(105, tid=4, task=44)
    server = host.spans[0]
    host.frames(3, BACKEND, TX, head(5, OK), 70)
    assert [span.trace_id for span in host.spans] == [server.trace_id] * 5
