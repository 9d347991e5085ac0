"""A recording of made-up gRPC traffic: one gRPC-Go service before another, both watched and asked who serves which
call. All calls between two go over one connection, many at once."""

from __future__ import annotations

from pathlib import Path

from hpack import Encoder

from autotrace import abi
from autotrace.discovery.processes import to_dict
from autotrace.model import Process
from autotrace.recording import Recorder
from bench.writer import End, Writer

EXCHANGES_PER_CALL = 3
"""The front's server and client exchange, and the server exchange of the service behind it."""

AT_ONCE = 50
TOGETHER = 5
"""Calls whose frames move in one system call: what was seen of gRPC-Go at saturation, 50 calls at once."""

_FRONT, _BACK = 1001, 1002
_METHODS = 16
_ROUNDS_PER_TICK = 20
_RX, _TX = abi.Direction.RX, abi.Direction.TX
_DOWNSTREAM = End(4096, _FRONT, 8080, 40_000, 1_000_000, 100_000_000)
_UPSTREAM = End(8192, _FRONT, 50_000, 8081, 2_000_000, 200_000_000)
_BEHIND = End(12_288, _BACK, 8081, 50_000, 200_000_000, 2_000_000)

# The goroutines that read and write each connection; those above serve calls.
_DOWNSTREAM_READER, _DOWNSTREAM_WRITER, _UPSTREAM_READER, _UPSTREAM_WRITER = 11, 12, 13, 14
_BEHIND_READER, _BEHIND_WRITER = 21, 22
_FIRST_HANDLER = 1000

_DATA, _HEADERS, SETTINGS = 0, 1, 4
_END_STREAM, _END_HEADERS, _FIRST_BYTES = 0x1, 0x4, 0x40
_REQUEST_SIZE, _RESPONSE_SIZE = 100, 1000


class Headers:
    """The header blocks of one connection, in both directions."""

    def __init__(self, host: str) -> None:
        self._host = host
        self._asked, self._answered = Encoder(), Encoder()

    def call(self, stream: int, path: str) -> bytes:
        """The frames of a call, without what stays in the kernel."""
        block = self._asked.encode(
            [
                (":method", "POST"),
                (":scheme", "http"),
                (":path", path),
                (":authority", self._host),
                ("content-type", "application/grpc"),
                ("user-agent", "grpc-go/1.75.0"),
                ("te", "trailers"),
                ("grpc-timeout", f"{4_999_000 + stream % 1000}u"),
            ]
        )
        head = frame(_HEADERS, _END_HEADERS, stream, block)
        return head + _message(stream, _REQUEST_SIZE, _END_STREAM)

    def answer(self, stream: int) -> bytes:
        """The frames of its response and its trailers."""
        encode = self._answered.encode
        head = encode([(":status", "200"), ("content-type", "application/grpc")])
        trailers = encode([("grpc-status", "0"), ("grpc-message", "")])
        return (
            frame(_HEADERS, _END_HEADERS, stream, head)
            + _message(stream, _RESPONSE_SIZE, 0)
            + frame(_HEADERS, _END_HEADERS | _END_STREAM, stream, trailers)
        )


def write_recording(path: Path, calls: int) -> int:
    """Write a recording of `calls` calls of the front; the number of its exchanges."""
    recorder = Recorder(path, wall_offset_ns=1_700_000_000_000_000_000, host="bench")
    for pid, service in ((_FRONT, "front"), (_BACK, "back")):
        recorder.process(to_dict(process(pid, service)))
    writer = Writer(recorder.record)
    writer.opened(_DOWNSTREAM)
    writer.opened(_BEHIND)
    writer.opened(_UPSTREAM, _DOWNSTREAM.id)
    for end in (_DOWNSTREAM, _UPSTREAM, _BEHIND):
        for direction in (_RX, _TX):
            writer.framed(end, direction, frame(SETTINGS, 0, 0, b""), 0)
    outer, inner = Headers("shop.example:8080"), Headers("back:8081")
    rounds = calls // AT_ONCE
    for number in range(rounds):
        if number % _ROUNDS_PER_TICK == 0:
            recorder.tick(writer.now)
        first = number * AT_ONCE
        together = [range(at, at + TOGETHER) for at in range(first, first + AT_ONCE, TOGETHER)]
        for batch in together:
            _asked(writer, batch, outer, inner)
        for batch in together:
            _answered(writer, batch, outer, inner)
    recorder.tick(writer.now)
    recorder.close()
    return rounds * AT_ONCE * EXCHANGES_PER_CALL


def _asked(writer: Writer, batch: range, outer: Headers, inner: Headers) -> None:
    """Calls of the front and those that it makes for them."""
    streams = [2 * call + 1 for call in batch]
    outer_paths = [f"/shop.Front/Method{call % _METHODS}" for call in batch]
    inner_paths = [f"/shop.Back/Method{call % _METHODS}" for call in batch]
    frames = b"".join(map(outer.call, streams, outer_paths))
    writer.framed(_DOWNSTREAM, _RX, frames, _DOWNSTREAM_READER)
    for stream, path in zip(streams, outer_paths, strict=True):
        handler, reader = _FIRST_HANDLER + stream, _DOWNSTREAM_READER
        writer.claimed(_DOWNSTREAM, _RX, stream, path, reader, handler, reader)
    for stream, path in zip(streams, inner_paths, strict=True):
        handler = _FIRST_HANDLER + stream
        writer.claimed(_UPSTREAM, _TX, stream, path, _UPSTREAM_WRITER, handler, _DOWNSTREAM_READER)
    frames = b"".join(map(inner.call, streams, inner_paths))
    writer.framed(_UPSTREAM, _TX, frames, _UPSTREAM_WRITER)
    writer.framed(_BEHIND, _RX, frames, _BEHIND_READER)
    for stream, path in zip(streams, inner_paths, strict=True):
        handler, reader = _FIRST_HANDLER + stream, _BEHIND_READER
        writer.claimed(_BEHIND, _RX, stream, path, reader, handler, reader)


def _answered(writer: Writer, batch: range, outer: Headers, inner: Headers) -> None:
    streams = [2 * call + 1 for call in batch]
    frames = b"".join(map(inner.answer, streams))
    writer.framed(_BEHIND, _TX, frames, _BEHIND_WRITER)
    writer.framed(_UPSTREAM, _RX, frames, _UPSTREAM_READER)
    writer.framed(_DOWNSTREAM, _TX, b"".join(map(outer.answer, streams)), _DOWNSTREAM_WRITER)


def frame(kind: int, flags: int, stream: int, payload: bytes) -> bytes:
    return len(payload).to_bytes(3) + bytes([kind, flags]) + stream.to_bytes(4) + payload


def _message(stream: int, size: int, flags: int) -> bytes:
    """DATA with one message, of which only the prefix leaves the kernel."""
    prefix = b"\0" + size.to_bytes(4)
    header = (size + len(prefix)).to_bytes(3) + bytes([_DATA, flags | _FIRST_BYTES]) + stream.to_bytes(4)
    return header + prefix


def process(pid: int, service: str) -> Process:
    return Process(
        pid,
        f"/srv/{service}",
        {
            "service.name": service,
            "service.instance.id": f"bench:{pid}",
            "process.pid": pid,
            "process.executable.name": service,
            "process.executable.path": f"/srv/{service}",
            "host.name": "bench",
        },
        runtime="go",
        rungs=frozenset({"goroutine"}),
    )
