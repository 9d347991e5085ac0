"""A redacted record of frames gives the same messages, and holds nothing that no span is made of."""

from __future__ import annotations

from typing import Any

from hpack import Encoder
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from autotrace.model import Direction, Frames, Message, StreamRequest
from autotrace.protocols.http2 import Http2Parser
from autotrace.protocols.http2_redact import Http2Redactor

RX, TX = Direction.RX, Direction.TX
SECRETS = [("cookie", "sEcReT"), ("authorization", "sEcReT"), ("x-own", "sEcReT"), ("grpc-message", "sEcReT")]
RELAXED = settings(max_examples=50, deadline=None, suppress_health_check=[HealthCheck.too_slow])


def without_query(messages: list[Message]) -> list[Message]:
    return [
        message._replace(target=message.target.partition("?")[0])
        if isinstance(message, StreamRequest)
        else message
        for message in messages
    ]


def played(records: list[Frames]) -> list[Message]:
    parser = Http2Parser()
    return [message for record in records for message in parser.frames(record)]


def redacted(records: list[Frames]) -> list[Frames]:
    redactor = Http2Redactor()
    return [record._replace(data=redactor.frames(record), lead=0) for record in records]


@RELAXED
@given(st.data(), st.booleans(), st.booleans())
def test_the_same_messages_and_no_secret(
    walking: Any, data: st.DataObject, joined: bool, huffman: bool
) -> None:
    encoders = {TX: Encoder(), RX: Encoder()}
    walker = walking.Walker(TX, joined)
    said = [] if joined else [(TX, walking.PREFACE + walking.frame(4, 0, 0)), (RX, walking.frame(4, 0, 0))]
    if joined:
        for encoder in encoders.values():
            encoder.encode([(":path", "/old"), *SECRETS])
    for i in range(data.draw(st.integers(1, 6))):
        stream, path = 2 * i + 1, data.draw(st.sampled_from(["/a", "/a?sEcReT", "/old", "/b/" + "c" * 200]))
        secrets = data.draw(st.lists(st.sampled_from(SECRETS), max_size=4, unique=True))
        head = [(":method", "POST"), (":path", path), *secrets, ("traceparent", "00-" + "ab" * 16)]
        block = encoders[TX].encode(head, huffman)
        cut = data.draw(st.integers(0, len(block)))
        said.append((TX, walking.frame(1, 0, stream, block[:cut]) + walking.frame(9, 4, stream, block[cut:])))
        said.append((TX, walking.frame(0, 1, stream, b"\0\0\0\0\3abc")))
        answer = [(":status", data.draw(st.sampled_from(["200", "404"]))), *secrets]
        said.append((RX, walking.frame(1, 4, stream, encoders[RX].encode(answer, huffman))))
        said.append((RX, walking.frame(1, 5, stream, encoders[RX].encode([("grpc-status", "0")], huffman))))
        said.append((RX, walking.frame(7, 0, 0, b"\0\0\0\7\0\0\0\0sEcReT")))
    records = []
    any_lost = False
    for direction, text in said:
        cuts = sorted(data.draw(st.lists(st.integers(0, len(text)), max_size=2)))
        for first, last in zip([0, *cuts], [*cuts, len(text)], strict=True):
            lost = data.draw(st.integers(0, 19)) == 0
            any_lost = any_lost or lost
            record = walker.move(direction, text[first:last], lose=lost)
            if record is not None:
                records.append(record)
    clean = redacted(records)
    messages = played(clean)
    if not any_lost:
        # After a loss, a replay may know less of what could not be told.
        assert messages == without_query(played(records))
    assert b"sEcReT" not in b"".join(record.data for record in clean)
    # Nor as Huffman code, nor through a table: what is decoded has no more than what the parser keeps.
    assert Encoder().encode([("a", "sEcReT")])[-5:] not in b"".join(record.data for record in clean)


@RELAXED
@given(st.lists(st.tuples(st.booleans(), st.binary(max_size=60)), max_size=12))
def test_any_bytes(walking: Any, moves: list[tuple[bool, bytes]]) -> None:
    walker = walking.Walker(TX, joined=True)
    records = [walker.move(TX, data, lose) for lose, data in moves]
    played(redacted([record for record in records if record is not None]))
