"""What the kernel reports."""

from __future__ import annotations

from enum import IntEnum
from typing import Final, NamedTuple

from autotrace.model.context import Context, Direction
from autotrace.model.value import Value


class ConnectionOpened(NamedTuple):
    """A connection that carries traffic was seen for the first time (its first captured bytes follow).

    `socket` and `peer_socket` are kernel addresses used as opaque keys; `peer_socket` is 0 but for Unix
    sockets. `address` texts are IP addresses (IPv4-mapped IPv6 is given as IPv4), or a path for Unix sockets.
    `from_start` is true if the connection was seen being made, so that nothing of it was missed.
    `opened_at` is the context of the connect call for an outgoing connection that was seen being made.
    `rx_end` and `tx_end` say where the directions stood just before those bytes (-1: not known), `rx_last_ts` and
    `tx_last_ts` when the last byte had moved until then (0: none had).
    `tls` is true if the captured bytes are the plaintext of TLS: all positions count plaintext bytes from 0 then.
    """

    ts: int
    conn: int
    pid: int
    family: int
    socket: int
    peer_socket: int
    netns: int
    local_address: str
    local_port: int
    remote_address: str
    remote_port: int
    from_start: bool
    opened_at: Context | None
    rx_end: int = -1
    rx_last_ts: int = 0
    tx_end: int = -1
    tx_last_ts: int = 0
    tls: bool = False


class Chunk(Value):
    """Bytes at the head of a turn (a turn: what one side says before the other side speaks).

    `position` is the stream position of the first byte (TCP: the sequence number, extended to 64 bits by the
    agent's side of the kernel). `turn` counts the connection's turns, both directions together, from 1.
    `other_end`, `other_last_ts` and `other_tail` say, on the first chunk of a turn only
    (else `other_last_ts` is 0), where the other direction stood when this turn began: its end position, the
    time its last byte moved, and its last bytes (at most 8). `body_size` bytes of a message's body followed the
    data in the same call and stayed in the kernel.

    Of TLS, on the first chunk of a turn only: the ciphertext of its first byte stands at or behind the TCP sequence
    number `wire_from` and, if the turn was received, before `wire_end`. 0: not known.
    """

    __slots__ = (
        "at",
        "body_size",
        "conn",
        "data",
        "direction",
        "other_end",
        "other_last_ts",
        "other_tail",
        "position",
        "turn",
        "wire_end",
        "wire_from",
    )

    def __init__(
        self,
        conn: int,
        direction: Direction,
        turn: int,
        position: int,
        data: bytes,
        at: Context,
        other_end: int,
        other_last_ts: int,
        other_tail: bytes,
        body_size: int = 0,
        wire_from: int = 0,
        wire_end: int = 0,
    ) -> None:
        self.conn: Final = conn
        self.direction: Final = direction
        self.turn: Final = turn
        self.position: Final = position
        self.data: Final = data
        self.at: Final = at
        self.other_end: Final = other_end
        self.other_last_ts: Final = other_last_ts
        self.other_tail: Final = other_tail
        self.body_size: Final = body_size
        self.wire_from: Final = wire_from
        self.wire_end: Final = wire_end


class FramesOrigin(IntEnum):
    """What came before a record of frames. The values are `enum at_frames_origin` in abi.h."""

    FOLLOWS = 0
    """The record before it, numbered one less."""
    START = 1
    """Nothing: the direction begins with these frames."""
    JOINED = 2
    """Frames that nobody saw."""


class Frames(NamedTuple):
    """HTTP/2 frames of one direction, as the kernel's walker passes them on; see `protocols.http2_frames`.

    `number` counts the direction's records from 1: a jump means lost records. `position` is the stream
    position of the first frame header in `data`; before it stand `lead` bytes that belong to a frame of an
    earlier record.
    """

    conn: int
    direction: Direction
    number: int
    position: int
    data: bytes
    lead: int
    origin: FramesOrigin
    at: Context


class StreamClaim(NamedTuple):
    """A runtime's own word on a request that it serves (`direction` RX) or makes (TX).

    The connection is `conn`, or, where that is 0, the one whose bytes the task `carrier` of the process moves in
    that direction. The first bytes may have been moved by the task `carrier_parent`, which started that one and
    works for no other connection; 0 if there is none. `stream` is the HTTP/2 stream; 0: the next request of the
    carrier. `task` serves or makes the request, `parent` started that task; 0 where it is not known. `path` is ""
    if it is not known. `grpc`: it is a call of gRPC. `own_task`: the task was made for this request and serves
    no other. With a `cause`, which is a connection, it says no more than that a request that is made was begun
    because of what came on the stream `cause_stream` of that.

    A claim on a request that is made comes before its bytes; one on a request that is served comes behind them.
    """

    ts: int
    conn: int
    pid: int
    carrier: int
    task: int
    parent: int
    stream: int
    direction: Direction
    path: str
    grpc: bool = False
    own_task: bool = False
    carrier_parent: int = 0
    cause: int = 0
    cause_stream: int = 0


class Progress(NamedTuple):
    """How far one direction of a connection has come, for bytes that were only counted."""

    ts: int
    conn: int
    direction: Direction
    end: int
    last_ts: int
    tail: bytes


class ConnectionClosed(NamedTuple):
    """A connection is gone. `error` is an errno, 0 for an orderly close. `established` is false if it never
    came to be (refused, timed out); then no ConnectionOpened need have been sent and `opened` describes it."""

    ts: int
    conn: int
    error: int
    established: bool
    rx_end: int
    rx_last_ts: int
    rx_tail: bytes
    tx_end: int
    tx_last_ts: int
    tx_tail: bytes
    opened: ConnectionOpened


class ProcessStarted(NamedTuple):
    """A watched process forked `pid`, or `pid` executed a new program (`parent` is 0 then).

    `comm` is the kernel's name of the new program: its file's name, at most 15 characters.
    """

    ts: int
    pid: int
    parent: int
    comm: str = ""


class ProcessExited(NamedTuple):
    """The last thread of a watched process is gone."""

    ts: int
    pid: int


class ProcessSeen(NamedTuple):
    """A process that is not watched executed a program. Reported only if selection rules have to look at it."""

    ts: int
    pid: int


class ProcessSpeaksTls(NamedTuple):
    """A connection of a watched process speaks TLS, for the first time since its program began."""

    ts: int
    pid: int


Event = (
    ConnectionOpened
    | Chunk
    | Frames
    | StreamClaim
    | Progress
    | ConnectionClosed
    | ProcessStarted
    | ProcessExited
    | ProcessSeen
    | ProcessSpeaksTls
)
