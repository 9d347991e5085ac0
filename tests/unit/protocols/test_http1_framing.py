"""Body framing by itself: what each kind of body makes of captured and counted bytes."""

from __future__ import annotations

import pytest

from autotrace.protocols.http1_framing import (
    CHUNK_LINE_MAX,
    ChunkedBody,
    LengthBody,
    MalformedError,
    UntilAnswerBody,
    UntilCloseBody,
    content_length,
    has_no_content,
    is_chunked,
    switches_to,
)


@pytest.mark.parametrize(
    ("value", "number"),
    [(b"0", 0), (b"42", 42), (b"0042", 42), (b"5, 5,\t5", 5), (b"999999999999999999", 10**18 - 1)],
)
def test_content_length(value, number):
    assert content_length(value) == number


@pytest.mark.parametrize("value", [b"", b"-1", b"+1", b"1 2", b"5,6", b"5,", b"0x10", b"9" * 19, b"\xb2"])
def test_content_length_malformed(value):
    with pytest.raises(MalformedError, match="malformed_content_length"):
        content_length(value)


@pytest.mark.parametrize(
    ("value", "chunked"),
    [
        (b"chunked", True),
        (b"gzip,CHUNKED ", True),
        (b"chunked, gzip", False),
        (b"identity", False),
        (b"", False),
    ],
)
def test_is_chunked(value, chunked):
    assert is_chunked(value) is chunked


def test_length_body():
    body = LengthBody(10)
    assert body.take(b"..abc", 2) == 5
    assert (body.size, body.done) == (3, False)
    assert body.skip(6, b"") == 0
    assert body.take(b"xGET", 0) == 1
    assert (body.size, body.done) == (10, True)


def test_length_body_skipped_beyond_its_end():
    body = LengthBody(10)
    assert body.skip(13, b"") == 3
    assert (body.size, body.done) == (10, True)


def test_optional_length_body_is_replaceable_until_it_begins():
    body = LengthBody(2, optional=True)
    assert body.replaceable
    body.take(b"x", 0)
    assert not body.replaceable


def test_chunked_body():
    body = ChunkedBody()
    data = b"a\r\n0123456789\r\n3;x=y\nabc\n0\r\nT: 1\r\n\r\nGET"
    assert body.take(data, 0) == len(data) - 3
    assert (body.size, body.done) == (13, True)


def test_chunk_followed_through_counted_bytes():
    body = ChunkedBody()
    body.take(b"3e8\r\nabc", 0)
    assert body.skip(990, b"x" * 8) == 0
    assert body.size == 993
    assert body.take(b"defghij\r\n2\r\nkl", 0) == 14
    assert body.size == 1002


def test_chunk_boundaries_lost_beyond_the_tail():
    body = ChunkedBody()
    body.take(b"3e8\r\nabc", 0)
    assert body.skip(997 + 9, b"\r\n7\r\nabc") == 0
    assert (body.size, body.done, body.replaceable) == (None, False, True)


def test_chunk_end_in_the_tail():
    body = ChunkedBody()
    body.take(b"3e8\r\nabc", 0)
    assert body.skip(997 + 7, b"x\r\n0\r\n\r\n") == 0
    assert (body.size, body.done) == (1000, True)


def test_bytes_after_the_end_in_the_tail():
    body = ChunkedBody()
    body.take(b"4\r\nabcd\r\n", 0)
    assert body.skip(7, b"0\r\n\r\n\r\n") == 2
    assert (body.size, body.done) == (4, True)


@pytest.mark.parametrize("tail", [b"\r\n0\r\n\r\n", b"x\r\n0\r\n\r\n", b"0\r\n\r\n", b"\n0\r\n\r\n"])
def test_lost_chunks_end_with_the_last_chunk(tail):
    body = ChunkedBody(lost=True)
    body.skip(5000, tail)
    assert (body.size, body.done) == (None, True)


@pytest.mark.parametrize("tail", [b"", b"\r\n\r\n", b"x0\r\n\r\n", b"100\r\n\r\n", b"\r\n0\r\n\r\nx"])
def test_lost_chunks_do_not_end_with_other_bytes(tail):
    body = ChunkedBody(lost=True)
    body.skip(5000, tail)
    assert not body.done


def test_lost_chunks_end_in_captured_bytes():
    body = ChunkedBody(lost=True)
    for index, byte in enumerate(b"5\r\nhello\r\n0\r\n\r"):
        assert body.take(bytes([byte]), 0) == 1
        assert not body.done, index
    body.take(b"\n", 0)
    assert body.done


def test_endless_chunk_line():
    body = ChunkedBody()
    body.take(b"5;" + b"x" * (CHUNK_LINE_MAX - 2), 0)
    with pytest.raises(MalformedError, match="malformed_chunk"):
        body.take(b"x", 0)


@pytest.mark.parametrize(
    "data", [b"\r\n", b"-1\r\n", b"g\r\n", b"1" * 17 + b"\r\n", b"1\r\nab", b"1\r\na\r\r\n", b"5 5\r\n"]
)
def test_malformed_chunks(data):
    with pytest.raises(MalformedError, match="malformed_chunk"):
        ChunkedBody().take(data + b"..", 0)


def test_open_bodies():
    body = UntilCloseBody()
    assert body.take(b"..abc", 2) == 5
    assert body.skip(4, b"") == 0
    assert body.size == 7
    assert (body.complete_at_close(orderly=True), body.complete_at_close(orderly=False)) == (True, False)
    assert not body.ended_by_answer
    assert UntilAnswerBody(3).ended_by_answer


@pytest.mark.parametrize(
    ("method", "status", "nothing"),
    [("HEAD", 200, True), ("GET", 204, True), ("GET", 304, True), ("GET", 200, False)],
)
def test_has_no_content(method, status, nothing):
    assert has_no_content(method, status) is nothing


@pytest.mark.parametrize(
    ("method", "status", "headers", "protocol"),
    [
        ("GET", 101, {"upgrade": "h2c"}, "h2c"),
        ("GET", 101, {}, "unknown"),
        ("GET", 200, {"upgrade": "h2c"}, ""),
        ("CONNECT", 200, {}, "connect"),
        ("CONNECT", 299, {}, "connect"),
        ("CONNECT", 300, {}, ""),
    ],
)
def test_switches_to(method, status, headers, protocol):
    assert switches_to(method, status, headers) == protocol


def test_a_chunked_body_whose_last_bytes_are_not_known_is_complete_at_an_orderly_end() -> None:
    for tail, complete in ((b"", True), (b"\r\n", True), (b"more", False), (b"xx\r\n", False)):
        body = ChunkedBody()
        body.take(b"5\r\nab", 0)
        body.skip(100, tail)
        assert body.complete_at_close(orderly=True) is complete, tail
        assert body.complete_at_close(orderly=False) is False
