"""HTTP/1.1 conversations, as the kernel's turn capture shows them."""

from __future__ import annotations

import pytest

from autotrace.model import (
    Direction,
    Message,
    MessageEnd,
    ProtocolError,
    Request,
    Response,
    Switched,
)
from autotrace.protocols import HEADERS_KEPT, parser_for
from autotrace.protocols.http1 import PIPELINED_MAX, Http1Parser
from autotrace.protocols.http1_head import HEAD_MAX

RX, TX = Direction.RX, Direction.TX

GET = b"GET /a?b=c HTTP/1.1\r\nHost: h\r\n\r\n"
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi"
LAST = b"0\r\n\r\n"


def short(messages: list[Message]) -> list[str]:
    """One word per message: easy to compare, and to read when a comparison fails."""
    return [_word(message) for message in messages]


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


def converse(wire, *turns, capture: int = 4096, close: bool = False, orderly: bool = True) -> list[str]:
    connection = wire(Http1Parser(), capture)
    out: list[Message] = []
    for direction, data in turns:
        out += connection.turn(direction, data)
    out += connection.close(orderly) if close else connection.sweep()
    return short(out)


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
def test_exchange(wire, name):
    turns, expected = EXCHANGES[name]
    assert converse(wire, *turns, close=True) == expected


@pytest.mark.parametrize("name", EXCHANGES)
def test_exchange_byte_by_byte(wire, name):
    turns, expected = EXCHANGES[name]
    connection = wire(Http1Parser())
    out = []
    for direction, data in turns:
        out += connection.turn(direction, data, lambda data: [data[i : i + 1] for i in range(len(data))])
    assert short(out + connection.close()) == expected


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
def test_bodies_and_heads_that_are_only_counted(wire, name):
    turns, expected = COUNTED[name]
    assert converse(wire, *turns, close=True) == expected


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
def test_connection_reset(wire, name):
    turns, expected = BROKEN[name]
    assert converse(wire, *turns, close=True, orderly=False) == expected


def test_nothing_comes_after_the_end(wire):
    parser = Http1Parser()
    parser.close(5)
    assert parser.data(RX, 0, GET, wire.at(6)) == []
    assert parser.progress(RX, 5000, 7, b"") == []
    assert parser.close(8) == []


def test_positions_and_contexts_are_those_of_first_bytes(wire):
    parser = Http1Parser()
    two = b"\r\n" + GET + GET
    cut = len(two) - 5
    first = parser.data(RX, 100, two[:cut], wire.at(1))
    second = parser.data(RX, 100 + cut, two[cut:] + GET, wire.at(2))
    heads = [message for message in first + second if isinstance(message, Request)]
    assert [(head.position, head.at.ts) for head in heads] == [
        (102, 1),
        (102 + len(GET), 1),
        (102 + 2 * len(GET), 2),
    ]
    assert [message.ts for message in first + second if isinstance(message, MessageEnd)] == [1, 2, 2]


def test_end_of_a_counted_body_is_when_its_last_byte_moved(wire):
    parser = Http1Parser()
    parser.data(RX, 0, GET, wire.at(10))
    assert short(parser.data(TX, 0, b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n", wire.at(20))) == [
        "200"
    ]
    assert parser.progress(TX, 1040, 30, b"x" * 8) == []
    assert parser.progress(TX, 1041, 40, b"x" * 8) == [MessageEnd(TX, 40, 1000, True)]


def test_end_found_late_has_the_time_of_the_last_byte(wire):
    parser = Http1Parser()
    head = b"GET / HTTP/1.1\r\nCookie: "
    parser.data(RX, 0, head, wire.at(10))
    parser.progress(RX, 9000, 25, b"x\r\n\r\n")
    end, response, _ = parser.data(TX, 0, OK, wire.at(99))
    assert end == MessageEnd(RX, 25, None, True)
    assert isinstance(response, Response)


def test_bytes_seen_before_are_ignored(wire):
    parser = Http1Parser()
    assert short(parser.data(RX, 50, GET, wire.at(1))) == ["GET /a?b=c", "RX end 0"]
    assert parser.data(RX, 50, GET, wire.at(2)) == []
    assert parser.progress(RX, 60, 3, b"") == []
    overlapping = parser.data(RX, 45 + len(GET), GET[-5:] + GET, wire.at(4))
    assert [
        (message.position, message.method) for message in overlapping if isinstance(message, Request)
    ] == [(50 + len(GET), "GET")]


def test_gap_inside_a_head_is_never_glued(wire):
    parser = Http1Parser()
    assert parser.data(RX, 0, b"GET /a HTTP/1.1\r\nHost: a\r\nUser-Agent: b", wire.at(1)) == []
    out = parser.data(RX, 100, b"GET /b HTTP/1.1\r\n\r\n", wire.at(2))
    # Between the two may have been another.
    assert short(out) == ["GET /a ...", "RX end None", "RX gap", "GET /b", "RX end 0"]
    assert isinstance(out[0], Request)
    assert out[0].headers == {"host": "a"}  # the last line may be cut


def test_gap_where_a_response_had_to_begin_gives_up_the_waiting_requests(wire):
    connection = wire(Http1Parser())
    connection.turn(RX, b"HEAD / HTTP/1.1\r\n\r\n")
    connection.ends[TX] += 500  # a turn whose record was lost
    connection.last_ts[TX] = 30
    out = connection.turn(RX, GET) + connection.turn(TX, OK)
    assert short(out) == ["TX gap", "GET /a?b=c", "RX end 0", "200", "TX end 2"]


def test_each_gap_where_a_response_had_to_begin_gives_up_the_waiting_requests(wire):
    """A second response was lost while the first loss had not been got over."""
    parser = Http1Parser()
    parser.data(RX, 0, GET, wire.at(1))
    parser.data(TX, 0, OK, wire.at(2))
    size = len(GET)
    for number in (1, 2):
        parser.data(RX, number * size, GET, wire.at(3 * number))
        assert short(parser.progress(TX, (number + 1) * len(OK), 3 * number + 1, b"")) == ["TX gap"]
    parser.data(RX, 3 * size, GET, wire.at(10))
    assert short(parser.data(TX, 3 * len(OK), OK, wire.at(11))) == ["200", "TX end 2"]


def test_gap_where_a_request_had_to_begin_before_any_response_was_seen(wire):
    """A loss of the response cannot show by its position: nothing is known of that direction yet."""
    parser = Http1Parser()
    parser.data(RX, 0, GET, wire.at(1))
    assert short(parser.progress(RX, 2 * len(GET), 5, b"")) == ["RX gap", "TX gap"]
    assert short(parser.data(TX, len(OK), OK, wire.at(6))) == ["200", "TX end 2"]


def test_gap_where_a_request_had_to_begin(wire):
    connection = wire(Http1Parser())
    connection.turn(RX, GET)
    connection.turn(TX, OK)
    connection.ends[RX] += 500
    connection.last_ts[RX] = 90
    out = connection.turn(TX, OK) + connection.turn(RX, GET)
    assert short(out) == ["RX gap", "200", "TX end 2", "GET /a?b=c", "RX end 0"]


def test_gap_shown_by_a_later_position_alone(wire):
    parser = Http1Parser()
    parser.data(RX, 0, GET, wire.at(1))
    assert short(parser.data(RX, 500, GET, wire.at(2))) == ["RX gap", "TX gap", "GET /a?b=c", "RX end 0"]
    assert short(parser.data(RX, 900, b"nonsense", wire.at(2))) == ["RX gap", "TX gap"]


def test_switch_in_a_truncated_head_shown_by_a_later_position_alone(wire):
    parser = Http1Parser()
    parser.data(RX, 0, b"GET / HTTP/1.1\r\nUpgrade: x\r\n\r\n", wire.at(1))
    parser.data(TX, 0, b"HTTP/1.1 101 Switching\r\nUpgrade: x\r\n", wire.at(2))
    assert short(parser.data(TX, 500, b"\x81\x05hello", wire.at(3))) == ["101 ...", "TX end 0", "now x"]


def test_first_byte_alone_after_an_error(wire):
    """Go's server reads the first byte of a request by itself."""
    connection = wire(Http1Parser())
    connection.turn(RX, b"\x00")
    connection.turn(TX, OK)
    assert short(connection.turn(RX, GET, lambda data: [data[:1], data[1:]])) == ["GET /a?b=c", "RX end 0"]


def test_first_empty_line_byte_alone_after_an_error(wire):
    connection = wire(Http1Parser())
    connection.turn(RX, b"\x00")
    connection.turn(TX, OK)
    out = connection.turn(RX, b"\r\n" + GET, lambda data: [data[:1], data[1:]])
    assert short(out) == ["GET /a?b=c", "RX end 0"]


def test_endless_empty_lines_after_an_error_are_not_kept(wire):
    connection = wire(Http1Parser(), capture=10 * HEAD_MAX)
    connection.turn(RX, b"\x00")
    connection.turn(TX, OK)
    connection.turn(RX, b"\r\n" * HEAD_MAX, lambda data: [data[:9], data[9:-9], data[-9:]])
    assert sum(len(side.pending) for side in connection.parser._sides) == 0


def test_body_that_only_begins_like_a_message(wire):
    connection = wire(Http1Parser())
    connection.turn(RX, GET)
    connection.turn(TX, b"HTTP/1.1 200 OK\r\n\r\nabc")
    assert connection.turn(RX, b"") == []
    assert connection.turn(TX, b"HTTP/") == []
    assert connection.turn(TX, b"2 is another thing") == []
    assert connection.turn(RX, b"") == []
    assert connection.turn(TX, b"HT") == []
    assert short(connection.close()) == ["TX end 28"]


def test_obs_fold(wire):
    out = converse(wire, (RX, b"PUT / HTTP/1.1\r\nContent-Length:\r\n 3\r\n\r\nabc"))
    assert out == ["PUT /", "RX end 3"]
    parser = Http1Parser()
    (request, _) = parser.data(
        RX, 0, b"GET / HTTP/1.1\r\n X: 1\r\nUser-Agent: a\r\n\t b\r\nHost: c\r\n\r\n", wire.at(1)
    )
    assert isinstance(request, Request)
    assert request.headers == {"user-agent": "a b", "host": "c"}


def test_headers_kept_are_capped_and_joined(wire):
    parser = Http1Parser()
    lines = "".join(f"{name.title()}: {name}\r\n" for name in sorted(HEADERS_KEPT))
    lines += f"TraceState: b\r\nX-Other: no\r\nHost2: no\r\nUpgrade : {'u' * 3000}\r\n"
    head = f"GET / HTTP/1.1\r\n{lines}\r\n"
    (request, _) = parser.data(RX, 0, head.encode(), wire.at(1))
    assert isinstance(request, Request)
    assert request.headers.keys() == HEADERS_KEPT
    assert request.headers["tracestate"] == "tracestate, b"
    assert len(request.headers["upgrade"]) == 1024
    assert request.headers["host"] == "host"


def test_endless_head_is_truncated(wire):
    parser = Http1Parser()
    out = parser.data(RX, 0, b"GET / HTTP/1.1\r\nHost: h\r\n", wire.at(1))
    position = 25
    while not out and position < 2 * HEAD_MAX:
        out = parser.data(RX, position, b"A: b\r\n" * 100, wire.at(2))
        position += 600
    assert short(out) == ["GET / ..."]
    assert position < HEAD_MAX + 600


def test_endless_method_is_an_error(wire):
    parser = Http1Parser()
    assert parser.data(RX, 0, b"A" * 32, wire.at(1)) == []
    assert short(parser.data(RX, 32, b"A", wire.at(2))) == ["RX malformed_start_line"]


def test_waiting_requests_are_capped(wire):
    parser = Http1Parser()
    out = parser.data(RX, 0, GET * (PIPELINED_MAX + 1), wire.at(1))
    errors = [message for message in out if isinstance(message, ProtocolError)]
    assert short(errors) == ["TX too_many_requests_waiting"]
    assert sum(isinstance(message, Request) for message in out) == PIPELINED_MAX + 1


RECOGNISED = [
    GET,
    OK,
    b"G",
    b"GET /very/long/" + b"a" * 4000,
    b"\r\nPOST",
    b"HTTP/1.1 ",
    b"M-SEARCH * HTTP/1.1\r\n",
]
NOT_RECOGNISED = [
    b"",
    b"\r\n",
    b"\x16\x03\x01\x02\x00",
    b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    b"HTTP/2 200\r\n",
    b"*1\r\n$4\r\nPING\r\n",
    b"SET key value\r\n",
    b"get key\r\n",
    b"SSH-2.0-OpenSSH_9.2\r\n",
    b"GET /\r\n",
    b"\x00\x00\x00\x08\x04\xd2\x16\x2f",
]


@pytest.mark.parametrize("data", RECOGNISED)
def test_recognised(data):
    assert isinstance(parser_for(RX, data), Http1Parser)


@pytest.mark.parametrize("data", NOT_RECOGNISED)
def test_not_recognised(data):
    assert parser_for(RX, data) is None
