"""What gRPC says in HTTP/2 (github.com/grpc/grpc, doc/PROTOCOL-HTTP2.md): method, deadline, status, messages.

All four forms of a call look the same here: the request is over at the client's END_STREAM, the call at the
server's trailers, and messages are counted in each direction. One that is not over and one that fails at once
differ only in what was sent before.
"""

from __future__ import annotations

from collections.abc import Mapping

from autotrace.model import Rpc

STATUS_NAMES = (
    "OK",
    "CANCELLED",
    "UNKNOWN",
    "INVALID_ARGUMENT",
    "DEADLINE_EXCEEDED",
    "NOT_FOUND",
    "ALREADY_EXISTS",
    "PERMISSION_DENIED",
    "RESOURCE_EXHAUSTED",
    "FAILED_PRECONDITION",
    "ABORTED",
    "OUT_OF_RANGE",
    "UNIMPLEMENTED",
    "INTERNAL",
    "UNAVAILABLE",
    "DATA_LOSS",
    "UNAUTHENTICATED",
)
"""By status code (doc/statuscodes.md)."""

PREFIX = 5
"""Bytes before each message: whether it is compressed, and its length (Length-Prefixed-Message)."""

_UNITS = {"H": 3_600_000_000_000, "M": 60_000_000_000, "S": 1_000_000_000, "m": 1_000_000, "u": 1000, "n": 1}
_TIMEOUT_DIGITS = 8

# Section "Errors": what a reset of the stream means.
_STATUS_OF_RESET = {
    "CANCEL": "CANCELLED",
    "REFUSED_STREAM": "UNAVAILABLE",
    "ENHANCE_YOUR_CALM": "RESOURCE_EXHAUSTED",
    "INADEQUATE_SECURITY": "PERMISSION_DENIED",
}

# doc/http-grpc-status-mapping.md: a response that is not gRPC, say a proxy's.
_STATUS_OF_HTTP = {
    400: "INTERNAL",
    401: "UNAUTHENTICATED",
    403: "PERMISSION_DENIED",
    404: "UNIMPLEMENTED",
    429: "UNAVAILABLE",
    502: "UNAVAILABLE",
    503: "UNAVAILABLE",
    504: "UNAVAILABLE",
}


def is_grpc(headers: Mapping[str, str]) -> bool:
    """Tell if a request or a response is gRPC's; gRPC-Web has another framing and is not."""
    content_type = headers.get("content-type", "").lower()
    return content_type.startswith("application/grpc") and content_type[16:17] in ("", "+", ";", " ")


def call(path: str, headers: Mapping[str, str]) -> Rpc:
    """The call that a request with these headers makes; `path` is "" if it is not known."""
    return Rpc("grpc", path.removeprefix("/").partition("?")[0], timeout_ns(headers.get("grpc-timeout", "")))


def timeout_ns(text: str) -> int:
    """The value of grpc-timeout; 0 if there is none that is valid."""
    digits, unit = text[:-1], _UNITS.get(text[-1:], 0)
    if not unit or not digits.isascii() or not digits.isdigit() or len(digits) > _TIMEOUT_DIGITS:
        return 0
    return int(digits) * unit


def status_name(code: str) -> str:
    """The name of the status code in a grpc-status field, "" if there is none. What is no code is UNKNOWN."""
    if not code:
        return ""
    known = code.isascii() and code.isdigit() and len(code) <= 2 and int(code) < len(STATUS_NAMES)
    return STATUS_NAMES[int(code)] if known else "UNKNOWN"


def status_without_trailers(http_status: int) -> str:
    """The status of a call that was answered without a grpc-status; "" if the HTTP status is not known
    either."""
    return _STATUS_OF_HTTP.get(http_status, "UNKNOWN") if http_status else ""


def status_of_reset(code: str, rpc: Rpc, lasted_ns: int) -> str:
    """The status of a call whose stream was reset.

    Whoever gives up at the deadline says CANCEL too. So a cancellation after it, or in the last 5 % before it (at
    least 5 ms), counts as the deadline's: grpc-timeout is rounded, and a client's clock starts before the request
    is sent.
    """
    tolerance = max(rpc.timeout_ns // 20, 5_000_000)
    if code == "CANCEL" and rpc.timeout_ns and lasted_ns >= rpc.timeout_ns - tolerance:
        return "DEADLINE_EXCEEDED"
    return _STATUS_OF_RESET.get(code, "INTERNAL")


class MessageCounter:
    """Counts the messages of one direction of a call from the sizes of its DATA frames.

    Exact as long as each message begins with a frame, which is how clients and servers send them; frames may cut
    it anywhere, in its prefix too. Where one begins inside a frame, or something is missing, the count is not
    known. `count` is None then.
    """

    __slots__ = ("_cut", "_left", "count")

    def __init__(self) -> None:
        self.count: int | None = 0
        self._cut = b""
        """What frames have brought of a prefix that is not whole."""
        self._left = 0

    def frame(self, length: int, first: bytes) -> None:
        """A DATA frame of `length` bytes. `first` are at least so many of its first bytes as its part of a prefix
        can have, zeros where it is shorter; empty if they can be none of a prefix, or of one of a message that
        ends inside the frame."""
        if self.count is None or not length:
            return
        if not self._left:
            cut = self._cut
            prefix = cut + first[: min(length, PREFIX - len(cut))]
            if len(prefix) == len(cut) or prefix[0] > 1:
                self.count = None
                return
            if len(prefix) < PREFIX:
                self._cut = prefix
                return
            self._cut = b""
            self._left = PREFIX - len(cut) + int.from_bytes(prefix[1:])
            self.count += 1
        self._left -= length
        if self._left < 0:
            self.count = None

    def lose(self) -> None:
        """Frames were missed."""
        self.count = None

    @property
    def whole(self) -> int | None:
        """The count if the last message is there to its end."""
        return None if self._left or self._cut else self.count
