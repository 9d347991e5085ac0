"""What must hold of the HTTP/1.1 parser whatever bytes it gets, checked on inputs that a fuzzer makes.

An input is a list of calls: an operation byte (bit 0: direction; bits 1 and 2: see `Operation`), a length
byte, and that many bytes.
"""

from __future__ import annotations

from collections.abc import Iterator
from enum import IntEnum
from typing import NamedTuple

from autotrace.model import (
    Context,
    Direction,
    Message,
    MessageEnd,
    ProtocolError,
    Request,
    Response,
    Switched,
)
from autotrace.protocols.http1 import PIPELINED_MAX, Http1Parser
from autotrace.protocols.http1_head import HEAD_MAX


class Operation(IntEnum):
    DATA = 0
    """Captured bytes that follow what came before."""
    DATA_AFTER_GAP = 1
    """Captured bytes after as many uncaptured ones as the first byte says (times 16)."""
    PROGRESS = 2
    """Counted bytes, as many as the first byte says (times 16); the others are the tail."""
    REPEAT = 3
    """Captured bytes that begin before the end of what came before, by as many as the first byte says."""


class Call(NamedTuple):
    operation: Operation
    direction: Direction
    payload: bytes


def calls(data: bytes) -> Iterator[Call]:
    position = 0
    while position + 2 <= len(data):
        code, length = data[position], data[position + 1]
        payload = data[position + 2 : position + 2 + length]
        position += 2 + length
        yield Call(Operation(code >> 1 & 3), Direction(code & 1), payload)


def encode(*wanted: Call) -> bytes:
    """The input that means these calls; a payload has at most 255 bytes."""
    return b"".join(
        bytes([call.operation << 1 | call.direction, len(call.payload)]) + call.payload for call in wanted
    )


class Conversation:
    """Feeds a parser and checks, message by message, what must hold whatever the bytes are."""

    def __init__(self) -> None:
        self.parser = Http1Parser()
        self.now = 0
        self.ends = [1_000, 5_000_000_000]
        self.start = list(self.ends)
        self.captured: list[dict[int, int]] = [{}, {}]
        self.open: list[Request | Response | None] = [None, None]
        self.last_position = [-1, -1]
        self.requests: Direction | None = None
        self.over = False
        self.messages: list[Message] = []

    def call(self, operation: Operation, direction: Direction, payload: bytes) -> None:
        self.now += 1
        if operation is Operation.DATA:
            self.data(direction, self.ends[direction], payload)
        elif not payload:
            return
        elif operation is Operation.DATA_AFTER_GAP:
            self.data(direction, self.ends[direction] + payload[0] * 16, payload[1:])
        elif operation is Operation.REPEAT:
            self.data(direction, max(self.ends[direction] - payload[0], self.start[direction]), payload[1:])
        else:
            self.ends[direction] += payload[0] * 16
            tail = payload[1:9][: payload[0] * 16]
            self.take(self.parser.progress(direction, self.ends[direction], self.now, tail))

    def data(self, direction: Direction, position: int, data: bytes) -> None:
        captured = self.captured[direction]
        for offset, byte in enumerate(data):
            if position + offset >= self.ends[direction]:
                captured[position + offset] = byte
        if data:
            self.ends[direction] = max(self.ends[direction], position + len(data))
        self.take(self.parser.data(direction, position, data, Context(self.now, 1, 1, 0, 0, 0)))
        for side in self.parser._sides:
            assert len(side.pending) < HEAD_MAX
        assert len(self.parser._waiting) <= PIPELINED_MAX

    def close(self) -> None:
        self.take(self.parser.close(self.now + 1))
        assert self.open == [None, None]
        assert (
            self.parser.data(Direction.RX, self.ends[0], b"GET / HTTP/1.1\r\n\r\n", Context(1, 1, 1, 0, 0, 0))
            == []
        )

    def take(self, messages: list[Message]) -> None:
        self.messages += messages
        for message in messages:
            assert not self.over, "a message after Switched"
            match message:
                case Request() | Response():
                    self.head(message)
                case MessageEnd():
                    head = self.open[message.direction]
                    assert head is not None, "an end without a head"
                    assert head.at.ts <= message.ts <= self.now + 1
                    moved = self.ends[message.direction] - head.position
                    assert message.body_size is None or head.truncated or 0 <= message.body_size < moved
                    self.open[message.direction] = None
                case ProtocolError():
                    assert self.open[message.direction] is None, "an error inside a message"
                    assert message.reason.replace("_", "").isalpha()
                case Switched():
                    assert self.open == [None, None]
                    self.over = True

    def head(self, head: Request | Response) -> None:
        direction = head.direction
        assert self.open[direction] is None, "a head inside a message"
        requests = direction if isinstance(head, Request) else direction.other
        assert self.requests in (None, requests), "the roles changed"
        self.requests = requests
        assert head.position > self.last_position[direction]
        self.last_position[direction] = head.position
        first = head.method.encode() if isinstance(head, Request) else b"HTTP/1."
        there = bytes(self.captured[direction].get(head.position + offset, 0) for offset in range(len(first)))
        assert there == first, "the position is not that of the first byte"
        assert head.at.ts <= self.now
        self.open[direction] = head


def outline(messages: list[Message]) -> list[tuple[object, ...]]:
    """What must not depend on how the bytes were cut into calls."""
    lines: list[tuple[object, ...]] = []
    for message in messages:
        match message:
            case Request():
                lines.append(
                    (message.direction, message.position, message.method, message.target, message.headers)
                )
            case Response():
                lines.append((message.direction, message.position, message.status, message.headers))
            case MessageEnd():
                lines.append((message.direction, message.body_size, message.complete))
            case ProtocolError():
                lines.append((message.direction, "error"))
            case Switched():
                lines.append((message.protocol,))
    return lines


def check(data: bytes) -> list[Message]:
    """Run one input. Raises AssertionError, or whatever the parser raised."""
    whole = Conversation()
    wanted = list(calls(data))
    for call in wanted:
        whole.call(*call)
    whole.close()
    if all(call.operation is Operation.DATA for call in wanted):
        cut = Conversation()
        for call in wanted:
            for index in range(len(call.payload)):
                cut.call(call.operation, call.direction, call.payload[index : index + 1])
        cut.close()
        assert outline(cut.messages) == outline(whole.messages)
    return whole.messages
