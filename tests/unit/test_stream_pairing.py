"""Streams become exchanges: each response meets its own request, and every exchange that was seen ends once."""

from __future__ import annotations

import errno
from collections import Counter

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from autotrace.model import (
    Connection,
    Context,
    Direction,
    Exchange,
    ExchangeEnded,
    ExchangeStarted,
    GoAway,
    Message,
    PairingEvent,
    ProtocolError,
    Role,
    Rpc,
    StreamEnd,
    StreamGoesOn,
    StreamRequest,
    StreamReset,
    StreamResponse,
)
from autotrace.stream_pairing import StreamPairing

RX, TX = Direction.RX, Direction.TX
SECOND = 1_000_000_000
RELAXED = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])


class Books:
    """A pairing stage for one connection, with what it told the ledger."""

    def __init__(self, max_open: int = 100) -> None:
        self.seen = 0
        self.drops: Counter[str] = Counter()
        self.notes: Counter[tuple[str, str]] = Counter()
        self.started: list[Exchange] = []
        self.ended: list[Exchange] = []
        self.pairing = StreamPairing(self._see, self._drop, self._note, max_open)
        self.connection = Connection(1, 10, 2, 1, 0, 1, "10.0.0.1", 80, "10.0.0.2", 4000, True, None)

    def _see(self) -> None:
        self.seen += 1

    def _drop(self, reason: str) -> None:
        self.drops[reason] += 1

    def _note(self, stage: str, what: str) -> None:
        self.notes[stage, what] += 1

    def take(self, *messages: Message) -> None:
        self.events(self.pairing.messages(self.connection, messages))

    def events(self, events: list[PairingEvent]) -> None:
        for event in events:
            if isinstance(event, ExchangeStarted):
                self.started.append(event.exchange)
            else:
                assert isinstance(event, ExchangeEnded)
                self.ended.append(event.exchange)

    def closed(self, ts: int = 99, error: int = 0, exited: bool = False) -> list[str]:
        before = len(self.ended)
        self.events(self.pairing.connection_closed(self.connection, ts, error, exited))
        return [exchange.error for exchange in self.ended[before:]]

    def balanced(self) -> bool:
        return self.seen == len(self.ended) + self.drops.total() + self.pairing.in_flight


def at(ts: int) -> Context:
    return Context(ts, 10, 11, 0, 0, 0)


def request(
    stream: int,
    ts: int = 1,
    direction: Direction = RX,
    rpc: Rpc | None = None,
    missed: int = 0,
    unwalked: bool = False,
) -> StreamRequest:
    return StreamRequest(direction, stream, 0, at(ts), "GET", f"/{stream}", {}, rpc, False, missed, unwalked)


def response(stream: int, ts: int = 5, direction: Direction = TX, status: int = 200) -> StreamResponse:
    return StreamResponse(direction, stream, at(ts), status, {"server": str(stream)})


def end(stream: int, ts: int, direction: Direction = TX, **more: object) -> Message:
    return StreamEnd(direction, stream, ts, 7, **more)  # type: ignore[arg-type]


def test_an_exchange() -> None:
    books = Books()
    books.take(request(1), end(1, 2, RX), response(1), end(1, 9))
    (exchange,) = books.ended
    assert books.started == [exchange]
    assert (exchange.role, exchange.stream, exchange.target, exchange.version) == (Role.SERVER, 1, "/1", "2")
    assert (exchange.start_ns, exchange.request_end_ns, exchange.response_start_ns, exchange.end_ns) == (
        1,
        2,
        5,
        9,
    )
    assert (exchange.status, exchange.error, exchange.request_body_size, exchange.response_body_size) == (
        200,
        "",
        7,
        7,
    )
    assert exchange.first_on_connection
    assert (books.pairing.in_flight, books.seen) == (0, 1)


def test_a_call() -> None:
    books = Books()
    books.take(request(1, rpc=Rpc("grpc", "a.B/C")), end(1, 2, RX, messages=1), response(1))
    books.take(end(1, 9, messages=4, rpc_status="NOT_FOUND"))
    assert books.ended[0].rpc == Rpc("grpc", "a.B/C", 0, "NOT_FOUND", 1, 4)


def test_a_call_that_shows_at_its_end() -> None:
    books = Books()
    books.take(request(1), response(1), end(1, 9, rpc=Rpc("grpc", "a.B/C"), rpc_status="OK"))
    assert books.ended[0].rpc == Rpc("grpc", "a.B/C", 0, "OK")


@pytest.mark.parametrize("late", [response(1)._replace(rpc=Rpc("grpc", "")), end(1, 9, rpc=Rpc("grpc", ""))])
def test_a_call_whose_path_was_told_otherwise(late: Message) -> None:
    books = Books()
    books.take(request(1)._replace(target=""))
    books.started[0].target = "/a.B/C"
    books.take(late, end(1, 10))
    assert books.ended[0].rpc is not None
    assert books.ended[0].rpc.method == "a.B/C"


@RELAXED
@given(st.data(), st.integers(1, 100))
def test_any_interleaving_is_paired_and_none_crossed(data: st.DataObject, count: int) -> None:
    books = Books()
    streams = [2 * i + 1 for i in range(count)]
    todo = {s: [request(s), end(s, 2, RX), response(s, status=200 + s), end(s, 9)] for s in streams}
    order = data.draw(st.permutations([s for s in streams for _ in range(4)]))
    for stream in order:
        books.take(todo[stream].pop(0))
    assert len(books.ended) == count
    for exchange in books.ended:
        assert exchange.target == f"/{exchange.stream}"
        assert exchange.status == 200 + exchange.stream


@pytest.mark.parametrize("by", [RX, TX])
def test_a_reset(by: Direction) -> None:
    books = Books()
    rpc = Rpc("grpc", "a.B/C")
    books.take(request(1, rpc=rpc), StreamReset(by, 1, 4, "CANCEL", "CANCELLED"), end(1, 9))
    (exchange,) = books.ended
    assert (exchange.error, exchange.end_ns, rpc.status) == ("CANCEL", 4, "CANCELLED")


def test_after_the_response_a_reset_changes_nothing() -> None:
    books = Books()
    books.take(request(1), response(1), end(1, 9), StreamReset(TX, 1, 10, "NO_ERROR"))
    assert [exchange.error for exchange in books.ended] == [""]


def test_go_away_refuses_the_streams_above_the_last() -> None:
    books = Books()
    books.take(request(1), request(3, rpc=Rpc("grpc", "x")), GoAway(RX, 4, 0), GoAway(TX, 5, 1))
    (exchange,) = books.ended
    assert (exchange.stream, exchange.error) == (3, "REFUSED_STREAM")
    assert exchange.rpc is not None
    assert exchange.rpc.status == "UNAVAILABLE"
    assert books.pairing.in_flight == 1


def test_a_response_without_a_request_is_noted() -> None:
    books = Books()
    books.take(response(7), end(7, 9), request(9))
    assert books.notes == {("pairing", "orphan_response"): 1}
    assert not books.started[0].first_on_connection


def test_requests_in_lost_records_are_in_the_books() -> None:
    books = Books()
    books.take(request(1), request(7, missed=2), response(3), response(7), end(7, 9), response(1), end(1, 9))
    assert (books.seen, dict(books.drops)) == (4, {"ring_full": 2})
    assert books.balanced()


def test_requests_that_the_kernel_left_out_are_in_the_books() -> None:
    books = Books()
    books.take(request(1), request(7, missed=2, unwalked=True), request(9))
    assert (books.seen, dict(books.drops)) == (5, {"unwalked": 2})
    assert books.balanced()


def test_too_many_open() -> None:
    books = Books(max_open=2)
    books.take(*(request(s) for s in (1, 3, 5)), response(5), end(5, 9))
    assert (books.pairing.in_flight, dict(books.drops)) == (2, {"too_many_open_requests": 1})
    assert books.balanced()


@pytest.mark.parametrize(
    ("answered", "error", "exited", "expected"),
    [
        (False, 0, False, "no_response"),
        (True, 0, False, "incomplete_response"),
        (True, errno.ECONNRESET, False, "ECONNRESET"),
        (False, 0, True, "process_exited"),
    ],
)
def test_a_connection_that_ends(answered: bool, error: int, exited: bool, expected: str) -> None:
    books = Books()
    books.take(request(1), *([response(1)] if answered else []))
    assert books.closed(99, error, exited) == [expected]
    assert books.closed() == []


@pytest.mark.parametrize(
    ("direction", "error", "exited", "status"),
    [
        (RX, 0, False, "CANCELLED"),
        (RX, errno.ECONNRESET, False, "CANCELLED"),
        (RX, 0, True, ""),
        (TX, 0, False, ""),
        (TX, errno.ECONNRESET, False, ""),
    ],
)
def test_a_call_whose_connection_ends(direction: Direction, error: int, exited: bool, status: str) -> None:
    """A server gives a call up with its connection. Of a client it is not known whether it gave up or was left."""
    books = Books()
    rpc = Rpc("grpc", "shop.Cart/Add", 0)
    books.take(request(1, direction=direction, rpc=rpc))
    books.closed(error=error, exited=exited)
    assert rpc.status == status
    assert books.balanced()


def test_a_call_that_may_have_ended_before_its_connection_was_not_cancelled() -> None:
    books = Books()
    rpc = Rpc("grpc", "shop.Cart/Add", 0)
    books.take(request(1, rpc=rpc), ProtocolError(RX, 0, 5, "gap"))
    books.closed()
    assert rpc.status == ""


def test_a_process_that_ends() -> None:
    books = Books()
    books.take(request(1))
    books.events(books.pairing.process_exited(11, 50))
    assert not books.ended
    books.events(books.pairing.process_exited(10, 50))
    assert [exchange.error for exchange in books.ended] == ["process_exited"]


def test_what_may_have_ended_unseen_is_no_error() -> None:
    books = Books()
    books.take(request(1), request(3), ProtocolError(TX, 0, 5, "gap"), request(5), StreamGoesOn(3))
    assert sorted(books.closed()) == ["", "no_response", "no_response"]
    assert books.notes == {("protocols", "gap"): 1}


def test_what_may_have_ended_unseen_is_given_up_in_time() -> None:
    books = Books()
    books.take(request(1), request(3), ProtocolError(TX, 0, SECOND, "gap"), response(3, SECOND + 1))
    books.events(books.pairing.expire(11 * SECOND, 10 * SECOND))
    assert [(e.stream, e.error, e.end_ns) for e in books.ended] == [(1, "", SECOND)]


def test_a_request_without_an_answer_times_out_but_a_call_does_not() -> None:
    books = Books()
    books.take(request(1), end(1, 2, RX), request(3, rpc=Rpc("grpc", "x")), end(3, 2, RX), request(5))
    books.events(books.pairing.expire(11 * SECOND, 10 * SECOND))
    assert [(e.stream, e.error) for e in books.ended] == [(1, "timeout")]
    books.take(response(1), end(1, 9))
    assert books.notes == {("pairing", "orphan_response"): 1}


def test_what_is_open_at_the_end_is_handed_back() -> None:
    books = Books()
    books.take(request(3, 9), request(1, 10))
    assert [exchange.stream for exchange in books.pairing.drain()] == [3, 1]
    assert books.pairing.in_flight == 0
