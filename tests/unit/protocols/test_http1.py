"""HTTP/1.1 conversations that are captured whole."""

from __future__ import annotations

import pytest

from autotrace.model import Direction, MessageEnd, Request, Response
from autotrace.protocols.http1 import Http1Parser

RX, TX = Direction.RX, Direction.TX

GET = b"GET /a?b=c HTTP/1.1\r\nHost: h\r\n\r\n"
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi"


def test_a_small_exchange_in_full(wire):
    parser = Http1Parser()
    request_at, response_at = wire.at(5), wire.at(9)
    request = (
        b"POST /pay?id=1 HTTP/1.1\r\nHOST:  shop:80 \r\nuser-agent: curl/8\r\nTraceParent: 00-aa-bb-01\r\n"
        b"Cookie: secret\r\nContent-Length: 3\r\n\r\nabc"
    )
    response = b"HTTP/1.0 402 Payment Required\r\nContent-Length: 0\r\nServer: x\r\n\r\n"
    assert parser.data(RX, 2**64 + 7, request, request_at) == [
        Request(
            RX,
            2**64 + 7,
            request_at,
            "POST",
            "/pay?id=1",
            "1.1",
            {"host": "shop:80", "user-agent": "curl/8", "traceparent": "00-aa-bb-01"},
        ),
        MessageEnd(RX, 5, 3, True),
    ]
    assert parser.data(TX, 40, response, response_at) == [
        Response(TX, 40, response_at, 402, "1.0", {}),
        MessageEnd(TX, 9, 0, True),
    ]


EXCHANGES = {
    "keep-alive": (
        [(RX, GET), (TX, OK), (RX, GET), (TX, OK)],
        ["GET /a?b=c", "RX end 0", "200", "TX end 2"] * 2,
    ),
    "client": (
        [(TX, GET), (RX, OK)],
        ["GET /a?b=c", "TX end 0", "200", "RX end 2"],
    ),
    "pipelining": (
        [(RX, GET + b"HEAD /h HTTP/1.1\r\n\r\n" + GET), (TX, OK + OK[:-2] + OK)],
        [
            *["GET /a?b=c", "RX end 0", "HEAD /h", "RX end 0", "GET /a?b=c", "RX end 0"],
            *["200", "TX end 2", "200", "TX end 0", "200", "TX end 2"],
        ],
    ),
    "empty lines before a request line": (
        [(RX, b"\r\n\n" + GET + b"\r\n"), (TX, OK), (RX, b"\r\n"), (RX, GET)],
        ["GET /a?b=c", "RX end 0", "200", "TX end 2", "GET /a?b=c", "RX end 0"],
    ),
    "equal Content-Lengths": (
        [(RX, b"PUT / HTTP/1.1\r\nContent-Length: 5, 5\r\ncontent-length:5\r\n\r\n12345" + GET)],
        ["PUT /", "RX end 5", "GET /a?b=c", "RX end 0"],
    ),
    "conflicting Content-Lengths": (
        [
            (RX, b"PUT / HTTP/1.1\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\n12345" + GET),
            (TX, OK),
            (RX, GET),
        ],
        [
            "PUT /",
            "RX end 0 broken",
            "RX malformed_content_length",
            "200",
            "TX end 2",
            "GET /a?b=c",
            "RX end 0",
        ],
    ),
    "Content-Length that is no number": (
        [(RX, b"PUT / HTTP/1.1\r\nContent-Length: +5\r\n\r\n12345")],
        ["PUT /", "RX end 0 broken", "RX malformed_content_length"],
    ),
    "chunked with extensions and trailers": (
        [
            (RX, b"PUT / HTTP/1.1\r\nTransfer-Encoding: gzip, Chunked\r\nContent-Length: 1\r\n\r\n"),
            (RX, b'5;a="b"\r\nhello\r\n00A \r\n0123456789\r\n0;x\r\nChecksum: 1\r\nB: 2\r\n\r\n' + GET),
        ],
        ["PUT /", "RX end 15", "GET /a?b=c", "RX end 0"],
    ),
    "chunk size that is no number": (
        [
            (RX, b"PUT / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\nx\r\n"),
            (TX, OK),
            (RX, GET),
        ],
        ["PUT /", "RX end 5 broken", "RX malformed_chunk", "200", "TX end 2", "GET /a?b=c", "RX end 0"],
    ),
    "chunk longer than its size": (
        [(RX, b"PUT / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nhello\r\n")],
        ["PUT /", "RX end 4 broken", "RX malformed_chunk"],
    ),
    "request with another transfer coding": (
        [(RX, b"PUT / HTTP/1.1\r\nTransfer-Encoding: chunked, gzip\r\n\r\nx")],
        ["PUT /", "RX end 0 broken", "RX malformed_transfer_encoding"],
    ),
    "response with another transfer coding": (
        [(RX, GET), (TX, b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\nxyz")],
        ["GET /a?b=c", "RX end 0", "200", "TX end 3"],
    ),
    "until close": (
        [(RX, GET), (TX, b"HTTP/1.0 200 OK\r\n\r\nabc"), (RX, b""), (TX, b"def")],
        ["GET /a?b=c", "RX end 0", "200", "TX end 6"],
    ),
    "no reason phrase": (
        [
            (RX, GET),
            (TX, b"HTTP/1.1 204\r\n\r\n"),
            (RX, GET),
            (TX, b"HTTP/1.1 304 \r\nContent-Length: 9\r\n\r\n"),
        ],
        ["GET /a?b=c", "RX end 0", "204", "TX end 0", "GET /a?b=c", "RX end 0", "304", "TX end 0"],
    ),
    "interim responses": (
        [
            (RX, b"PUT / HTTP/1.1\r\nExpect: 100-continue\r\nContent-Length: 4\r\n\r\n"),
            (TX, b"HTTP/1.1 100 Continue\r\n\r\n"),
            (RX, b"GET "),
            (TX, b"HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n" + OK),
        ],
        ["PUT /", "RX end 4", "200", "TX end 2"],
    ),
    "expected body never sent": (
        [
            (RX, b"PUT / HTTP/1.1\r\nExpect: 100-continue\r\nContent-Length: 4\r\n\r\n"),
            (TX, b"HTTP/1.1 417 Expectation Failed\r\nContent-Length: 0\r\n\r\n"),
            (RX, GET),
            (TX, OK),
        ],
        ["PUT /", "417", "TX end 0", "RX end 0", "GET /a?b=c", "RX end 0", "200", "TX end 2"],
    ),
    "expected body sent although refused": (
        [
            (RX, b"PUT / HTTP/1.1\r\nExpect: 100-continue\r\nContent-Length: 4\r\n\r\n"),
            (TX, b"HTTP/1.1 417 Expectation Failed\r\nContent-Length: 0\r\n\r\n"),
            (RX, b"{..}" + GET),
        ],
        ["PUT /", "417", "TX end 0", "RX end 4", "GET /a?b=c", "RX end 0"],
    ),
    "early response": (
        [
            (RX, b"PUT / HTTP/1.1\r\nContent-Length: 40\r\n\r\n" + b"x" * 10),
            (TX, OK),
            (RX, b"x" * 30 + GET),
            (TX, OK),
        ],
        ["PUT /", "200", "TX end 2", "RX end 40", "GET /a?b=c", "RX end 0", "200", "TX end 2"],
    ),
    "early response, chunked": (
        [
            (RX, b"PUT / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n9\r\n123"),
            (TX, OK),
            (RX, b"456789\r\n0\r\n\r\n" + GET),
        ],
        ["PUT /", "200", "TX end 2", "RX end 9", "GET /a?b=c", "RX end 0"],
    ),
    "upgrade": (
        [
            (RX, b"GET /ws HTTP/1.1\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n"),
            (TX, b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n\r\n\x81\x05hello"),
            (RX, b"\x81\x05hello"),
            (TX, GET),
        ],
        ["GET /ws", "RX end 0", "101", "TX end 0", "now websocket"],
    ),
    "connect": (
        [
            (RX, b"CONNECT example.org:443 HTTP/1.1\r\nHost: example.org\r\n\r\n\x16\x03\x01"),
            (TX, b"HTTP/1.1 200 Connection established\r\nContent-Length: 5\r\n\r\n"),
            (RX, b"\x16\x03\x01"),
        ],
        ["CONNECT example.org:443", "RX end 0", "200", "TX end 0", "now connect"],
    ),
    "connect refused": (
        [
            (RX, b"CONNECT example.org:443 HTTP/1.1\r\n\r\n"),
            (TX, b"HTTP/1.1 407 Who?\r\nContent-Length: 2\r\n\r\nno"),
            (RX, GET),
        ],
        ["CONNECT example.org:443", "RX end 0", "407", "TX end 2", "GET /a?b=c", "RX end 0"],
    ),
    "absolute and asterisk form": (
        [(RX, b"GET http://h:80/x?y HTTP/1.1\r\n\r\nOPTIONS * HTTP/1.1\r\n\r\n")],
        ["GET http://h:80/x?y", "RX end 0", "OPTIONS *", "RX end 0"],
    ),
    "bare line feeds": (
        [
            (RX, b"GET / HTTP/1.0\nHost: h\n\nGET /2 HTTP/1.1\n\r\n"),
            (TX, b"HTTP/1.1 200 OK\nContent-Length: 1\n\nx"),
        ],
        ["GET /", "RX end 0", "GET /2", "RX end 0", "200", "TX end 1"],
    ),
    "joined inside a connection, at a response": (
        [(TX, OK), (RX, GET), (TX, OK)],
        ["200", "TX end 2", "GET /a?b=c", "RX end 0", "200", "TX end 2"],
    ),
    "response to a HEAD that was not seen": (
        [(TX, OK[:-2]), (RX, GET), (TX, OK)],
        ["200", "GET /a?b=c", "RX end 0", "TX end 0", "200", "TX end 2"],
    ),
    "response that nobody asked for": (
        [(RX, GET), (TX, OK + b"HTTP/1.1 408 Request Timeout\r\nContent-Length: 0\r\n\r\n")],
        ["GET /a?b=c", "RX end 0", "200", "TX end 2", "408", "TX end 0"],
    ),
    "garbage, then a good turn": (
        [
            (RX, b"\x16\x03\x01\x02" + GET),
            (TX, b"HTTP/1.1 400 Bad\r\nContent-Length: 0\r\n\r\n"),
            (RX, GET),
            (TX, OK),
        ],
        ["RX malformed_start_line", "400", "TX end 0", "GET /a?b=c", "RX end 0", "200", "TX end 2"],
    ),
    "garbage for a response": (
        [(RX, GET), (TX, b"hello\r\n\r\n"), (RX, GET), (TX, OK)],
        ["GET /a?b=c", "RX end 0", "TX malformed_start_line", "GET /a?b=c", "RX end 0", "200", "TX end 2"],
    ),
    "interim response alone, then the connection ends": (
        [(RX, GET), (TX, b"HTTP/1.1 102 Processing\r\n\r\n")],
        ["GET /a?b=c", "RX end 0"],
    ),
    "HTTP/2": (
        [(RX, b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")],
        ["RX malformed_start_line"],
    ),
}


@pytest.mark.parametrize("name", EXCHANGES)
def test_exchange(converse, name):
    turns, expected = EXCHANGES[name]
    assert converse(*turns, close=True) == expected


@pytest.mark.parametrize("name", EXCHANGES)
def test_exchange_byte_by_byte(wire, short, name):
    turns, expected = EXCHANGES[name]
    connection = wire(Http1Parser())
    out = []
    for direction, data in turns:
        out += connection.turn(direction, data, lambda data: [data[i : i + 1] for i in range(len(data))])
    assert short(out + connection.close()) == expected
