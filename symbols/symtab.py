"""ELF symbols by name, without reading a symbol that was not asked for.

`.dynsym` is looked up by its hash table, as the dynamic linker does (DT_GNU_HASH, DT_HASH). `.symtab` has none: the
wanted names are found in the string table, and the symbols that point at them by comparing name offsets.
"""

from __future__ import annotations

import struct
from array import array
from collections.abc import Collection, Iterable, Iterator
from typing import NamedTuple

from symbols.elf import Elf, Section
from symbols.errors import ElfError

STT_FUNC, STT_GNU_IFUNC = 2, 10
STB_LOCAL = 0

_DT_HASH, _DT_STRTAB, _DT_SYMTAB, _DT_STRSZ = 4, 5, 6, 10
_DT_GNU_HASH, _DT_VERSYM = 0x6FFFFEF5, 0x6FFFFFF0
_SHT_SYMTAB, _SHT_DYNSYM = 2, 11
_VERSION_HIDDEN = 0x8000
_SYMBOL = struct.Struct("<IBBHQQ")
_MAX_CHAIN = 16384
"""Symbols in one chain of a hash table: a few in practice, endless in a damaged one."""
_MAX_SAME_NAME = 4096
_MAX_PLACES = 65536
"""Places of the wanted names in a string table: one each in practice."""


class Entry(NamedTuple):
    """A defined symbol of a 64-bit file (Elf64_Sym). `hidden`: not the default version of its name."""

    name: str
    address: int
    size: int
    type: int
    binding: int
    hidden: bool = False


def dynamic_symbols(elf: Elf, names: Collection[str]) -> Iterator[Entry]:
    """Yield the defined symbols of these names that a file exports. Raises ElfError if its tables are damaged."""
    tags = elf.dynamic
    if not {_DT_SYMTAB, _DT_STRTAB, _DT_STRSZ} <= tags.keys():
        return
    if _DT_GNU_HASH in tags:
        candidates = _gnu_hash
    elif _DT_HASH in tags:
        candidates = _sysv_hash
    else:
        return
    for name in names:
        wanted = name.encode() + b"\0"
        for index in candidates(elf, wanted[:-1]):
            raw = elf.read_address(tags[_DT_SYMTAB] + index * _SYMBOL.size, _SYMBOL.size)
            name_at, info, _, section, address, size = _SYMBOL.unpack(raw)
            if not section or name_at + len(wanted) > tags[_DT_STRSZ]:
                continue
            if elf.read_address(tags[_DT_STRTAB] + name_at, len(wanted)) != wanted:
                continue
            hidden = False
            if _DT_VERSYM in tags:
                (version,) = struct.unpack("<H", elf.read_address(tags[_DT_VERSYM] + 2 * index, 2))
                hidden = bool(version & _VERSION_HIDDEN)
            yield Entry(name, address, size, info & 0xF, info >> 4, hidden)


def _gnu_hash(elf: Elf, name: bytes) -> Iterator[int]:
    """Yield the indexes of the symbols whose name has the same hash."""
    table = elf.dynamic[_DT_GNU_HASH]
    buckets, first, bloom_words, _ = struct.unpack("<IIII", elf.read_address(table, 16))
    if not buckets:
        return
    value = 5381
    for byte in name:
        value = (value * 33 + byte) & 0xFFFFFFFF
    buckets_at = table + 16 + 8 * bloom_words
    chains_at = buckets_at + 4 * buckets
    (index,) = struct.unpack("<I", elf.read_address(buckets_at + 4 * (value % buckets), 4))
    if index < first:
        return
    for position in range(index, index + _MAX_CHAIN):
        (entry,) = struct.unpack("<I", elf.read_address(chains_at + 4 * (position - first), 4))
        if entry | 1 == value | 1:
            yield position
        if entry & 1:
            return
    raise ElfError(f"{elf.name} has a symbol hash table without an end: it is damaged")


def _sysv_hash(elf: Elf, name: bytes) -> Iterator[int]:
    """As `_gnu_hash`, of the older table (System V ABI, chapter 5); the hashes are not stored there."""
    table = elf.dynamic[_DT_HASH]
    buckets, chains = struct.unpack("<II", elf.read_address(table, 8))
    if not buckets:
        return
    value = 0
    for byte in name:
        value = (value << 4) + byte
        high = value & 0xF0000000
        value = (value ^ high >> 24) & ~high & 0xFFFFFFFF
    (index,) = struct.unpack("<I", elf.read_address(table + 8 + 4 * (value % buckets), 4))
    for _ in range(_MAX_CHAIN):
        if not index:
            return
        if index >= chains:
            break
        yield index
        (index,) = struct.unpack("<I", elf.read_address(table + 8 + 4 * (buckets + index), 4))
    raise ElfError(f"{elf.name} has a symbol hash table without an end: it is damaged")


def full_table(elf: Elf) -> Section | None:
    """Return the section of all symbols (.symtab), which stripping removes; None if it is not in the file."""
    return next((section for section in elf.sections if section.type == _SHT_SYMTAB), None)


def table_symbols(elf: Elf, table: Section, names: Collection[str]) -> Iterator[Entry]:
    """Yield the defined symbols of these names in a symbol table. Raises ElfError if it is damaged."""
    if table.link >= len(elf.sections):
        raise ElfError(f"{elf.name} has a symbol table without names: it is damaged")
    strings = elf.sections[table.link]
    by_place = _places(elf, strings, names)
    if not by_place:
        return
    wanted = frozenset(by_place)
    count = 0
    for _, chunk in elf.chunks(table.offset, table.size - table.size % _SYMBOL.size):
        # Every sixth word is a name's place. Only these become Python objects, and only for a moment.
        places = array("I", chunk)[:: _SYMBOL.size // 4].tolist()
        if wanted.isdisjoint(places):
            continue
        for index, place in enumerate(places):
            if place in wanted:
                count += 1
                if count > _MAX_SAME_NAME:
                    raise ElfError(f"{elf.name} repeats a symbol without end: it is damaged")
                _, info, _, section, address, size = _SYMBOL.unpack_from(chunk, index * _SYMBOL.size)
                if section:
                    yield Entry(by_place[place], address, size, info & 0xF, info >> 4)


def _places(elf: Elf, strings: Section, names: Iterable[str]) -> dict[int, str]:
    """Where in a string table the names stand. A name can be the end of a longer one: linkers share them."""
    wanted = [(name, name.encode() + b"\0") for name in names]
    longest = max((len(encoded) for _, encoded in wanted), default=0)
    found: dict[int, str] = {}
    for start, chunk in elf.chunks(strings.offset, strings.size, longest):
        for name, encoded in wanted:
            at = chunk.find(encoded)
            while at >= 0:
                found[start + at] = name
                if len(found) > _MAX_PLACES:
                    raise ElfError(f"{elf.name} repeats a symbol's name without end: it is damaged")
                at = chunk.find(encoded, at + 1)
    return found
