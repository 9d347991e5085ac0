"""HTTP/1.1 bytes without what a recording must not hold, at their places: bodies, queries, most fields' values.

What stays is what `http1` reads: start lines without the query, the kept fields, what frames a body (RFC 9112
sections 6 and 7). Everything else is overwritten, byte by byte, so positions stay as they are and a replay of the
redacted bytes gives the same messages. Where it is not certain what bytes are, they are overwritten too.
"""

from __future__ import annotations

import re
from collections import deque
from enum import Enum

from autotrace.model import Direction
from autotrace.protocols.http1_framing import MalformedError, content_length, has_no_content, is_chunked
from autotrace.protocols.http1_head import HEAD_MAX, WANTED, start_line

MASK = b"x"
"""What overwritten bytes become: it can stand in a target, in a field's value and in a body."""

PIPELINED_MAX = 1024

_REQUEST = re.compile(rb"([!#$%&'*+.^_`|~0-9A-Za-z-]{1,32} +[^\x00-\x20\x7f?#]*)([^\x00-\x20\x7f]*)")
_CUT_LINE = re.compile(rb"[A-Z]{1,20}( +([/h*]|\Z)|\Z)|HTTP/")
_STATUS = re.compile(rb"HTTP/1\.[0-9] +([1-9][0-9]{2})")
_NAME = re.compile(rb"[!#$%&'*+.^_`|~0-9A-Za-z-]*")
_SIZE = re.compile(rb"[0-9A-Fa-f]{1,16}")
_NOT_FRAMING = re.compile(rb"[^\r\n0]")


class _At(Enum):
    """Where in a conversation the next byte of a direction stands."""

    START = "before a start line"
    FIELD = "at a field line of a head"
    CONTENT = "in content whose length is known"
    SIZE = "at a chunk's size"
    CONTENT_END = "behind a chunk's content"
    TRAILER = "at a trailer field"
    UNKNOWN = "in bytes whose end is not known"


class _Side:
    __slots__ = ("at", "chunked", "coding", "expected", "left", "length", "line", "masks", "method", "status")

    def __init__(self) -> None:
        self.at = _At.START
        self.expected = -1
        self.line = b""
        """The part of the current line that has come."""
        self.masks = False
        """The field before was overwritten, and a folded line that continues it must be."""
        self.left = 0
        """Of the content, or of the chunk."""
        self.chunked = False
        self.begin()

    def begin(self) -> None:
        """A head begins."""
        self.method = ""
        self.status = 0
        self.length: bytes | None = None
        self.coding: bytes | None = None


class Http1Redactor:
    """Both directions of one connection, in the order in which their bytes moved."""

    __slots__ = ("_sides", "_turn", "_waiting")

    def __init__(self) -> None:
        self._sides = (_Side(), _Side())
        self._turn = 0
        self._waiting: deque[str] = deque(maxlen=PIPELINED_MAX)
        """Methods of the requests whose final responses have not begun."""

    def data(self, direction: Direction, turn: int, position: int, data: bytes, body_size: int) -> bytes:
        """The captured bytes of a chunk, redacted; see `model.Chunk`."""
        side = self._sides[direction]
        if position > side.expected >= 0:
            self._skip(side, position - side.expected, b"")
        if turn != self._turn or side.expected < 0 or side.at is _At.UNKNOWN:
            # As in `http1`, a start line where a turn begins ends whatever came before.
            found = start_line(data, request=True, response=True)
            cut = found is None and turn != self._turn and _CUT_LINE.match(data) is not None
            if found or (cut and side.at is _At.UNKNOWN):
                side.at = _At.START
                side.line = b""
            elif found is False and side.expected < 0:
                side.at = _At.UNKNOWN
        self._turn = turn
        side.expected = position + len(data)
        redacted = self._redact(side, data)
        self.progress(direction, side.expected + body_size, b"")
        return redacted

    def progress(self, direction: Direction, end: int, tail: bytes) -> bytes:
        """The last of the bytes before `end`, which were only counted, redacted."""
        side = self._sides[direction]
        if end <= side.expected:
            return MASK * len(tail)
        started = side.expected >= 0
        count = end - side.expected
        side.expected = end
        return self._skip(side, count, tail) if started else MASK * len(tail)

    # --- bytes --------------------------------------------------------------------------------------------

    def _skip(self, side: _Side, count: int, tail: bytes) -> bytes:
        """Pass over `count` bytes that were not captured, but for `tail` at their end; the redacted tail."""
        if side.at is _At.CONTENT:
            step = min(side.left, count)
            self._content(side, step)
            count -= step
        if not count:
            return MASK * len(tail)
        if count <= len(tail) and side.at is not _At.UNKNOWN:
            return MASK * (len(tail) - count) + self._redact(side, tail[-count:])
        self._head_is_cut(side)
        # An empty line and the last chunk are told by these.
        return _NOT_FRAMING.sub(MASK, tail)

    def _redact(self, side: _Side, data: bytes) -> bytes:
        out = []
        start = 0
        length = len(data)
        while start < length:
            if side.at is _At.UNKNOWN:
                out.append(_NOT_FRAMING.sub(MASK, data[start:]) if side.chunked else MASK * (length - start))
                break
            if side.at is _At.CONTENT:
                step = min(side.left, length - start)
                out.append(MASK * step)
                self._content(side, step)
                start += step
                continue
            end = data.find(b"\n", start) + 1 or length
            out.append(self._line(side, data[start:end]))
            start = end
            if len(side.line) > HEAD_MAX:
                side.at = _At.UNKNOWN
        return b"".join(out)

    def _content(self, side: _Side, count: int) -> None:
        side.left -= count
        if not side.left:
            side.at = _At.CONTENT_END if side.chunked else _At.START

    def _line(self, side: _Side, part: bytes) -> bytes:
        """`part`, the next bytes of the current line, redacted. If the line is whole now, what follows it."""
        known = len(side.line)
        side.line += part
        line = side.line
        whole = line.endswith(b"\n")
        text = line.rstrip(b"\r\n")
        if side.at is _At.START:
            redacted = self._start(side, text, whole)
        elif side.at in (_At.FIELD, _At.TRAILER):
            redacted = self._field(side, text, whole)
        else:
            redacted = self._framing(side, text, whole)
        if whole:
            side.line = b""
        return (redacted + line[len(text) :])[known:]

    def _start(self, side: _Side, text: bytes, whole: bool) -> bytes:
        if whole and not text:
            return text
        status = _STATUS.match(text)
        if status or b"HTTP/1.".startswith(text[:7]):
            if whole and status:
                side.begin()
                side.status = int(status[1])
                side.at = _At.FIELD
            return text
        request = _REQUEST.match(text)
        if request is None:
            if not whole and _NAME.fullmatch(text) and text == text.upper():
                return text
            side.at = _At.UNKNOWN
            return MASK * len(text)
        if whole:
            side.begin()
            side.method = text.partition(b" ")[0].decode()
            side.at = _At.FIELD
        query = request[2]
        return request[1] + query[:1] + MASK * (len(query) - 1) + text[request.end() :]

    def _field(self, side: _Side, text: bytes, whole: bool) -> bytes:
        if whole and not text:
            self._head_ends(side)
            return text
        if text[:1] in (b" ", b"\t"):  # obs-fold, section 5.2
            return MASK * len(text) if side.masks else text
        name = _NAME.match(text)
        assert name is not None
        raw_name, rest = name[0], text[name.end() :]
        if not rest:
            return MASK * len(text) if whole else text
        field = raw_name.decode().lower()
        separator, colon, value = rest.partition(b":")
        side.masks = not colon or bool(separator.strip(b" \t")) or field not in WANTED
        if not colon:
            return MASK * len(text)
        if side.masks:
            return raw_name + separator + colon + MASK * len(value)
        if whole and field == "content-length":
            side.length = value.strip() if side.length is None else side.length + b"," + value.strip()
        elif whole and field == "transfer-encoding":
            side.coding = value.strip() if side.coding is None else side.coding + b"," + value.strip()
        return text

    def _framing(self, side: _Side, text: bytes, whole: bool) -> bytes:
        """The line of a chunk's size, or the end of one behind its content."""
        size = _SIZE.match(text)
        if side.at is _At.CONTENT_END or size is None:
            if text.strip(b"\r"):
                side.at = _At.UNKNOWN
                return MASK * len(text)
            if whole:
                side.at = _At.SIZE
            return text
        if whole:
            side.left = int(size[0], 16)
            side.at = _At.CONTENT if side.left else _At.TRAILER
        extension = len(text) - size.end()
        return size[0] + text[size.end() : size.end() + 1] + MASK * (extension - 1)

    # --- messages -----------------------------------------------------------------------------------------

    def _head_ends(self, side: _Side) -> None:
        trailer = side.at is _At.TRAILER
        side.chunked = False
        side.at = _At.START
        if trailer:
            return
        method = self._message(side)
        if side.method == "CONNECT" or side.status == 101 or (side.status and method == "CONNECT"):
            side.at = _At.UNKNOWN
        elif side.status // 100 != 1 and not (side.status and has_no_content(method, side.status)):
            self._body_begins(side)

    def _head_is_cut(self, side: _Side) -> None:
        """The rest of a head, if there is one, was not captured, and what follows cannot be told."""
        if side.at is _At.START and side.line:
            status = _STATUS.match(side.line)
            request = None if status else _REQUEST.match(side.line)
            if status or request:
                side.begin()
                side.status = int(status[1]) if status else 0
                side.method = side.line.partition(b" ")[0].decode() if request else ""
                self._message(side)
        elif side.at is _At.FIELD:
            self._message(side)
        side.at = _At.UNKNOWN
        side.line = b""

    def _message(self, side: _Side) -> str:
        """Keep account of who waits for what; the method that a final response answers, if it is known."""
        if side.method:
            self._waiting.append(side.method)
        elif (side.status // 100 != 1 or side.status == 101) and self._waiting:
            return self._waiting.popleft()
        return ""

    def _body_begins(self, side: _Side) -> None:
        if side.coding is not None:
            side.chunked = is_chunked(side.coding)
            side.at = _At.SIZE if side.chunked else _At.UNKNOWN
        elif side.length is not None:
            try:
                side.left = content_length(side.length)
            except MalformedError:
                side.at = _At.UNKNOWN
                return
            side.at = _At.CONTENT if side.left else _At.START
        elif side.status:
            side.at = _At.UNKNOWN
