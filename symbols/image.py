"""A program or library on disk: everything this package can say about it, behind one object."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from pathlib import Path
from types import TracebackType
from typing import Self

from symbols.cache import Cache, identity
from symbols.debugfiles import debug_file, debug_file_path, mini_debug_info
from symbols.dwarf import member_offsets
from symbols.elf import Elf, FileSource
from symbols.errors import ElfError
from symbols.function import Function, Lookup
from symbols.go import BuildInfo, read_build_info
from symbols.gopclntab import go_functions
from symbols.pytype import slot_functions
from symbols.symtab import (
    STB_LOCAL,
    STT_FUNC,
    STT_GNU_IFUNC,
    Entry,
    dynamic_symbols,
    full_table,
    table_symbols,
)
from symbols.unwind import UnwindTable
from symbols.usdt import Probe, probes


class Image:
    """An open program or library.

    Its methods raise OSError if the file cannot be read any more and SymbolsError if it is damaged.
    """

    def __init__(self, path: str | Path, root: str | Path = "/", cache: Cache | None = None) -> None:
        """Open `path`. `root` is where `usr/lib/debug` is looked for: `/proc/PID/root` for a container.

        With a cache, functions that were looked up before are not searched again. Raises OSError if the file cannot
        be opened and SymbolsError if it is not ELF.
        """
        source = FileSource(path)
        self._elf = Elf(source, str(path))
        self._identity = identity(source.status)
        self._root = Path(root)
        self._cache = cache

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the file."""
        self._elf.close()

    @property
    def build_id(self) -> str:
        """The build-id in hexadecimal, "" if the file has none."""
        return self._elf.build_id

    def offset_of(self, address: int) -> int | None:
        """Return where in the file a virtual address is; None if the file does not hold it."""
        return self._elf.offset_of(address)

    def functions(self, names: Collection[str]) -> Lookup:
        """Look up functions in .dynsym, then in the first of .symtab, the debug file and MiniDebugInfo there is.

        `PyContext_Type.tp_dealloc` is what that slot of a type of CPython points at (`symbols.pytype`).

        Refused is what is chosen at load time (IFUNC), what is not in the executable part of the file, what has
        one name at several addresses, and what is not a function's first byte by the unwind table.
        """
        if self._elf.bits != 64:
            raise ElfError(f"{self._elf.name} is a program of 32 bits: its functions are not looked up")
        if self._cache is None:
            return self._functions(names)
        return self._cache.look_up(self._key(), "functions", names, self._functions)

    def go_functions(self, names: Collection[str]) -> Lookup:
        """Look up functions of a Go program (`net/http.(*conn).serve`), with their return instructions.

        Nothing is found in a file that is no Go program. Functions that the compiler inlined everywhere are not
        found either. Refused is what cannot be decoded to its end, and what has one name at several addresses.
        """
        if self._cache is None:
            return go_functions(self._elf, names)
        return self._cache.look_up(self._key(), "go", names, lambda missing: go_functions(self._elf, missing))

    def go_build(self) -> BuildInfo | None:
        """Return the Go version, modules and settings of a Go program; None for any other."""
        return read_build_info(self._elf)

    def usdt(self) -> list[Probe]:
        """Return the USDT probes."""
        return probes(self._elf)

    def member_offsets(self, structure: str, members: Collection[str]) -> dict[str, int] | None:
        """Return where members of a structure are, in bytes, by the DWARF in the file or in its debug file.

        None if neither tells; see `symbols.dwarf.member_offsets`.
        """
        offsets = member_offsets(self._elf, structure, members)
        if offsets is not None:
            return offsets
        beside = debug_file(self._elf, self._root)
        if beside is None:
            return None
        with beside:
            return member_offsets(beside, structure, members)

    def _key(self) -> tuple[object, ...]:
        """What the answers depend on: this file, and the debug file that is or is not there."""
        if not self.build_id:
            return self._identity, ()
        try:
            beside = debug_file_path(self.build_id, self._root).stat()
        except OSError:
            beside = None
        return self.build_id, self._identity, identity(beside)

    def _functions(self, names: Collection[str]) -> Lookup:
        entries = self._entries(names)
        entries += slot_functions(self._elf, names, self._entries)
        by_name: dict[str, list[Entry]] = {}
        for entry in entries:
            if entry.type in (STT_FUNC, STT_GNU_IFUNC):
                by_name.setdefault(entry.name, []).append(entry)
        unwind = UnwindTable(self._elf)
        found: dict[str, Function] = {}
        refused: dict[str, str] = {}
        for name, alternatives in by_name.items():
            chosen = self._choose(alternatives, unwind)
            if isinstance(chosen, Function):
                found[name] = chosen
            else:
                refused[name] = chosen
        return Lookup(found, refused)

    def _entries(self, names: Collection[str]) -> list[Entry]:
        entries = list(dynamic_symbols(self._elf, names))
        missing = frozenset(names).difference(entry.name for entry in entries)
        if missing:
            entries += self._table_entries(missing)
        return entries

    def _table_entries(self, names: Collection[str]) -> list[Entry]:
        table = full_table(self._elf)
        if table is not None:
            return list(table_symbols(self._elf, table, names))
        for elsewhere in (debug_file(self._elf, self._root), mini_debug_info(self._elf)):
            if elsewhere is not None:
                with elsewhere:
                    table = full_table(elsewhere) if elsewhere.bits == 64 else None
                    if table is not None:
                        return list(table_symbols(elsewhere, table, names))
        return []

    def _choose(self, alternatives: Iterable[Entry], unwind: UnwindTable) -> Function | str:
        """Return the function of a name, or the reason why there is no address to trust."""
        best = list(alternatives)
        for is_better in (lambda entry: not entry.hidden, lambda entry: entry.binding != STB_LOCAL):
            best = list(filter(is_better, best)) or best
        addresses = {entry.address for entry in best}
        if len(addresses) > 1:
            return f"there are {len(addresses)} functions of this name"
        name, address, size, kind, *_ = best[0]
        if kind == STT_GNU_IFUNC:
            return "it is chosen among several functions when the program is loaded"
        offset = self._elf.code_offset(address)
        if offset is None:
            return "its address is not in the executable part of the file"
        if unwind.is_inside_function(address):
            return "its address is inside another function"
        return Function(name, address, size, offset)
