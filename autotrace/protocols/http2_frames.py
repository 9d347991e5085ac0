"""HTTP/2 frames (RFC 9113 section 4) from what the kernel's walker passes on of one direction of a
connection.

Passed on, in order and without anything between, are

- header and payload of HEADERS, RST_STREAM, SETTINGS, PUSH_PROMISE, GOAWAY and CONTINUATION;
- the header of DATA, when the last byte of its payload has moved. If the payload begins like a gRPC message
  that fills it or more, or may go on with a message's prefix that a frame before cut, its flag FIRST_BYTES
  (0x40, which no DATA frame has) is set, and the payload's first 5 bytes follow (zeros where it is shorter).

Other frames, and the connection preface, are not.
"""

from __future__ import annotations

from typing import NamedTuple

from autotrace.protocols.base import MalformedFrameError

DATA, HEADERS, RST_STREAM, SETTINGS, PUSH_PROMISE, GOAWAY, CONTINUATION = 0, 1, 3, 4, 5, 7, 9
PASSED_ON = frozenset({DATA, HEADERS, RST_STREAM, SETTINGS, PUSH_PROMISE, GOAWAY, CONTINUATION})

END_STREAM = 0x1
ACK = 0x1
END_HEADERS = 0x4
PADDED = 0x8
PRIORITY = 0x20
FIRST_BYTES = 0x40

FRAME_HEADER = 9
FIRST_SIZE = 5
PAYLOAD_MAX = 1 << 20
"""A frame with more header bytes is not believed: peers take 16 KiB unless they said otherwise (section
4.2)."""

ERROR_CODES = (
    "NO_ERROR",
    "PROTOCOL_ERROR",
    "INTERNAL_ERROR",
    "FLOW_CONTROL_ERROR",
    "SETTINGS_TIMEOUT",
    "STREAM_CLOSED",
    "FRAME_SIZE_ERROR",
    "REFUSED_STREAM",
    "CANCEL",
    "COMPRESSION_ERROR",
    "CONNECT_ERROR",
    "ENHANCE_YOUR_CALM",
    "INADEQUATE_SECURITY",
    "HTTP_1_1_REQUIRED",
)
"""By number (section 7)."""


class Frame(NamedTuple):
    """`length` is that of the payload. Of DATA, `payload` is its first 5 bytes (zeros where it is shorter), or
    empty."""

    kind: int
    flags: int
    stream: int
    length: int
    payload: bytes


class FrameReader:
    """One direction. What is left of the last record waits for the next one."""

    __slots__ = ("_held",)

    def __init__(self) -> None:
        self._held = b""

    def lose(self) -> None:
        """Something was missed: the frame that was begun will not be whole."""
        self._held = b""

    @property
    def held(self) -> int:
        """Bytes of a frame that is not whole yet."""
        return len(self._held)

    def take(self, data: bytes) -> list[Frame]:
        """The frames that are whole with `data`. Raises MalformedFrameError for what the walker does not pass
        on."""
        if self._held:
            data = self._held + data
            self._held = b""
        frames = []
        at, end = 0, len(data)
        while end - at >= FRAME_HEADER:
            length = int.from_bytes(data[at : at + 3])
            kind, flags = data[at + 3], data[at + 4]
            if kind not in PASSED_ON:
                raise MalformedFrameError("unexpected_frame")
            behind = at + FRAME_HEADER
            if kind:
                if length > PAYLOAD_MAX:
                    raise MalformedFrameError("frame_size")
                behind += length
            elif flags & FIRST_BYTES:
                behind += FIRST_SIZE
            if behind > end:
                break
            stream = int.from_bytes(data[at + 5 : at + 9]) & 0x7FFFFFFF
            frames.append(Frame(kind, flags, stream, length, data[at + FRAME_HEADER : behind]))
            at = behind
        if at < end:
            self._held = data[at:]
        return frames


def header_block(frame: Frame) -> tuple[bytes, int]:
    """The part of a header block that a HEADERS, PUSH_PROMISE or CONTINUATION frame carries, without padding
    and priority, and the promised stream (0 if it is no PUSH_PROMISE). Raises MalformedFrameError."""
    payload = frame.payload
    begin, end = 0, len(payload)
    if frame.kind == CONTINUATION:
        return payload, 0
    promised = 0
    if frame.flags & PADDED:
        if not payload:
            raise MalformedFrameError("frame_size")
        begin, end = 1, end - payload[0]
    if frame.kind == PUSH_PROMISE:
        promised = int.from_bytes(payload[begin : begin + 4]) & 0x7FFFFFFF
        begin += 4
    elif frame.flags & PRIORITY:
        begin += 5
    if begin > end:
        raise MalformedFrameError("padding")
    return payload[begin:end], promised


def error_name(code: int) -> str:
    """The name of an error code; an unknown one counts as INTERNAL_ERROR (section 7)."""
    return ERROR_CODES[code] if code < len(ERROR_CODES) else "INTERNAL_ERROR"
