"""What the HTTP/2 parser makes of whole conversations, cut in any way, joined late, with losses, and malformed."""

from __future__ import annotations

from typing import Any

import pytest
from hpack import Encoder

from autotrace.model import (
    Direction,
    FramesOrigin,
    GoAway,
    Message,
    ProtocolError,
    Rpc,
    StreamEnd,
    StreamGoesOn,
    StreamRequest,
    StreamReset,
    StreamResponse,
)
from autotrace.protocols.http2 import CONTINUATIONS_MAX, STREAMS_MAX, Http2Parser

RX, TX = Direction.RX, Direction.TX
GET = [(":method", "GET"), (":scheme", "http"), (":path", "/a"), (":authority", "shop:80")]
CALL = [
    (":method", "POST"),
    (":scheme", "http"),
    (":path", "/shop.Cart/Add"),
    (":authority", "cart:50051"),
    ("content-type", "application/grpc"),
    ("grpc-timeout", "250m"),
]
OK = [(":status", "200"), ("content-type", "application/grpc")]


class Talk:
    """A client (TX) and a server (RX) in their own words; `messages` is what the parser said."""

    def __init__(self, walking: Any, joined: bool = False) -> None:
        self.frame = walking.frame
        self.walker = walking.Walker(TX, joined)
        self.parser = Http2Parser()
        self.encoders = (Encoder(), Encoder())
        self.messages: list[Message] = []
        if not joined:
            self.move(TX, walking.PREFACE + self.frame(4, 0, 0))
            self.move(RX, self.frame(4, 0, 0) + self.frame(4, 1, 0))

    def move(self, direction: Direction, data: bytes, lose: bool = False) -> list[Message]:
        record = self.walker.move(direction, data, lose)
        messages = self.parser.frames(record) if record is not None else []
        self.messages += messages
        return messages

    def head(
        self, direction: Direction, stream: int, fields: list[tuple[str, str]], end: bool = False
    ) -> bytes:
        return bytes(self.frame(1, 4 | end, stream, self.encoders[direction].encode(fields)))

    def data(self, stream: int, data: bytes, end: bool = False) -> bytes:
        return bytes(self.frame(0, int(end), stream, data))

    def of(self, *kinds: type) -> list[Any]:
        return [message for message in self.messages if isinstance(message, kinds)]

    def errors(self) -> list[str]:
        return [error.reason for error in self.of(ProtocolError)]


@pytest.fixture
def talk(walking: Any) -> Talk:
    return Talk(walking)


def message(size: int) -> bytes:
    return b"\0" + size.to_bytes(4, "big") + b"m" * size


def test_a_request_and_its_response(talk: Talk) -> None:
    talk.move(TX, talk.head(TX, 1, GET, end=True))
    talk.move(
        RX, talk.head(RX, 1, [(":status", "404")]) + talk.data(1, b"x" * 300) + talk.data(1, b"yz", True)
    )
    request, request_end, response, end = talk.messages
    assert (request.method, request.target, request.headers) == ("GET", "/a", {"host": "shop:80"})
    assert (request.direction, request.stream, request.rpc, request.partial) == (TX, 1, None, False)
    assert request_end == StreamEnd(TX, 1, request.at.ts, 0)
    assert (response.status, response.stream) == (404, 1)
    assert end == StreamEnd(RX, 1, response.at.ts, 302)


def test_a_unary_call(talk: Talk) -> None:
    talk.move(TX, talk.head(TX, 1, CALL) + talk.data(1, message(20), True))
    talk.move(
        RX, talk.head(RX, 1, OK) + talk.data(1, message(0)) + talk.head(RX, 1, [("grpc-status", "5")], True)
    )
    request, request_end, response, end = talk.messages
    assert request.rpc == Rpc("grpc", "shop.Cart/Add", 250_000_000)
    assert (request_end.body_size, request_end.messages) == (25, 1)
    assert response.status == 200
    assert (end.body_size, end.messages, end.rpc_status) == (5, 1, "NOT_FOUND")


def test_a_call_that_fails_at_once(talk: Talk) -> None:
    """Trailers-only: one header block is the response and its trailers."""
    talk.move(TX, talk.head(TX, 1, CALL, end=True))
    talk.move(RX, talk.head(RX, 1, [*OK, ("grpc-status", "12")], True))
    assert talk.of(StreamEnd)[-1].rpc_status == "UNIMPLEMENTED"


@pytest.mark.parametrize(
    ("status", "expected"), [("503", "UNAVAILABLE"), ("404", "UNIMPLEMENTED"), ("200", "UNKNOWN")]
)
def test_a_call_that_is_answered_by_no_grpc_server(talk: Talk, status: str, expected: str) -> None:
    talk.move(TX, talk.head(TX, 1, CALL, end=True))
    talk.move(RX, talk.head(RX, 1, [(":status", status)], True))
    assert talk.of(StreamEnd)[-1].rpc_status == expected


def test_streaming_both_ways(talk: Talk) -> None:
    talk.move(TX, talk.head(TX, 1, CALL) + talk.data(1, message(3)))
    talk.move(RX, talk.head(RX, 1, OK) + talk.data(1, message(3)) + talk.data(1, message(40)))
    # One message over three frames, with another stream's between.
    long = message(50_000)
    talk.move(TX, talk.data(1, long[:16384]) + talk.head(TX, 3, GET, True) + talk.data(1, long[16384:32768]))
    talk.move(TX, talk.data(1, long[32768:]) + talk.data(1, b"", True))
    talk.move(RX, talk.head(RX, 1, [("grpc-status", "0")], True))
    ends = [end for end in talk.of(StreamEnd) if end.stream == 1]
    assert [(end.direction, end.messages, end.body_size) for end in ends] == [(TX, 2, 50_013), (RX, 2, 53)]
    assert ends[1].rpc_status == "OK"


def test_messages_that_begin_inside_a_frame_are_not_counted(talk: Talk) -> None:
    talk.move(TX, talk.head(TX, 1, CALL) + talk.data(1, message(3) + message(4), True))
    assert (talk.of(StreamEnd)[0].messages, talk.of(StreamEnd)[0].body_size) == (None, 17)


@pytest.mark.parametrize(
    ("code", "by", "waited", "expected"),
    [
        (8, TX, 1, "CANCELLED"),
        (8, TX, 300_000_000, "DEADLINE_EXCEEDED"),
        (8, RX, 240_000_000, "DEADLINE_EXCEEDED"),
        (8, TX, 200_000_000, "CANCELLED"),
        (7, RX, 1, "UNAVAILABLE"),
        (11, RX, 1, "RESOURCE_EXHAUSTED"),
        (2, RX, 1, "INTERNAL"),
        (99, RX, 1, "INTERNAL"),
    ],
)
def test_a_call_that_is_reset(talk: Talk, code: int, by: Direction, waited: int, expected: str) -> None:
    talk.move(TX, talk.head(TX, 1, CALL))
    talk.walker.now += waited
    talk.move(by, talk.frame(3, 0, 1, code.to_bytes(4, "big")))
    (reset,) = talk.of(StreamReset)
    assert (reset.stream, reset.direction, reset.rpc_status) == (1, by, expected)


def test_interim_responses_are_passed_over(talk: Talk) -> None:
    talk.move(TX, talk.head(TX, 1, GET, True))
    talk.move(RX, talk.head(RX, 1, [(":status", "103")]) + talk.head(RX, 1, [(":status", "204")], True))
    assert [response.status for response in talk.of(StreamResponse)] == [204]


def test_padding_and_priority(talk: Talk) -> None:
    block = talk.encoders[TX].encode(GET)
    talk.move(TX, talk.frame(1, 0x4 | 0x8 | 0x20, 1, b"\x07" + b"\0\0\0\0\x10" + block + b"\0" * 7))
    talk.move(TX, talk.frame(2, 0, 1, b"\0\0\0\0\x10") + talk.frame(0, 0x9, 1, b"\x03abc\0\0\0"))
    request, end = talk.messages
    assert request.target == "/a"
    assert end.body_size is None  # how much is padding is not looked at


def test_a_head_in_many_frames_and_pieces(talk: Talk) -> None:
    block = talk.encoders[TX].encode([*GET, ("traceparent", "00-" + "ab" * 16)])
    frames = talk.frame(1, 1, 1, block[:3])
    for i in range(3, len(block) - 1):
        frames += talk.frame(9, 0, 1, block[i : i + 1])
    frames += talk.frame(9, 4, 1, block[-1:])
    for i in range(len(frames)):
        talk.move(TX, frames[i : i + 1])
    request, end = talk.messages
    assert (request.target, len(request.headers["traceparent"])) == ("/a", 35)
    assert end.stream == 1


def test_a_pushed_stream_changes_the_table_and_gives_nothing(talk: Talk) -> None:
    talk.move(TX, talk.head(TX, 1, GET, True))
    promise = talk.encoders[RX].encode([*GET[:2], (":path", "/style.css")])
    talk.move(RX, talk.frame(5, 4, 1, b"\0\0\0\2" + promise))
    talk.move(RX, talk.head(RX, 2, [(":status", "200"), ("user-agent", "x")]) + talk.data(2, b"css", True))
    talk.move(RX, talk.head(RX, 1, [(":status", "200"), ("user-agent", "x")], True))
    assert len(talk.of(StreamRequest)) == len(talk.of(StreamResponse)) == 1
    assert talk.of(StreamResponse)[0].headers == {"user-agent": "x"}


def test_go_away(talk: Talk) -> None:
    talk.move(RX, talk.frame(7, 0, 0, b"\0\0\0\5" + b"\0\0\0\0" + b"bye"))
    assert talk.messages == [GoAway(RX, talk.walker.now, 5)]


def test_connect_has_no_path(talk: Talk) -> None:
    talk.move(TX, talk.head(TX, 1, [(":method", "CONNECT"), (":authority", "db:5432")]))
    (request,) = talk.of(StreamRequest)
    assert (request.method, request.target, request.partial) == ("CONNECT", "db:5432", False)


def test_a_table_size_that_changes(talk: Talk) -> None:
    for size in (0, 100, 4096, 65536, 0):
        talk.encoders[TX].header_table_size = size
        stream = 1 + 2 * len(talk.of(StreamRequest))
        talk.move(TX, talk.head(TX, stream, GET, True))
    assert [request.target for request in talk.of(StreamRequest)] == ["/a"] * 5
    assert not talk.errors()


# --- joined late ---------------------------------------------------------------------------------------------


def test_joined_late(walking: Any) -> None:
    talk = Talk(walking, joined=True)
    talk.encoders[TX].encode(CALL)
    talk.encoders[RX].encode(OK)
    talk.move(TX, talk.head(TX, 101, CALL, True))
    talk.move(RX, talk.head(RX, 101, OK) + talk.head(RX, 101, [("grpc-status", "0")], True))
    request, _, response, end = talk.messages
    assert (request.method, request.target, request.partial, request.rpc) == ("POST", "", True, None)
    assert response.status == 200
    assert end.rpc_status == ""  # its response says by the table alone that it is a call
    fresh = [(name, value.replace("Add", "Remove")) for name, value in CALL]
    talk.move(TX, talk.head(TX, 103, fresh, True))
    request = talk.of(StreamRequest)[1]
    assert (request.target, request.rpc, request.missed) == ("/shop.Cart/Remove", None, 0)
    assert not talk.errors()


def test_joined_late_a_call_that_only_its_response_tells(walking: Any) -> None:
    talk = Talk(walking, joined=True)
    talk.encoders[TX].encode(CALL)
    talk.move(TX, talk.head(TX, 101, CALL, True))
    talk.move(RX, talk.head(RX, 101, OK) + talk.data(101, message(2)))
    talk.move(RX, talk.head(RX, 101, [("grpc-status", "0")], True))
    assert talk.of(StreamResponse)[0].rpc == Rpc("grpc", "")
    assert (talk.of(StreamEnd)[-1].rpc_status, talk.of(StreamEnd)[-1].messages) == ("OK", 1)


@pytest.mark.parametrize("told", ["status", "framing", "nothing"])
def test_joined_late_trailers_tell_that_it_was_a_call(walking: Any, told: str) -> None:
    talk = Talk(walking, joined=True)
    trailers = [("grpc-status", "0")]
    talk.encoders[TX].encode(CALL)
    for old in (OK, [] if told == "status" else trailers):
        talk.encoders[RX].encode(old)
    fresh = [(name, value.replace("Add", "Get")) for name, value in CALL]
    body = b"{}" if told == "nothing" else message(3)
    talk.move(TX, talk.head(TX, 9, fresh) + talk.data(9, body, True))
    end = [("grpc-status", "5")] if told == "status" else trailers
    talk.move(RX, talk.head(RX, 9, OK) + talk.data(9, body) + talk.head(RX, 9, end, True))
    request, last = talk.of(StreamRequest)[0], talk.of(StreamEnd)[-1]
    assert (request.target, request.rpc, request.partial) == ("/shop.Cart/Get", None, True)
    method = None if told == "nothing" else "shop.Cart/Get"
    status = "NOT_FOUND" if told == "status" else ""
    assert (last.rpc and last.rpc.method, last.rpc_status) == (method, status)


def test_joined_late_in_the_middle_of_a_head(walking: Any) -> None:
    talk = Talk(walking, joined=True)
    talk.move(TX, talk.frame(9, 4, 1, b"\x82"))
    talk.move(TX, talk.head(TX, 3, GET, True))
    assert talk.errors() == ["continuation_of_nothing"]
    assert talk.of(StreamRequest)[0].target == "/a"


# --- losses --------------------------------------------------------------------------------------------------


def test_a_lost_record_of_responses(talk: Talk) -> None:
    for stream in (1, 3):
        talk.move(TX, talk.head(TX, stream, GET, True))
    talk.move(RX, talk.head(RX, 1, [(":status", "200")], True), lose=True)
    talk.move(RX, talk.head(RX, 3, [(":status", "200")]))
    talk.move(RX, talk.data(3, b"x", True))
    assert talk.errors() == ["gap"]
    assert talk.of(StreamGoesOn) == [StreamGoesOn(3)]
    assert talk.of(StreamEnd)[-1].body_size is None


def test_a_lost_record_of_requests(talk: Talk) -> None:
    talk.move(TX, talk.head(TX, 1, GET, True))
    talk.move(TX, talk.head(TX, 3, GET, True) + talk.head(TX, 5, GET, True), lose=True)
    talk.move(TX, talk.head(TX, 7, [*GET, ("user-agent", "new")], True))
    assert [request.missed for request in talk.of(StreamRequest)] == [0, 2]
    talk.move(TX, talk.head(TX, 9, GET, True))
    assert talk.of(StreamRequest)[-1].missed == 0
    assert not any(request.unwalked for request in talk.of(StreamRequest))


@pytest.mark.parametrize("lost_record", [False, True])
def test_requests_that_the_kernel_left_out(talk: Talk, lost_record: bool) -> None:
    """No record is missing, but one says that the walk began anew. If one is missing as well, which of the two it
    was is not known, and the ring is named."""
    talk.move(TX, talk.head(TX, 1, GET, True))
    if lost_record:
        talk.move(TX, talk.head(TX, 3, GET, True), lose=True)
    request = talk.head(TX, 7, [*GET, ("user-agent", "new")], True)
    record = talk.walker.move(TX, request)._replace(origin=FramesOrigin.JOINED)
    (gap, asked, _) = talk.parser.frames(record)
    assert isinstance(gap, ProtocolError)
    assert isinstance(asked, StreamRequest)
    assert (gap.reason, asked.missed, asked.unwalked) == ("gap", 2, not lost_record)


def test_a_lost_record_in_the_middle_of_a_frame(talk: Talk) -> None:
    head = talk.head(TX, 1, GET, True)
    talk.move(TX, head[:12])
    talk.move(TX, head[12:15], lose=True)
    talk.move(TX, head[15:] + talk.head(TX, 3, [(":method", "PUT"), *GET[1:2], (":path", "/new")], True))
    assert talk.errors() == ["gap"]
    assert [request.target for request in talk.of(StreamRequest)] == ["/new"]


def test_a_lost_record_before_the_rest_of_a_long_frame(talk: Talk) -> None:
    head = talk.head(TX, 1, GET, True)
    talk.move(TX, head[:12], lose=True)
    for part in (head[12:14], head[14:16], head[16:]):
        talk.move(TX, part)
    talk.move(TX, talk.head(TX, 3, [(":method", "PUT"), *GET[1:2], (":path", "/new")], True))
    assert talk.errors() == ["gap"]
    assert [request.target for request in talk.of(StreamRequest)] == ["/new"]


# --- malformed -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "flags", "stream", "payload", "reason"),
    [
        (1, 4, 0, b"\x82", "stream_0"),
        (0, 1, 0, b"", "stream_0"),
        (3, 0, 1, b"\0\0\0", "frame_size"),
        (3, 0, 0, b"\0\0\0\0", "stream_0"),
        (4, 0, 0, b"\0\0\0", "settings"),
        (4, 0, 1, b"", "settings"),
        (7, 0, 0, b"\0\0\0\0", "frame_size"),
        (9, 4, 1, b"", "continuation_of_nothing"),
        (1, 0xC, 1, b"", "frame_size"),
        (1, 0xC, 1, b"\x09abc", "padding"),
        (1, 0x24, 1, b"abc", "padding"),
        (5, 4, 1, b"abc", "padding"),
        (1, 4, 1, b"\x80", "header_compression"),
        (1, 4, 1, b"\x82", "request_without_method_or_path"),
        (1, 4, 1, b"", "head_without_pseudo_headers"),
    ],
)
def test_malformed_frames_are_told(
    talk: Talk, kind: int, flags: int, stream: int, payload: bytes, reason: str
) -> None:
    talk.move(TX, talk.frame(kind, flags, stream, payload))
    assert talk.errors() == [reason]
    talk.move(TX, talk.head(TX, 3, GET, True))
    assert [request.stream for request in talk.of(StreamRequest)] == [3]


def test_a_header_block_that_is_interrupted(talk: Talk) -> None:
    block = talk.encoders[TX].encode(GET)
    talk.move(TX, talk.frame(1, 0, 1, block) + talk.head(TX, 3, [(":method", "GET"), (":path", "/b")], True))
    assert talk.errors() == ["header_block_interrupted"]
    assert talk.of(StreamRequest)[0].stream == 3


@pytest.mark.parametrize("size", [0, 16000])
def test_a_flood_of_continuations_is_bounded(talk: Talk, size: int) -> None:
    talk.move(TX, talk.frame(1, 0, 1, b""))
    for _ in range(2 * CONTINUATIONS_MAX):
        talk.move(TX, talk.frame(9, 0, 1, b"\0" * size))
    assert talk.errors()[0] == "header_block_size"
    assert set(talk.errors()[1:]) == {"continuation_of_nothing"}


def test_streams_are_bounded(talk: Talk) -> None:
    for i in range(STREAMS_MAX + 10):
        talk.move(TX, talk.head(TX, 2 * i + 1, GET))
    assert len(talk.parser._streams) == STREAMS_MAX


def test_a_stream_that_was_used_before(talk: Talk) -> None:
    for stream in (3, 1, 3):
        talk.move(TX, talk.head(TX, stream, GET, True))
    assert talk.errors() == ["stream_closed", "stream_closed"]


def test_roles_do_not_change(talk: Talk) -> None:
    talk.move(TX, talk.head(TX, 1, GET, True))
    talk.move(RX, talk.head(RX, 3, GET, True))
    talk.move(TX, talk.head(TX, 5, [(":status", "200")], True))
    assert talk.errors() == ["request_of_the_server", "response_of_the_client"]


def test_a_frame_that_the_walker_never_passes_on(talk: Talk) -> None:
    record = talk.walker.move(TX, talk.head(TX, 1, GET))
    talk.messages += talk.parser.frames(record._replace(data=b"\0\0\0\x08\0\0\0\0\0"))
    assert talk.errors() == ["unexpected_frame"]


def test_after_the_end_nothing_is_said(talk: Talk) -> None:
    record = talk.walker.move(TX, talk.head(TX, 1, GET))
    assert talk.parser.close(99) == []
    assert talk.parser.frames(record) == []
