"""Relative relocations: what the pointers of a position-independent file will be once it is loaded.

A pointer that is to be relocated by R_*_RELATIVE is often zero in the file; its value, before the load address is
added, is the relocation's addend (System V ABI, chapter 4, "Relocation").
"""

from __future__ import annotations

from array import array
from collections.abc import Iterator

from symbols.elf import AARCH64, X86_64, Elf

_DT_RELA, _DT_RELASZ = 7, 8
_RELATIVE = {X86_64: 8, AARCH64: 1027}
_ENTRY_WORDS = 3
_ENTRY_SIZE = 8 * _ENTRY_WORDS


def relative_addends(elf: Elf, addresses: range) -> dict[int, int]:
    """Return the relocated pointers that stand in a range of addresses: address -> value. Raises ElfError."""
    found = {}
    wanted = frozenset(addresses)
    for words in _tables(elf):
        places = words[0::_ENTRY_WORDS].tolist()
        for index, address in enumerate(places) if not wanted.isdisjoint(places) else ():
            if address in wanted and words[index * _ENTRY_WORDS + 1] == _RELATIVE.get(elf.machine):
                found[address] = words[index * _ENTRY_WORDS + 2]
    return found


def pointers_to(elf: Elf, value: int) -> Iterator[int]:
    """Yield the addresses of the relocated pointers that point to `value`. Raises ElfError."""
    for words in _tables(elf):
        addends = words[2::_ENTRY_WORDS]
        for index in range(len(addends)) if addends.count(value) else ():
            if addends[index] == value and words[index * _ENTRY_WORDS + 1] == _RELATIVE.get(elf.machine):
                yield words[index * _ENTRY_WORDS]


def _tables(elf: Elf) -> Iterator[array[int]]:
    """Yield the relocations with addends (Elf64_Rela) as words of 64 bits, three each, piece by piece."""
    offset = elf.offset_of(elf.dynamic.get(_DT_RELA, 0))
    size = elf.dynamic.get(_DT_RELASZ, 0)
    if offset is not None and size:
        for _, chunk in elf.chunks(offset, size - size % _ENTRY_SIZE):
            yield array("Q", chunk)
