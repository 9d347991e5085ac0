"""Sequences that RFC 9113 and RFC 7541 forbid: each is told by its reason, and the requests around it are whole."""

from __future__ import annotations

from typing import Any

import pytest
from http2_sequences import FIRST, GET, LAST, SEQUENCES, WHOLE, path

from autotrace.model import Direction, Message, ProtocolError, StreamRequest, StreamReset, StreamResponse
from autotrace.protocols.http2 import STREAMS_MAX, Http2Parser

RX, TX = Direction.RX, Direction.TX


@pytest.mark.parametrize("name", SEQUENCES)
@pytest.mark.parametrize("size", [1 << 20, 1000, 7])
def test_a_forbidden_sequence(walking: Any, name: str, size: int) -> None:
    """`size`: how many bytes each call moves at most."""
    sequence = SEQUENCES[name]
    parser, walker = Http2Parser(), walking.Walker(TX)
    messages: list[Message] = []

    def move(direction: Direction, data: bytes) -> None:
        for at in range(0, len(data), size):
            record = walker.move(direction, data[at : at + size])
            messages.extend(parser.frames(record) if record is not None else [])

    def exchange(stream: int, target: str) -> None:
        move(TX, walking.frame(1, WHOLE, stream, GET[:2] + path(target)))
        move(RX, walking.frame(1, WHOLE, stream, b"\x88"))

    move(TX, walking.PREFACE + walking.frame(4, 0, 0))
    move(RX, walking.frame(4, 0, 0))
    exchange(FIRST, "/before")
    move(TX, sequence.data)
    exchange(LAST, "/after")

    requests = {message.stream: message for message in messages if isinstance(message, StreamRequest)}
    responses = {
        message.stream: message.status for message in messages if isinstance(message, StreamResponse)
    }
    resets = {message.stream for message in messages if isinstance(message, StreamReset)}
    reasons = [message.reason for message in messages if isinstance(message, ProtocolError)]
    assert tuple(sorted(set(reasons))) == tuple(sorted(sequence.reasons))
    assert (requests[FIRST].target, requests[LAST].target) == ("/before", "/after")
    assert responses == {FIRST: 200, LAST: 200}
    assert len(requests) == 2 + sequence.asked
    assert len(resets & set(requests)) == sequence.reset
    assert len(parser._streams) <= min(STREAMS_MAX, sequence.asked)
    assert not any(side.block or side.reader.held for side in parser._sides)
