"""What of an HTTP/1.1 head is kept and how much of it, and what is taken for HTTP/1.1 at all."""

from __future__ import annotations

import pytest

from autotrace.model import Direction, ProtocolError, Request
from autotrace.protocols import HEADERS_KEPT, parser_for
from autotrace.protocols.http1 import PIPELINED_MAX, Http1Parser
from autotrace.protocols.http1_head import HEAD_MAX

RX, TX = Direction.RX, Direction.TX

GET = b"GET /a?b=c HTTP/1.1\r\nHost: h\r\n\r\n"
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi"


def test_obs_fold(wire, converse):
    out = converse((RX, b"PUT / HTTP/1.1\r\nContent-Length:\r\n 3\r\n\r\nabc"))
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


def test_endless_head_is_truncated(wire, short):
    parser = Http1Parser()
    out = parser.data(RX, 0, b"GET / HTTP/1.1\r\nHost: h\r\n", wire.at(1))
    position = 25
    while not out and position < 2 * HEAD_MAX:
        out = parser.data(RX, position, b"A: b\r\n" * 100, wire.at(2))
        position += 600
    assert short(out) == ["GET / ..."]
    assert position < HEAD_MAX + 600


def test_endless_method_is_an_error(wire, short):
    parser = Http1Parser()
    assert parser.data(RX, 0, b"A" * 32, wire.at(1)) == []
    assert short(parser.data(RX, 32, b"A", wire.at(2))) == ["RX malformed_start_line"]


def test_waiting_requests_are_capped(wire, short):
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
