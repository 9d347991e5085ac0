"""What must hold of the HTTP/2 parser whatever bytes it gets, checked on inputs that a fuzzer makes.

An input is a list of calls: an operation byte (bit 0: direction; bits 1 and 2: see `Operation`), a length byte, and
that many bytes, which a program moves in one call.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from enum import IntEnum
from pathlib import Path
from types import ModuleType
from typing import NamedTuple

from autotrace.model import (
    Direction,
    GoAway,
    Message,
    ProtocolError,
    StreamEnd,
    StreamGoesOn,
    StreamRequest,
    StreamReset,
    StreamResponse,
)
from autotrace.protocols.http2 import CONTINUATIONS_MAX, HEADER_BLOCK_MAX, STREAMS_MAX, Http2Parser
from autotrace.protocols.http2_frames import PAYLOAD_MAX
from autotrace.protocols.http2_hpack import TABLE_SIZE_MAX

KINDS = (StreamRequest, StreamResponse, StreamEnd, StreamReset, StreamGoesOn, GoAway, ProtocolError)


class Operation(IntEnum):
    MOVE = 0
    """The bytes move."""
    LOSE = 1
    """The bytes move, and the record of it is lost."""
    RAW = 2
    """A record with just these bytes, as a walker that went wrong would make it."""
    LEAD = 3
    """The same, of which the first bytes belong to a frame before: as many as the first byte says."""


class Call(NamedTuple):
    operation: Operation
    direction: Direction
    payload: bytes


def calls(data: bytes) -> Iterator[Call]:
    position = 0
    while position + 2 <= len(data):
        code, length = data[position], data[position + 1]
        yield Call(Operation(code >> 1 & 3), Direction(code & 1), data[position + 2 : position + 2 + length])
        position += 2 + length


def encode(*wanted: Call) -> bytes:
    """The input that means these calls; a payload has at most 255 bytes."""
    return b"".join(
        bytes([call.operation << 1 | call.direction, len(call.payload)]) + call.payload for call in wanted
    )


def walking() -> ModuleType:
    path = Path(__file__).with_name("http2_walker.py")
    spec = importlib.util.spec_from_file_location("http2_walker", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


class Conversation:
    """Feeds a parser and checks, message by message, what must hold whatever the bytes are."""

    def __init__(self, walker: ModuleType) -> None:
        self.parser = Http2Parser()
        self.walker = walker.Walker(Direction.TX, joined=True)
        self.requests: Direction | None = None
        self.messages: list[Message] = []

    def call(self, operation: Operation, direction: Direction, payload: bytes) -> None:
        if operation in (Operation.MOVE, Operation.LOSE):
            record = self.walker.move(direction, payload, operation is Operation.LOSE)
            if record is None:
                return
        else:
            raw = self.walker.sides[direction]
            raw.number += 1
            lead = min(payload[0], len(payload)) if operation is Operation.LEAD and payload else 0
            record = self.walker.record(direction, payload, lead)
        self.take(self.parser.frames(record))

    def take(self, messages: list[Message]) -> None:
        self.messages += messages
        for message in messages:
            assert isinstance(message, KINDS)
            if isinstance(message, StreamRequest):
                assert self.requests in (None, message.direction), "the roles changed"
                self.requests = message.direction
                assert message.stream % 2 == 1
                assert message.method
                assert message.partial or message.target or message.method == "CONNECT"
            elif isinstance(message, StreamResponse):
                assert message.direction is not self.requests, "the roles changed"
                assert message.status == 0 or 100 <= message.status <= 999
            elif isinstance(message, StreamEnd):
                assert message.body_size is None or message.body_size >= 0
        assert len(self.parser._streams) <= STREAMS_MAX
        for side in self.parser._sides:
            assert side.block_size <= HEADER_BLOCK_MAX
            assert len(side.block) <= CONTINUATIONS_MAX
            assert side.reader.held <= PAYLOAD_MAX + 9
            assert side.decoder._size <= TABLE_SIZE_MAX

    def close(self) -> None:
        self.take(self.parser.close(self.walker.now + 1))
        record = self.walker.record(Direction.TX, b"\0\0\0\4\0\0\0\0\0", 0)
        assert self.parser.frames(record) == []


def check(data: bytes) -> list[Message]:
    """Run one input. Raises AssertionError, or whatever the parser raised."""
    conversation = Conversation(walking())
    for call in calls(data):
        conversation.call(*call)
    conversation.close()
    return conversation.messages
