"""Which libraries that can be probed a process has mapped, and where their functions are."""

from __future__ import annotations

from collections.abc import Iterable
from fnmatch import fnmatchcase
from typing import NamedTuple

from elftools.elf.hash import GNUHashSection

from autotrace.discovery.procfs import Procfs
from autotrace.model import Probe
from autotrace.probes.libraries import Library
from symbols.elf import open_elf
from symbols.errors import SymbolsError

_CACHED_MAX = 4096


class FileId(NamedTuple):
    """A file, as /proc/PID/maps names it: `device` is major:minor in hex."""

    device: str
    inode: int


class Mapping(NamedTuple):
    """Code of a file, mapped into a process at `addresses` (as in /proc/PID/maps)."""

    addresses: str
    file: FileId
    path: str


class Use(NamedTuple):
    """A process has `library` mapped, from `file`, which it knows as `path`.

    `opened` is a path by which the file itself can be opened from here, whatever stands at `path` by now, as long as
    the process lives and keeps it mapped. `probes` is empty if `missing` names functions that it must have and does
    not export.
    """

    library: Library
    file: FileId
    path: str
    opened: str
    probes: tuple[Probe, ...]
    missing: tuple[str, ...] = ()


class _Found(NamedTuple):
    library: Library
    probes: tuple[Probe, ...]
    missing: tuple[str, ...]


class LibraryFinder:
    """Finds the libraries of processes. What was found in a file is remembered.

    `pattern` is a shell pattern for the paths of files that may be probed.
    """

    def __init__(self, libraries: Iterable[Library], procfs: Procfs, pattern: str = "*") -> None:
        self._libraries = tuple(libraries)
        self._procfs = procfs
        self._pattern = pattern
        self._known: dict[tuple[FileId, str], _Found | None] = {}

    def find(self, pid: int) -> list[Use]:
        """The libraries that a process has mapped. Raises OSError if it is gone or may not be looked at."""
        uses = []
        executable = self._procfs.executable(pid)
        for mapping in code_mappings(self._procfs, pid):
            if not fnmatchcase(mapping.path, self._pattern):
                continue
            key = (mapping.file, mapping.path)
            opened = self._procfs.path(pid, f"map_files/{mapping.addresses}")
            if key not in self._known:
                if len(self._known) >= _CACHED_MAX:
                    self._known.clear()
                self._known[key] = self._look_into(opened, mapping.path, mapping.path == executable)
            found = self._known[key]
            if found is not None:
                uses.append(
                    Use(found.library, mapping.file, mapping.path, opened, found.probes, found.missing)
                )
        return uses

    def _look_into(self, opened: str, path: str, is_executable: bool) -> _Found | None:
        for library in self._libraries:
            by_name = library.is_file(path)
            if not by_name and not is_executable and not library.may_be_inside(path):
                continue
            try:
                offsets = _exported(opened, [function.name for function in library.functions])
            except SymbolsError:
                return None
            missing = tuple(sorted(library.required - offsets.keys()))
            if not missing:
                return _Found(library, tuple(_probes(library, offsets)), ())
            if by_name:
                return _Found(library, (), missing)
        return None


def code_mappings(procfs: Procfs, pid: int) -> list[Mapping]:
    """The files of which a process has code mapped, each once. Raises OSError."""
    found: dict[FileId, Mapping] = {}
    for line in procfs.text(pid, "maps").splitlines():
        # address perms offset dev inode path (proc_pid_maps(5)); a path may hold spaces
        fields = line.split(None, 5)
        if len(fields) < 6 or "x" not in fields[1] or not fields[5].startswith("/"):
            continue
        file = FileId(fields[3], int(fields[4]))
        found.setdefault(file, Mapping(_plain(fields[0]), file, fields[5].removesuffix(" (deleted)")))
    return list(found.values())


def _plain(addresses: str) -> str:
    """/proc/PID/map_files names ranges without the leading zeros that /proc/PID/maps may give them."""
    start, _, end = addresses.partition("-")
    return f"{int(start, 16):x}-{int(end, 16):x}"


def _probes(library: Library, offsets: dict[str, int]) -> Iterable[Probe]:
    for function in library.functions:
        offset = offsets.get(function.name)
        if offset is None:
            continue
        if function.returns:
            yield Probe(function.returns, offset, True)
        if function.enters:
            yield Probe(function.enters, offset, False)


def _exported(path: str, names: list[str]) -> dict[str, int]:
    """File offsets of the functions of these names that an ELF file exports."""
    with open_elf(path) as elf:
        table = next((s for s in elf.iter_sections() if isinstance(s, GNUHashSection)), None)
        if table is None:
            return {}
        offsets = {}
        for name in names:
            symbol = table.get_symbol(name)
            if symbol is None or symbol["st_info"]["type"] != "STT_FUNC" or symbol["st_shndx"] == "SHN_UNDEF":
                continue
            for segment in elf.iter_segments("PT_LOAD"):
                start = segment["p_vaddr"]
                if segment["p_flags"] & 1 and start <= symbol["st_value"] < start + segment["p_filesz"]:
                    offsets[name] = symbol["st_value"] - start + segment["p_offset"]
        return offsets
