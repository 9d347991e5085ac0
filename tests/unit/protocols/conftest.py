"""A stand-in for the streams stage: it makes the calls that the kernel's turn capture leads to."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Iterable
from pathlib import Path
from types import ModuleType

import pytest

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
from autotrace.protocols.base import Parser
from autotrace.protocols.http1 import Http1Parser

Turn = tuple[Direction, bytes]


class Wire:
    """Feeds a parser turn by turn: the first `capture` bytes of each are captured and the rest is counted.

    The n-th byte of the conversation moves at n nanoseconds; `pieces` cuts captured bytes into calls.
    """

    def __init__(
        self, parser: Parser, capture: int = 4096, start: tuple[int, int] = (1000, 77_000_000)
    ) -> None:
        self.parser = parser
        self.capture = capture
        self.ends = list(start)
        self.last_ts = [0, 0]
        self.tails = [b"", b""]
        self.now = 0

    def turn(
        self,
        direction: Direction,
        data: bytes,
        pieces: Callable[[bytes], Iterable[bytes]] = lambda data: [data],
    ) -> list[Message]:
        other = direction.other
        out = self.parser.progress(other, self.ends[other], self.last_ts[other], self.tails[other])
        position = self.ends[direction]
        started = self.now
        for piece in pieces(data[: self.capture]):
            self.now += len(piece)
            out += self.parser.data(direction, position, piece, self.at(self.now))
            position += len(piece)
        self.now = started + len(data)
        self.ends[direction] += len(data)
        self.last_ts[direction] = self.now
        self.tails[direction] = (self.tails[direction] + data)[-8:]
        return out

    def sweep(self) -> list[Message]:
        """What user space does for a turn that has no successor."""
        out: list[Message] = []
        for direction in Direction:
            out += self.parser.progress(
                direction, self.ends[direction], self.last_ts[direction], self.tails[direction]
            )
        return out

    def close(self, orderly: bool = True) -> list[Message]:
        out = self.sweep()
        self.now += 1
        return out + self.parser.close(self.now, orderly)

    @staticmethod
    def at(ts: int) -> Context:
        return Context(ts, 1, 1, 0, 0, 0)


@pytest.fixture(scope="session")
def wire() -> type[Wire]:
    return Wire


@pytest.fixture(scope="session")
def walking() -> ModuleType:
    """The module that stands in for the kernel's frame walker."""
    path = Path(__file__).parents[2] / "fuzz" / "http2_walker.py"
    spec = importlib.util.spec_from_file_location("http2_walker", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def _word(message: Message) -> str:
    match message:
        case Request():
            return f"{message.method} {message.target}{' ...' if message.truncated else ''}"
        case Response():
            return f"{message.status}{' ...' if message.truncated else ''}"
        case MessageEnd():
            return f"{message.direction.name} end {message.body_size}{'' if message.complete else ' broken'}"
        case ProtocolError():
            return f"{message.direction.name} {message.reason}"
        case Switched():
            return f"now {message.protocol}"


@pytest.fixture(scope="session")
def short() -> Callable[[list[Message]], list[str]]:
    """One word per message: easy to compare, and to read when a comparison fails."""
    return lambda messages: [_word(message) for message in messages]


@pytest.fixture(scope="session")
def converse(short: Callable[[list[Message]], list[str]]) -> Callable[..., list[str]]:
    """Hold a conversation of HTTP/1.1 turn by turn; what the parser made of it, in words."""

    def hold(*turns: Turn, capture: int = 4096, close: bool = False, orderly: bool = True) -> list[str]:
        connection = Wire(Http1Parser(), capture)
        out: list[Message] = []
        for direction, data in turns:
            out += connection.turn(direction, data)
        out += connection.close(orderly) if close else connection.sweep()
        return short(out)

    return hold
