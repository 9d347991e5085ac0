"""The heads of HTTP/1.1 messages: start lines and the few fields that matter (RFC 9112 sections 2 to 5)."""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import lru_cache
from typing import Final

from autotrace.protocols.base import HEADER_VALUE_MAX, HEADERS_KEPT

HEAD_MAX: Final = 65536
"""Bytes of the longest head that is waited for; a longer one is reported as truncated."""

# A method of more than 32 characters is not taken for one; the longest registered one has 17.
# Section 3. Servers accept several spaces between the parts, and bytes above 127 in the target: so do we.
REQUEST_LINE = re.compile(
    rb"([!#$%&'*+.^_`|~0-9A-Za-z-]{1,32}) +([^\x00-\x20\x7f]+) +HTTP/(1\.[0-9])[ \t]*\r?\n"
)
# Section 4. The reason phrase, and the space before it, are often missing.
STATUS_LINE = re.compile(rb"HTTP/(1\.[0-9]) +([1-9][0-9]{2})(?:[ \t][^\n]*)?\r?\n")

_CUT_REQUEST_LINE = re.compile(rb"([!#$%&'*+.^_`|~0-9A-Za-z-]{1,32}) +([^\x00-\x20\x7f]+)")
_CUT_STATUS_LINE = re.compile(rb"HTTP/(1\.[0-9]) +([1-9][0-9]{2})[ \t][^\n]*\Z")
_METHOD = re.compile(rb"[!#$%&'*+.^_`|~0-9A-Za-z-]{1,32}")
_TARGET = re.compile(rb"[^\x00-\x20\x7f]*")
_STATUS_AND_REASON = re.compile(rb" *(?:[1-9][0-9]{0,2}(?:[ \t\r][^\n]*)?)?")

_CONTENT_LENGTH, _TRANSFER_ENCODING, _EXPECT = "content-length", "transfer-encoding", "expect"
WANTED = sorted({*HEADERS_KEPT, _CONTENT_LENGTH, _TRANSFER_ENCODING, _EXPECT})
# The usual spellings; any other is found in lower case.
_NAMES = {spelling.encode(): name for name in WANTED for spelling in (name, name.title())}
# One pass over the head that stops only at the wanted names: much cheaper than a dict of all fields. White
# space before the colon is not allowed (section 5.1), but whoever accepts it reads the field like this.
_FIELDS = re.compile(
    rb"\n(?=["
    + bytes(sorted({ord(name[0]) for name in WANTED}))
    + rb"])("
    + "|".join(map(re.escape, WANTED)).encode()
    + rb")[ \t]*:[ \t]*([^\r\n]*)",
    re.IGNORECASE,
)
_FOLD = re.compile(rb"\r?\n[ \t]+")

WHOLE_HEAD_MAX: Final = 2048
"""Bytes of the longest head that is remembered."""

_HEADS_REMEMBERED = 1024


class Fields:
    """What was read of a head's fields. `content_length` and `transfer_encoding` are raw values, several
    fields of one name joined by commas; None if absent. `length` is the former as a number if it is a plain one, as
    almost all are, else -1."""

    __slots__ = ("content_length", "expects_continue", "kept", "length", "transfer_encoding")

    def __init__(
        self,
        kept: Mapping[str, str],
        content_length: bytes | None = None,
        transfer_encoding: bytes | None = None,
        expects_continue: bool = False,
    ) -> None:
        self.kept: Final = kept
        self.content_length: Final = content_length
        plain = content_length is not None and content_length.isdigit() and len(content_length) <= 18
        self.length: Final = int(content_length) if content_length is not None and plain else -1
        self.transfer_encoding: Final = transfer_encoding
        self.expects_continue: Final = expects_continue


class RequestHead:
    """A whole request head."""

    __slots__ = ("fields", "method", "target", "version")

    def __init__(self, method: str, target: str, version: str, fields: Fields) -> None:
        self.method: Final = method
        self.target: Final = target
        self.version: Final = version
        self.fields: Final = fields


class ResponseHead:
    """A whole response head."""

    __slots__ = ("fields", "status", "version")

    def __init__(self, status: int, version: str, fields: Fields) -> None:
        self.status: Final = status
        self.version: Final = version
        self.fields: Final = fields


def head_end(data: bytes, start: int) -> tuple[int, int]:
    """Find the empty line that ends the head at `start`: the index of the line feed that ends the line before
    it, and the index of the first byte after the head; (-1, -1) if it is not there. A bare line feed ends a
    line too (section 2.2)."""
    last = data.find(b"\n\r\n", start)
    bare = data.find(b"\n\n", start) if last < 0 else data.find(b"\n\n", start, last + 1)
    if bare >= 0:
        return bare, bare + 2
    return (last, last + 3) if last >= 0 else (-1, -1)


def read_fields(data: bytes, start: int, end: int) -> Fields:
    """Read the fields between the line feed at `start` that ends the start line, and the one at `end` that
    ends the last line. Lines that are no fields are passed over: whether to refuse them is the receiver's
    choice, and its response shows it."""
    if data.find(b"\n ", start, end) >= 0 or data.find(b"\n\t", start, end) >= 0:
        data = _FOLD.sub(b" ", data[start:end])  # obs-fold, section 5.2
        start, end = 0, len(data)
    kept: dict[str, str] = {}
    content_length = transfer_encoding = None
    expects_continue = False
    for raw_name, raw_value in _FIELDS.findall(data, start, end):
        name = _NAMES.get(raw_name) or _NAMES[raw_name.lower()]
        if name == _CONTENT_LENGTH:
            content_length = raw_value if content_length is None else content_length + b"," + raw_value
        elif name == _TRANSFER_ENCODING:
            transfer_encoding = (
                raw_value if transfer_encoding is None else transfer_encoding + b"," + raw_value
            )
        elif name == _EXPECT:
            expects_continue = raw_value.strip().lower() == b"100-continue"
        else:
            value = raw_value[:HEADER_VALUE_MAX].decode("latin-1").rstrip(" \t")
            if name in kept:  # RFC 9110 section 5.3
                value = f"{kept[name]}, {value}"[:HEADER_VALUE_MAX]
            kept[name] = value
    return Fields(kept, content_length, transfer_encoding, expects_continue)


def read_request(data: bytes, start: int, last: int) -> RequestHead | None:
    """Read the request head that begins at `start` and whose last line ends with the line feed at `last`; None if
    its start line is malformed."""
    line = REQUEST_LINE.match(data, start)
    if line is None:
        return None
    method, target, version = line.groups()
    fields = read_fields(data, line.end() - 1, last)
    return RequestHead(method.decode(), target.decode("latin-1"), version.decode(), fields)


def read_response(data: bytes, start: int, last: int) -> ResponseHead | None:
    """The same for a response head."""
    line = STATUS_LINE.match(data, start)
    if line is None:
        return None
    version, status = line.groups()
    return ResponseHead(int(status), version.decode(), read_fields(data, line.end() - 1, last))


@lru_cache(_HEADS_REMEMBERED)
def whole_request(data: bytes) -> RequestHead | None:
    """The request head that `data` is, if it is one and nothing else. Remembered: the other end of the connection
    tells the same bytes, and so does, very often, the next request. At most WHOLE_HEAD_MAX bytes."""
    last, after = head_end(data, 0)
    return read_request(data, 0, last) if after == len(data) else None


@lru_cache(_HEADS_REMEMBERED)
def whole_response(data: bytes) -> ResponseHead | None:
    """The same for a response head."""
    last, after = head_end(data, 0)
    return read_response(data, 0, last) if after == len(data) else None


def read_cut_request(data: bytes) -> tuple[str, str, str, Fields] | None:
    """Read method, target, version and fields of a request head whose end is missing, as far as they go (the
    version is empty if the target is cut); None if there is not even a target."""
    line = REQUEST_LINE.match(data)
    if line is not None:
        method, target, version = line.groups()
        # The last line may be cut anywhere, so it says nothing.
        fields = read_fields(data, line.end() - 1, data.rfind(b"\n"))
        return method.decode(), target.decode("latin-1"), version.decode(), fields
    line = _CUT_REQUEST_LINE.match(data)
    if line is None:
        return None
    return line[1].decode(), line[2].decode("latin-1"), "", Fields({})


def read_cut_response(data: bytes) -> tuple[int, str, Fields] | None:
    """Read status, version and fields of a response head whose end is missing; None if there is no status."""
    line = STATUS_LINE.match(data)
    if line is not None:
        return int(line[2]), line[1].decode(), read_fields(data, line.end() - 1, data.rfind(b"\n"))
    line = _CUT_STATUS_LINE.match(data)
    if line is None:
        return None
    return int(line[2]), line[1].decode(), Fields({})


def start_line(data: bytes, request: bool, response: bool) -> bool | None:
    """Tell if `data` begins with a request line (if `request`) or a status line (if `response`); None if it
    holds no whole line, but may be the beginning of one. Empty lines may stand before it (section 2.2)."""
    line = data.lstrip(b"\r\n")
    if (request and REQUEST_LINE.match(line)) or (response and STATUS_LINE.match(line)):
        return True
    if len(data) >= HEAD_MAX:
        return False
    may_begin = not line or (request and _may_begin_request(line)) or (response and _may_begin_response(line))
    return None if may_begin else False


def _may_begin_request(data: bytes) -> bool:
    method, _, rest = data.partition(b" ")
    target, _, version = rest.lstrip(b" ").partition(b" ")
    return (
        _METHOD.fullmatch(method) is not None
        and _TARGET.fullmatch(target) is not None
        and _may_begin_version(version.lstrip(b" "))
        and b"\n" not in version
    )


def _may_begin_response(data: bytes) -> bool:
    return _may_begin_version(data) and _STATUS_AND_REASON.fullmatch(data, 8) is not None


def _may_begin_version(data: bytes) -> bool:
    return b"HTTP/1.".startswith(data[:7]) and (len(data) < 8 or data[7:8].isdigit())
