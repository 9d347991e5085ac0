"""The table of connections: it gives every captured byte and every count to the connection's parser.

The kernel side reports turns in order and with exact positions, so there is nothing to reassemble: what is
missing shows as a jump of the position. Where whole turns are missing, their numbers jump too.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, Protocol

from autotrace.model import (
    Chunk,
    Connection,
    ConnectionClosed,
    ConnectionOpened,
    Context,
    Direction,
    Frames,
    Message,
    Progress,
    ProtocolError,
    Switched,
)


class Parser(Protocol):
    """What the table needs of a protocol parser (`autotrace.protocols.base.Parser`)."""

    def data(
        self, direction: Direction, position: int, data: bytes, at: Context, body_size: int = 0
    ) -> list[Message]: ...
    def progress(self, direction: Direction, end: int, ts: int, tail: bytes) -> list[Message]: ...
    def missed(self, direction: Direction, end: int, ts: int, tail: bytes) -> list[Message]: ...
    def close(self, ts: int, orderly: bool = True) -> list[Message]: ...


class FrameParser(Protocol):
    """The same of a parser of frames (`autotrace.protocols.base.FrameParser`)."""

    def frames(self, record: Frames) -> list[Message]: ...
    def close(self, ts: int, orderly: bool = True) -> list[Message]: ...


# Enum members as globals: a look-up in the class costs three times as much.
_RX: Final = Direction.RX
_TX: Final = Direction.TX

H2C: Final = "h2c"
"""The `Switched.protocol` after which the kernel side sees frames (RFC 7540 section 3.2)."""

GAP: Final = "gap"
"""The `ProtocolError.reason` that stands for bytes the agent missed."""

PROTOCOL_ERRORS_MAX = 16
"""Protocol errors of a connection after which it is left alone."""

UNRECOGNISED_TURNS_MAX = 3
"""Turns of a connection older than the agent that may begin with what is no message: the rest of a body."""


class _Stream:
    """`turn` is the last one that came to the parser. `rx_end` and `tx_end` say how far each direction had
    come with its last chunk. `unrecognised` counts the turns that no protocol fitted, the last of them is
    `unrecognised_turn`."""

    __slots__ = (
        "connection",
        "errors",
        "frame_parser",
        "opened",
        "parser",
        "rx_end",
        "stopped",
        "turn",
        "tx_end",
        "unrecognised",
        "unrecognised_turn",
    )

    def __init__(self, connection: Connection, opened: ConnectionOpened) -> None:
        self.connection = connection
        self.opened = opened
        self.turn = 0
        self.rx_end = -1
        self.tx_end = -1
        self.parser: Parser | None = None
        self.frame_parser: FrameParser | None = None
        self.stopped = False
        self.errors = 0
        self.unrecognised = 0
        self.unrecognised_turn = 0


Result = tuple[Connection, list[Message]]


class StreamTable:
    """Connections by id.

    `parser_for` makes the parser for the first bytes of a connection, or None, `frame_parser` that of a
    connection of frames; `stop` is told of a connection whose bytes are not wanted any more; `note` counts
    facts, under the stage "streams".
    """

    def __init__(
        self,
        parser_for: Callable[[Direction, bytes], Parser | None],
        frame_parser: Callable[[], FrameParser],
        stop: Callable[[Connection], object],
        note: Callable[[str, str], object],
    ) -> None:
        self._parser_for = parser_for
        self._frame_parser = frame_parser
        self._stop = stop
        self._note = note
        self._streams: dict[int, _Stream] = {}
        self._old_frames: dict[int, int] = {}
        self.processes_with_old_frames: frozenset[int] = frozenset()
        """The ids of processes with connections of frames that are older than the agent."""

    def __len__(self) -> int:
        return len(self._streams)

    def connections(self) -> list[Connection]:
        """Every connection that is open, as far as is known."""
        return [stream.connection for stream in self._streams.values()]

    def opened(self, event: ConnectionOpened) -> Connection:
        """A connection is described; its bytes follow."""
        connection = _connection(event)
        self._streams[event.conn] = _Stream(connection, event)
        return connection

    def chunk(self, event: Chunk) -> Result | None:
        """Captured bytes. None if nothing came of them."""
        stream = self._streams.get(event.conn)
        if stream is None:
            self._note("streams", "bytes_of_unknown_connection")
            return None
        if stream.stopped:
            return None
        direction, turn, position, data, at = (
            event.direction,
            event.turn,
            event.position,
            event.data,
            event.at,
        )
        received = direction is _RX
        parser = stream.parser
        messages: list[Message] = []
        first = parser is None
        if parser is None:
            beginning_missed = _beginning_missed(stream.opened, event)
            if turn != 1 or beginning_missed:
                # Something went by unseen: what comes now is not the connection's first request.
                stream.connection.from_start = False
            parser = stream.parser = self._parser_for(direction, data)
            if parser is None:
                self._not_recognised(stream, turn)
                return None
            if turn == 1 and beginning_missed:
                messages = parser.missed(direction, position, at.ts, b"")
        last_turn = stream.turn
        if turn != last_turn:
            # The first that came of a turn says where the other side stands, even if that never spoke.
            stream.turn = turn
            other, known_end = (_TX, stream.tx_end) if received else (_RX, stream.rx_end)
            if not received:
                stream.connection.heard_at = event.other_last_ts
            if turn > last_turn + 1 and (not first or stream.opened.from_start):
                messages = parser.missed(other, event.other_end, event.other_last_ts, event.other_tail)
                messages += parser.missed(direction, position, at.ts, b"")
            elif event.other_end != known_end:
                messages += parser.progress(other, event.other_end, event.other_last_ts, event.other_tail)
        if event.wire_from:
            stream.connection.turn_begins(direction, position, event.wire_from, event.wire_end)
        end = position + len(data) + event.body_size
        if received:
            last_end, stream.rx_end = stream.rx_end, end
        else:
            last_end, stream.tx_end = stream.tx_end, end
        if not first and last_end < 0 and self._goes_on(stream, direction, data):
            more = parser.missed(direction, end, at.ts, b"")
        else:
            more = parser.data(direction, position, data, at, event.body_size)
        messages = messages + more if messages else more
        if not messages:
            return None
        last = messages[-1]
        if type(last) is Switched:
            if last.protocol != H2C:
                self._stop_capture(stream)
        elif type(last) is ProtocolError:
            self._protocol_error(stream, messages)
        return stream.connection, messages

    def frames(self, event: Frames) -> Result | None:
        """Frames of a connection that the kernel side walks. None if nothing came of them."""
        stream = self._streams.get(event.conn)
        if stream is None:
            self._note("streams", "bytes_of_unknown_connection")
            return None
        if stream.stopped:
            return None
        parser = stream.frame_parser
        if parser is None:
            # What it said before (HTTP/1, until an upgrade) is over.
            stream.parser = None
            parser = stream.frame_parser = self._frame_parser()
            stream.connection.multiplexed = True
            if not stream.connection.from_start:
                self._old_frames[event.conn] = stream.connection.pid
                self.processes_with_old_frames = frozenset(self._old_frames.values())
        messages = parser.frames(event)
        if not messages:
            return None
        if type(messages[-1]) is ProtocolError and messages[-1].reason != GAP:
            self._protocol_error(stream, messages)
        return stream.connection, messages

    def progress(self, event: Progress) -> Result | None:
        """Bytes that were only counted. None if nothing came of them."""
        stream = self._streams.get(event.conn)
        if stream is None or stream.parser is None or stream.stopped:
            return None
        messages = stream.parser.progress(event.direction, event.end, event.last_ts, event.tail)
        return (stream.connection, messages) if messages else None

    def closed(self, event: ConnectionClosed) -> Result:
        """A connection is gone, and so is its place in the table."""
        stream = self._streams.pop(event.conn, None)
        self._no_frames_come(event.conn)
        if stream is None:
            return _connection(event.opened), []
        if stream.stopped:
            return stream.connection, []
        parser = stream.parser
        if parser is None:
            frames = stream.frame_parser
            return stream.connection, frames.close(event.ts, not event.error) if frames else []
        messages = parser.progress(Direction.RX, event.rx_end, event.rx_last_ts, event.rx_tail)
        messages = messages + parser.progress(Direction.TX, event.tx_end, event.tx_last_ts, event.tx_tail)
        return stream.connection, messages + parser.close(event.ts, not event.error)

    def vanished(self, conn: int, ts: int) -> Result | None:
        """A connection is gone whose close record was lost."""
        stream = self._streams.pop(conn, None)
        self._no_frames_come(conn)
        if stream is None:
            return None
        self._note("streams", "close_not_seen")
        parser = stream.parser or stream.frame_parser
        messages = parser.close(ts, False) if parser and not stream.stopped else []
        return stream.connection, messages

    def _goes_on(self, stream: _Stream, direction: Direction, data: bytes) -> bool:
        """Tell if the first bytes of a direction are the rest of something that began before the agent looked."""
        return not stream.connection.from_start and self._parser_for(direction, data) is None

    def _not_recognised(self, stream: _Stream, turn: int) -> None:
        if turn == stream.unrecognised_turn:
            return
        stream.unrecognised_turn = turn
        stream.unrecognised += 1
        if stream.connection.from_start or stream.unrecognised > UNRECOGNISED_TURNS_MAX:
            self._note("streams", "protocol_not_recognised")
            self._stop_capture(stream)

    def _protocol_error(self, stream: _Stream, messages: list[Message]) -> None:
        """`messages` end with an error: it may have been another protocol all the time."""
        stream.errors += 1
        connection = stream.connection
        understood = connection.requests or len(messages) > 1 or not connection.from_start
        if stream.errors > PROTOCOL_ERRORS_MAX or not understood:
            self._note("streams", "protocol_not_recognised")
            self._stop_capture(stream)

    def _no_frames_come(self, conn: int) -> None:
        if self._old_frames.pop(conn, None) is not None:
            self.processes_with_old_frames = frozenset(self._old_frames.values())

    def _stop_capture(self, stream: _Stream) -> None:
        stream.stopped = True
        stream.parser = stream.frame_parser = None
        self._no_frames_come(stream.connection.id)
        self._stop(stream.connection)


def _beginning_missed(opened: ConnectionOpened, chunk: Chunk) -> bool:
    """Tell if bytes of this direction moved before its first chunk that came, and should have come too."""
    rx = chunk.direction is Direction.RX
    end, last_ts = (opened.rx_end, opened.rx_last_ts) if rx else (opened.tx_end, opened.tx_last_ts)
    return 0 <= end < chunk.position or (opened.from_start and last_ts != 0)


def _connection(event: ConnectionOpened) -> Connection:
    return Connection(
        id=event.conn,
        pid=event.pid,
        family=event.family,
        socket=event.socket,
        peer_socket=event.peer_socket,
        netns=event.netns,
        local_address=event.local_address,
        local_port=event.local_port,
        remote_address=event.remote_address,
        remote_port=event.remote_port,
        from_start=event.from_start,
        opened_at=event.opened_at,
        tls=event.tls,
    )
