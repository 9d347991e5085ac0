"""Where functions start and end, by the unwind tables that compilers write and stripping leaves.

`.eh_frame_hdr` is a sorted table of the starts; see the Linux Standard Base, "Exception Frames". It is used to tell
whether an address is a function's first byte.
"""

from __future__ import annotations

import struct

from symbols.elf import PT_GNU_EH_FRAME, Elf
from symbols.errors import ElfError

_VERSION = 1
_PCREL_SDATA4, _UDATA4, _DATAREL_SDATA4 = 0x1B, 0x03, 0x3B
_HEADER_SIZE = 12
_ENTRY_SIZE = 8


class UnwindTable:
    """The unwind table of one file; a file without one, or with one of unusual encoding, answers nothing."""

    def __init__(self, elf: Elf) -> None:
        """Raises ElfError if the table is damaged."""
        self._elf = elf
        self._count = 0
        segment = next((s for s in elf.segments if s.type == PT_GNU_EH_FRAME), None)
        if segment is None or segment.file_size < _HEADER_SIZE:
            return
        version, _, count_encoding, table_encoding, _, count = struct.unpack(
            "<BBBBiI", elf.read(segment.offset, _HEADER_SIZE)
        )
        if (version, count_encoding, table_encoding) != (_VERSION, _UDATA4, _DATAREL_SDATA4):
            return
        if _HEADER_SIZE + count * _ENTRY_SIZE > segment.file_size:
            raise ElfError(f"{elf.name} has an unwind table that is cut short: it is damaged")
        self._offset, self._address, self._count = segment.offset, segment.address, count

    def is_inside_function(self, address: int) -> bool:
        """Tell whether an address is known to be in a function but not its start. Raises ElfError."""
        below = self._last_at_or_below(address)
        if below is None:
            return False
        start, entry = below
        size = self._size(start, entry)
        return start < address < start + size

    def _last_at_or_below(self, address: int) -> tuple[int, int] | None:
        """Addresses of the function that starts last at or before `address`, and of its unwind entry."""
        low, high = 0, self._count
        found = None
        while low < high:
            middle = (low + high) // 2
            raw = self._elf.read(self._offset + _HEADER_SIZE + middle * _ENTRY_SIZE, _ENTRY_SIZE)
            start, entry = (self._address + relative for relative in struct.unpack("<ii", raw))
            if start <= address:
                found, low = (start, entry), middle + 1
            else:
                high = middle
        return found

    def _size(self, start: int, entry: int) -> int:
        """Size in bytes of the function that an entry (FDE) describes, 0 if the entry has another encoding."""
        length, _, relative, size = struct.unpack("<IIiI", self._elf.read_address(entry, 16))
        if length == 0xFFFFFFFF or entry + 8 + relative != start:
            return 0
        return int(size)
