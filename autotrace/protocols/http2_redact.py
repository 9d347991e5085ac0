"""HTTP/2 frames without what a recording must not hold: queries, and every field that `http2_hpack` does not keep.

A header block cannot be overwritten in its place: what it puts into the dynamic table is needed by those that
follow, and a query ends inside a Huffman code. So each block is decoded and encoded anew, as literals that need no
table; fields that are not known stay unknown, a block that cannot be decoded stays one. A replay of the redacted
records gives the same messages, but where frames were malformed.
"""

from __future__ import annotations

from autotrace.model import Frames, FramesOrigin
from autotrace.protocols.base import MalformedFrameError
from autotrace.protocols.http2_frames import (
    CONTINUATION,
    DATA,
    END_HEADERS,
    END_STREAM,
    GOAWAY,
    HEADERS,
    PUSH_PROMISE,
    Frame,
    FrameReader,
    header_block,
)
from autotrace.protocols.http2_hpack import PATH_MAX, HeaderDecoder, MalformedBlockError

BLOCK_MAX = 256 * 1024
"""Bytes of a header block that is not whole; of a longer one nothing is kept."""

_UNKNOWN_FIELD = b"\xff\xff\xff\x7f"
"""An index behind any table, on a connection whose table is not known."""

_MALFORMED_BLOCK = b"\x80"
_GOAWAY_SIZE = 8


class _Side:
    __slots__ = ("block", "decoder", "number", "opener", "reader")

    def __init__(self) -> None:
        self.number = 0
        self.reader = FrameReader()
        self.decoder = HeaderDecoder(False)
        self.opener: Frame | None = None
        self.block = b""

    def lose(self) -> None:
        self.reader.lose()
        self.decoder.lose()
        self.opener = None


class Http2Redactor:
    """Both directions of one connection, record by record."""

    __slots__ = ("_sides",)

    def __init__(self) -> None:
        self._sides = (_Side(), _Side())

    def frames(self, record: Frames) -> bytes:
        """The data of a record, redacted. Nothing of it belongs to an earlier record any more."""
        side = self._sides[record.direction]
        data = record.data
        follows = record.origin is FramesOrigin.FOLLOWS and record.number == side.number + 1
        side.number = record.number
        if record.origin is FramesOrigin.START and record.number == 1:
            side.decoder = HeaderDecoder(True)
        elif not follows:
            side.lose()
        if not side.reader.held:
            data = data[record.lead :]
        out = b""
        try:
            for frame in side.reader.take(data):
                out += self._frame(side, frame)
        except MalformedFrameError:
            side.lose()
        return out

    def _frame(self, side: _Side, frame: Frame) -> bytes:
        kind, opener = frame.kind, side.opener
        goes_on = kind == CONTINUATION and opener is not None and opener.stream == frame.stream
        if not goes_on and (kind == CONTINUATION or opener is not None):
            # What the block that is broken here would have put into the table is not known.
            side.decoder.lose()
            side.opener = None
        if kind == DATA:
            return _encode(frame, frame.payload, frame.length)
        if kind in (HEADERS, PUSH_PROMISE, CONTINUATION):
            return self._block_part(side, frame)
        if kind == GOAWAY:
            return _encode(frame, frame.payload[:_GOAWAY_SIZE])
        return _encode(frame, frame.payload)

    def _block_part(self, side: _Side, frame: Frame) -> bytes:
        """The frame with nothing in it, and with all of the block in the last one."""
        try:
            part, promised = header_block(frame)
        except MalformedFrameError:
            side.decoder.lose()
            return b""
        if frame.kind != CONTINUATION:
            side.opener, side.block = frame, b""
        head = promised.to_bytes(4) if frame.kind == PUSH_PROMISE else b""
        bare = frame._replace(flags=frame.flags & (END_HEADERS | END_STREAM))
        side.block += part
        if len(side.block) > BLOCK_MAX:
            side.block = _MALFORMED_BLOCK
        if not frame.flags & END_HEADERS:
            return _encode(bare, head)
        if side.opener is None:  # a CONTINUATION of nothing
            return _encode(bare, b"")
        side.opener = None
        return _encode(bare, head + _anew(side.decoder, side.block))


def _anew(decoder: HeaderDecoder, block: bytes) -> bytes:
    try:
        fields, unknown = decoder.decode(block)
    except MalformedBlockError:
        return _MALFORMED_BLOCK
    out = b""
    for name, value in fields.items():
        if name == ":path":
            value = value[:PATH_MAX].partition("?")[0]
        out += b"\0" + _string(name) + _string(value)
    return out + _UNKNOWN_FIELD if unknown else out


def _string(text: str) -> bytes:
    """A string literal without Huffman code (RFC 7541 section 5.2)."""
    raw = text.encode("latin-1")
    size = len(raw)
    if size < 0x7F:
        return bytes([size]) + raw
    size -= 0x7F
    out = b"\x7f"
    while size >= 0x80:
        out += bytes([size & 0x7F | 0x80])
        size >>= 7
    return out + bytes([size]) + raw


def _encode(frame: Frame, payload: bytes, length: int = -1) -> bytes:
    size = len(payload) if length < 0 else length
    return size.to_bytes(3) + bytes([frame.kind, frame.flags]) + frame.stream.to_bytes(4) + payload
