"""Header blocks to fields (RFC 7541), also on a connection that was joined in its middle.

The library `hpack` gives the static table and the Huffman code. The dynamic table is our own, because two
things are needed that a peer of the connection does not need: to go on where nothing is known of what came
before, and to keep only the fields that somebody wants.

An index counts from the newest entry (section 2.3.3), and an encoder refers only to entries that are there.
So the n-th newest insertion that was seen has index 61 + n, whatever was evicted and whatever the size of the
table is: an entry that we know is never the wrong one, and what lies behind those that we know is unknown.
"""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

from hpack.exceptions import HPACKDecodingError
from hpack.huffman_table import decode_huffman
from hpack.table import HeaderTable

from autotrace.protocols.base import HEADER_VALUE_MAX, HEADERS_KEPT

PSEUDO_HEADERS = frozenset({":authority", ":method", ":path", ":scheme", ":status"})
FIELDS_KEPT = HEADERS_KEPT | PSEUDO_HEADERS | {"content-type", "grpc-status", "grpc-timeout"}
"""The only fields that leave a decoder."""

TABLE_SIZE = 4096
"""Initial size of the dynamic table (RFC 9113 section 6.5.2)."""

TABLE_SIZE_MAX = 65_536
"""Of a larger table only the newest entries are kept; the others are unknown."""

PATH_MAX = 8192
"""Characters of `:path` that are kept."""

_STATIC = 61
_ENTRY_OVERHEAD = 32
_INTEGER_MAX = 1 << 28
_MEMO_MAX = 8
_MEMO_BLOCK_MAX = 256
_HUFFMAN_LONGEST = 30  # bits
_SHORT = 64


class MalformedBlockError(ValueError):
    """The bytes are no header block."""


class Block(NamedTuple):
    """The fields of a header block. `unknown`: there are others, whose names are not known. `fields` may be
    shared: it must not be changed."""

    fields: dict[str, str]
    unknown: bool


class _Entry(NamedTuple):
    """`name` is None if it is not known, "" if nobody wants it. `size` is the entry's size (section 4.1), or
    less if its length is not known."""

    name: str | None
    value: str
    size: int


def _kept(name: str, value: str) -> tuple[str, str]:
    return (name, value) if name in FIELDS_KEPT else ("", "")


_STATIC_TABLE = tuple(
    _Entry(*_kept(name.decode(), value.decode()), 0) for name, value in HeaderTable.STATIC_TABLE
)


class HeaderDecoder:
    """The header blocks of one direction of a connection, in order. `from_start`: the first one is the
    direction's first, so that all of the dynamic table is known."""

    __slots__ = ("_from_start", "_memo", "_size", "_size_max", "_table")

    def __init__(self, from_start: bool) -> None:
        self._table: list[_Entry] = []  # the newest is the last
        self._memo: dict[bytes, Block] = {}
        self._size = 0
        self._from_start = from_start
        self._size_max = TABLE_SIZE if from_start else TABLE_SIZE_MAX

    def lose(self) -> None:
        """A header block was missed: what it put into the table is not known, nor is any index from
        before."""
        self._table.clear()
        self._memo.clear()
        self._size = 0
        self._from_start = False
        self._size_max = TABLE_SIZE_MAX

    def decode(self, block: bytes) -> Block:
        """Decode a whole header block. Raises MalformedBlockError; the table is not known then."""
        known = self._memo.get(block)
        if known is not None:
            return known
        try:
            fields, unknown, changed = self._decode(block)
        except (IndexError, HPACKDecodingError) as error:
            self.lose()
            raise MalformedBlockError(str(error)) from error
        except MalformedBlockError:
            self.lose()
            raise
        result = Block(fields, unknown)
        if changed:
            self._memo.clear()
        elif len(block) <= _MEMO_BLOCK_MAX:
            # Until the table changes, the same bytes mean the same fields; most blocks of a busy client
            # recur.
            if len(self._memo) >= _MEMO_MAX:
                self._memo.clear()
            self._memo[block] = result
        return result

    def _decode(self, block: bytes) -> tuple[dict[str, str], bool, bool]:
        fields: dict[str, str] = {}
        unknown = changed = False
        at, end = 0, len(block)
        first = True
        name: str | None
        while at < end:
            byte = block[at]
            at += 1
            if byte & 0x80:  # section 6.1: indexed
                index = byte & 0x7F
                if index == 0x7F:
                    index, at = _integer(block, at, 0x7F)
                if index == 0:
                    raise MalformedBlockError("index 0")
                name, value, _ = _STATIC_TABLE[index - 1] if index <= _STATIC else self._entry(index)
            elif (
                byte & 0x60 == 0x20
            ):  # section 6.3: a change of the table's size, before the first field only
                size = byte & 0x1F
                if size == 0x1F:
                    size, at = _integer(block, at, 0x1F)
                if not first:
                    raise MalformedBlockError("a change of the table size after a field")
                self._size_max = min(size, TABLE_SIZE_MAX)
                self._evict(self._size_max)
                changed = True
                continue
            else:  # section 6.2: literals
                mask = 0x3F if byte & 0x40 else 0x0F
                index = byte & mask
                if index == mask:
                    index, at = _integer(block, at, mask)
                if index == 0:
                    name, at, size = _name_at(block, at)
                elif index <= _STATIC:
                    name = _STATIC_TABLE[index - 1].name
                    size = 0
                else:
                    name = self._entry(index).name
                    size = 0
                value, at, value_size = _value_at(block, at, name)
                if byte & 0x40:
                    self._insert(_Entry(name, value, size + value_size + _ENTRY_OVERHEAD))
                    changed = True
            first = False
            if name:
                earlier = fields.get(name)
                fields[name] = value if earlier is None else f"{earlier}, {value}"[:HEADER_VALUE_MAX]
            elif name is None:
                unknown = True
        return fields, unknown, changed

    def _entry(self, index: int) -> _Entry:
        index -= _STATIC
        if index <= len(self._table):
            return self._table[-index]
        if self._from_start and self._size_max < TABLE_SIZE_MAX:
            raise MalformedBlockError("an index beyond the table")
        return _UNKNOWN

    def _insert(self, entry: _Entry) -> None:
        self._evict(self._size_max - entry.size)
        if entry.size <= self._size_max:
            self._table.append(entry)
            self._size += entry.size

    def _evict(self, room: int) -> None:
        """Sizes are never counted too high, so no entry goes that the encoder can still refer to."""
        table = self._table
        gone = 0
        while self._size > room and gone < len(table):
            self._size -= table[gone].size
            gone += 1
        if gone:
            del table[:gone]


_UNKNOWN = _Entry(None, "", 0)


def _integer(block: bytes, at: int, prefix: int) -> tuple[int, int]:
    """The rest of an integer whose prefix is all ones (section 5.1), and the index behind it."""
    value, shift = prefix, 0
    while True:
        byte = block[at]
        at += 1
        value += (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
        shift += 7
        if value > _INTEGER_MAX or shift > 28:
            raise MalformedBlockError("an integer that is too large")


def _string_at(block: bytes, at: int) -> tuple[bytes, bool, int]:
    """A string literal (section 5.2): its bytes, if they are Huffman-coded, and the index behind it."""
    byte = block[at]
    at += 1
    length = byte & 0x7F
    if length == 0x7F:
        length, at = _integer(block, at, 0x7F)
    end = at + length
    if end > len(block):
        raise MalformedBlockError("a string that is longer than the block")
    return block[at:end], byte >= 0x80, end


def _name_at(block: bytes, at: int) -> tuple[str, int, int]:
    raw, huffman, at = _string_at(block, at)
    name = _short_text(raw, huffman) if len(raw) <= _SHORT else _text(raw, huffman)
    return name if name in FIELDS_KEPT else "", at, len(name)


def _value_at(block: bytes, at: int, name: str | None) -> tuple[str, int, int]:
    raw, huffman, at = _string_at(block, at)
    if name == "":
        # Nobody wants it, so it is not decoded: at least as many characters as the longest codes give.
        return "", at, len(raw) * 8 // _HUFFMAN_LONGEST if huffman else len(raw)
    value = _short_text(raw, huffman) if len(raw) <= _SHORT else _text(raw, huffman)
    return value[: PATH_MAX if name == ":path" else HEADER_VALUE_MAX], at, len(value)


def _text(raw: bytes, huffman: bool) -> str:
    return (decode_huffman(raw) if huffman else raw).decode("latin-1")


# The same strings come again and again; the library takes 0.3 us for each byte of Huffman code.
_short_text = lru_cache(maxsize=4096)(_text)
