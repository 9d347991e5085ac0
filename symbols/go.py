"""Go programs: their version, modules and build settings.

The layout is the one that `debug/buildinfo` of the Go standard library reads.
"""

from __future__ import annotations

import json
from contextlib import suppress
from pathlib import Path
from typing import Literal, NamedTuple

from symbols.elf import PF_W, PT_LOAD, Elf
from symbols.errors import ElfError, SymbolsError
from symbols.gopclntab import go_functions

_MAGIC = b"\xff Go buildinf:"
_ALIGNMENT = 16
_HEADER_SIZE = 32
_FLAG_BIG_ENDIAN = 1
_FLAG_INLINE = 2
_SENTINEL_SIZE = 16
_SEARCH_LIMIT = 1 << 20
"""How far into the data segment the magic is looked for where there is no section table."""
_MAX_SIZE = 1 << 20
"""Bytes of build information: some kilobytes in practice, 100 for each module."""
_MAX_LINES = 8192


class Module(NamedTuple):
    """A Go module of a program; `version` is the replacement's where the build replaced it."""

    path: str
    version: str


class BuildInfo(NamedTuple):
    """What the Go linker wrote about a program: its Go version (`go1.22.3`), the import path of its main
    package and the path and version of its main module ("" where the program was built without modules). `bits`
    is 32 or 64, `settings` are those that `go version -m` shows as `build` (`GOARCH`, `vcs.revision`)."""

    go_version: str
    path: str
    module: str
    module_version: str
    bits: int = 64
    dependencies: tuple[Module, ...] = ()
    settings: tuple[tuple[str, str], ...] = ()

    def dependency(self, path: str) -> str:
        """Return the version of a module that is linked in (`v1.60.1`), "" if it is not."""
        return next((module.version for module in self.dependencies if module.path == path), "")

    def setting(self, key: str) -> str:
        """Return a build setting, "" if it is not told."""
        return dict(self.settings).get(key, "")


def build_info(path: str | Path) -> BuildInfo | None:
    """Read the build information of the program at `path`; None if it is not a Go program.

    Raises OSError if the file cannot be read and SymbolsError if it is not ELF or is damaged.
    """
    with Elf.open(path) as elf:
        return read_build_info(elf)


def read_build_info(elf: Elf) -> BuildInfo | None:
    """As `build_info`, of an open file."""
    section = elf.section(".go.buildinfo")
    if section is not None:
        blob = elf.read(section.offset, min(section.size, _MAX_SIZE))
    else:
        blob = _search_data_segment(elf)
    if not blob.startswith(_MAGIC) or len(blob) < _HEADER_SIZE:
        return None
    pointer_size, flags = blob[14], blob[15]
    if flags & _FLAG_INLINE:
        version, end = _inline_string(blob, _HEADER_SIZE)
        modules, _ = _inline_string(blob, end)
    else:
        order: Literal["big", "little"] = "big" if flags & _FLAG_BIG_ENDIAN else "little"
        version = _pointed_string(elf, blob, 16, pointer_size, order)
        modules = _pointed_string(elf, blob, 16 + pointer_size, pointer_size, order)
    return _parse(version, modules, elf.bits)


def _search_data_segment(elf: Elf) -> bytes:
    """Find the build information without a section table: it stands at the start of the writable data."""
    for segment in elf.segments:
        if segment.type == PT_LOAD and segment.flags & PF_W and segment.file_size:
            data = elf.read(segment.offset, min(segment.file_size, _SEARCH_LIMIT))
            found = data.find(_MAGIC)
            while found > 0 and found % _ALIGNMENT:
                found = data.find(_MAGIC, found + 1)
            if found >= 0:
                return data[found:]
    return b""


def _inline_string(blob: bytes, start: int) -> tuple[bytes, int]:
    """Read a string with its length before it (Go 1.18 and later); the length is a base-128 varint."""
    length = shift = 0
    for position in range(start, min(start + 10, len(blob))):
        byte = blob[position]
        length |= (byte & 0x7F) << shift
        shift += 7
        if byte < 0x80:
            begin = position + 1
            if begin + length > len(blob):
                break
            return blob[begin : begin + length], begin + length
    raise ElfError("the Go build information is cut short")


def _pointed_string(
    elf: Elf, blob: bytes, at: int, pointer_size: int, order: Literal["big", "little"]
) -> bytes:
    """Follow a pointer to a Go string header (before Go 1.18): address and length of the text."""
    if pointer_size not in (4, 8):
        raise ElfError(f"the Go build information claims pointers of {pointer_size} bytes")
    header_at = int.from_bytes(blob[at : at + pointer_size], order)
    if header_at == 0:
        return b""
    header = elf.read_address(header_at, 2 * pointer_size)
    text_at = int.from_bytes(header[:pointer_size], order)
    length = int.from_bytes(header[pointer_size:], order)
    if length > _MAX_SIZE:
        raise ElfError(f"the Go build information claims a text of {length} bytes")
    return elf.read_address(text_at, length) if length else b""


def _parse(version: bytes, modules: bytes, bits: int) -> BuildInfo | None:
    """Read the lines of `runtime/debug.BuildInfo.String`."""
    if not version:
        return None
    if len(modules) >= 2 * _SENTINEL_SIZE + 1 and modules[-_SENTINEL_SIZE - 1 : -_SENTINEL_SIZE] == b"\n":
        modules = modules[_SENTINEL_SIZE:-_SENTINEL_SIZE]
    else:
        modules = b""
    path = ""
    main = Module("", "")
    dependencies: list[Module] = []
    settings: list[tuple[str, str]] = []
    lines = modules.decode("utf-8", "replace").split("\n", _MAX_LINES)
    if len(lines) > _MAX_LINES:
        raise ElfError(f"the Go build information has more than {_MAX_LINES} lines: it is damaged")
    for line in lines:
        kind, _, rest = line.partition("\t")
        if kind == "path":
            path = rest
        elif kind == "mod":
            main = _module(rest)
        elif kind == "dep":
            dependencies.append(_module(rest))
        elif kind == "=>" and dependencies:
            dependencies[-1] = dependencies[-1]._replace(version=_module(rest).version)
        elif kind == "build":
            settings.append(_setting(rest))
    return BuildInfo(
        version.decode("utf-8", "replace"), path, *main, bits, tuple(dependencies), tuple(settings)
    )


def _module(fields: str) -> Module:
    path, _, rest = fields.partition("\t")
    return Module(path, rest.partition("\t")[0])


def _setting(text: str) -> tuple[str, str]:
    """Read `key=value`; a part with a character that would be misread is quoted as in Go's source."""
    key, _, value = text.partition("=")
    if value.startswith('"'):
        with suppress(ValueError):  # an escape that JSON has not (\x00): the text as it is
            value = str(json.loads(value))
    return key, value


def links_function(path: str | Path, name: str) -> bool:
    """Tell whether a function (`crypto/tls.(*Conn).Write`) is part of the Go program at `path`.

    False for a file that is no Go program or is damaged. Raises OSError.
    """
    try:
        with Elf.open(path) as elf:
            lookup = go_functions(elf, [name])
    except SymbolsError:
        return False
    return name in lookup.found or name in lookup.refused
