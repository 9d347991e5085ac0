"""Requests with what became of them, and their places in traces."""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum
from typing import Final

from autotrace.model.connections import Connection, OnWire
from autotrace.model.context import Context, Direction, Role
from autotrace.model.messages import Rpc
from autotrace.model.value import Value


class Exchange:
    """One request and what became of it, at one end of a connection.

    `method` is empty for a connection that could not be made (`error` says why). `error` is "" or a low
    cardinality reason: an errno name (`ECONNREFUSED`, `ETIMEDOUT`, `ECONNRESET`), `no_response` (closed
    before any byte of a response), `incomplete_response` (closed inside one), `process_exited`, `timeout`,
    `aborted` (the program gave up connecting), `protocol_error`, or the name of an HTTP/2 error code
    (`CANCEL`). `status` 0 without an error: the response was missed. `stream` is the HTTP/2 stream, 0 without
    streams. Times are 0 until they are known.
    """

    __slots__ = (
        "answered_together",
        "at",
        "cause",
        "connection",
        "end_ns",
        "error",
        "first_on_connection",
        "link",
        "method",
        "own_task",
        "parent_task",
        "partial",
        "peer_pid",
        "position",
        "request_body_size",
        "request_end_ns",
        "request_headers",
        "response_at",
        "response_body_size",
        "response_start_ns",
        "role",
        "rpc",
        "start_ns",
        "status",
        "stream",
        "target",
        "task",
        "together",
        "version",
    )

    # By hand: the `__init__` that a dataclass is given is not compiled (setup.py), and every exchange needs one.
    def __init__(
        self,
        connection: Connection,
        role: Role,
        at: Context,
        position: int,
        method: str,
        target: str,
        version: str,
        request_headers: Mapping[str, str],
        start_ns: int,
        request_end_ns: int = 0,
        response_start_ns: int = 0,
        end_ns: int = 0,
        response_at: Context | None = None,
        status: int = 0,
        request_body_size: int | None = None,
        response_body_size: int | None = None,
        first_on_connection: bool = False,
        error: str = "",
        link: Link | None = None,
        peer_pid: int = 0,
        stream: int = 0,
        partial: bool = False,
        rpc: Rpc | None = None,
        task: int = 0,
        parent_task: int = 0,
        own_task: bool = False,
        together: bool = False,
        answered_together: bool = False,
        cause: Exchange | None = None,
    ) -> None:
        self.connection = connection
        self.role = role
        self.at = at
        self.position = position
        self.method = method
        self.target = target
        self.version = version
        self.request_headers = request_headers
        self.start_ns = start_ns
        self.request_end_ns = request_end_ns
        self.response_start_ns = response_start_ns
        self.end_ns = end_ns
        self.response_at = response_at
        self.status = status
        self.request_body_size = request_body_size
        self.response_body_size = response_body_size
        self.first_on_connection = first_on_connection
        self.error = error
        self.link = link
        self.peer_pid = peer_pid
        """The watched process at the other end, set on both ends when they are joined; 0 if it is not known."""
        self.stream = stream
        self.partial = partial
        """Not all of the request's head was captured, or could be decoded: the `target` may be cut, an empty one is
        not known, and a header that is not there may be."""
        self.rpc = rpc
        self.task = task
        """The runtime's task (see `Context`) that serves the request, or makes it; 0 if it is not known."""
        self.parent_task = parent_task
        """The task that started that one, as far as it is known."""
        self.own_task = own_task
        """`task` was made for this request and serves no other: whatever it starts belongs to it."""
        self.together = together
        """Other streams began in the same write or read."""
        self.answered_together = answered_together
        """Other streams were answered in the same write or read."""
        self.cause = cause
        """The request that a call was begun because of, if the runtime said so."""

    def name_call(self) -> None:
        """A call whose method is not known otherwise takes it from the path (doc/PROTOCOL-HTTP2.md, "Path")."""
        if self.rpc is not None and not self.rpc.method:
            self.rpc.method = self.target.removeprefix("/").partition("?")[0]

    def wire_key(self, direction: Direction) -> str | None:
        """Name the request so that both ends give the same name; `direction` is the request's."""
        if self.stream:
            return self.connection.stream_key(direction, self.stream)
        return self.connection.wire_key(direction, self.position)

    @property
    def has_wire_key(self) -> bool:
        """Tell if `wire_key` gives a name, which costs more to make."""
        return self.connection.names_streams if self.stream else self.connection.names_bytes

    def on_wire(self, direction: Direction) -> OnWire | None:
        """Tell where the request's ciphertext begins; None if that is not known, or nothing is encrypted."""
        if self.stream:
            return None
        return self.connection.on_wire(direction, self.position)


class ExchangeStarted(Value):
    """The head of a request was seen, or a connection for one could not be made."""

    __slots__ = ("exchange",)

    def __init__(self, exchange: Exchange) -> None:
        self.exchange: Final = exchange


class ExchangeEnded(Value):
    """The exchange is over: its response ended, or will not come (`Exchange.error` says why)."""

    __slots__ = ("exchange",)

    def __init__(self, exchange: Exchange) -> None:
        self.exchange: Final = exchange


PairingEvent = ExchangeStarted | ExchangeEnded


class LinkMethod(Enum):
    """The rungs of the linking ladder; see docs/links.md."""

    HEADER = "header"
    WIRE = "wire"
    THREAD = "thread"
    DISPATCH = "dispatch"
    GOROUTINE = "goroutine"
    ANSWER = "answer"
    NONE = "none"


class Confidence(Enum):
    """How far a link can be trusted. `EXACT`: the key names one exchange and no other. `CONDITIONAL`: right as
    long as the program works the way its runtime's manifest says. `NONE`: no parent was claimed."""

    EXACT = "exact"
    CONDITIONAL = "conditional"
    NONE = "none"


class Link:
    """The place of an exchange in a trace, and the evidence for it.

    `parent` is the parent exchange where it is one of ours. `candidates` is how many parents were possible and
    rejected. `suppressed` marks a client exchange whose process reported its own span (it sent a traceparent
    it made itself): it is counted in metrics, but gives no span. While it is `undecided`, a parent may still
    be found, and the trace of this exchange and of those below it is not final.
    """

    __slots__ = (
        "candidates",
        "confidence",
        "evidence",
        "method",
        "parent",
        "parent_span_id",
        "sampled",
        "span_id",
        "suppressed",
        "trace_id",
        "trace_state",
        "undecided",
    )

    # By hand: the `__init__` that a dataclass is given is not compiled (setup.py), and every exchange needs one.
    def __init__(
        self,
        method: LinkMethod,
        confidence: Confidence,
        evidence: str,
        trace_id: int,
        span_id: int,
        parent_span_id: int = 0,
        parent: Exchange | None = None,
        candidates: int = 0,
        suppressed: bool = False,
        sampled: bool = True,
        trace_state: str = "",
        undecided: bool = False,
    ) -> None:
        self.method = method
        self.confidence = confidence
        self.evidence = evidence
        self.trace_id = trace_id
        self.span_id = span_id
        self.parent_span_id = parent_span_id
        self.parent = parent
        self.candidates = candidates
        self.suppressed = suppressed
        self.sampled = sampled
        self.trace_state = trace_state
        self.undecided = undecided
