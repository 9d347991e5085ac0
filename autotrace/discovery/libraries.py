"""Which libraries that can be probed a process has mapped, and where their functions are."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from fnmatch import fnmatchcase
from pathlib import Path
from types import MappingProxyType
from typing import NamedTuple, Self

from autotrace.discovery.procfs import Procfs
from autotrace.model import Probe
from autotrace.probes.libraries import Kind, Library
from symbols.cache import Cache
from symbols.errors import SymbolsError
from symbols.go import BuildInfo
from symbols.image import Image

_CACHED_MAX = 4096
_ON_THE_STACK = re.compile(r"go1\.(\d|1[0-6])(?!\d)")
_ANY_FILE = MappingProxyType(dict.fromkeys(Kind, "*"))


class FileId(NamedTuple):
    """A file and its state: what tells it from every other one, and from itself before a change (inode(7))."""

    device: int
    inode: int
    size: int
    mtime_ns: int
    ctime_ns: int

    @classmethod
    def of(cls, status: os.stat_result) -> Self:
        """The file that this is the status of."""
        return cls(status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns)

    def is_same_file(self, other: FileId) -> bool:
        """Tell if both are one file, whatever was done to it in between.

        Overlay file systems, which the containers of one image have, give a file of their common layer a device of
        their own each; the rest they take from the file below.
        """
        return self.inode == other.inode and (self.device == other.device or self[2:] == other[2:])


class Mapping(NamedTuple):
    """Code of a file, mapped into a process at `addresses` (as in /proc/PID/maps)."""

    addresses: str
    path: str


class Use(NamedTuple):
    """A process has `library` mapped, from `file`, which it knows as `path`.

    `opened` is a path by which the file itself can be opened from here, whatever stands at `path` by now, as
    long as the process lives and keeps it mapped. `probes` is empty if `missing` names functions that it must have
    and has not.
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


def cache_dir(setting: Path | None) -> Path:
    """Where agents keep what they found in files: `setting`, or the place that is usual for this user."""
    if setting is not None:
        return setting
    if os.geteuid() == 0:
        return Path("/var/cache/autotrace")
    home = os.environ.get("XDG_CACHE_HOME") or Path(os.environ.get("HOME", "/nonexistent")) / ".cache"
    return Path(home) / "autotrace"


class LibraryFinder:
    """Finds the libraries of processes. What was found in a file is remembered.

    `patterns` are shell patterns for the paths of files that may be probed, by the kind of the library. `cache` is
    a directory in which it is remembered beyond the life of this object too; one that cannot be used is done
    without.
    """

    def __init__(
        self,
        libraries: Iterable[Library],
        procfs: Procfs,
        patterns: dict[Kind, str] | MappingProxyType[Kind, str] = _ANY_FILE,
        cache: Path | None = None,
    ) -> None:
        self._libraries = tuple(libraries)
        self._procfs = procfs
        self._patterns = patterns
        self._cache = Cache(cache) if cache is not None else None
        self._known: dict[tuple[FileId, str], list[_Found]] = {}
        # A process is looked at again and again, and has the same files mapped as the one before.
        self._wanted_by_path: dict[tuple[str, bool], list[Library]] = {}

    def find(self, pid: int) -> list[Use]:
        """The libraries that a process has mapped. Raises OSError if it is gone or may not be looked at."""
        uses = []
        executable = self._procfs.executable(pid)
        mappings = code_mappings(self._procfs, pid)
        for mapping in mappings:
            wanted = self._wanted(mapping.path, mapping.path == executable)
            if not wanted:
                continue
            opened = self._procfs.path(pid, f"map_files/{mapping.addresses}")
            file = FileId.of(Path(opened).stat())
            key = (file, mapping.path)
            if key not in self._known:
                if len(self._known) >= _CACHED_MAX:
                    self._known.clear()
                root = self._procfs.path(pid, "root")
                self._known[key] = self._look_into(
                    wanted, opened, root, mapping.path, mapping.path == executable
                )
            uses += [
                Use(found.library, file, mapping.path, opened, found.probes, found.missing)
                for found in self._known[key]
                if found.library.is_needed(mapping.path for mapping in mappings)
            ]
        return uses

    def _wanted(self, path: str, is_executable: bool) -> list[Library]:
        """Which of the libraries a file may be, or have inside."""
        key = (path, is_executable)
        wanted = self._wanted_by_path.get(key)
        if wanted is None:
            wanted = [
                library
                for library in self._libraries
                if (is_executable or library.is_file(path) or library.may_be_inside(path))
                and fnmatchcase(path, self._patterns[library.kind])
            ]
            if len(self._wanted_by_path) >= _CACHED_MAX:
                self._wanted_by_path.clear()
            self._wanted_by_path[key] = wanted
        return wanted

    def _look_into(
        self, wanted: list[Library], opened: str, root: str, path: str, is_executable: bool
    ) -> list[_Found]:
        """Which of the libraries a file is, or has inside."""
        found: list[_Found] = []
        try:
            with Image(opened, root, self._cache) as image:
                is_go = is_executable and _passes_in_registers(image.go_build())
                for library in wanted:
                    if library.go and not is_go:
                        continue
                    probes, missing = _probes(image, library)
                    if not missing:
                        found.append(_Found(library, probes, ()))
                    elif library.is_file(path):
                        found.append(_Found(library, (), missing))
        except SymbolsError:
            return []
        return found


def _passes_in_registers(build: BuildInfo | None) -> bool:
    """Tell if it is a Go program whose functions get their parameters in registers: from Go 1.17 on."""
    return build is not None and not _ON_THE_STACK.match(build.go_version)


def code_mappings(procfs: Procfs, pid: int) -> list[Mapping]:
    """The files of which a process has code mapped, each once. Raises OSError."""
    found: dict[tuple[str, str], Mapping] = {}
    for line in procfs.text(pid, "maps").splitlines():
        # address perms offset dev inode path (proc_pid_maps(5)); a path may hold spaces
        fields = line.split(None, 5)
        if len(fields) < 6 or "x" not in fields[1] or not fields[5].startswith("/"):
            continue
        path = fields[5].removesuffix(" (deleted)")
        found.setdefault((fields[3], fields[4]), Mapping(_plain(fields[0]), path))
    return list(found.values())


def _plain(addresses: str) -> str:
    """/proc/PID/map_files names ranges without the leading zeros that /proc/PID/maps may give them."""
    start, _, end = addresses.partition("-")
    return f"{int(start, 16):x}-{int(end, 16):x}"


def _probes(image: Image, library: Library) -> tuple[tuple[Probe, ...], tuple[str, ...]]:
    """The probes of a library that is in a file, and the functions that it must have and has not.

    Those at returns come first: a call that has begun must not be seen only half.
    """
    names = [name for function in library.functions for name in function.names]
    found = (image.go_functions(names) if library.go else image.functions(names)).found
    missing: list[str] = []
    probes: list[Probe] = []
    for function in library.functions:
        there = next((found[name] for name in function.names if name in found), None)
        if there is None:
            missing += function.names[:1] * function.required
            continue
        if function.returns and library.go:
            probes += [Probe(function.returns, offset, False) for offset in there.returns]
        elif function.returns:
            probes.append(Probe(function.returns, there.offset, True))
        if function.enters:
            probes.append(Probe(function.enters, there.offset, False))
    return tuple(probes), tuple(sorted(missing))
