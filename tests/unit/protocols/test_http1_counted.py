"""HTTP/1.1 conversations of which only the beginnings of turns are captured, and those that break off."""

from __future__ import annotations

import pytest

from autotrace.model import Direction
from autotrace.protocols.http1 import Http1Parser

RX, TX = Direction.RX, Direction.TX

GET = b"GET /a?b=c HTTP/1.1\r\nHost: h\r\n\r\n"
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi"
LAST = b"0\r\n\r\n"

BIG = b"x" * 10_000

COUNTED = {
    "length": (
        [(RX, GET), (TX, b"HTTP/1.1 200 OK\r\nContent-Length: 10000\r\n\r\n" + BIG), (RX, GET), (TX, OK)],
        ["GET /a?b=c", "RX end 0", "200", "TX end 10000", "GET /a?b=c", "RX end 0", "200", "TX end 2"],
    ),
    "one chunk, end in the tail": (
        [
            (RX, GET),
            (TX, b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2710\r\n" + BIG + b"\r\n" + LAST),
        ],
        ["GET /a?b=c", "RX end 0", "200", "TX end 10000"],
    ),
    "many chunks": (
        [
            (RX, GET),
            (
                TX,
                b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
                + b"400\r\n"
                + BIG[:1024]
                + b"\r\n"
                + LAST,
            ),
        ],
        ["GET /a?b=c", "RX end 0", "200", "TX end 1024"],
    ),
    "chunk boundaries lost": (
        [
            (RX, GET),
            (
                TX,
                b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
                + (b"400\r\n" + BIG[:1024] + b"\r\n") * 9
                + LAST,
            ),
            (RX, GET),
        ],
        ["GET /a?b=c", "RX end 0", "200", "TX end None", "GET /a?b=c", "RX end 0"],
    ),
    "chunk boundaries lost, trailers": (
        [
            (RX, GET),
            (
                TX,
                b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
                + (b"400\r\n" + BIG[:1024] + b"\r\n") * 9
                + b"0\r\nChecksum: 1234567\r\n\r\n",
            ),
            (RX, GET),
        ],
        ["GET /a?b=c", "RX end 0", "200", "TX end None", "GET /a?b=c", "RX end 0"],
    ),
    "chunk boundaries lost, upload with trailers": (
        [
            (
                RX,
                b"PUT / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n"
                + (b"400\r\n" + BIG[:1024] + b"\r\n") * 9
                + b"0\r\nChecksum: 1234567\r\n\r\n",
            ),
            (TX, OK),
        ],
        ["PUT /", "RX end None", "200", "TX end 2"],
    ),
    "chunk boundaries lost, early response, body goes on": (
        [
            (
                RX,
                b"PUT / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n"
                + (b"400\r\n" + BIG[:1024] + b"\r\n") * 9,
            ),
            (TX, OK),
            (RX, b"400\r\n" + BIG[:1024] + b"\r\n" + LAST),
            (TX, b""),
            (RX, GET),
        ],
        ["PUT /", "200", "TX end 2", "RX end None", "GET /a?b=c", "RX end 0"],
    ),
    "chunk boundaries lost and never found": (
        [
            (RX, GET),
            (TX, b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nx\r\n" * 2 + BIG),
        ],
        ["GET /a?b=c", "RX end 0", "200", "TX end 1 broken", "TX malformed_chunk"],
    ),
    "until close": (
        [(RX, GET), (TX, b"HTTP/1.0 200 OK\r\n\r\n" + BIG)],
        ["GET /a?b=c", "RX end 0", "200", "TX end 10000"],
    ),
    "truncated request": (
        [(RX, b"GET / HTTP/1.1\r\nHost: h\r\nCookie: " + BIG + b"\r\n\r\n"), (TX, OK), (RX, GET)],
        ["GET / ...", "RX end None", "200", "TX end 2", "GET /a?b=c", "RX end 0"],
    ),
    "truncated request with interim response": (
        [
            (RX, b"PUT / HTTP/1.1\r\nContent-Length: 5\r\nCookie: " + BIG + b"\r\n\r\n"),
            (TX, b"HTTP/1.1 100 Continue\r\n\r\n"),
            (RX, b"hello"),
            (TX, OK),
        ],
        ["PUT / ...", "RX end 5", "200", "TX end 2"],
    ),
    "truncated target": (
        [(RX, b"GET /" + b"a" * 6000 + b" HTTP/1.1\r\n\r\n"), (TX, OK)],
        ["GET /" + b"a".decode() * 4091 + " ...", "RX end None", "200", "TX end 2"],
    ),
    "truncated response": (
        [
            (RX, GET),
            (TX, b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nSet-Cookie: " + BIG + b"\r\n\r\nhi"),
            (RX, GET),
            (TX, OK),
        ],
        ["GET /a?b=c", "RX end 0", "200 ...", "TX end 2", "GET /a?b=c", "RX end 0", "200", "TX end 2"],
    ),
    "truncated response to a HEAD, chunked in the next": (
        [
            (RX, b"HEAD / HTTP/1.1\r\n\r\n"),
            (TX, b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nSet-Cookie: " + BIG + b"\r\n\r\n"),
        ],
        ["HEAD /", "RX end 0", "200 ...", "TX end 0"],
    ),
    "truncated chunked response": (
        [
            (RX, GET),
            (
                TX,
                b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nX: " + BIG + b"\r\n\r\n1\r\nx\r\n" + LAST,
            ),
        ],
        ["GET /a?b=c", "RX end 0", "200 ...", "TX end None"],
    ),
    "truncated response that switches": (
        [
            (RX, b"CONNECT a:1 HTTP/1.1\r\n\r\n"),
            (TX, b"HTTP/1.1 200 OK\r\nX: " + BIG + b"\r\n\r\n"),
            (RX, GET),
            (TX, OK),
        ],
        ["CONNECT a:1", "RX end 0", "200 ...", "TX end 0", "now connect"],
    ),
    "truncated interim response": (
        [
            (RX, GET),
            (TX, b"HTTP/1.1 103 Early Hints\r\nLink: " + BIG + b"\r\n\r\n" + OK),
            (RX, GET),
            (TX, OK),
        ],
        ["GET /a?b=c", "RX end 0", "TX gap", "GET /a?b=c", "RX end 0", "200", "TX end 2"],
    ),
    "head whose end is in the tail": (
        [(RX, b"GET / HTTP/1.1\r\nCookie: " + BIG[: 4096 - 24] + b"\r\n\r\n"), (TX, OK)],
        ["GET /", "RX end 0", "200", "TX end 2"],
    ),
    "empty line after a counted body": (
        [(RX, b"PUT / HTTP/1.1\r\nContent-Length: 10000\r\n\r\n" + BIG + b"\r\n"), (TX, OK), (RX, GET)],
        ["PUT /", "RX end 10000", "200", "TX end 2", "GET /a?b=c", "RX end 0"],
    ),
    "request pipelined behind a counted body": (
        [
            (RX, b"PUT / HTTP/1.1\r\nContent-Length: 10000\r\n\r\n" + BIG + GET),
            (TX, OK + OK),
            (RX, GET),
            (TX, OK),
        ],
        [
            *["PUT /", "RX end 10000", "RX gap", "200", "TX end 2", "200", "TX end 2"],
            *["GET /a?b=c", "RX end 0", "200", "TX end 2"],
        ],
    ),
}


@pytest.mark.parametrize("name", COUNTED)
def test_bodies_and_heads_that_are_only_counted(converse, name):
    turns, expected = COUNTED[name]
    assert converse(*turns, close=True) == expected


BROKEN = {
    "nothing": ([], []),
    "no response": ([(RX, GET)], ["GET /a?b=c", "RX end 0"]),
    "inside a request head": ([(RX, GET[:-9])], ["GET /a?b=c ...", "RX end 0 broken"]),
    "inside a request line": ([(RX, b"GET /abc")], ["GET /abc ...", "RX end 0 broken"]),
    "inside a method": ([(RX, b"GE")], ["RX truncated_start_line"]),
    "inside a response head": (
        [(RX, GET), (TX, OK[:20])],
        ["GET /a?b=c", "RX end 0", "200 ...", "TX end 0 broken"],
    ),
    "inside a status": ([(RX, GET), (TX, OK[:11])], ["GET /a?b=c", "RX end 0", "TX truncated_start_line"]),
    "inside a length": ([(RX, GET), (TX, OK[:-1])], ["GET /a?b=c", "RX end 0", "200", "TX end 1 broken"]),
    "inside a chunk": (
        [(RX, b"PUT / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n9\r\n123")],
        ["PUT /", "RX end 3 broken"],
    ),
    "until close": (
        [(RX, GET), (TX, b"HTTP/1.1 200 OK\r\n\r\nabc")],
        ["GET /a?b=c", "RX end 0", "200", "TX end 3 broken"],
    ),
    "truncated head": (
        [(RX, GET), (TX, b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nA: " + BIG)],
        ["GET /a?b=c", "RX end 0", "200 ...", "TX end None broken"],
    ),
}


@pytest.mark.parametrize("name", BROKEN)
def test_connection_reset(converse, name):
    turns, expected = BROKEN[name]
    assert converse(*turns, close=True, orderly=False) == expected


def test_nothing_comes_after_the_end(wire):
    parser = Http1Parser()
    parser.close(5)
    assert parser.data(RX, 0, GET, wire.at(6)) == []
    assert parser.progress(RX, 5000, 7, b"") == []
    assert parser.close(8) == []
