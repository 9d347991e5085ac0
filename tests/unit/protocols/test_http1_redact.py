"""Redacted bytes hold no secret, and give the same messages as the bytes themselves."""

from __future__ import annotations

import random
import re
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from autotrace.model import Context, Direction, Message, Request
from autotrace.protocols.base import Parser
from autotrace.protocols.http1 import Http1Parser
from autotrace.protocols.http1_redact import Http1Redactor

RX, TX = Direction.RX, Direction.TX
SECRET = b"S3cr3t+beef"
PIECES = [SECRET[i : i + 5] for i in range(len(SECRET) - 4)]


class RedactedParser:
    """What a replay sees: a parser behind a redactor. `kept` is all that came through."""

    def __init__(self) -> None:
        self.redactor = Http1Redactor()
        self.parser = Http1Parser()
        self.kept = b""
        self._turn = 0
        self._speaker: Direction | None = None

    @classmethod
    def recognise(cls, direction: Direction, data: bytes) -> bool:
        return Http1Parser.recognise(direction, data)

    def data(self, direction: Direction, position: int, data: bytes, at: Context) -> list[Message]:
        if direction is not self._speaker:
            self._turn += 1
            self._speaker = direction
        redacted = self.redactor.data(direction, self._turn, position, data, 0)
        assert len(redacted) == len(data)
        self.kept += redacted
        return self.parser.data(direction, position, redacted, at)

    def progress(self, direction: Direction, end: int, ts: int, tail: bytes) -> list[Message]:
        redacted = self.redactor.progress(direction, end, tail) if ts else b""
        assert len(redacted) == (len(tail) if ts else 0)
        self.kept += b"|" + redacted
        return self.parser.progress(direction, end, ts, redacted)

    def missed(self, direction: Direction, end: int, ts: int, tail: bytes) -> list[Message]:
        return self.parser.missed(direction, end, ts, self.redactor.progress(direction, end, tail))

    def close(self, ts: int, orderly: bool = True) -> list[Message]:
        return self.parser.close(ts, orderly)


CONTENT = st.lists(
    st.sampled_from(
        [SECRET, b"\r\n", b"0\r\n", b"GET /" + SECRET, b" HTTP/1.1\r\n", b"a: b\r\n", b"5\r\nhello\r\n"]
    ),
    max_size=40,
).map(b"".join)
FIELDS = st.lists(
    st.sampled_from(
        [
            b"Authorization: Basic " + SECRET,
            b"Cookie: a=" + SECRET + b"; b=c",
            b"X-Empty:",
            b"X-Folded: " + SECRET + b"\r\n\t" + SECRET,
            b"tracestate: a=b",
            b"Set-Cookie : " + SECRET,
            b"no field " + SECRET,
            b"B3: 0",
        ]
    ),
    max_size=4,
)
TARGETS = st.sampled_from(
    [b"/", b"/a/b", b"/?q=" + SECRET, b"/a?" + SECRET + b"#" + SECRET, b"http://h/p?" + SECRET]
)


@st.composite
def body(draw: st.DrawFn) -> tuple[list[bytes], bytes]:
    content = draw(CONTENT)
    if draw(st.booleans()):
        return [b"Content-Length: %d" % len(content)], content
    cuts = sorted(draw(st.lists(st.integers(0, len(content)), max_size=4)))
    extension = draw(st.sampled_from([b"", b";a=" + SECRET]))
    wire = b"".join(
        b"%X%b\r\n%b\r\n" % (last - first, extension, content[first:last])
        for first, last in pairwise([0, *cuts, len(content)])
        if first < last
    )
    trailer = draw(st.sampled_from([b"", b"Checksum: " + SECRET + b"\r\n"]))
    return [b"Transfer-Encoding: chunked"], wire + b"0\r\n" + trailer + b"\r\n"


@st.composite
def exchange(draw: st.DrawFn) -> tuple[bytes, bytes]:
    method = draw(st.sampled_from([b"GET", b"HEAD", b"POST", b"PURGE"]))
    fields, content = draw(body()) if method == b"POST" else ([], b"")
    lines = [method + b" " + draw(TARGETS) + b" HTTP/1.1", b"Host: h", *draw(FIELDS), *fields]
    request = b"\r\n".join(lines) + b"\r\n\r\n" + content
    status = draw(st.sampled_from([200, 204, 304, 404]))
    fields, content = draw(body())
    if status == 204:
        fields = []
    if status in (204, 304) or method == b"HEAD":
        content = b""
    interim = draw(st.sampled_from([b"", b"HTTP/1.1 100 Continue\r\n\r\n"]))
    lines = [b"HTTP/1.1 %d Reason" % status, *draw(FIELDS), *fields]
    return request, interim + b"\r\n".join(lines) + b"\r\n\r\n" + content


def without_query(messages: list[Message]) -> list[Message]:
    return [
        message._replace(target=re.split(r"[?#]", message.target)[0])
        if isinstance(message, Request)
        else message
        for message in messages
    ]


@given(
    st.lists(exchange(), min_size=1, max_size=5),
    st.booleans(),
    st.sampled_from([100, 300, 100_000]),
    st.integers(0, 1 << 32),
)
def test_redacted_bytes_hold_no_secret_and_give_the_same_messages(
    wire, exchanges, pipelined, capture, seed
) -> None:
    turns = [turn for sent in exchanges for turn in ((RX, sent[0]), (TX, sent[1]))]
    if pipelined:
        turns = [(RX, b"".join(sent[0] for sent in exchanges)), (TX, b"".join(sent[1] for sent in exchanges))]

    def play(parser: Parser) -> list[Message]:
        rng = random.Random(seed)

        def pieces(data: bytes) -> list[bytes]:
            cuts = sorted(rng.sample(range(1, len(data)), min(rng.choice([0, 1, 5, 30]), len(data) - 1)))
            return [data[first:last] for first, last in pairwise([0, *cuts, len(data)])]

        connection = wire(parser, capture)
        out = [message for turn in turns for message in connection.turn(*turn, pieces)]
        return out + connection.close()

    redacted = RedactedParser()
    messages = without_query(play(Http1Parser()))
    assert without_query(play(redacted)) == messages
    assert not [piece for piece in PIECES if piece in redacted.kept], redacted.kept


@pytest.mark.parametrize(
    ("said", "kept"),
    [
        (b"SSH-2.0-secret\r\nmore\r\n", b"xxxxxxxxxxxxxxxxxxxxxx"),
        (b"secret without an end", b"xxxxxxxxxxxxxxxxxxxxx"),
        (b"GET /p?a=1&b=2 HTTP/1.1\r\nHost: h\r\n", b"GET /p?xxxxxxx HTTP/1.1\r\nHost: h\r\n"),
        (b"GET /p?a", b"GET /p?x"),
        (
            b"HTTP/1.1 200 OK\r\nServer: me\r\n\r\nuntil close",
            b"HTTP/1.1 200 OK\r\nServer:xxx\r\n\r\nxxxxxxxxxxx",
        ),
    ],
)
def test_what_is_kept(said: bytes, kept: bytes) -> None:
    assert Http1Redactor().data(RX, 1, 1000, said, 0) == kept


@given(
    st.lists(
        st.tuples(
            st.sampled_from(Direction), st.integers(0, 4000), st.binary(max_size=60), st.integers(0, 99)
        )
    )
)
def test_any_bytes_stay_as_many(calls: list[tuple[Direction, int, bytes, int]]) -> None:
    redactor = Http1Redactor()
    for turn, (direction, position, data, body_size) in enumerate(calls):
        assert len(redactor.data(direction, turn // 2, position, data, body_size)) == len(data)
        assert len(redactor.progress(direction, position + 50, data[:8])) == len(data[:8])
