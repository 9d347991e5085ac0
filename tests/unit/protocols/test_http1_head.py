"""Heads by themselves: start lines, fields, and heads cut anywhere."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from autotrace.protocols.http1_head import (
    REQUEST_LINE,
    STATUS_LINE,
    head_end,
    read_cut_request,
    read_cut_response,
    read_fields,
    start_line,
    whole_request,
    whole_response,
)


@pytest.mark.parametrize(
    ("data", "end"),
    [
        (b"A\r\n\r\nrest", (2, 5)),
        (b"A\n\nrest", (1, 3)),
        (b"A\n\r\nrest", (1, 4)),
        (b"A\r\nB\n\n\r\n\r\n", (4, 6)),
        (b"A\r\nB: c\r\n\r\nx\n\n", (8, 11)),
        (b"A\r\n\r", (-1, -1)),
        (b"", (-1, -1)),
    ],
)
def test_head_end(data, end):
    assert head_end(data, 0) == end
    assert head_end(b"\n\n" + data, 2) == tuple(index + 2 if index >= 0 else -1 for index in end)


@pytest.mark.parametrize(
    ("line", "parts"),
    [
        (b"GET / HTTP/1.1\r\n", (b"GET", b"/", b"1.1")),
        (b"get  /a%20b   HTTP/1.0 \n", (b"get", b"/a%20b", b"1.0")),
        (b"M-SEARCH * HTTP/1.1\r\n", (b"M-SEARCH", b"*", b"1.1")),
        (b"CONNECT [::1]:443 HTTP/1.1\r\n", (b"CONNECT", b"[::1]:443", b"1.1")),
        (b"GET /\xc3\xa9 HTTP/1.1\r\n", (b"GET", b"/\xc3\xa9", b"1.1")),
    ],
)
def test_request_line(line, parts):
    assert REQUEST_LINE.match(line).groups() == parts


@pytest.mark.parametrize(
    "line",
    [
        b"GET /\r\n",
        b"GET / HTTP/2.0\r\n",
        b"GET / HTTP/1.1 x\r\n",
        b"GET  HTTP/1.1\r\n",
        b"GET /a b HTTP/1.1\r\n",
        b"GET /\x00 HTTP/1.1\r\n",
        b"G(T / HTTP/1.1\r\n",
        b" GET / HTTP/1.1\r\n",
        b"A" * 33 + b" / HTTP/1.1\r\n",
        b"GET / HTTP/1.1",
    ],
)
def test_no_request_line(line):
    assert REQUEST_LINE.match(line) is None


@pytest.mark.parametrize(
    ("line", "parts"),
    [
        (b"HTTP/1.1 200 OK\r\n", (b"1.1", b"200")),
        (b"HTTP/1.0 404\n", (b"1.0", b"404")),
        (b"HTTP/1.1 299 \xff\x80 text\r\n", (b"1.1", b"299")),
    ],
)
def test_status_line(line, parts):
    assert STATUS_LINE.match(line).groups() == parts


@pytest.mark.parametrize(
    "line",
    [
        b"HTTP/1.1 20 OK\r\n",
        b"HTTP/1.1 2000 OK\r\n",
        b"HTTP/1.1 099 x\r\n",
        b"HTTP/2 200\r\n",
        b"ICY 200 OK\r\n",
    ],
)
def test_no_status_line(line):
    assert STATUS_LINE.match(line) is None


def test_fields():
    data = (
        b"\r\nHOST:\ta \r\nContent-Length: 1\r\ncontent-length: 2\r\n"
        b"Transfer-Encoding: gzip\nno field\r\nExpect: 100-Continue\r\n"
    )
    fields = read_fields(data, 1, len(data) - 1)
    assert fields.kept == {"host": "a"}
    assert fields.content_length == b"1,2"
    assert fields.transfer_encoding == b"gzip"
    assert fields.expects_continue


def test_fields_outside_the_head_are_not_read():
    data = b"\nhost: a\n\nb3: body\n"
    assert read_fields(data, 0, 8).kept == {"host": "a"}


REQUEST = b"GET /abc?d HTTP/1.1\r\nHost: example\r\nb3: 1-2-3\r\n"
RESPONSE = b"HTTP/1.1 200 Fine\r\nContent-Length: 12\r\n"


@pytest.mark.parametrize(
    ("length", "expected"),
    [
        (3, None),
        (4, None),
        (6, ("GET", "/a", "", {})),
        (12, ("GET", "/abc?d", "", {})),
        (20, ("GET", "/abc?d", "", {})),
        (21, ("GET", "/abc?d", "1.1", {})),
        (30, ("GET", "/abc?d", "1.1", {})),
        (35, ("GET", "/abc?d", "1.1", {})),
        (36, ("GET", "/abc?d", "1.1", {"host": "example"})),
        (47, ("GET", "/abc?d", "1.1", {"host": "example", "b3": "1-2-3"})),
    ],
)
def test_cut_request(length, expected):
    request = read_cut_request(REQUEST[:length])
    assert (request and (*request[:3], request[3].kept)) == expected


@pytest.mark.parametrize(
    ("length", "expected"),
    [
        (11, None),
        (12, None),  # the status may be cut too: 200 or 2000
        (13, (200, "1.1", None)),
        (38, (200, "1.1", None)),
        (39, (200, "1.1", b"12")),
    ],
)
def test_cut_response(length, expected):
    response = read_cut_response(RESPONSE[:length])
    assert (response and (*response[:2], response[2].content_length)) == expected


@given(st.integers(0, 20), st.booleans())
def test_every_beginning_of_a_start_line_may_be_one(length, with_empty_line):
    empty = b"\r\n" if with_empty_line else b""
    assert start_line(empty + REQUEST[:length], request=True, response=False) is None
    assert start_line(empty + RESPONSE[: min(length, 18)], request=False, response=True) is None
    assert start_line(empty + REQUEST[:21], request=True, response=False) is True
    assert start_line(empty + RESPONSE[:19], request=False, response=True) is True


@given(st.binary(max_size=60), st.booleans(), st.booleans())
def test_what_cannot_begin_a_start_line_cannot_become_one(data, request, response):
    if start_line(data, request, response) is False:
        for more in (b"", b" / HTTP/1.1\r\n", b" HTTP/1.1\r\n", b"\n", b" 200 OK\r\n"):
            assert not start_line(data + more, request, response)


def test_a_whole_head_is_a_head_and_nothing_else():
    request, response = whole_request(REQUEST + b"\r\n"), whole_response(RESPONSE + b"\r\n")
    assert (request.method, request.target, request.version) == ("GET", "/abc?d", "1.1")
    assert (response.status, response.version) == (200, "1.1")
    for data in (REQUEST, REQUEST + b"\r\nx", b"\r\n" + REQUEST + b"\r\n", RESPONSE + b"\r\n"):
        assert whole_request(data) is None
    for data in (RESPONSE, RESPONSE + b"\r\nx", REQUEST + b"\r\n"):
        assert whole_response(data) is None
