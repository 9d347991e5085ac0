"""Symbols that were split off a program: MiniDebugInfo inside it, and debug files beside it.

MiniDebugInfo (`.gnu_debugdata`) is an ELF file compressed with xz, with nothing but a symbol table; Fedora puts it
into every program. Debian's -dbgsym packages put a debug file at a path made from the build-id. GDB's manual
describes both: "MiniDebugInfo", "Debugging Information in Separate Files".
"""

from __future__ import annotations

import lzma
from pathlib import Path

from symbols.elf import BytesSource, Elf
from symbols.errors import ElfError, SymbolsError

_MAX_SIZE = 64 << 20
_MAX_MEMORY = 128 << 20


def mini_debug_info(elf: Elf) -> Elf | None:
    """Open the MiniDebugInfo of a file; None if it has none. Raises ElfError if it is damaged."""
    compressed = elf.section_data(".gnu_debugdata")
    if compressed is None:
        return None
    name = f"the MiniDebugInfo of {elf.name}"
    try:
        unpacker = lzma.LZMADecompressor(lzma.FORMAT_XZ, memlimit=_MAX_MEMORY)
        data = unpacker.decompress(compressed, _MAX_SIZE)
    except (lzma.LZMAError, MemoryError) as error:
        raise ElfError(f"{name} cannot be unpacked: {error}") from error
    if not unpacker.eof:
        raise ElfError(f"{name} is cut short or larger than {_MAX_SIZE} bytes")
    return Elf(BytesSource(data), name)


def debug_file_path(build_id: str, root: str | Path) -> Path:
    """Where the debug file of a build-id is looked for; `root` is the root directory of the program's container."""
    return Path(root) / "usr/lib/debug/.build-id" / build_id[:2] / f"{build_id[2:]}.debug"


def debug_file(elf: Elf, root: str | Path) -> Elf | None:
    """Open the debug file of a program; None if there is none, or none that belongs to it."""
    if len(elf.build_id) <= 2:
        return None
    try:
        found = Elf.open(debug_file_path(elf.build_id, root))
    except (OSError, SymbolsError):
        return None
    try:
        belongs = found.build_id == elf.build_id
    except SymbolsError:
        belongs = False
    if not belongs:
        found.close()
        return None
    return found
