"""Functions of Go programs, from the table that the Go runtime itself uses (.gopclntab).

Stripping leaves it. Its layout is described by `runtime/symtab.go` and `internal/abi/symtab.go` of Go's sources:
one for Go 1.16 and 1.17, one for 1.18 and 1.19, one from 1.20, all read here. Addresses of functions are relative
to `runtime.text`, which stands in the runtime's `moduledata`: the header of the table has had no such field since
1.26, and `.text` begins elsewhere where a C linker put other code before Go's.
"""

from __future__ import annotations

import struct
from array import array
from collections.abc import Collection, Iterator
from contextlib import suppress
from itertools import islice
from typing import NamedTuple

from symbols.code import return_sites
from symbols.elf import PF_R, PF_W, PF_X, Elf
from symbols.errors import CodeError, ElfError
from symbols.function import Function, Lookup
from symbols.relocations import pointers_to, relative_addends

_SECTIONS = (".gopclntab", ".data.rel.ro.gopclntab")
_MAGIC_116, _MAGIC_118, _MAGIC_120 = 0xFFFFFFFA, 0xFFFFFFF0, 0xFFFFFFF1
_HEADER_STARTS = (b"\xff\xff\xff\0\0\x01\x08", b"\xff\xff\xff\0\0\x04\x08")
_HEADER_START_SIZE = 8
_ALIGNMENT = 8
_MAX_CANDIDATES = 8
_MAX_FUNCTIONS = 1 << 21
_MAX_FUNCTION_SIZE = 1 << 18
_MAX_SAME_NAME = 4096
_BATCH, _MAX_BATCH_SIZE = 1 << 14, 16 << 20

# Words of moduledata, the same since Go 1.16; moduledataverify1 checks the same relations at every start.
_FUNCTION_NAMES, _FUNCTION_DATA, _FUNCTION_TABLE, _MIN_PC, _MAX_PC, _TEXT = 1, 13, 16, 20, 21, 22
_MODULEDATA_SIZE = 8 * (_TEXT + 1)


class _Header(NamedTuple):
    address: int
    function_count: int
    names_at: int  # as an address, like the others
    names_end: int
    functions_at: int
    wide: bool  # Go 1.16 and 1.17: addresses of 64 bits instead of distances of 32


def go_functions(elf: Elf, names: Collection[str]) -> Lookup:
    """Look up Go functions (`crypto/tls.(*Conn).Write`) with their return instructions.

    Nothing is found in a file that is no Go program. Raises ElfError if the tables are damaged.
    """
    if elf.bits != 64:
        return Lookup({}, {})
    table = _find_table(elf)
    return Lookup({}, {}) if table is None else table.look_up(names)


def _find_table(elf: Elf) -> _Table | None:
    """Find the table by its section, else by its magic number and by the moduledata that points to it."""
    for section in elf.sections:
        if section.name in _SECTIONS:
            header = _read_header(elf, section.address)
            if header is None:
                raise ElfError(f"{elf.name} has a Go function table of an unknown version")
            text = _text_start(elf, header)
            if text is None:
                raise ElfError(f"{elf.name} has a Go function table that no module data points to")
            return _Table(elf, header, text)
    for address in islice(_candidates(elf), _MAX_CANDIDATES):
        with suppress(ElfError):  # bytes that look like a table and are not
            header = _read_header(elf, address)
            text = _text_start(elf, header) if header is not None else None
            if header is not None and text is not None:
                return _Table(elf, header, text)
    return None


def _candidates(elf: Elf) -> Iterator[int]:
    """Yield the addresses of what looks like the start of a table."""
    for start, chunk in elf.loaded_chunks(PF_R, PF_X, _HEADER_START_SIZE):
        for ending in _HEADER_STARTS:
            at = chunk.find(ending)
            while at >= 0:
                address = start + at - 1  # the magic number's first byte differs between versions
                if not address % _ALIGNMENT:
                    yield address
                at = chunk.find(ending, at + 1)


def _read_header(elf: Elf, address: int) -> _Header | None:
    """Read the table's header (pcHeader); None if it is not one."""
    magic, pad, _, pointer_size, count, _, *fields = struct.unpack(
        "<IHBBQQ6Q", elf.read_address(address, 8 * 9)
    )
    if magic not in (_MAGIC_116, _MAGIC_118, _MAGIC_120) or pad or pointer_size != 8:
        return None
    wide = magic == _MAGIC_116
    names_at, units_at, _, _, functions_at = fields[:5] if wide else fields[1:6]
    segment = elf.segment_of(address)
    if segment is None or not 0 < count < _MAX_FUNCTIONS:
        return None
    entry_size = 16 if wide else 8
    end = segment.address + segment.file_size
    if not 0 < names_at < units_at < functions_at or address + functions_at + count * entry_size > end:
        return None
    return _Header(address, count, address + names_at, address + units_at, address + functions_at, wide)


def _text_start(elf: Elf, header: _Header) -> int | None:
    """Return `runtime.text`, from the moduledata that belongs to a table; None if there is none."""
    for address in islice(_pointers(elf, header.address), _MAX_CANDIDATES):
        end = address + _MODULEDATA_SIZE
        segment = elf.segment_of(address)
        if segment is None or end > segment.address + segment.file_size:
            continue
        words = list(struct.unpack(f"<{_TEXT + 1}Q", elf.read_address(address, _MODULEDATA_SIZE)))
        if words[_TEXT] == 0 or words[_FUNCTION_NAMES] != header.names_at:
            for place, value in relative_addends(elf, range(address, end)).items():
                words[(place - address) // 8] = value
        if (words[_FUNCTION_NAMES], words[_FUNCTION_DATA], words[_FUNCTION_TABLE]) != (
            header.names_at,
            header.functions_at,
            header.functions_at,
        ):
            continue
        table = _Table(elf, header, 0 if header.wide else words[_TEXT])
        first, last = table.entry(0)[0], table.entry(header.function_count)[0]
        if (words[_MIN_PC], words[_MAX_PC]) == (first, last):
            return table.text
    return None


def _pointers(elf: Elf, value: int) -> Iterator[int]:
    """Yield the addresses in writable data that hold a pointer, in the file or by relocation."""
    wanted = value.to_bytes(8, "little")
    for start, chunk in elf.loaded_chunks(PF_W, 0, len(wanted)):
        at = chunk.find(wanted)
        while at >= 0:
            if not (start + at) % _ALIGNMENT:
                yield start + at
            at = chunk.find(wanted, at + 1)
    yield from pointers_to(elf, value)


class _Table:
    def __init__(self, elf: Elf, header: _Header, text: int) -> None:
        self._elf = elf
        self._header = header
        self.text = text

    def entry(self, index: int) -> tuple[int, int]:
        """Address of a function, and where its description (_func) is from the table's start.

        The entry after the last has only an address: the end of the last function.
        """
        size, layout = (16, "<QQ") if self._header.wide else (8, "<II")
        at = self._header.functions_at + index * size
        if index == self._header.function_count:
            return self.text + int.from_bytes(self._elf.read_address(at, size // 2), "little"), 0
        start, description = struct.unpack(layout, self._elf.read_address(at, size))
        return self.text + start, description

    def look_up(self, names: Collection[str]) -> Lookup:
        by_place = self._name_places(names)
        places: dict[str, set[int]] = {}
        for count, (index, place) in enumerate(self._functions_named(by_place)):
            if count > _MAX_SAME_NAME:
                raise ElfError(f"{self._elf.name} repeats a Go function without end: it is damaged")
            places.setdefault(by_place[place], set()).add(index)
        found: dict[str, Function] = {}
        refused: dict[str, str] = {}
        for name, indexes in places.items():
            if len(indexes) > 1:
                refused[name] = f"there are {len(indexes)} functions of this name"
                continue
            try:
                found[name] = self._function(name, min(indexes))
            except CodeError as error:
                refused[name] = str(error)
        return Lookup(found, refused)

    def _name_places(self, names: Collection[str]) -> dict[int, str]:
        """Where the names stand: distance from the start of the names -> name."""
        wanted = [(name, b"\0" + name.encode() + b"\0") for name in names]
        longest = max((len(encoded) for _, encoded in wanted), default=0)
        before = self._header.names_at - 1  # the last byte of the header, which is zero
        offset = self._elf.offset_of(before)
        if offset is None:
            raise ElfError(f"{self._elf.name} has a Go function table without names: it is damaged")
        found: dict[int, str] = {}
        for start, chunk in self._elf.chunks(offset, self._header.names_end - before, longest):
            for name, encoded in wanted:
                at = chunk.find(encoded)
                if at >= 0:  # the Go linker writes every name once
                    found[start + at] = name
        return found

    def _functions_named(self, by_place: dict[int, str]) -> Iterator[tuple[int, int]]:
        """Yield (index, place of the name) of the functions with these names.

        A description starts with the function's address and the place of its name. Descriptions stand in the order
        of the functions, so those of a batch of functions are read at once, and only their names are looked at.
        """
        entry_size, name_word = (16, 2) if self._header.wide else (8, 1)
        for first in range(0, self._header.function_count, _BATCH):
            count = min(_BATCH, self._header.function_count - first)
            entries = self._elf.read_address(
                self._header.functions_at + first * entry_size, count * entry_size
            )
            places = array("Q" if self._header.wide else "I", entries)[1::2].tolist()
            low, high = min(places), max(places)
            if high - low > _MAX_BATCH_SIZE:
                raise ElfError(f"{self._elf.name} has its Go functions in no order: it is damaged")
            data = self._elf.read_address(self._header.functions_at + low, high - low + 4 * name_word + 4)
            if len(data) % 4 or any(place % 4 for place in places):
                raise ElfError(f"{self._elf.name} has a Go function at an odd place: it is damaged")
            words = array("I", data)
            for index, place in enumerate(places):
                name_at = words[(place - low) // 4 + name_word]
                if name_at in by_place:
                    yield first + index, name_at

    def _function(self, name: str, index: int) -> Function:
        address, end = self.entry(index)[0], self.entry(index + 1)[0]
        size = end - address
        offset = self._elf.code_offset(address)
        if offset is None or not 0 < size <= _MAX_FUNCTION_SIZE:
            raise CodeError("its code is not in the executable part of the file")
        returns = return_sites(self._elf.read_address(address, size), self._elf.machine)
        return Function(name, address, size, offset, tuple(offset + site for site in returns))
