"""Go programs: version, module, and where the runtime keeps a goroutine's id.

Build information: the layout that `debug/buildinfo` of the Go standard library reads. Goroutine ids: the
offsets of `goid` and `parentGoid` in `runtime.g`, from a table generated from real toolchains
(`symbols/offsets/go_runtime_g.toml`), or from the program's own DWARF.
"""

from __future__ import annotations

import mmap
import re
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Literal, NamedTuple

from elftools.dwarf.compileunit import CompileUnit
from elftools.dwarf.die import DIE
from elftools.elf.elffile import ELFFile

from symbols.elf import open_elf, read_address, section_data
from symbols.errors import ElfError, SymbolsError

OFFSETS_FILE = Path(__file__).parent / "offsets" / "go_runtime_g.toml"

_MAGIC = b"\xff Go buildinf:"
_ALIGNMENT = 16
_HEADER_SIZE = 32
_FLAG_BIG_ENDIAN = 1
_FLAG_INLINE = 2
_SENTINEL_SIZE = 16
_SEARCH_LIMIT = 1 << 20
"""How far into the data segment the magic is looked for where there is no section table."""
_MAX_STRING = 1 << 24

_RELEASE = re.compile(r"go(\d+)\.(\d+)")


class BuildInfo(NamedTuple):
    """What the Go linker wrote about a program: its Go version (`go1.22.3`), the import path of its main
    package and the path and version of its main module ("" where the program was built without modules). `bits`
    is 32 or 64."""

    go_version: str
    path: str
    module: str
    module_version: str
    bits: int = 64


class RuntimeG(NamedTuple):
    """Byte offsets in `runtime.g`. `parent_goid` is None before Go 1.21, which did not keep it."""

    goid: int
    parent_goid: int | None


def build_info(path: str | Path) -> BuildInfo | None:
    """Read the build information of the program at `path`; None if it is not a Go program.

    Raises OSError if the file cannot be read and SymbolsError if it is not ELF or is damaged.
    """
    with open_elf(path) as elf:
        blob = section_data(elf, ".go.buildinfo")
        if blob is None:
            blob = _search_data_segment(elf)
        if blob is None or not blob.startswith(_MAGIC) or len(blob) < _HEADER_SIZE:
            return None
        pointer_size, flags = blob[14], blob[15]
        if flags & _FLAG_INLINE:
            version, end = _inline_string(blob, _HEADER_SIZE)
            modules, _ = _inline_string(blob, end)
        else:
            big = bool(flags & _FLAG_BIG_ENDIAN)
            version = _pointed_string(elf, blob, 16, pointer_size, big)
            modules = _pointed_string(elf, blob, 16 + pointer_size, pointer_size, big)
        return _parse(version, modules, elf.elfclass)


def _search_data_segment(elf: ELFFile) -> bytes | None:
    """Find the build information without a section table: it stands at the start of the writable data."""
    for segment in elf.iter_segments("PT_LOAD"):
        if segment["p_flags"] & 2 and segment["p_filesz"]:
            elf.stream.seek(segment["p_offset"])
            data: bytes = elf.stream.read(min(segment["p_filesz"], _SEARCH_LIMIT))
            found = data.find(_MAGIC)
            while found > 0 and found % _ALIGNMENT:
                found = data.find(_MAGIC, found + 1)
            return data[found:] if found >= 0 else None
    return None


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


def _pointed_string(elf: ELFFile, blob: bytes, at: int, pointer_size: int, big: bool) -> bytes:
    """Follow a pointer to a Go string header (before Go 1.18): address and length of the text."""
    order: Literal["big", "little"] = "big" if big else "little"
    if pointer_size not in (4, 8):
        raise ElfError(f"the Go build information claims pointers of {pointer_size} bytes")
    header_at = int.from_bytes(blob[at : at + pointer_size], order)
    if header_at == 0:
        return b""
    header = read_address(elf, header_at, 2 * pointer_size)
    if header is None:
        raise ElfError("the Go build information points outside the file")
    text_at = int.from_bytes(header[:pointer_size], order)
    length = int.from_bytes(header[pointer_size:], order)
    text = read_address(elf, text_at, length) if length <= _MAX_STRING else None
    if text is None:
        raise ElfError("the Go build information points outside the file")
    return text


def _parse(version: bytes, modules: bytes, bits: int) -> BuildInfo | None:
    if not version:
        return None
    if len(modules) >= 2 * _SENTINEL_SIZE + 1 and modules[-_SENTINEL_SIZE - 1 : -_SENTINEL_SIZE] == b"\n":
        modules = modules[_SENTINEL_SIZE:-_SENTINEL_SIZE]
    else:
        modules = b""
    path = module = module_version = ""
    for line in modules.decode("utf-8", "replace").split("\n"):
        kind, _, rest = line.partition("\t")
        if kind == "path":
            path = rest
        elif kind == "mod":
            fields = rest.split("\t")
            module, module_version = fields[0], fields[1] if len(fields) > 1 else ""
    return BuildInfo(version.decode("utf-8", "replace"), path, module, module_version, bits)


class GoidOffsets:
    """The table of `runtime.g` offsets by Go release, read once."""

    def __init__(self, file: Path = OFFSETS_FILE) -> None:
        """Raises SymbolsError if the table is damaged."""
        try:
            rows = tomllib.loads(file.read_text())["runtime_g"]
            self._by_release = {
                _release(row["go"]): RuntimeG(row["goid"], row.get("parent_goid")) for row in rows
            }
        except (tomllib.TOMLDecodeError, KeyError, TypeError) as error:
            raise SymbolsError(f"{file.name} is not a table of Go offsets: {error}") from error

    def by_version(self, go_version: str) -> RuntimeG | None:
        """Offsets for a version such as `go1.22.3`; None for a release that was never measured."""
        return self._by_release.get(_release(go_version))

    def find(self, path: str | Path, build: BuildInfo) -> RuntimeG | None:
        """Offsets for the program at `path`: from the table, else from its DWARF, else None: never a guess.
        The table is for programs of 64 bits.

        Raises OSError and SymbolsError as `runtime_g_from_dwarf` does, and only for a program that the table
        does not cover.
        """
        known = self.by_version(build.go_version) if build.bits == 64 else None
        return known or runtime_g_from_dwarf(path)


def _release(go_version: str) -> tuple[int, int] | None:
    """`go1.22.3`, `go1.22rc1`, `go1.22.3 X:boringcrypto` -> (1, 22); None for `devel ...` and the like."""
    match = _RELEASE.match(go_version)
    return (int(match[1]), int(match[2])) if match else None


def runtime_g_from_dwarf(path: str | Path) -> RuntimeG | None:
    """Read the offsets from the program's own DWARF; None if it was stripped.

    Raises OSError if the file cannot be read and ElfError if it is damaged.
    """
    with open_elf(path) as elf:
        if not elf.has_dwarf_info():
            return None
        for die in _dies_named(elf, b"runtime.g"):
            members = {
                child.attributes["DW_AT_name"].value: child.attributes["DW_AT_data_member_location"].value
                for child in die.iter_children()
                if child.tag == "DW_TAG_member"
            }
            if isinstance(members.get(b"goid"), int):
                return RuntimeG(members[b"goid"], members.get(b"parentGoid"))
    return None


def _dies_named(elf: ELFFile, name: bytes) -> Iterator[DIE]:
    """Yield the structure types of this name, without walking the other entries.

    The Go linker writes names in place (DW_FORM_string), as the first attribute: the entry begins with its
    abbreviation code, a varint of one to three bytes, right before the name.
    """
    dwarf = elf.get_dwarf_info()
    section = dwarf.debug_info_sec
    if section is None:
        return
    section.stream.seek(0)
    info: bytes = section.stream.read()
    wanted = name + b"\0"
    found = info.find(wanted)
    while found >= 0:
        unit = dwarf.get_CU_containing(found)
        start = _entry_start(unit, info, found)
        if start is not None:
            yield unit.get_DIE_from_refaddr(start)
        found = info.find(wanted, found + 1)


def _entry_start(unit: CompileUnit, info: bytes, name_at: int) -> int | None:
    """Offset of the structure type whose name begins at `name_at`; None if it is another kind of entry."""
    abbreviations = unit.get_abbrev_table()
    for code_size in (1, 2, 3):
        start = name_at - code_size
        if start < unit.cu_die_offset:
            return None
        code_bytes = info[start:name_at]
        if code_bytes[-1] >= 0x80 or any(byte < 0x80 for byte in code_bytes[:-1]):
            continue
        code = sum((byte & 0x7F) << 7 * index for index, byte in enumerate(code_bytes))
        try:
            declaration = abbreviations.get_abbrev(code)
        except KeyError:
            continue
        first = next(iter(declaration.iter_attr_specs()), None)
        if declaration["tag"] == "DW_TAG_structure_type" and first == ("DW_AT_name", "DW_FORM_string"):
            return start
    return None


def links_function(path: str | Path, name: str) -> bool:
    """Tell whether a function (`crypto/tls.(*Conn).Write`) is part of the Go program at `path`.

    The names stand in the function table (`.gopclntab`), which stripping leaves. Raises OSError.
    """
    with Path(path).open("rb") as stream, mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ) as data:
        return data.find(b"\0" + name.encode() + b"\0") >= 0
