"""What the table does with connections whose protocol does not show at once."""

from autotrace.model import (
    Chunk,
    Connection,
    ConnectionOpened,
    Context,
    Direction,
    ProtocolError,
    Request,
    Response,
)
from autotrace.protocols import FRAME_PARSER, parser_for
from autotrace.streams import StreamTable
from autotrace.streams.table import PROTOCOL_ERRORS_MAX, UNRECOGNISED_TURNS_MAX

AT = Context(1000, 10, 11, 0, 0, 0)


class Table:
    """A table with one connection, and what it said about it."""

    def __init__(self, from_start: bool) -> None:
        self.stopped: list[Connection] = []
        self.notes: list[tuple[str, str]] = []
        self.table = StreamTable(
            parser_for, FRAME_PARSER, self.stopped.append, lambda *note: self.notes.append(note)
        )
        self.table.opened(
            ConnectionOpened(1, 7, 10, 2, 1, 0, 1, "127.0.0.1", 80, "127.0.0.1", 81, from_start, None)
        )

    def say(self, turn: int, data: bytes, position: int) -> list[object]:
        result = self.table.chunk(Chunk(7, Direction.RX, turn, position, data, AT, 0, 0, b""))
        return list(result[1]) if result else []


def test_a_new_connection_that_begins_with_no_message_is_left_alone() -> None:
    table = Table(from_start=True)
    assert table.say(1, b"EHLO example.org\r\n", 100) == []
    assert [connection.id for connection in table.stopped] == [7]
    assert table.notes == [("streams", "protocol_not_recognised")]
    assert table.say(2, b"GET / HTTP/1.1\r\n\r\n", 200) == []


def test_the_first_answer_on_an_older_connection_may_have_begun_unseen() -> None:
    """Its rest is no fault of the program's. What follows is as always."""
    table = Table(from_start=False)

    def answer(turn: int, data: bytes, position: int) -> list[object]:
        result = table.table.chunk(Chunk(7, Direction.TX, turn, position, data, AT, 0, 0, b""))
        return list(result[1]) if result else []

    table.say(1, b"GET / HTTP/1.1\r\n\r\n", 100)
    (gap,) = answer(2, b"the rest of a body", 0)
    assert isinstance(gap, ProtocolError)
    assert (gap.direction, gap.reason) == (Direction.TX, "gap")
    assert isinstance(table.say(3, b"GET / HTTP/1.1\r\n\r\n", 118)[0], Request)
    assert isinstance(answer(4, b"HTTP/1.1 204 OK\r\n\r\n", 18)[0], Response)


def test_where_a_turn_s_ciphertext_is_is_the_connection_s() -> None:
    table = Table(from_start=False)
    table.table.chunk(Chunk(7, Direction.RX, 1, 100, b"GET / HT", AT, 0, 0, b"", 0, 20, 40))
    table.say(1, b"TP/1.1\r\n\r\n", 108)
    (connection,) = table.table.connections()
    here = connection.on_wire(Direction.RX, 100)
    assert here is not None
    assert here[1:] == (20, 40)


def test_an_older_connection_may_begin_inside_a_body() -> None:
    table = Table(from_start=False)
    for part in range(20):
        assert table.say(1, b"POSTED LETTERS\r\n", 100 + 1000 * part) == []
    assert not table.stopped
    request = table.say(2, b"GET / HTTP/1.1\r\n\r\n", 30_000)[0]
    assert isinstance(request, Request)
    assert (request.position, request.target) == (30_000, "/")
    assert table.notes == []


def test_an_older_connection_of_another_protocol_is_left_alone_after_some_turns() -> None:
    table = Table(from_start=False)
    for turn in range(UNRECOGNISED_TURNS_MAX):
        table.say(2 * turn + 1, b"MAIL FROM:<x>\r\n", 100 + 100 * turn)
    assert not table.stopped
    table.say(99, b"QUIT\r\n", 9000)
    assert [connection.id for connection in table.stopped] == [7]


def test_a_new_connection_whose_first_bytes_only_looked_like_a_message_is_left_alone() -> None:
    table = Table(from_start=True)
    table.say(1, b"G", 100)
    assert not table.stopped
    assert [type(message) for message in table.say(1, b"arbage\x00\x01\r\n", 101)] == [ProtocolError]
    assert [connection.id for connection in table.stopped] == [7]


def test_a_connection_that_spoke_the_protocol_is_left_alone_after_many_errors() -> None:
    table = Table(from_start=True)
    table.say(1, b"GET / HTTP/1.1\r\n\r\n", 100)
    for turn in range(PROTOCOL_ERRORS_MAX + 1):
        assert not table.stopped
        table.say(2 * turn + 3, b"GET / HTTP/1.1\r\nTransfer-Encoding: unknown\r\n\r\n", 1000 * turn + 1000)
    assert table.notes[-1] == ("streams", "protocol_not_recognised")
