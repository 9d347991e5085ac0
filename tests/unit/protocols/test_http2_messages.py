"""gRPC's messages are counted over any cut of their bytes into frames and calls: rightly, or not at all."""

from __future__ import annotations

from typing import Any

from hpack import Encoder
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from autotrace.model import Direction, StreamEnd
from autotrace.protocols.http2 import Http2Parser

RX, TX = Direction.RX, Direction.TX
RELAXED = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
HEADERS, DATA = 1, 0
END_STREAM, END_HEADERS, PADDED = 1, 4, 8
REQUEST = [
    (":method", "POST"),
    (":scheme", "http"),
    (":path", "/a.B/C"),
    ("content-type", "application/grpc"),
]
sizes = st.one_of(st.integers(0, 12), st.integers(0, 70_000))
contents = st.sampled_from([b"x", b"\0", b"\1", b"\0\0\0\0\2"])


def cut(data: st.DataObject, text: bytes, most: int) -> list[bytes]:
    """The text in up to `most` + 1 pieces, most of them short."""
    near = st.one_of(st.integers(0, min(len(text), 12)), st.integers(0, len(text)))
    at = sorted(data.draw(st.sets(near, max_size=most)) - {0, len(text)})
    return [text[first:last] for first, last in zip([0, *at], [*at, len(text)], strict=True)]


def message(data: st.DataObject) -> bytes:
    size = data.draw(sizes)
    body = (data.draw(contents) * size)[:size]
    return bytes([data.draw(st.integers(0, 1))]) + size.to_bytes(4, "big") + body


def told(walking: Any, data: st.DataObject, streams: dict[int, list[bytes]]) -> dict[int, int | None]:
    """The messages that the parser counts of streams with these payloads of DATA, interleaved and cut anyhow."""
    encoder, parser, walker = Encoder(), Http2Parser(), walking.Walker(TX)
    said = walking.PREFACE + walking.frame(4, 0, 0)
    for stream in streams:
        said += walking.frame(HEADERS, END_HEADERS, stream, encoder.encode(REQUEST))
    rest = {stream: list(payloads) for stream, payloads in streams.items()}
    for stream in data.draw(st.permutations([number for number, each in streams.items() for _ in each])):
        said += walking.frame(DATA, 0, stream, rest[stream].pop(0))
    for stream in streams:
        said += walking.frame(DATA, END_STREAM, stream)
    found: dict[int, int | None] = {}
    for piece in cut(data, said, 12):
        record = walker.move(TX, piece)
        for each in parser.frames(record) if record is not None else []:
            if isinstance(each, StreamEnd):
                found[each.stream] = each.messages
                assert each.body_size == sum(map(len, streams[each.stream]))
    return found


@RELAXED
@given(st.data())
def test_frames_that_cut_messages(walking: Any, data: st.DataObject) -> None:
    """64 streams and fewer, one after the other."""
    first = data.draw(st.integers(0, 1000))
    streams, truth = {}, {}
    for i in range(data.draw(st.integers(1, 5))):
        messages = [message(data) for _ in range(data.draw(st.integers(0, 4)))]
        number = 2 * (first + 7 * i) + 1
        streams[number] = [piece for each in messages for piece in cut(data, each, 4)]
        truth[number] = len(messages)
    assert told(walking, data, streams) == truth


@RELAXED
@given(st.data())
def test_streams_that_share_what_the_kernel_remembers(walking: Any, data: st.DataObject) -> None:
    streams, truth = {}, {}
    for number in (1, 129, 257):
        messages = [message(data) for _ in range(data.draw(st.integers(0, 4)))]
        streams[number] = [piece for each in messages for piece in cut(data, each, 4)]
        truth[number] = len(messages)
    for number, count in told(walking, data, streams).items():
        assert count in (None, truth[number])


@RELAXED
@given(st.data())
def test_messages_that_begin_inside_frames(walking: Any, data: st.DataObject) -> None:
    streams, truth = {}, {}
    for number in (1, 3):
        messages = [message(data) for _ in range(data.draw(st.integers(1, 4)))]
        streams[number] = cut(data, b"".join(messages), 8)
        truth[number] = len(messages)
    for number, count in told(walking, data, streams).items():
        assert count in (None, truth[number])


def test_padded_frames_are_not_counted(walking: Any) -> None:
    parser, walker = Http2Parser(), walking.Walker(TX)
    said = walking.PREFACE + walking.frame(HEADERS, END_HEADERS, 1, Encoder().encode(REQUEST))
    said += walking.frame(DATA, PADDED, 1, b"\0\0\0\0\0\0")
    said += walking.frame(DATA, END_STREAM, 1)
    ends = [each for each in parser.frames(walker.move(TX, said)) if isinstance(each, StreamEnd)]
    assert [each.messages for each in ends] == [None]
