"""BTF: the type information that clang puts into BPF objects and the kernel shows in /sys/kernel/btf.

The format is described in the kernel's Documentation/bpf/btf.rst. Only what the layout of data needs is kept:
functions, variables and tags are skipped.
"""

from __future__ import annotations

import struct
from enum import IntEnum
from pathlib import Path
from typing import NamedTuple

from symbols.elf import Elf
from symbols.errors import BtfError

_MAGIC = 0xEB9F
_HEADER_SIZE = 24
_RECORD_SIZE = 12
_MAX_DEPTH = 64
"""Types nest a few levels deep. A damaged file can hold a type that contains itself."""


class _Kind(IntEnum):
    INT = 1
    PTR = 2
    ARRAY = 3
    STRUCT = 4
    UNION = 5
    ENUM = 6
    FWD = 7
    TYPEDEF = 8
    VOLATILE = 9
    CONST = 10
    RESTRICT = 11
    FUNC = 12
    FUNC_PROTO = 13
    VAR = 14
    DATASEC = 15
    FLOAT = 16
    DECL_TAG = 17
    TYPE_TAG = 18
    ENUM64 = 19


_TRAILER_FIXED = {_Kind.INT: 4, _Kind.ARRAY: 12, _Kind.VAR: 4, _Kind.DECL_TAG: 4}
_TRAILER_EACH = {
    _Kind.STRUCT: 12,
    _Kind.UNION: 12,
    _Kind.ENUM: 8,
    _Kind.FUNC_PROTO: 8,
    _Kind.DATASEC: 12,
    _Kind.ENUM64: 12,
}
_KINDS = {kind.value: kind for kind in _Kind}
_TRANSPARENT = frozenset((_Kind.TYPEDEF, _Kind.VOLATILE, _Kind.CONST, _Kind.RESTRICT, _Kind.TYPE_TAG))
_INT_SIGNED = 1
_POINTER_SIZE = 8
"""BTF does not say. The BPF machine and the kernels autotrace runs on have pointers of 64 bits."""


class IntType(NamedTuple):
    """An integer; `name` is the C name (`unsigned int`). `size` is in bytes, as everywhere here."""

    name: str
    size: int
    signed: bool


class FloatType(NamedTuple):
    """A floating point number."""

    name: str
    size: int


class PointerType(NamedTuple):
    """A pointer, to whatever: it is not followed."""

    size: int = _POINTER_SIZE


class EnumType(NamedTuple):
    """An enum; `name` is "" for one without a tag."""

    name: str
    size: int
    values: dict[str, int]


class ArrayType(NamedTuple):
    """An array; one of several dimensions is an array of arrays. `length` is 0 for a flexible member."""

    element: Type
    length: int
    size: int


class Member(NamedTuple):
    """A member of a struct or union. `name` is "" for an anonymous struct or union.

    For a bit-field `bit_size` is its width and `bit_offset` the distance from bit 0 of the byte at `offset`;
    else both are 0.
    """

    name: str
    offset: int
    size: int
    type: Type
    bit_offset: int = 0
    bit_size: int = 0


class StructLayout(NamedTuple):
    """A struct or union: its size with padding, and its members in order."""

    name: str
    size: int
    members: tuple[Member, ...]
    is_union: bool = False


Type = IntType | FloatType | PointerType | EnumType | ArrayType | StructLayout


class _Record(NamedTuple):
    kind: _Kind
    name_offset: int
    vlen: int
    flag: bool
    size_or_type: int
    trailer: int  # where the data after the record starts


class Btf:
    """The types of one BTF blob. Type ids are indexes; id 0 is void."""

    def __init__(self, data: bytes) -> None:
        """Read raw BTF. Raises BtfError if it is damaged, which may show only when a type is asked for."""
        if len(data) < _HEADER_SIZE:
            raise BtfError("BTF is shorter than its header")
        order = "<" if int.from_bytes(data[:2], "little") == _MAGIC else ">"
        magic, version, _, header_size, type_at, type_size, string_at, string_size = struct.unpack_from(
            f"{order}HBBIIIII", data
        )
        if magic != _MAGIC:
            raise BtfError("this is not BTF: the magic number is missing")
        if version != 1:
            raise BtfError(f"BTF version {version} is not known")
        if header_size < _HEADER_SIZE:
            raise BtfError("the BTF header claims to be too short")
        type_end = header_size + type_at + type_size
        string_end = header_size + string_at + string_size
        if max(type_end, string_end) > len(data):
            raise BtfError("the BTF sections reach beyond the end of the data")
        self._data = data[: max(type_end, string_end)]
        self._order = order
        self._strings = data[header_size + string_at : string_end]
        self._resolved: dict[int, Type] = {}
        self._records = self._index(header_size + type_at, type_end)
        self._structs: dict[str, int] = {}
        for type_id, record in enumerate(self._records):
            if record is not None and record.kind in (_Kind.STRUCT, _Kind.UNION) and record.name_offset:
                self._structs.setdefault(self._name(record.name_offset), type_id)

    @classmethod
    def from_elf(cls, path: str | Path) -> Btf:
        """Read the `.BTF` section of an ELF file. Raises OSError, ElfError, and BtfError if there is none."""
        with Elf.open(path) as elf:
            data = elf.section_data(".BTF")
        if data is None:
            raise BtfError(f"{path} has no .BTF section; compile it with clang -target bpf -g")
        return cls(data)

    def struct_names(self) -> list[str]:
        """Names of all structs and unions that have one, in the order of the file."""
        return list(self._structs)

    def struct(self, name: str) -> StructLayout:
        """Return the layout of `struct name` or `union name`. Raises BtfError if there is none."""
        if name not in self._structs:
            raise BtfError(f"there is no struct {name} in this BTF")
        layout = self._resolve(self._structs[name])
        if not isinstance(layout, StructLayout):
            raise BtfError(f"{name} is not a struct")
        return layout

    def enums(self) -> dict[str, dict[str, int]]:
        """Return every enum: name -> enumerator -> value. Those without a name are put together under ""."""
        found: dict[str, dict[str, int]] = {}
        for record in self._records:
            if record is not None and record.kind in (_Kind.ENUM, _Kind.ENUM64):
                found.setdefault(self._name(record.name_offset), {}).update(self._enum_values(record))
        return found

    def typedef(self, name: str) -> Type:
        """Return what a typedef stands for. Raises BtfError if there is none of that name."""
        for type_id, record in enumerate(self._records):
            if record is not None and record.kind is _Kind.TYPEDEF and self._name(record.name_offset) == name:
                return self._resolve(type_id)
        raise BtfError(f"there is no typedef {name} in this BTF")

    def _unpack(self, layout: str, offset: int) -> tuple[int, ...]:
        try:
            return struct.unpack_from(self._order + layout, self._data, offset)
        except struct.error as error:
            raise BtfError("a BTF type reaches beyond the end of the data") from error

    def _index(self, offset: int, end: int) -> list[_Record | None]:
        head = struct.Struct(self._order + "III")
        records: list[_Record | None] = [None]
        while offset < end:
            if offset + _RECORD_SIZE > end:
                raise BtfError("the last BTF type is cut short")
            name_offset, info, size_or_type = head.unpack_from(self._data, offset)
            vlen, kind = info & 0xFFFF, _KINDS.get(info >> 24 & 0x1F)
            if kind is None:
                raise BtfError(f"BTF kind {info >> 24 & 0x1F} is not known")
            trailer = offset + _RECORD_SIZE
            records.append(_Record(kind, name_offset, vlen, bool(info >> 31), size_or_type, trailer))
            offset = trailer + _TRAILER_FIXED.get(kind, 0) + vlen * _TRAILER_EACH.get(kind, 0)
        if offset != end:
            raise BtfError("the last BTF type is cut short")
        return records

    def _name(self, offset: int) -> str:
        end = self._strings.find(b"\0", offset)
        if end < 0:
            raise BtfError("a BTF name lies outside the string section")
        return self._strings[offset:end].decode("utf-8", "replace")

    def _resolve(self, type_id: int, depth: int = 0) -> Type:
        known = self._resolved.get(type_id)
        if known is not None:
            return known
        if depth > _MAX_DEPTH:
            raise BtfError("a BTF type contains itself")
        resolved = self._resolve_record(self._record(type_id), depth)
        self._resolved[type_id] = resolved
        return resolved

    def _record(self, type_id: int) -> _Record:
        record = self._records[type_id] if type_id < len(self._records) else None
        if record is None:
            raise BtfError(f"BTF type {type_id} does not exist" if type_id else "void has no layout")
        return record

    def _resolve_record(self, record: _Record, depth: int) -> Type:
        kind = record.kind
        if kind in _TRANSPARENT:
            return self._resolve(record.size_or_type, depth + 1)
        if kind is _Kind.INT:
            (encoding,) = self._unpack("I", record.trailer)
            signed = bool(encoding >> 24 & _INT_SIGNED)
            return IntType(self._name(record.name_offset), record.size_or_type, signed)
        if kind is _Kind.PTR:
            return PointerType()
        if kind is _Kind.ARRAY:
            element_id, _, length = self._unpack("III", record.trailer)
            element = self._resolve(element_id, depth + 1)
            return ArrayType(element, length, element.size * length)
        if kind in (_Kind.STRUCT, _Kind.UNION):
            return self._struct_layout(record, depth)
        if kind in (_Kind.ENUM, _Kind.ENUM64):
            return EnumType(self._name(record.name_offset), record.size_or_type, self._enum_values(record))
        if kind is _Kind.FLOAT:
            return FloatType(self._name(record.name_offset), record.size_or_type)
        raise BtfError(f"BTF kind {kind.name} has no layout")

    def _struct_layout(self, record: _Record, depth: int) -> StructLayout:
        members = []
        for index in range(record.vlen):
            name_offset, type_id, position = self._unpack("III", record.trailer + index * 12)
            bit_size, bits = (position >> 24, position & 0xFFFFFF) if record.flag else (0, position)
            member_type = self._resolve(type_id, depth + 1)
            offset, bit_offset = divmod(bits, 8)
            if bit_offset and not bit_size:
                raise BtfError(f"member {self._name(name_offset)} does not start at a byte")
            if bits + (bit_size or member_type.size * 8) > record.size_or_type * 8:
                raise BtfError(f"member {self._name(name_offset)} reaches beyond its struct")
            members.append(
                Member(self._name(name_offset), offset, member_type.size, member_type, bit_offset, bit_size)
            )
        is_union = record.kind is _Kind.UNION
        return StructLayout(self._name(record.name_offset), record.size_or_type, tuple(members), is_union)

    def _enum_values(self, record: _Record) -> dict[str, int]:
        values = {}
        wide = record.kind is _Kind.ENUM64
        for index in range(record.vlen):
            if wide:
                name_offset, low, high = self._unpack("III", record.trailer + index * 12)
                value, bits = low | high << 32, 64
            else:
                name_offset, value = self._unpack("II", record.trailer + index * 8)
                bits = 32
            if record.flag and value >> (bits - 1):
                value -= 1 << bits
            values[self._name(name_offset)] = value
        return values
