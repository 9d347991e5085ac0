"""Where an HTTP/1.1 message body ends (RFC 9112 sections 6, 7), also if only its first bytes were captured.

A body eats the bytes that belong to it and says when it is `done`. Captured bytes come by `take`, counted
ones by `skip`. `size` is the number of content bytes so far, None if it cannot be told.
"""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Mapping

CHUNK_LINE_MAX = 4096
"""Bytes of the longest chunk-size or trailer line; more is malformed."""

_LENGTH_DIGITS_MAX = 18
_CHUNK_SIZE = re.compile(rb"([0-9A-Fa-f]{1,16})[ \t]*(?:;[^\n]*)?\r?\n")
_LAST_CHUNK = b"\r\n0\r\n\r\n"
_EMPTY_LINE = b"\r\n\r\n"


class MalformedError(Exception):
    """Bytes that RFC 9112 does not allow. The message is the `reason` of the ProtocolError to report."""


class Body(ABC):
    """The body of one message, or whatever stands where the next message cannot be told yet."""

    __slots__ = ("done", "optional", "size")

    done: bool
    optional: bool
    """The sender may have left the body out altogether; only what follows the head can show it."""
    size: int | None

    def __init__(self, size: int | None = 0, optional: bool = False) -> None:
        self.done = False
        self.optional = optional
        self.size = size

    @abstractmethod
    def take(self, data: bytes, start: int) -> int:
        """Eat captured bytes from index `start`; the index of the first byte that is not the body's. Eats all
        unless the body is done. Raises MalformedError."""

    @abstractmethod
    def skip(self, count: int, tail: bytes) -> int:
        """Eat `count` counted bytes, of which the last ones were `tail`; how many lie beyond the body's end.
        Raises MalformedError."""

    @property
    @abstractmethod
    def replaceable(self) -> bool:
        """A message that begins where a turn begins ends this body: its end is not known otherwise."""

    @property
    def ended_by_answer(self) -> bool:
        """The other side's next message shows that this body is over: its end is not known otherwise."""
        return False

    @property
    def may_hide(self) -> bool:
        """Among the bytes that were only counted may be other messages."""
        return False

    @abstractmethod
    def complete_at_close(self, orderly: bool) -> bool:
        """Tell if the end of the connection here leaves the body complete."""


class LengthBody(Body):
    """Exactly `length` bytes (section 6.2)."""

    __slots__ = ("_left", "_length")

    def __init__(self, length: int, optional: bool = False) -> None:
        super().__init__(0, optional)
        self._length = length
        self._left = length

    def take(self, data: bytes, start: int) -> int:
        return len(data) - self.skip(len(data) - start, b"")

    def skip(self, count: int, tail: bytes) -> int:
        step = min(self._left, count)
        self._left -= step
        self.size = self._length - self._left
        self.done = not self._left
        return count - step

    @property
    def replaceable(self) -> bool:
        return self.optional and self._left == self._length

    def complete_at_close(self, orderly: bool) -> bool:
        return False


class ChunkedBody(Body):
    """Chunks until the empty one, then trailers (section 7.1).

    Counted bytes are followed through a chunk whose size is known, and through `tail`. Beyond that the chunk
    boundaries are lost. From then on the body is over when the last bytes that moved are CR LF 0 CR LF CR LF,
    the last chunk without trailers after the end of another chunk. Content can end in these bytes too, at the
    end of a chunk and at the end of what moved just then; that is rare enough. With trailers they never
    come: then an empty line at the end, together with an answer of the other side or with the end of the
    connection, will do. Else the next message of this direction ends the body.
    """

    __slots__ = ("_left", "_line", "_lost", "_started", "_state", "_tail")

    _SIZE = 0
    _CONTENT = 1
    _CONTENT_END = 2
    _TRAILER = 3

    def __init__(self, optional: bool = False, lost: bool = False) -> None:
        super().__init__(None if lost else 0, optional)
        self._state = self._SIZE
        self._left = 0
        self._line = b""
        self._lost = lost
        self._tail = b""
        self._started = False

    def take(self, data: bytes, start: int) -> int:
        self._started = True
        if self._lost:
            self._look_at_tail(self._tail + data[max(start, len(data) - len(_LAST_CHUNK)) :])
            return len(data)
        while start < len(data):
            if self._state == self._CONTENT:
                start += self._take_content(len(data) - start)
                continue
            end = data.find(b"\n", start) + 1
            if not end:
                self._line += data[start:]
                self._check_line()
                return len(data)
            self._line += data[start:end]
            self._check_line()
            start = end
            line, self._line = self._line, b""
            self._take_line(line)
            if self.done:
                break
        return start

    def _take_content(self, count: int) -> int:
        step = min(self._left, count)
        self._left -= step
        if self.size is not None:
            self.size += step
        if not self._left:
            self._state = self._CONTENT_END
        return step

    def _check_line(self) -> None:
        if len(self._line) > (2 if self._state == self._CONTENT_END else CHUNK_LINE_MAX):
            raise MalformedError("malformed_chunk")

    def _take_line(self, line: bytes) -> None:
        if self._state == self._TRAILER:
            self.done = line in (b"\r\n", b"\n")
        elif self._state == self._CONTENT_END:
            if line not in (b"\r\n", b"\n"):
                raise MalformedError("malformed_chunk")
            self._state = self._SIZE
        else:
            match = _CHUNK_SIZE.fullmatch(line)
            if match is None:
                raise MalformedError("malformed_chunk")
            self._left = int(match[1], 16)
            self._state = self._CONTENT if self._left else self._TRAILER

    def skip(self, count: int, tail: bytes) -> int:
        self._started = True
        if not self._lost:
            if self._state == self._CONTENT:
                count -= self._take_content(count)
            if not count:
                return 0
            if count <= len(tail):
                return len(tail) - self.take(tail, len(tail) - count)
            self._lost = True
            self.size = None
            self._line = b""
        self._look_at_tail(tail)
        return 0

    def _look_at_tail(self, tail: bytes) -> None:
        self._tail = tail[-len(_LAST_CHUNK) :]
        # A tail can be short: the terminator is often a write of its own.
        self.done = len(self._tail) >= 5 and _LAST_CHUNK.endswith(self._tail)

    @property
    def replaceable(self) -> bool:
        return self._lost or (self.optional and not self._started)

    @property
    def ended_by_answer(self) -> bool:
        return self._lost and self._tail.endswith(_EMPTY_LINE)

    @property
    def may_hide(self) -> bool:
        return self._lost

    def complete_at_close(self, orderly: bool) -> bool:
        # Where the last bytes are not known, an orderly end is no reason to speak of a fault.
        return self.ended_by_answer or (orderly and self._lost and _EMPTY_LINE.endswith(self._tail))


class OpenBody(Body):
    """All bytes from here on, with no end of its own: what the classes below have in common."""

    __slots__ = ()

    def take(self, data: bytes, start: int) -> int:
        self.skip(len(data) - start, b"")
        return len(data)

    def skip(self, count: int, tail: bytes) -> int:
        return 0

    @property
    def replaceable(self) -> bool:
        return True

    @property
    def may_hide(self) -> bool:
        return True

    def complete_at_close(self, orderly: bool) -> bool:
        return orderly


class UntilCloseBody(OpenBody):
    """All bytes until the connection ends (section 6.3, item 8)."""

    __slots__ = ("_count",)

    def __init__(self) -> None:
        super().__init__()
        self._count = 0

    def skip(self, count: int, tail: bytes) -> int:
        self._count += count
        self.size = self._count
        return 0


class UntilAnswerBody(OpenBody):
    """What follows a truncated head: the rest of the head and a body, with an unknown border between them.
    `size` is what the head declared."""

    __slots__ = ()

    @property
    def ended_by_answer(self) -> bool:
        return True

    def complete_at_close(self, orderly: bool) -> bool:
        if not orderly:
            self.size = None
        return orderly


class Unrecognised(OpenBody):
    """No message at all: bytes after an error or a gap, or what a client sends after CONNECT."""

    __slots__ = ()


def content_length(value: bytes) -> int:
    """Read a Content-Length; a list of equal numbers is one (section 6.3, item 5). Raises MalformedError."""
    if value.isdigit() and len(value) <= _LENGTH_DIGITS_MAX:
        return int(value)
    numbers = {item.strip(b" \t") for item in value.split(b",")}
    number = numbers.pop()
    if numbers or not number.isdigit() or len(number) > _LENGTH_DIGITS_MAX:
        raise MalformedError("malformed_content_length")
    return int(number)


def is_chunked(transfer_encoding: bytes) -> bool:
    """Tell if chunked is the final transfer coding (section 6.3, item 4)."""
    return transfer_encoding.rpartition(b",")[2].strip(b" \t").lower() == b"chunked"


def has_no_content(method: str, status: int) -> bool:
    """Tell if a final response has no content whatever its fields say (section 6.3, item 1)."""
    return method == "HEAD" or status in (204, 304)


def switches_to(method: str, status: int, headers: Mapping[str, str]) -> str:
    """What the connection speaks after a response (RFC 9110 sections 7.8, 9.3.6); empty if still HTTP."""
    if status == 101:
        return headers.get("upgrade") or "unknown"
    return "connect" if method == "CONNECT" and 200 <= status < 300 else ""
