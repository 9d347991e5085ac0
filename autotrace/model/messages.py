"""What a protocol parser makes of bytes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, NamedTuple

from autotrace.model.context import Context, Direction
from autotrace.model.value import Value


class Request(Value):
    """The head of a request is complete (or as much of it as was captured: `truncated`).

    `headers` holds only the headers that `protocols` keeps (HEADERS_KEPT), names in lower case. `at` is where the
    head began; `task` (see `Context`) moved its end: Go's net/http reads the first byte of a kept connection on
    another goroutine than the one that serves it.
    """

    __slots__ = (
        "at",
        "direction",
        "headers",
        "method",
        "position",
        "target",
        "task",
        "truncated",
        "version",
    )

    def __init__(
        self,
        direction: Direction,
        position: int,
        at: Context,
        method: str,
        target: str,
        version: str,
        headers: Mapping[str, str],
        truncated: bool = False,
        task: int = 0,
    ) -> None:
        self.direction: Final = direction
        self.position: Final = position
        self.at: Final = at
        self.method: Final = method
        self.target: Final = target
        self.version: Final = version
        self.headers: Final = headers
        self.truncated: Final = truncated
        self.task: Final = task


class Response(Value):
    """The head of a final response is complete (or as much of it as was captured: `truncated`)."""

    __slots__ = (
        "at",
        "direction",
        "headers",
        "position",
        "status",
        "truncated",
        "version",
    )

    def __init__(
        self,
        direction: Direction,
        position: int,
        at: Context,
        status: int,
        version: str,
        headers: Mapping[str, str],
        truncated: bool = False,
    ) -> None:
        self.direction: Final = direction
        self.position: Final = position
        self.at: Final = at
        self.status: Final = status
        self.version: Final = version
        self.headers: Final = headers
        self.truncated: Final = truncated


class MessageEnd(Value):
    """The message that began last in this direction is over.

    `body_size` counts content bytes (RFC 9110 section 6.4), None if they cannot be told (chunked framing that
    was not captured whole). `complete` is false if the connection ended, or bytes were lost, first.
    """

    __slots__ = (
        "body_size",
        "complete",
        "direction",
        "ts",
    )

    def __init__(
        self,
        direction: Direction,
        ts: int,
        body_size: int | None,
        complete: bool,
    ) -> None:
        self.direction: Final = direction
        self.ts: Final = ts
        self.body_size: Final = body_size
        self.complete: Final = complete


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
    lost before it, in records that found no room in the ring or (`unwalked`) where the kernel could not go on."""

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
    unwalked: bool = False


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
