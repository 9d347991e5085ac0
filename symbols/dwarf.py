"""DWARF: where the members of a structure are, by name.

The entries are decoded by pyelftools. What is done here is to go straight to the one entry that is wanted, by
the places of its name, and to bound what damaged debug information can cost: time, memory, other files.
"""

from __future__ import annotations

import io
import struct
import zlib
from bisect import bisect_right
from collections.abc import Collection, Iterator

from elftools.dwarf.abbrevtable import AbbrevDecl
from elftools.dwarf.compileunit import CompileUnit
from elftools.dwarf.die import DIE
from elftools.dwarf.dwarfinfo import DebugSectionDescriptor, DwarfConfig, DWARFInfo

from symbols.elf import AARCH64, SHF_COMPRESSED, X86_64, Elf
from symbols.errors import ElfError, SymbolsError

_MAX_SECTION = 128 << 20
_MAX_READS = 1 << 19
"""Reads of the decoder in one section for one question: some hundred in practice, ten for each entry of a unit that
is decoded whole."""
_MAX_UNITS = 1 << 18
_MAX_PLACES = 1 << 14
_MAX_NESTING = 16
_MAX_COPIES = 16
"""Places of one name among the strings: linkers keep one, or a few as the ends of longer names."""
_COMPRESSED_ZLIB = 1

_STRUCTURES = ("DW_TAG_structure_type", "DW_TAG_class_type", "DW_TAG_union_type")
_FIXED_SIZES = {"DW_FORM_data1": 1, "DW_FORM_flag": 1, "DW_FORM_data2": 2, "DW_FORM_data4": 4}
_FIXED_SIZES |= {"DW_FORM_flag_present": 0, "DW_FORM_implicit_const": 0}
_MAX_PREFIX = 4
_REFERENCED = (".debug_str", ".debug_line_str", ".debug_str_offsets", ".debug_addr", ".debug_rnglists")
_MACHINES = {X86_64: "x64", AARCH64: "AArch64"}


def member_offsets(elf: Elf, structure: str, members: Collection[str]) -> dict[str, int] | None:
    """Return the offsets in bytes of members of a struct, class or union; None if the file does not tell.

    `structure` is the name as the compiler wrote it: without `struct` for C, with the package for Go
    (`runtime.g`). A member that the structure does not have is left out. Members of anonymous structs and unions
    inside it are found like its own; those of base classes are not. Raises ElfError if the file is damaged.
    """
    try:
        info = _section(elf, ".debug_info")
        if info is None:
            return None
        for entry in _entries(elf, info, structure.encode()):
            return _members(entry, frozenset(members), 0)
    except (SymbolsError, OSError):
        raise
    except Exception as error:  # whatever the decoder stumbles over
        reason = str(error) or type(error).__name__
        raise ElfError(f"the debug information of {elf.name} cannot be read: {reason}") from error
    return None


class _Stream(io.BytesIO):
    """A section that stops a decoder that reads without end."""

    reads = 0

    def read(self, size: int | None = -1, /) -> bytes:
        self.reads += 1
        if self.reads > _MAX_READS:
            raise ElfError("the debug information is damaged or too large")
        return super().read(size)


def _section(elf: Elf, name: str) -> bytes | None:
    """Return a section, decompressed; None if there is none."""
    section = elf.section(name)
    if section is None:
        return None
    if section.size > _MAX_SECTION:
        raise ElfError(f"section {name} of {elf.name} is larger than {_MAX_SECTION} bytes")
    data = b"".join(chunk for _, chunk in elf.chunks(section.offset, section.size))
    if not section.flags & SHF_COMPRESSED:
        return data
    layout = "<IIQQ" if elf.bits == 64 else "<III"
    kind, size = struct.unpack_from(layout, data)[0], struct.unpack_from(layout, data)[-2]
    if kind != _COMPRESSED_ZLIB or size > _MAX_SECTION:
        raise ElfError(f"section {name} of {elf.name} is compressed in an unknown way")
    return zlib.decompressobj().decompress(data[struct.calcsize(layout) :], size)


def _entries(elf: Elf, info: bytes, name: bytes) -> Iterator[DIE]:
    """Yield the structures of a name that have members, without decoding the entries before them.

    A name stands in the entry itself (Go), or the entry holds the name's place among the strings (C). Either is
    looked for byte by byte; what stands before it must then be an entry that begins with its name. Where names are
    numbered (clang's DWARF 5), all entries of the one unit are decoded.
    """
    sections = {other: _section(elf, other) or b"" for other in _REFERENCED}
    places = _places(info, name + b"\0")
    numbered: set[int] = set()
    for section in (".debug_str", ".debug_line_str"):
        for at in sorted(_places(sections[section], name + b"\0"))[:_MAX_COPIES]:
            encoded = at.to_bytes(4, "little")
            places |= _places(info, encoded)
            numbered |= _places(sections[".debug_str_offsets"], encoded)
            if len(places) + len(numbered) > _MAX_PLACES:
                raise ElfError(f"the debug information of {elf.name} repeats {name!r} without end")
    if not places and not numbered:
        return
    sections |= {".debug_info": info, ".debug_abbrev": _section(elf, ".debug_abbrev") or b""}
    dwarf = _decoder(elf, sections)
    starts = _unit_starts(info)
    for place in sorted(places):
        unit_index = bisect_right(starts, place) - 1
        if unit_index < 0:
            continue
        unit = dwarf.get_CU_at(starts[unit_index])
        for start in _entry_starts(unit, info, place):
            entry = unit.get_DIE_from_refaddr(start)
            if entry.has_children and _name(entry) == name:
                yield entry
    for start in starts if numbered else ():
        unit = dwarf.get_CU_at(start)
        if _numbers_strings(unit, sections[".debug_str_offsets"], numbered):
            for entry in unit.iter_DIEs():
                if entry.tag in _STRUCTURES and entry.has_children and _name(entry) == name:
                    yield entry


def _numbers_strings(unit: CompileUnit, offsets: bytes, places: set[int]) -> bool:
    """Tell whether one of these places is in the unit's own part of .debug_str_offsets (DWARF 5, section 7.26).

    Entries of such a unit name their strings by number, in as little as a byte: that cannot be looked for.
    """
    base = unit.get_top_DIE().attributes.get("DW_AT_str_offsets_base")
    if base is None or not 8 <= base.value <= len(offsets):
        return False
    (length,) = struct.unpack_from("<I", offsets, base.value - 8)
    return any(base.value <= place < base.value - 4 + length for place in places)


def _places(data: bytes, wanted: bytes) -> set[int]:
    found: set[int] = set()
    at = data.find(wanted)
    while at >= 0 and len(found) <= _MAX_PLACES:
        found.add(at)
        at = data.find(wanted, at + 1)
    return found


def _decoder(elf: Elf, sections: dict[str, bytes]) -> DWARFInfo:
    def descriptor(name: str) -> DebugSectionDescriptor:
        content = sections[name]
        return DebugSectionDescriptor(_Stream(content), name, 0, len(content), 0)

    return DWARFInfo(
        config=DwarfConfig(
            little_endian=True,
            machine_arch=_MACHINES.get(elf.machine, ""),
            default_address_size=elf.bits // 8,
        ),
        debug_info_sec=descriptor(".debug_info"),
        debug_abbrev_sec=descriptor(".debug_abbrev"),
        debug_str_sec=descriptor(".debug_str"),
        debug_line_str_sec=descriptor(".debug_line_str"),
        debug_aranges_sec=None,
        debug_frame_sec=None,
        eh_frame_sec=None,
        debug_loc_sec=None,
        debug_ranges_sec=None,
        debug_line_sec=None,
        debug_pubtypes_sec=None,
        debug_pubnames_sec=None,
        debug_addr_sec=descriptor(".debug_addr"),
        debug_str_offsets_sec=descriptor(".debug_str_offsets"),
        debug_loclists_sec=None,
        debug_rnglists_sec=descriptor(".debug_rnglists"),
        debug_sup_sec=None,
        gnu_debugaltlink_sec=None,
        debug_types_sec=None,
    )


def _unit_starts(info: bytes) -> list[int]:
    """Where the compile units start: each begins with its length (DWARF 5, section 7.5.1)."""
    starts = []
    at = 0
    while at + 12 <= len(info):
        starts.append(at)
        if len(starts) > _MAX_UNITS:
            raise ElfError(f"the debug information has more than {_MAX_UNITS} units: it is damaged")
        (length,) = struct.unpack_from("<I", info, at)
        if length == 0xFFFFFFFF:
            (length,) = struct.unpack_from("<Q", info, at + 4)
            at += 8
        at += 4 + length
    return starts


def _entry_starts(unit: CompileUnit, info: bytes, name_at: int) -> Iterator[int]:
    """Yield where a structure starts whose name, or the place of its name, is at `name_at`.

    An entry begins with its abbreviation code, a varint; attributes of a fixed size may stand before the name.
    """
    abbreviations = unit.get_abbrev_table()
    for code_size in (1, 2, 3):
        for prefix in range(_MAX_PREFIX + 1):
            start = name_at - prefix - code_size
            code_bytes = info[max(start, 0) : name_at - prefix]
            if start < unit.cu_die_offset or code_bytes[-1] >= 0x80 or any(b < 0x80 for b in code_bytes[:-1]):
                continue
            code = sum((byte & 0x7F) << 7 * index for index, byte in enumerate(code_bytes))
            try:
                declaration = abbreviations.get_abbrev(code)
            except KeyError:
                continue
            if declaration["tag"] in _STRUCTURES and _bytes_before_name(declaration) == prefix:
                yield start


def _bytes_before_name(declaration: AbbrevDecl) -> int | None:
    """Size of the attributes that stand before the name; None if that differs from entry to entry."""
    size = 0
    for attribute, form in ((spec[0], spec[1]) for spec in declaration.iter_attr_specs()):
        if attribute == "DW_AT_name":
            return size if form in ("DW_FORM_string", "DW_FORM_strp", "DW_FORM_line_strp") else None
        if form not in _FIXED_SIZES:
            return None
        size += _FIXED_SIZES[form]
    return None


def _name(entry: DIE) -> bytes | None:
    attribute = entry.attributes.get("DW_AT_name")
    return attribute.value if attribute is not None and isinstance(attribute.value, bytes) else None


def _members(entry: DIE, wanted: frozenset[str], nesting: int) -> dict[str, int]:
    found: dict[str, int] = {}
    if nesting > _MAX_NESTING:
        raise ElfError("a structure in the debug information contains itself: it is damaged")
    for child in entry.iter_children():
        if child.tag != "DW_TAG_member":
            continue
        location = child.attributes.get("DW_AT_data_member_location")
        offset = 0 if location is None else location.value  # the members of a union have none
        if not isinstance(offset, int):
            continue
        name = _name(child)
        if name is None:
            structure = child.get_DIE_from_attribute("DW_AT_type")
            if structure.tag in _STRUCTURES:
                inner = _members(structure, wanted, nesting + 1)
                found |= {member: offset + place for member, place in inner.items()}
        elif name.decode("utf-8", "replace") in wanted:
            found[name.decode("utf-8", "replace")] = offset
    return found
