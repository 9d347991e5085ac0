"""What the HTTP/1.1 parser makes of turns whose records were lost."""

from __future__ import annotations

import pytest

from autotrace.model import Context, Direction, Message, MessageEnd, ProtocolError, Request, Response
from autotrace.protocols.http1 import Http1Parser

RX, TX = Direction.RX, Direction.TX
GET = b"GET /get HTTP/1.1\r\n\r\n"
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


def at(ts: int) -> Context:
    return Context(ts, 1, 1, 0, 0, 0)


def short(messages: list[Message]) -> list[str]:
    """Each message in a few words; ends of messages only if they are not complete."""
    words: list[str] = []
    for message in messages:
        if isinstance(message, Request):
            words.append(message.target + "..." * message.truncated)
        elif isinstance(message, Response):
            words.append(f"{message.status}{'...' * message.truncated}")
        elif isinstance(message, ProtocolError):
            words.append(f"{message.direction.name} {message.reason}")
        elif isinstance(message, MessageEnd) and not message.complete:
            words.append(f"{message.direction.name} broken")
    return words


def test_a_loss_before_the_first_response_shows_if_its_start_was_told() -> None:
    parser = Http1Parser()
    assert parser.progress(TX, 500, 0, b"") == []
    parser.data(RX, 0, GET, at(1))
    assert short(parser.data(TX, 500 + len(OK), OK, at(6))) == ["TX gap", "200"]


def test_a_start_that_is_told_again_changes_nothing() -> None:
    parser = Http1Parser()
    parser.data(RX, 100, GET, at(1))
    assert parser.progress(RX, 999, 0, b"") == []
    assert short(parser.data(RX, 100 + len(GET), GET, at(2))) == ["/get"]


def test_a_lost_turn_is_no_gap_if_it_fits_into_a_body_of_known_length() -> None:
    parser = Http1Parser()
    put = b"PUT / HTTP/1.1\r\nExpect: 100-continue\r\nContent-Length: 50\r\n\r\n"
    parser.data(RX, 0, put, at(1))
    assert parser.missed(RX, len(put) + 50, 5, b"") == [MessageEnd(RX, 5, 50, True)]


@pytest.mark.parametrize(
    ("head", "request_"), [(b"Transfer-Encoding: chunked\r\n\r\n", []), (b"Cookie: a", ["/..."])]
)
def test_a_lost_turn_is_a_gap_if_the_end_of_the_body_before_it_is_not_known(
    head: bytes, request_: list[str]
) -> None:
    parser = Http1Parser()
    parser.progress(TX, 500, 0, b"")
    parser.data(RX, 0, b"PUT / HTTP/1.1\r\n" + head, at(1))
    assert short(parser.missed(RX, 500, 5, b"xyz")) == [*request_, "RX broken", "RX gap"]


def test_a_head_whose_rest_was_lost_comes_before_the_response_that_was_lost() -> None:
    parser = Http1Parser()
    parser.progress(TX, 500, 0, b"")
    parser.data(RX, 0, b"GET /a HTT", at(1))
    assert short(parser.missed(TX, 600, 5, b"")) == ["/a...", "TX gap"]
    assert short(parser.missed(RX, 50, 7, b"")) == ["RX broken", "RX gap"]
    assert short(parser.data(RX, 50, GET, at(7))) == ["/get"]


def test_requests_may_hide_in_the_counted_rest_of_a_request() -> None:
    parser = Http1Parser()
    parser.progress(TX, 500, 0, b"")
    parser.data(RX, 0, b"GET /a HTTP/1.1\r\nHost: a", at(1))
    assert short(parser.data(RX, 900, GET, at(2))) == ["/a...", "RX gap", "/get"]


def test_no_request_hides_there_once_it_is_answered() -> None:
    parser = Http1Parser()
    parser.data(RX, 0, b"GET /a HTTP/1.1\r\nHost: a", at(1))
    assert short(parser.progress(RX, 900, 2, b"abc\r\n\r\n")) == ["/a..."]
    assert short(parser.data(TX, 500, OK, at(3))) == ["200"]
    assert short(parser.data(RX, 900, GET, at(4))) == ["/get"]


def test_if_the_client_pipelines_a_request_may_hide_there_all_the_same() -> None:
    parser = Http1Parser()
    parser.data(RX, 0, GET * 2, at(1))
    parser.data(TX, 500, OK * 2, at(2))
    parser.data(RX, 2 * len(GET), b"GET /a HTTP/1.1\r\nHost: a", at(3))
    assert short(parser.progress(RX, 900, 4, b"abc\r\n\r\n")) == ["/a..."]
    assert short(parser.data(TX, 500 + 2 * len(OK), OK, at(5))) == ["RX broken", "RX gap", "200"]


def test_responses_may_hide_in_the_counted_rest_of_a_response_while_requests_wait() -> None:
    parser = Http1Parser()
    parser.data(RX, 0, GET * 3, at(1))
    parser.data(TX, 500, b"HTTP/1.1 200 OK\r\nServer: abc", at(2))
    assert short(parser.data(TX, 900, OK, at(3))) == ["200...", "TX broken", "TX gap", "200"]
