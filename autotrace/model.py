"""The types that the stages exchange.

Stages do not import one another: the kernel stage makes the events, streams make connections, protocols make
messages, pairing makes exchanges, correlate makes links, spans makes spans, export sends them.
`autotrace.agent` alone wires them. Every type that crosses from one stage to the next stands here.

Times are nanoseconds. Unless a name says `unix`, they are on the kernel's monotonic clock
(`CLOCK_MONOTONIC`, what `bpf_ktime_get_ns` returns).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum, IntEnum
from typing import NamedTuple

new_tuple = tuple.__new__
"""`new_tuple(Request, (...))` is what `Request(...)` comes to, in half the time: for what every exchange needs."""


class Direction(IntEnum):
    """Which way bytes go, as the watched process sees it. The values are `enum at_direction` in abi.h."""

    RX = 0
    TX = 1

    @property
    def other(self) -> Direction:
        return Direction.TX if self is Direction.RX else Direction.RX


class Role(Enum):
    """Which side of an exchange the watched process is on. The values are OpenTelemetry span kinds."""

    SERVER = "server"
    CLIENT = "client"


class Context(NamedTuple):
    """Who moved some bytes, when, and what its thread had done just before.

    `run` counts how often the thread has come back from epoll_wait, poll or select: two events of one thread
    with the same `run` belong to one run of its event loop. `cause` is the id of the connection the thread
    read last, if no wait lies between that read and this event and nothing else was caused by that read
    before; else 0. `task` is the runtime's own id for what the thread is running (a goroutine id for Go), or
    0 where there is none or it is not known. `tid` is 0 if one of io_uring's threads did it: such a thread works
    for whichever thread of its process asked.
    """

    ts: int
    pid: int
    tid: int
    task: int
    run: int
    cause: int


# --- events: what the kernel reports -------------------------------------------------------------------------


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


class Chunk(NamedTuple):
    """Bytes at the head of a turn (a turn: what one side says before the other side speaks).

    `position` is the stream position of the first byte (TCP: the sequence number, extended to 64 bits by the
    agent's side of the kernel). `turn` counts the connection's turns, both directions together, from 1.
    `other_end`, `other_last_ts` and `other_tail` say, on the first chunk of a turn only
    (else `other_last_ts` is 0), where the other direction stood when this turn began: its end position, the
    time its last byte moved, and its last bytes (at most 8). `body_size` bytes of a message's body followed the
    data in the same call and stayed in the kernel.
    """

    conn: int
    direction: Direction
    turn: int
    position: int
    data: bytes
    at: Context
    other_end: int
    other_last_ts: int
    other_tail: bytes
    body_size: int = 0


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
    | Progress
    | ConnectionClosed
    | ProcessStarted
    | ProcessExited
    | ProcessSeen
    | ProcessSpeaksTls
)


# --- probes in libraries --------------------------------------------------------------------------------------


class Probe(NamedTuple):
    """A BPF program at a function of a file: `offset` is that of the function in the file.

    `at_return`: it runs when the function returns, not when it is entered.
    """

    program: str
    offset: int
    at_return: bool


# --- processes -----------------------------------------------------------------------------------------------


@dataclass(slots=True)
class Process:
    """A watched process and the resource it stands for.

    `resource` holds OpenTelemetry resource attributes (`service.name` and friends). `rungs` names the rungs of
    the linking ladder that this runtime's way of working makes sound, besides `header` and `wire`.
    `forwards_task` and the like belong to runtimes' manifests, not here. `goid_offset` is for the kernel
    (`struct at_watched`): where a Go runtime keeps a goroutine's id, 0 if it is not Go or not known.
    """

    pid: int
    executable: str
    resource: dict[str, str | int]
    runtime: str = "unknown"
    rungs: frozenset[str] = frozenset({"thread"})
    exited_ts: int = 0
    goid_offset: int = 0
    service: str = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        self.service = str(self.resource.get("service.name", "unknown_service"))


# --- connections ---------------------------------------------------------------------------------------------


@dataclass(slots=True)
class Connection:
    """One end of a connection, as one watched process holds it."""

    id: int
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
    tls: bool = False
    requests: int = 0
    """Requests seen so far on this connection."""
    multiplexed: bool = False
    """Its exchanges are streams (HTTP/2): each message says which one it belongs to."""
    _wire_names: tuple[tuple[str, str], ...] = field(default=(), init=False, repr=False, compare=False)
    """By direction: what stands before and behind the position in its wire keys. Made when first needed."""

    def wire_key(self, direction: Direction, position: int) -> str | None:
        """Name a byte of this connection so that both ends give the same name.

        TCP: (sender, receiver, sequence number). Addresses of the loopback range mean different hosts in
        different network namespaces, so the namespace is part of the key for them alone. Unix sockets: the two
        kernel sockets and the byte count, sound only if the connection was seen from its start; None if not.
        TLS: its plaintext bytes are counted, which is as sound only from the start.
        """
        if self.tls and not self.from_start:
            return None
        if self.family == 1:
            if not self.from_start or not self.peer_socket:
                return None
        elif not self.tls:
            position &= 0xFFFFFFFF
        if not self._wire_names:
            self._wire_names = self._name_wire(receives=True), self._name_wire(receives=False)
        before, behind = self._wire_names[direction]
        return f"{before}{position}{behind}"

    def stream_key(self, direction: Direction, stream: int) -> str | None:
        """Name a stream (RFC 9113 section 5.1.1) so that both ends give the same name; `direction` is that of
        its request. Unlike a byte count, it is sound on a Unix socket of any age."""
        if self.family == 1 and not self.peer_socket:
            return None
        if not self._wire_names:
            self._wire_names = self._name_wire(receives=True), self._name_wire(receives=False)
        before, behind = self._wire_names[direction]
        return f"('stream', {before}{stream}{behind})"

    def _name_wire(self, receives: bool) -> tuple[str, str]:
        if self.family == 1:
            ends: tuple[object, object] = self.socket, self.peer_socket
            namespace = ""
        else:
            ends = (self.local_address, self.local_port), (self.remote_address, self.remote_port)
            loopback = self.local_address.startswith("127.") or self.local_address == "::1"
            namespace = f", {self.netns if loopback else 0}"
        sender, receiver = reversed(ends) if receives else ends
        kind = "unix" if self.family == 1 else "tls" if self.tls else "tcp"
        return f"({kind!r}, {sender}, {receiver}, ", f"{namespace})"


# --- messages: what a protocol parser makes of bytes ---------------------------------------------------------


class Request(NamedTuple):
    """The head of a request is complete (or as much of it as was captured: `truncated`).

    `headers` holds only the headers that `protocols` keeps (HEADERS_KEPT), names in lower case.
    """

    direction: Direction
    position: int
    at: Context
    method: str
    target: str
    version: str
    headers: Mapping[str, str]
    truncated: bool = False


class Response(NamedTuple):
    """The head of a final response is complete (or as much of it as was captured: `truncated`)."""

    direction: Direction
    position: int
    at: Context
    status: int
    version: str
    headers: Mapping[str, str]
    truncated: bool = False


class MessageEnd(NamedTuple):
    """The message that began last in this direction is over.

    `body_size` counts content bytes (RFC 9110 section 6.4), None if they cannot be told (chunked framing that
    was not captured whole). `complete` is false if the connection ended, or bytes were lost, first.
    """

    direction: Direction
    ts: int
    body_size: int | None
    complete: bool


class ProtocolError(NamedTuple):
    """Bytes that are not what the protocol allows; the parser looks for the next message from here on."""

    direction: Direction
    position: int
    ts: int
    reason: str


class Switched(NamedTuple):
    """The connection now speaks something else (Upgrade, CONNECT): nothing more is captured."""

    ts: int
    protocol: str


@dataclass(slots=True)
class Rpc:
    """What makes an exchange a remote procedure call.

    `method` is its full name (`package.Service/Method`), "" if it is not known. `timeout_ns` is how long the
    client is willing to wait, 0 if it does not say. `status` is the name of the status code, "" until, or if
    never, it is known. Messages are counted by direction of the exchange, None if they cannot be told apart.
    """

    system: str
    method: str
    timeout_ns: int = 0
    status: str = ""
    request_messages: int | None = None
    response_messages: int | None = None


class StreamRequest(NamedTuple):
    """The head of a stream's request (RFC 9113 section 8.3.1). `partial`: not all of its fields could be
    decoded, so what is empty here is not known (and the method is `_OTHER`). `missed`: as many requests were
    lost before it."""

    direction: Direction
    stream: int
    position: int
    at: Context
    method: str
    target: str
    headers: dict[str, str]
    rpc: Rpc | None
    partial: bool = False
    missed: int = 0


class StreamResponse(NamedTuple):
    """The head of a stream's final response. `status` is 0 if it could not be decoded. `rpc`: what the
    request did not say, the response does: it is a call."""

    direction: Direction
    stream: int
    at: Context
    status: int
    headers: dict[str, str]
    rpc: Rpc | None = None


class StreamEnd(NamedTuple):
    """One direction of a stream is over: END_STREAM (RFC 9113 section 5.1). `body_size` counts DATA without
    padding, None if some of it was missed; `messages` and `rpc_status` are those of `Rpc`. `rpc`: the stream
    was a call, which may be known only now."""

    direction: Direction
    stream: int
    ts: int
    body_size: int | None
    messages: int | None = None
    rpc_status: str = ""
    rpc: Rpc | None = None


class StreamReset(NamedTuple):
    """A stream was given up: RST_STREAM (RFC 9113 section 6.4), or a GOAWAY that leaves it out (section 6.8).
    `code` is the error code's name."""

    direction: Direction
    stream: int
    ts: int
    code: str
    rpc_status: str = ""


class StreamGoesOn(NamedTuple):
    """A stream of which something may have been missed (ProtocolError, reason `gap`) is not over."""

    stream: int


class GoAway(NamedTuple):
    """`direction` will not answer streams above `last_stream` (RFC 9113 section 6.8)."""

    direction: Direction
    ts: int
    last_stream: int


Message = (
    Request
    | Response
    | MessageEnd
    | ProtocolError
    | Switched
    | StreamRequest
    | StreamResponse
    | StreamEnd
    | StreamReset
    | StreamGoesOn
    | GoAway
)


# --- exchanges -----------------------------------------------------------------------------------------------


@dataclass(slots=True, eq=False)
class Exchange:
    """One request and what became of it, at one end of a connection.

    `method` is empty for a connection that could not be made (`error` says why). `error` is "" or a low
    cardinality reason: an errno name (`ECONNREFUSED`, `ETIMEDOUT`, `ECONNRESET`), `no_response` (closed
    before any byte of a response), `incomplete_response` (closed inside one), `process_exited`, `timeout`,
    `aborted` (the program gave up connecting), `protocol_error`, or the name of an HTTP/2 error code
    (`CANCEL`). `status` 0 without an error: the response was missed. `stream` is the HTTP/2 stream, 0 without
    streams. Times are 0 until they are known.
    """

    connection: Connection
    role: Role
    at: Context
    position: int
    method: str
    target: str
    version: str
    request_headers: Mapping[str, str]
    start_ns: int
    request_end_ns: int = 0
    response_start_ns: int = 0
    end_ns: int = 0
    response_at: Context | None = None
    status: int = 0
    request_body_size: int | None = None
    response_body_size: int | None = None
    first_on_connection: bool = False
    error: str = ""
    link: Link | None = None
    peer_pid: int = 0
    """The watched process at the other end, set on both ends when they are joined; 0 if it is not known."""
    stream: int = 0
    partial: bool = False
    """Not all of the request could be decoded: an empty `target` is not known, and a header that is not there
    may be."""
    rpc: Rpc | None = None

    def wire_key(self, direction: Direction) -> str | None:
        """Name the request so that both ends give the same name; `direction` is the request's."""
        if self.stream:
            return self.connection.stream_key(direction, self.stream)
        return self.connection.wire_key(direction, self.position)


class ExchangeStarted(NamedTuple):
    """The head of a request was seen, or a connection for one could not be made."""

    exchange: Exchange


class ExchangeEnded(NamedTuple):
    """The exchange is over: its response ended, or will not come (`Exchange.error` says why)."""

    exchange: Exchange


PairingEvent = ExchangeStarted | ExchangeEnded


# --- links ---------------------------------------------------------------------------------------------------


class LinkMethod(Enum):
    """The rungs of the linking ladder; see docs/links.md."""

    HEADER = "header"
    WIRE = "wire"
    THREAD = "thread"
    DISPATCH = "dispatch"
    NONE = "none"


class Confidence(Enum):
    """How far a link can be trusted. `EXACT`: the key names one exchange and no other. `CONDITIONAL`: right as
    long as the program works the way its runtime's manifest says. `NONE`: no parent was claimed."""

    EXACT = "exact"
    CONDITIONAL = "conditional"
    NONE = "none"


@dataclass(slots=True)
class Link:
    """The place of an exchange in a trace, and the evidence for it.

    `parent` is the parent exchange where it is one of ours. `candidates` is how many parents were possible and
    rejected. `suppressed` marks a client exchange whose process reported its own span (it sent a traceparent
    it made itself): it is counted in metrics, but gives no span.
    """

    method: LinkMethod
    confidence: Confidence
    evidence: str
    trace_id: int
    span_id: int
    parent_span_id: int = 0
    parent: Exchange | None = None
    candidates: int = 0
    suppressed: bool = False
    sampled: bool = True
    trace_state: str = ""


# --- spans ---------------------------------------------------------------------------------------------------

AttributeValue = str | int | float | bool | tuple[str, ...]


@dataclass(slots=True)
class Span:
    """A finished OpenTelemetry span. Times are nanoseconds since the Unix epoch. `status_message` is empty
    unless `is_error`."""

    trace_id: int
    span_id: int
    parent_span_id: int
    name: str
    role: Role
    start_unix_ns: int
    end_unix_ns: int
    attributes: dict[str, AttributeValue]
    is_error: bool
    status_message: str
    process: Process
    trace_state: str = ""


# --- metrics -------------------------------------------------------------------------------------------------

FINE_STEPS_PER_OCTAVE = 8
"""Resolution of `HistogramPoint.fine`: a step is 2 ** (1 / 8), so a quantile is right to about 5 %."""


class HistogramPoint(NamedTuple):
    """One series of a duration histogram, in seconds.

    `counts[i]` counts what is at most `RedSnapshot.bounds[i]` and more than the bound before; the last one
    has no upper bound. `fine` holds the same observations by `floor(log2(seconds) * FINE_STEPS_PER_OCTAVE)`.
    """

    attributes: dict[str, str | int | bool]
    counts: list[int]
    sum: float
    fine: dict[int, int]


class ServiceMetrics(NamedTuple):
    """The RED histograms of one service: `http.server.request.duration`, `http.client.request.duration`,
    `rpc.server.call.duration`, `rpc.client.call.duration`."""

    service: str
    resource: dict[str, str | int]
    server: list[HistogramPoint]
    client: list[HistogramPoint]
    rpc_server: list[HistogramPoint]
    rpc_client: list[HistogramPoint]


class ServiceEdge(NamedTuple):
    """One edge of the service graph. `attributes` are its labels: client, server, and
    connection_type where one end is not watched."""

    attributes: dict[str, str | int | bool]
    total: int
    failed: int
    server_counts: list[int]
    server_sum: float
    client_counts: list[int]
    client_sum: float


class RedSnapshot(NamedTuple):
    """All metrics of exchanges at one moment, cumulative since `start_unix_ns`."""

    start_unix_ns: int
    time_unix_ns: int
    bounds: tuple[float, ...]
    services: list[ServiceMetrics]
    edges: list[ServiceEdge]
