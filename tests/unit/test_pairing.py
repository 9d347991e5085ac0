"""Pairing: requests and responses of one connection become exchanges, whatever order and end they have."""

from __future__ import annotations

import errno
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from autotrace.model import (
    Connection,
    Context,
    Direction,
    Exchange,
    ExchangeEnded,
    ExchangeStarted,
    Message,
    MessageEnd,
    PairingEvent,
    ProtocolError,
    Request,
    Response,
    Role,
    Switched,
)
from autotrace.pairing import Pairing

RX, TX = Direction.RX, Direction.TX


class Books:
    """Counts what pairing reports."""

    def __init__(self) -> None:
        self.seen = 0
        self.dropped: Counter[str] = Counter()
        self.notes: Counter[tuple[str, str]] = Counter()

    def see(self) -> None:
        self.seen += 1

    def drop(self, reason: str) -> None:
        self.dropped[reason] += 1

    def note(self, stage: str, what: str) -> None:
        self.notes[stage, what] += 1


@pytest.fixture
def books() -> Books:
    return Books()


@pytest.fixture
def pairing(books: Books) -> Pairing:
    return Pairing(books.see, books.drop, books.note, max_open_per_connection=4)


def connection(id: int = 1, pid: int = 10, from_start: bool = True) -> Connection:
    return Connection(id, pid, 2, 1, 0, 1, "127.0.0.1", 80, "127.0.0.1", 4000, from_start, None)


def context(ts: int, tid: int = 11) -> Context:
    return Context(ts, 10, tid, 0, 1, 0)


def request(ts: int, direction: Direction = RX, target: str = "/", method: str = "GET") -> Request:
    return Request(direction, ts, context(ts), method, target, "1.1", {})


def response(ts: int, direction: Direction = TX, status: int = 200) -> Response:
    return Response(direction, ts, context(ts), status, "1.1", {})


def end(ts: int, direction: Direction, size: int | None = 0, complete: bool = True) -> MessageEnd:
    return MessageEnd(direction, ts, size, complete)


def started(events: list[PairingEvent]) -> list[Exchange]:
    return [event.exchange for event in events if isinstance(event, ExchangeStarted)]


def ended(events: list[PairingEvent]) -> list[Exchange]:
    return [event.exchange for event in events if isinstance(event, ExchangeEnded)]


def test_a_request_whose_head_was_cut_is_partial(pairing: Pairing) -> None:
    cut = Request(RX, 10, context(10), "GET", "/lon", "", {}, truncated=True)
    first, second = started(
        pairing.messages(connection(), [cut, end(11, RX), response(12), end(13, TX), request(14)])
    )
    assert (first.target, first.partial, second.partial) == ("/lon", True, False)


@pytest.mark.parametrize(("way", "role"), [(RX, Role.SERVER), (TX, Role.CLIENT)])
def test_an_exchange_has_the_times_and_sizes_of_its_messages(
    pairing: Pairing, way: Direction, role: Role
) -> None:
    back = way.other
    conn = connection()
    (exchange,) = started(pairing.messages(conn, [request(5, way), end(6, way, 3)]))
    assert (exchange.role, exchange.start_ns, exchange.request_end_ns, exchange.end_ns) == (role, 5, 6, 0)
    assert pairing.in_flight == 1
    events = pairing.messages(conn, [response(8, back, 201), end(9, back, 7)])
    assert ended(events) == [exchange]
    assert (exchange.response_start_ns, exchange.end_ns, exchange.status, exchange.error) == (8, 9, 201, "")
    assert (exchange.request_body_size, exchange.response_body_size) == (3, 7)
    assert exchange.response_at == context(8)
    assert pairing.in_flight == 0


def test_an_early_response_ends_the_exchange_and_the_late_request_end_is_ignored(pairing: Pairing) -> None:
    conn = connection()
    events = pairing.messages(conn, [request(1), response(2, status=413), end(3, TX)])
    (exchange,) = ended(events)
    (second,) = started(pairing.messages(conn, [end(4, RX, 100), request(5)]))
    assert (exchange.end_ns, exchange.request_end_ns, exchange.request_body_size) == (3, 0, None)
    assert second.request_end_ns == 0


def test_pipelined_requests_are_answered_in_order(pairing: Pairing) -> None:
    asked = [request(1, target="/a"), end(1, RX), request(1, target="/b"), end(1, RX)]
    answered = [response(2, status=200), end(2, TX), response(3, status=404), end(3, TX)]
    events = pairing.messages(connection(), [*asked, *answered])
    assert [(exchange.target, exchange.status) for exchange in ended(events)] == [("/a", 200), ("/b", 404)]


def test_only_the_first_request_of_a_connection_seen_from_its_start_is_first(pairing: Pairing) -> None:
    new, old = connection(1), connection(2, from_start=False)
    whole: list[Message] = [request(1), end(1, RX), response(2), end(2, TX)]
    flags = [started(pairing.messages(conn, whole))[0].first_on_connection for conn in (new, new, old, old)]
    assert flags == [True, False, False, False]
    assert new.requests == 2


def test_a_response_without_its_request_is_noted_and_the_next_request_is_not_first(
    pairing: Pairing, books: Books
) -> None:
    conn = connection()
    assert pairing.messages(conn, [response(1), end(2, TX)]) == []
    assert books.notes == {("pairing", "orphan_response"): 1}
    (exchange,) = started(pairing.messages(conn, [request(3)]))
    assert not exchange.first_on_connection
    assert books.seen == 1


@pytest.mark.parametrize(
    ("messages", "number", "error"),
    [
        ([request(1)], 0, "no_response"),
        ([request(1)], errno.ECONNRESET, "ECONNRESET"),
        ([request(1), response(2)], 0, "incomplete_response"),
        ([request(1), response(2)], errno.EPIPE, "EPIPE"),
        ([request(1)], 9999, "errno_9999"),
    ],
)
def test_a_closed_connection_ends_what_is_open(
    pairing: Pairing, messages: list[Message], number: int, error: str
) -> None:
    conn = connection()
    (exchange,) = started(pairing.messages(conn, messages))
    assert ended(pairing.connection_closed(conn, 9, number)) == [exchange]
    assert (exchange.error, exchange.end_ns) == (error, 9)
    assert pairing.connection_closed(conn, 10, 0) == []
    assert pairing.process_exited(conn.pid, 11) == []


@pytest.mark.parametrize(
    ("error", "process_exited", "reason"),
    [
        (0, False, "incomplete_response"),
        (errno.ECONNRESET, False, "ECONNRESET"),
        (0, True, "process_exited"),
        (errno.ECONNRESET, True, "ECONNRESET"),
    ],
)
def test_why_the_connection_ended_is_why_the_response_is_incomplete(
    pairing: Pairing, error: int, process_exited: bool, reason: str
) -> None:
    conn = connection()
    pairing.messages(conn, [request(1), end(1, RX), response(2)])
    (exchange,) = ended(pairing.messages(conn, [end(3, TX, complete=False)], error, process_exited))
    assert exchange.error == reason


def test_an_incomplete_response_is_an_error(pairing: Pairing) -> None:
    messages = [request(1), end(1, RX), response(2), end(3, TX, 5, complete=False)]
    (exchange,) = ended(pairing.messages(connection(), messages))
    assert (exchange.error, exchange.response_body_size) == ("incomplete_response", 5)


@pytest.mark.parametrize(("reason", "error"), [("gap", ""), ("malformed_chunk", "protocol_error")])
def test_a_broken_response_is_an_error_unless_the_agent_missed_bytes(
    pairing: Pairing, books: Books, reason: str, error: str
) -> None:
    begun = [request(1), end(1, RX), response(2)]
    broken = [end(3, TX, None, complete=False), ProtocolError(TX, 9, 3, reason)]
    (exchange,) = ended(pairing.messages(connection(), [*begun, *broken]))
    assert (exchange.error, exchange.status) == (error, 200)
    assert books.notes == {("protocols", reason): 1}


def test_an_error_among_the_responses_ends_all_that_wait(pairing: Pairing) -> None:
    conn = connection()
    waiting = started(pairing.messages(conn, [request(1), end(1, RX), request(2), end(2, RX)]))
    events = pairing.messages(conn, [ProtocolError(TX, 5, 5, "malformed_start_line")])
    assert ended(events) == waiting
    assert {exchange.error for exchange in waiting} == {"protocol_error"}


def test_an_error_among_the_requests_leaves_those_that_wait(pairing: Pairing, books: Books) -> None:
    conn = connection()
    (exchange,) = started(pairing.messages(conn, [request(1), ProtocolError(RX, 5, 5, "malformed_chunk")]))
    assert ended(pairing.messages(conn, [response(6, status=400), end(7, TX)])) == [exchange]
    assert books.notes == {("protocols", "malformed_chunk"): 1}


@pytest.mark.parametrize("missed", [RX, TX])
def test_after_a_gap_a_pipelining_client_is_given_up(
    pairing: Pairing, books: Books, missed: Direction
) -> None:
    """Some requests or responses were in the gap, no one knows how many."""
    conn = connection()
    waiting = started(pairing.messages(conn, [request(1), end(1, RX), request(2), end(2, RX)]))
    events = pairing.messages(conn, [ProtocolError(missed, 5, 5, "gap"), request(6), end(6, RX)])
    events += pairing.messages(conn, [response(7), end(7, TX), response(8), end(8, TX)])
    events += pairing.messages(conn, [response(9), end(9, TX), request(10), end(10, RX), response(11)])
    assert ended(events) == waiting
    assert [exchange.status for exchange in waiting] == ([200, 200] if missed is RX else [0, 0])
    assert (books.seen, books.dropped) == (4, {"pipelined_answers_unknown": 2})
    assert not started(events)


def test_a_client_that_does_not_pipeline_goes_on_after_a_gap(pairing: Pairing) -> None:
    conn = connection(from_start=False)
    for ts in (10, 20, 30):
        lost = started(pairing.messages(conn, [request(ts), end(ts, RX)]))
        assert ended(pairing.messages(conn, [ProtocolError(TX, 5, ts + 1, "gap")])) == lost
        (exchange,) = ended(
            pairing.messages(conn, [request(ts + 2), end(ts + 2, RX), response(ts + 3), end(ts + 4, TX)])
        )
        assert exchange.status == 200


RX_GAP, TX_GAP = (ProtocolError(direction, 0, 1, "gap") for direction in (RX, TX))


def test_requests_missed_before_the_first_one_are_not_forgotten(pairing: Pairing, books: Books) -> None:
    """One was missed, and this one came before an answer: the client pipelines."""
    events = pairing.messages(connection(), [RX_GAP, request(1), end(1, RX), response(2), end(2, TX)])
    assert events == []
    assert books.dropped == {"pipelined_answers_unknown": 1}


def test_a_response_to_what_was_missed_clears_the_doubt(pairing: Pairing) -> None:
    first: list[Message] = [RX_GAP, response(2, status=201), end(2, TX)]
    second: list[Message] = [request(3), end(3, RX), response(4, status=202), end(4, TX)]
    (exchange,) = ended(pairing.messages(connection(), [*first, *second]))
    assert (exchange.status, exchange.error) == (202, "")


def test_after_a_gap_on_both_sides_one_request_is_given_no_response(pairing: Pairing, books: Books) -> None:
    events = pairing.messages(connection(), [TX_GAP, RX_GAP, request(1), end(1, RX)])
    assert len(started(events)) == 1
    assert not ended(events)
    (exchange,) = ended(pairing.messages(connection(), [response(5), end(6, TX)]))
    assert (exchange.end_ns, exchange.status, exchange.error) == (5, 0, "")
    (exchange,) = ended(pairing.messages(connection(), [request(7), end(7, RX), response(8), end(8, TX)]))
    assert exchange.status == 200
    assert not books.dropped


def test_a_second_request_after_such_a_gap_shows_that_the_client_pipelines(
    pairing: Pairing, books: Books
) -> None:
    events = pairing.messages(connection(), [TX_GAP, RX_GAP, request(1), end(1, RX), request(2), response(3)])
    assert [exchange.end_ns for exchange in ended(events)] == [2]
    assert books.dropped == {"pipelined_answers_unknown": 1}


def test_what_was_missed_while_a_request_waited_shows_that_the_client_pipelines(
    pairing: Pairing, books: Books
) -> None:
    events = pairing.messages(
        connection(), [request(1), end(1, RX), RX_GAP, response(2, status=201), end(2, TX), request(3)]
    )
    assert [exchange.status for exchange in ended(events)] == [201]
    assert books.dropped == {"pipelined_answers_unknown": 1}


def test_where_ciphertext_is_names_a_request_only_if_no_other_waits(pairing: Pairing) -> None:
    def known(conn: Connection, *messages: Message) -> bool:
        asked = messages[-1]
        assert isinstance(asked, Request)
        conn.turn_begins(RX, asked.position, 100, 200)
        (exchange,) = started(pairing.messages(conn, messages))
        return exchange.on_wire(RX) is not None

    conn = connection()
    assert known(conn, request(1))
    assert not known(conn, end(1, RX), request(2))
    assert known(conn, end(2, RX), response(3), end(3, TX), response(4), request(5))
    # Another one may be in what was not understood.
    conn = connection(2)
    assert not known(conn, ProtocolError(RX, 1, 1, "malformed_start_line"), request(2))
    assert known(conn, end(2, RX), response(3), end(3, TX), request(4))


def test_pipelined_requests_of_an_older_connection_are_given_up(pairing: Pairing, books: Books) -> None:
    """The first response may answer what was asked before the agent looked."""
    conn = connection(from_start=False)
    events = pairing.messages(conn, [request(1), end(1, RX), request(2), end(2, RX)])
    events += pairing.messages(conn, [response(3), end(3, TX), response(4), end(4, TX)])
    assert [(exchange.status, exchange.error) for exchange in ended(events)] == [(0, "")]
    assert (books.seen, books.dropped) == (2, {"pipelined_answers_unknown": 1})


@pytest.mark.parametrize("ends_first", [True, False])
def test_a_switch_ends_its_exchange_with_its_status(pairing: Pairing, ends_first: bool) -> None:
    response_end: list[Message] = [end(4, TX)] if ends_first else []
    messages: list[Message] = [
        request(1),
        end(1, RX),
        response(4, status=101),
        *response_end,
        Switched(4, "ws"),
    ]
    (exchange,) = ended(pairing.messages(connection(), messages))
    assert (exchange.status, exchange.end_ns, exchange.error) == (101, 4, "")


def test_a_failed_connect_is_an_exchange_of_its_own(pairing: Pairing, books: Books) -> None:
    begun, over = pairing.connect_failed(connection(), context(3), 8, errno.ECONNREFUSED)
    exchange = begun.exchange
    assert exchange is over.exchange
    assert (exchange.role, exchange.method, exchange.error) == (Role.CLIENT, "", "ECONNREFUSED")
    assert (exchange.start_ns, exchange.end_ns, exchange.at.tid) == (3, 8, 11)
    assert books.seen == 1
    unseen = pairing.connect_failed(connection(), None, 8, 0)[0].exchange
    assert (unseen.start_ns, unseen.at.tid, unseen.error) == (8, 0, "aborted")


def test_a_process_that_exits_ends_its_exchanges_and_no_others(pairing: Pairing) -> None:
    own = started(
        pairing.messages(connection(1), [request(1)]) + pairing.messages(connection(2), [request(2)])
    )
    other = connection(3, pid=20)
    pairing.messages(other, [request(3)])
    assert ended(pairing.process_exited(10, 7)) == own
    assert {(exchange.error, exchange.end_ns) for exchange in own} == {("process_exited", 7)}
    assert pairing.in_flight == 1
    assert pairing.connection_closed(connection(1), 8, 0) == []
    assert pairing.messages(connection(1), [end(8, TX)]) == []


def test_a_request_that_nobody_answers_times_out_and_its_late_response_is_not_the_next_ones(
    pairing: Pairing, books: Books
) -> None:
    conn = connection()
    (slow,) = started(pairing.messages(conn, [request(10), end(10, RX)]))
    assert pairing.expire(109, 100) == []
    assert ended(pairing.expire(110, 100)) == [slow]
    assert (slow.error, slow.end_ns) == ("timeout", 110)
    assert pairing.expire(500, 100) == []
    messages = [
        request(120),
        end(120, RX),
        response(130),
        end(131, TX),
        response(140, status=204),
        end(141, TX),
    ]
    (second,) = ended(pairing.messages(conn, messages))
    assert (second.start_ns, second.status, slow.status) == (120, 204, 0)
    assert books.notes == {("pairing", "late_response"): 1}


def test_neither_an_upload_nor_a_response_in_progress_times_out(pairing: Pairing) -> None:
    pairing.messages(connection(1), [request(10)])
    pairing.messages(connection(2), [request(10), end(10, RX), response(11)])
    assert pairing.expire(10_000, 100) == []


def test_requests_beyond_the_bound_are_dropped_and_the_order_is_kept(pairing: Pairing, books: Books) -> None:
    conn = connection()
    kept = started(pairing.messages(conn, [request(ts) for ts in range(1, 7)]))
    assert [exchange.start_ns for exchange in kept] == [1, 2, 3, 4]
    pairing.messages(conn, [response(10), end(10, TX)])
    assert started(pairing.messages(conn, [request(11)])) == []
    answers = [message for ts in range(12, 18) for message in (response(ts, status=200 + ts), end(ts, TX))]
    assert [exchange.status for exchange in ended(pairing.messages(conn, answers))] == [212, 213, 214]
    assert books.dropped == {"too_many_open_requests": 3}
    assert books.seen == 7
    assert not books.notes
    (again,) = ended(pairing.messages(conn, [request(20), response(21), end(21, TX)]))
    assert again.start_ns == 20


def test_drain_returns_what_is_open_and_forgets_it(pairing: Pairing) -> None:
    second = started(pairing.messages(connection(2), [request(9)]))
    first = started(pairing.messages(connection(1), [request(4)]))
    assert pairing.drain() == first + second
    assert pairing.in_flight == 0
    assert pairing.drain() == []


MESSAGES = st.one_of(
    st.builds(request, st.integers(1, 99), st.sampled_from(Direction)),
    st.builds(response, st.integers(1, 99), st.sampled_from(Direction)),
    st.builds(
        end, st.integers(1, 99), st.sampled_from(Direction), st.none() | st.integers(0, 9), st.booleans()
    ),
    st.builds(ProtocolError, st.sampled_from(Direction), st.just(1), st.integers(1, 99), st.just("gap")),
    st.builds(Switched, st.integers(1, 99), st.just("ws")),
)


@given(st.lists(st.tuples(st.integers(0, 8), st.integers(1, 3), MESSAGES), max_size=60))
def test_every_exchange_seen_ends_once_or_is_dropped_or_is_in_flight(
    steps: list[tuple[int, int, Message]],
) -> None:
    books = Books()
    pairing = Pairing(books.see, books.drop, books.note, max_open_per_connection=3)
    events: list[PairingEvent] = []
    for action, id, message in steps:
        conn = connection(id, pid=id % 2)
        if action == 0:
            events += pairing.connection_closed(conn, 100, 0)
        elif action == 1:
            events += pairing.process_exited(conn.pid, 100)
        elif action == 2:
            events += pairing.expire(100, 50)
        else:
            events += pairing.messages(conn, [message])
        assert books.seen == len(ended(events)) + books.dropped.total() + pairing.in_flight
    finished = ended(events)
    assert len(set(finished)) == len(finished)
    assert set(finished) | set(pairing.drain()) == set(started(events))
    assert all(exchange.end_ns for exchange in finished)
