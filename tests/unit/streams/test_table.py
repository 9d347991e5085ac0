"""The table gives every captured byte and every count to the right parser, and nothing to one that is gone."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from autotrace.model import (
    Chunk,
    Connection,
    ConnectionClosed,
    ConnectionOpened,
    Context,
    Direction,
    Frames,
    FramesOrigin,
    Message,
    MessageEnd,
    Progress,
    ProtocolError,
    Request,
    StreamEnd,
    Switched,
)
from autotrace.streams import StreamTable

RX, TX = Direction.RX, Direction.TX
AT = Context(1000, 10, 11, 0, 0, 0)


class Recorder:
    """A parser that writes down its calls and answers what it is told to."""

    def __init__(self, log: list[tuple[Any, ...]]) -> None:
        self.log = log
        self.answers: list[list[Message]] = []

    def _answer(self, *call: Any) -> list[Message]:
        self.log.append(call)
        return self.answers.pop(0) if self.answers else []

    def data(
        self, direction: Direction, position: int, data: bytes, at: Context, body_size: int = 0
    ) -> list[Message]:
        return self._answer("data", direction, position, data, at, *([body_size] if body_size else []))

    def progress(self, direction: Direction, end: int, ts: int, tail: bytes) -> list[Message]:
        return self._answer("progress", direction, end, ts, tail)

    def missed(self, direction: Direction, end: int, ts: int, tail: bytes) -> list[Message]:
        return self._answer("missed", direction, end, ts, tail)

    def close(self, ts: int, orderly: bool = True) -> list[Message]:
        return self._answer("close", ts, orderly)


class FrameRecorder:
    """The same for frames; the record's data tells what to answer."""

    def __init__(self, log: list[tuple[Any, ...]]) -> None:
        self.log = log

    def frames(self, record: Frames) -> list[Message]:
        self.log.append(("frames", record.direction, record.number))
        error = {b"gap": "gap", b"bad": "frame_size"}.get(record.data)
        if error:
            return [ProtocolError(record.direction, record.position, 1, error)]
        return [StreamEnd(record.direction, 1, 1, 0)] if record.data else []

    def close(self, ts: int, orderly: bool = True) -> list[Message]:
        self.log.append(("close", ts, orderly))
        return []


class Table:
    """A table, with all that it says to others. Bytes that begin with ? are recognised by no parser."""

    def __init__(self) -> None:
        self.notes: Counter[tuple[str, str]] = Counter()
        self.stopped: list[int] = []
        self.calls: list[tuple[Any, ...]] = []
        self.parser = Recorder(self.calls)
        self.asked: list[tuple[Direction, bytes]] = []
        self.table = StreamTable(
            self.parser_for,
            lambda: FrameRecorder(self.calls),
            lambda connection: self.stopped.append(connection.id),
            self.note,
        )

    def parser_for(self, direction: Direction, data: bytes) -> Recorder | None:
        self.asked.append((direction, data))
        return None if data.startswith(b"?") else self.parser

    def note(self, stage: str, what: str) -> None:
        self.notes[stage, what] += 1


def opened(conn: int = 1, from_start: bool = True) -> ConnectionOpened:
    return ConnectionOpened(
        5, conn, 10, 2, 100 + conn, 0, 7, "10.0.0.1", 80, "10.0.0.2", 4000, from_start, AT
    )


def chunk(data: bytes = b"GET", conn: int = 1, turn: int = 1, **other: Any) -> Chunk:
    fields: dict[str, Any] = {"other_end": 0, "other_last_ts": 0, "other_tail": b""} | other
    return Chunk(conn, RX, turn, 500, data, AT, **fields)


def closed(conn: int = 1, error: int = 0) -> ConnectionClosed:
    return ConnectionClosed(90, conn, error, True, 600, 80, b"r", 700, 81, b"t", opened(conn))


END = MessageEnd(RX, 1, 0, True)
REQUEST = Request(RX, 500, AT, "GET", "/", "1.1", {})


@pytest.fixture
def table() -> Table:
    return Table()


def test_a_connection_is_what_its_record_says(table: Table) -> None:
    connection = table.table.opened(opened())
    assert connection == Connection(1, 10, 2, 101, 0, 7, "10.0.0.1", 80, "10.0.0.2", 4000, True, AT)
    assert table.table.connections() == [connection]
    assert len(table.table) == 1


def test_bytes_of_a_connection_that_was_not_described_are_counted(table: Table) -> None:
    assert table.table.chunk(chunk()) is None
    assert table.notes == {("streams", "bytes_of_unknown_connection"): 1}
    assert table.asked == []


def test_the_first_bytes_choose_the_parser_and_go_to_it(table: Table) -> None:
    connection = table.table.opened(opened())
    table.parser.answers = [[REQUEST, END]]
    assert table.table.chunk(chunk(b"GET")) == (connection, [REQUEST, END])
    assert table.table.chunk(chunk(b" / ")) is None
    assert table.asked == [(RX, b"GET")]
    # That the other side has not spoken yet is told too: here it will begin.
    assert table.calls == [
        ("progress", TX, 0, 0, b""),
        ("data", RX, 500, b"GET", AT),
        ("data", RX, 500, b" / ", AT),
    ]


def test_what_stayed_in_the_kernel_is_told_with_the_bytes(table: Table) -> None:
    connection = table.table.opened(opened())
    table.parser.answers = [[], [REQUEST, END]]
    assert table.table.chunk(chunk(b"POST", body_size=300)) == (connection, [REQUEST, END])
    assert table.calls[1:] == [("data", RX, 500, b"POST", AT, 300)]


def test_turns_that_were_lost_are_told_before_the_bytes(table: Table) -> None:
    table.table.opened(opened())
    table.table.chunk(chunk(turn=1))
    del table.calls[:]
    table.table.chunk(chunk(turn=4, other_end=900, other_last_ts=70))
    assert table.calls == [
        ("missed", TX, 900, 70, b""),
        ("missed", RX, 500, 1000, b""),
        ("data", RX, 500, b"GET", AT),
    ]


@pytest.mark.parametrize(("end", "ts", "missed"), [(-1, 0, 0), (500, 0, 0), (499, 0, 1), (500, 3, 1)])
def test_bytes_that_were_lost_before_the_first_that_came_are_told(
    table: Table, end: int, ts: int, missed: int
) -> None:
    connection = table.table.opened(opened()._replace(rx_end=end, rx_last_ts=ts))
    table.table.chunk(chunk())
    assert [call[0] for call in table.calls] == ["missed"] * missed + ["progress", "data"]
    assert connection.from_start is not bool(missed)


def test_a_connection_whose_first_half_of_a_line_was_lost_is_not_given_up(table: Table) -> None:
    table.table.opened(opened()._replace(rx_end=496))
    assert table.table.chunk(chunk(b"? / HTTP/1.1\r\n")) is None
    assert not table.stopped
    table.table.chunk(chunk(turn=3))
    assert table.calls[-1] == ("data", RX, 500, b"GET", AT)


def test_what_the_other_side_did_is_told_before_the_bytes(table: Table) -> None:
    connection = table.table.opened(opened())
    table.parser.answers = [[END], [REQUEST]]
    result = table.table.chunk(chunk(other_end=900, other_last_ts=70, other_tail=b"\r\n"))
    assert result == (connection, [END, REQUEST])
    assert table.calls == [("progress", TX, 900, 70, b"\r\n"), ("data", RX, 500, b"GET", AT)]


def test_a_connection_knows_what_it_had_heard_before_it_spoke(table: Table) -> None:
    """Also if the records of that were lost."""
    connection = table.table.opened(opened())
    for turn, direction, heard_at in ((1, TX, 0), (2, RX, 0), (3, TX, 70), (5, TX, 90)):
        table.table.chunk(chunk(turn=turn, other_last_ts=heard_at)._replace(direction=direction))
        assert connection.heard_at == heard_at or direction is RX


def test_messages_of_the_count_alone_are_not_lost(table: Table) -> None:
    connection = table.table.opened(opened())
    table.parser.answers = [[END], []]
    assert table.table.chunk(chunk(other_end=900, other_last_ts=70)) == (connection, [END])


@pytest.mark.parametrize(("turn", "from_start"), [(1, True), (2, False), (7, False)])
def test_a_connection_whose_first_turn_was_missed_was_not_seen_from_its_start(
    table: Table, turn: int, from_start: bool
) -> None:
    connection = table.table.opened(opened())
    table.table.chunk(chunk(turn=turn))
    assert connection.from_start is from_start
    table.table.chunk(chunk(turn=turn + 1))
    assert connection.from_start is from_start


def test_a_count_before_any_bytes_is_nobodys(table: Table) -> None:
    table.table.opened(opened())
    assert table.table.progress(Progress(50, 1, TX, 800, 40, b"")) is None
    assert table.table.progress(Progress(50, 2, TX, 800, 40, b"")) is None
    assert table.calls == []


def test_a_count_goes_to_the_parser(table: Table) -> None:
    connection = table.table.opened(opened())
    table.table.chunk(chunk())
    del table.calls[:]
    table.parser.answers = [[END]]
    assert table.table.progress(Progress(50, 1, TX, 800, 40, b"x")) == (connection, [END])
    assert table.table.progress(Progress(51, 1, TX, 801, 41, b"x")) is None
    assert table.calls == [("progress", TX, 800, 40, b"x"), ("progress", TX, 801, 41, b"x")]


def test_a_connection_that_switched_is_left_alone_and_its_capture_stopped(table: Table) -> None:
    connection = table.table.opened(opened())
    table.parser.answers = [[REQUEST, Switched(3, "websocket")]]
    assert table.table.chunk(chunk()) == (connection, [REQUEST, Switched(3, "websocket")])
    assert table.stopped == [1]
    calls = len(table.calls)
    assert table.table.chunk(chunk()) is None
    assert table.table.progress(Progress(50, 1, TX, 800, 40, b"")) is None
    assert table.table.closed(closed()) == (connection, [])
    assert len(table.calls) == calls
    assert table.stopped == [1]
    assert not table.notes


def test_a_protocol_that_nobody_knows_is_counted_and_its_capture_stopped(table: Table) -> None:
    table.table.opened(opened())
    assert table.table.chunk(chunk(b"?")) is None
    assert table.table.chunk(chunk(b"GET")) is None
    assert table.asked == [(RX, b"?")]
    assert table.stopped == [1]
    assert table.notes == {("streams", "protocol_not_recognised"): 1}
    assert table.table.vanished(1, 99) is not None
    assert table.calls == []


@pytest.mark.parametrize(("error", "orderly"), [(0, True), (104, False)])
def test_a_close_tells_the_last_counts_and_the_end(table: Table, error: int, orderly: bool) -> None:
    connection = table.table.opened(opened())
    table.table.chunk(chunk())
    del table.calls[:]
    table.parser.answers = [[REQUEST], [END], [Switched(1, "x")]]
    assert table.table.closed(closed(error=error)) == (connection, [REQUEST, END, Switched(1, "x")])
    assert table.calls == [
        ("progress", RX, 600, 80, b"r"),
        ("progress", TX, 700, 81, b"t"),
        ("close", 90, orderly),
    ]
    assert len(table.table) == 0
    assert table.table.chunk(chunk()) is None
    assert table.notes == {("streams", "bytes_of_unknown_connection"): 1}


def test_a_close_before_any_bytes_has_no_messages(table: Table) -> None:
    connection = table.table.opened(opened())
    assert table.table.closed(closed()) == (connection, [])
    assert len(table.table) == 0


def test_the_close_of_an_unknown_connection_describes_it(table: Table) -> None:
    connection, messages = table.table.closed(closed(conn=9, error=111))
    assert (connection.id, connection.remote_address, messages) == (9, "10.0.0.2", [])
    assert len(table.table) == 0


def test_a_connection_that_vanished_did_not_end_in_order(table: Table) -> None:
    connection = table.table.opened(opened())
    table.table.chunk(chunk())
    table.parser.answers = [[END]]
    assert table.table.vanished(1, 99) == (connection, [END])
    assert table.calls[-1] == ("close", 99, False)
    assert table.notes == {("streams", "close_not_seen"): 1}
    assert table.table.vanished(1, 99) is None
    assert len(table.table) == 0


def test_connections_do_not_mix(table: Table) -> None:
    first, second = table.table.opened(opened(1)), table.table.opened(opened(2))
    table.parser.answers = [[], [REQUEST], [], [END]]
    assert table.table.chunk(chunk(conn=2)) == (second, [REQUEST])
    assert table.table.chunk(chunk(conn=1)) == (first, [END])
    table.table.closed(closed(1))
    assert table.table.connections() == [second]


EVENTS = st.one_of(
    st.builds(lambda conn: ("opened", opened(conn)), st.integers(1, 3)),
    st.builds(
        lambda conn, turn, known, ts: (
            "chunk",
            chunk(b"GET" if known else b"?", conn=conn, turn=turn, other_end=9, other_last_ts=ts),
        ),
        st.integers(1, 3),
        st.integers(0, 5),
        st.booleans(),
        st.integers(0, 1),
    ),
    st.builds(lambda conn: ("progress", Progress(1, conn, TX, 2, 3, b"")), st.integers(1, 3)),
    st.builds(lambda conn, error: ("closed", closed(conn, error)), st.integers(1, 3), st.integers(0, 1)),
)


@given(st.lists(EVENTS, max_size=40))
def test_in_any_order_nothing_escapes_and_every_close_empties_the_table(
    events: list[tuple[str, Any]],
) -> None:
    table = Table()
    followed = set()
    for name, event in events:
        getattr(table.table, name)(event)
        if name == "opened":
            followed.add(event.conn)
        elif name == "closed":
            followed.discard(event.conn)
        assert {connection.id for connection in table.table.connections()} == followed
    for conn in followed:
        assert table.table.vanished(conn, 1) is not None
    assert len(table.table) == 0


def frames(data: bytes = b"x", number: int = 1) -> Frames:
    return Frames(1, RX, number, 500, data, 0, FramesOrigin.START, AT)


def test_frames_go_to_a_parser_of_their_own(table: Table) -> None:
    connection = table.table.opened(opened())
    assert table.table.frames(frames()) == (connection, [StreamEnd(RX, 1, 1, 0)])
    assert table.table.frames(frames(b"", 2)) is None
    assert connection.multiplexed
    assert table.table.closed(closed()) == (connection, [])
    assert table.calls == [("frames", RX, 1), ("frames", RX, 2), ("close", 90, True)]


def test_processes_that_have_frames_older_than_the_agent(table: Table) -> None:
    for conn, from_start in ((1, False), (2, False), (3, True)):
        table.table.opened(opened(conn, from_start))
        assert table.table.processes_with_old_frames == ({10} if conn > 1 else set())
        table.table.frames(frames()._replace(conn=conn))
    assert table.table.processes_with_old_frames == {10}
    table.table.closed(closed(1))
    assert table.table.processes_with_old_frames == {10}
    table.table.vanished(2, 1)
    assert table.table.processes_with_old_frames == set()


def test_old_frames_that_are_not_wanted_any_more(table: Table) -> None:
    table.table.opened(opened(from_start=False))
    for number in range(1, 20):
        table.table.frames(frames(b"bad", number))
    assert table.stopped == [1]
    assert table.table.processes_with_old_frames == set()


def test_frames_after_an_upgrade(table: Table) -> None:
    connection = table.table.opened(opened())
    table.table.chunk(chunk())
    table.table.frames(frames())
    assert connection.multiplexed
    assert table.table.progress(Progress(1, 1, RX, 900, 1, b"")) is None
    assert [call[0] for call in table.calls] == ["progress", "data", "frames"]


def test_an_upgrade_to_frames_does_not_end_the_capture(table: Table) -> None:
    table.table.opened(opened())
    table.parser.answers = [[], [Switched(1, "h2c")]]
    table.table.chunk(chunk())
    assert not table.stopped
    table.table.frames(frames())
    assert table.calls[-1] == ("frames", RX, 1)


def test_frames_of_an_unknown_connection_are_counted(table: Table) -> None:
    assert table.table.frames(frames()) is None
    assert table.notes == {("streams", "bytes_of_unknown_connection"): 1}


def test_a_new_connection_whose_first_frames_are_malformed_is_left_alone(table: Table) -> None:
    table.table.opened(opened())
    table.table.frames(frames(b"bad"))
    assert table.stopped == [1]
    assert table.table.frames(frames()) is None


def test_gaps_do_not_speak_against_frames(table: Table) -> None:
    table.table.opened(opened())
    for number in range(1, 100):
        table.table.frames(frames(b"gap", number))
    assert not table.stopped


def test_frames_of_a_connection_whose_close_was_lost(table: Table) -> None:
    connection = table.table.opened(opened())
    table.table.frames(frames())
    assert table.table.vanished(1, 80) == (connection, [])
    assert table.calls[-1] == ("close", 80, False)
