"""Where and when messages of HTTP/1.1 begin and end, and what a gap in the captured bytes does."""

from __future__ import annotations

from autotrace.model import Direction, MessageEnd, Request, Response
from autotrace.protocols.http1 import Http1Parser
from autotrace.protocols.http1_head import HEAD_MAX

RX, TX = Direction.RX, Direction.TX

GET = b"GET /a?b=c HTTP/1.1\r\nHost: h\r\n\r\n"
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi"


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


def test_end_of_a_counted_body_is_when_its_last_byte_moved(wire, short):
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


def test_bytes_seen_before_are_ignored(wire, short):
    parser = Http1Parser()
    assert short(parser.data(RX, 50, GET, wire.at(1))) == ["GET /a?b=c", "RX end 0"]
    assert parser.data(RX, 50, GET, wire.at(2)) == []
    assert parser.progress(RX, 60, 3, b"") == []
    overlapping = parser.data(RX, 45 + len(GET), GET[-5:] + GET, wire.at(4))
    assert [
        (message.position, message.method) for message in overlapping if isinstance(message, Request)
    ] == [(50 + len(GET), "GET")]


def test_gap_inside_a_head_is_never_glued(wire, short):
    parser = Http1Parser()
    assert parser.data(RX, 0, b"GET /a HTTP/1.1\r\nHost: a\r\nUser-Agent: b", wire.at(1)) == []
    out = parser.data(RX, 100, b"GET /b HTTP/1.1\r\n\r\n", wire.at(2))
    # Between the two may have been another.
    assert short(out) == ["GET /a ...", "RX end None", "RX gap", "GET /b", "RX end 0"]
    assert isinstance(out[0], Request)
    assert out[0].headers == {"host": "a"}  # the last line may be cut


def test_gap_where_a_response_had_to_begin_gives_up_the_waiting_requests(wire, short):
    connection = wire(Http1Parser())
    connection.turn(RX, b"HEAD / HTTP/1.1\r\n\r\n")
    connection.ends[TX] += 500  # a turn whose record was lost
    connection.last_ts[TX] = 30
    out = connection.turn(RX, GET) + connection.turn(TX, OK)
    assert short(out) == ["TX gap", "GET /a?b=c", "RX end 0", "200", "TX end 2"]


def test_each_gap_where_a_response_had_to_begin_gives_up_the_waiting_requests(wire, short):
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


def test_gap_where_a_request_had_to_begin_before_any_response_was_seen(wire, short):
    """A loss of the response cannot show by its position: nothing is known of that direction yet."""
    parser = Http1Parser()
    parser.data(RX, 0, GET, wire.at(1))
    assert short(parser.progress(RX, 2 * len(GET), 5, b"")) == ["RX gap", "TX gap"]
    assert short(parser.data(TX, len(OK), OK, wire.at(6))) == ["200", "TX end 2"]


def test_gap_where_a_request_had_to_begin(wire, short):
    connection = wire(Http1Parser())
    connection.turn(RX, GET)
    connection.turn(TX, OK)
    connection.ends[RX] += 500
    connection.last_ts[RX] = 90
    out = connection.turn(TX, OK) + connection.turn(RX, GET)
    assert short(out) == ["RX gap", "200", "TX end 2", "GET /a?b=c", "RX end 0"]


def test_gap_shown_by_a_later_position_alone(wire, short):
    parser = Http1Parser()
    parser.data(RX, 0, GET, wire.at(1))
    assert short(parser.data(RX, 500, GET, wire.at(2))) == ["RX gap", "TX gap", "GET /a?b=c", "RX end 0"]
    assert short(parser.data(RX, 900, b"nonsense", wire.at(2))) == ["RX gap", "TX gap"]


def test_switch_in_a_truncated_head_shown_by_a_later_position_alone(wire, short):
    parser = Http1Parser()
    parser.data(RX, 0, b"GET / HTTP/1.1\r\nUpgrade: x\r\n\r\n", wire.at(1))
    parser.data(TX, 0, b"HTTP/1.1 101 Switching\r\nUpgrade: x\r\n", wire.at(2))
    assert short(parser.data(TX, 500, b"\x81\x05hello", wire.at(3))) == ["101 ...", "TX end 0", "now x"]


def test_first_byte_alone_after_an_error(wire, short):
    """Go's server reads the first byte of a request by itself."""
    connection = wire(Http1Parser())
    connection.turn(RX, b"\x00")
    connection.turn(TX, OK)
    assert short(connection.turn(RX, GET, lambda data: [data[:1], data[1:]])) == ["GET /a?b=c", "RX end 0"]


def test_first_empty_line_byte_alone_after_an_error(wire, short):
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


def test_body_that_only_begins_like_a_message(wire, short):
    connection = wire(Http1Parser())
    connection.turn(RX, GET)
    connection.turn(TX, b"HTTP/1.1 200 OK\r\n\r\nabc")
    assert connection.turn(RX, b"") == []
    assert connection.turn(TX, b"HTTP/") == []
    assert connection.turn(TX, b"2 is another thing") == []
    assert connection.turn(RX, b"") == []
    assert connection.turn(TX, b"HT") == []
    assert short(connection.close()) == ["TX end 28"]
