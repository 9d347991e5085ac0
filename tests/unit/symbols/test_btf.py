"""BTF is read as clang writes it, and damaged BTF gives one typed error."""

import shutil
import struct
import subprocess
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from symbols.btf import ArrayType, Btf, EnumType, FloatType, IntType, PointerType, StructLayout
from symbols.errors import BtfError, ElfError, SymbolsError

INT, PTR, ARRAY, STRUCT, UNION, ENUM, TYPEDEF, CONST, FLOAT, ENUM64 = 1, 2, 3, 4, 5, 6, 8, 10, 16, 19

SOURCE = """
typedef unsigned int u32;
typedef u32 id_type;
typedef unsigned long long u64;
enum colour { RED = 1, GREEN = 5, BELOW = -2 };
enum { NAMELESS = 7 };
struct inner { unsigned short port; char text[6]; };
struct outer {
    const id_type id;
    enum colour colour;
    struct inner pair[2];
    union { u64 wide; unsigned char bytes[8]; };
    struct outer *next;
    signed char grid[2][3];
    u32 low : 3;
    u32 high : 7;
    u64 last;
    unsigned char tail[];
};
struct outer instance;
int nameless = NAMELESS;
"""


class Builder:
    """Writes BTF type by type; ids count from 1, in order."""

    def __init__(self, order: str = "<") -> None:
        self.order = order
        self.types = b""
        self.strings = b"\0"

    def name(self, text: str) -> int:
        if not text:
            return 0
        self.strings += text.encode() + b"\0"
        return len(self.strings) - len(text) - 1

    def add(self, kind: int, name: str, size: int, *trailer: int, vlen: int = 0, flag: bool = False) -> None:
        info = kind << 24 | vlen | flag << 31
        self.types += struct.pack(f"{self.order}III", self.name(name), info, size)
        self.types += struct.pack(f"{self.order}{len(trailer)}I", *trailer)

    def bytes(self) -> bytes:
        header = struct.pack(
            f"{self.order}HBBIIIII",
            0xEB9F,
            1,
            0,
            24,
            0,
            len(self.types),
            len(self.types),
            len(self.strings),
        )
        return header + self.types + self.strings


def sample(order: str = "<") -> bytes:
    b = Builder(order)
    b.add(INT, "unsigned int", 4, 32)  # 1
    b.add(INT, "short", 2, 1 << 24 | 16)  # 2
    b.add(TYPEDEF, "id_type", 1)  # 3
    b.add(CONST, "", 3)  # 4
    b.add(ARRAY, "", 0, 2, 1, 3)  # 5: short[3]
    member = [b.name("id"), 4, 0, b.name("triple"), 5, 32, b.name("next"), 7, 128]
    b.add(STRUCT, "pair", 24, *member, vlen=3)  # 6
    b.add(PTR, "", 6)  # 7
    b.add(ENUM, "level", 4, b.name("LOW"), 0, b.name("NEGATIVE"), 0xFFFFFFFF, vlen=2, flag=True)  # 8
    b.add(ENUM64, "big", 8, b.name("HUGE"), 1, 2, vlen=1)  # 9
    b.add(FLOAT, "double", 8)  # 10
    b.add(UNION, "either", 8, b.name("number"), 10, 0, b.name("word"), 1, 0, vlen=2)  # 11
    b.add(STRUCT, "bits", 4, b.name("three"), 1, 3 << 24, b.name("nine"), 1, 9 << 24 | 11, vlen=2, flag=True)
    return b.bytes()


@pytest.mark.parametrize("order", ["<", ">"])
def test_every_kind_of_type(order: str) -> None:
    btf = Btf(sample(order))
    pair = btf.struct("pair")
    assert (pair.size, pair.is_union) == (24, False)
    ident, triple, following = pair.members
    assert (ident.name, ident.offset, ident.size) == ("id", 0, 4)
    assert ident.type == IntType("unsigned int", 4, False)
    assert (triple.offset, triple.size) == (4, 6)
    assert triple.type == ArrayType(IntType("short", 2, True), 3, 6)
    assert (following.offset, following.type) == (16, PointerType())
    assert btf.enums() == {"level": {"LOW": 0, "NEGATIVE": -1}, "big": {"HUGE": 2 << 32 | 1}}
    either = btf.struct("either")
    assert either.is_union
    assert either.members[0].type == FloatType("double", 8)
    assert btf.typedef("id_type") == IntType("unsigned int", 4, False)
    assert btf.struct_names() == ["pair", "either", "bits"]


def test_bit_fields_have_a_byte_offset_and_a_width() -> None:
    three, nine = Btf(sample()).struct("bits").members
    assert (three.offset, three.bit_offset, three.bit_size) == (0, 0, 3)
    assert (nine.offset, nine.bit_offset, nine.bit_size) == (1, 3, 9)


def test_what_clang_writes(tmp_path: Path) -> None:
    assert shutil.which("clang"), "clang is part of the set-up"
    source, built = tmp_path / "types.c", tmp_path / "types.o"
    source.write_text(SOURCE)
    subprocess.run(["clang", "-target", "bpf", "-g", "-O2", "-c", source, "-o", built], check=True)
    btf = Btf.from_elf(built)
    outer = btf.struct("outer")
    by_name = {member.name: member for member in outer.members}
    assert {name: by_name[name].offset for name in ("id", "colour", "pair", "", "next", "grid", "last")} == {
        "id": 0,
        "colour": 4,
        "pair": 8,
        "": 24,
        "next": 32,
        "grid": 40,
        "last": 48,
    }
    assert outer.size == 56
    assert by_name["id"].type == IntType("unsigned int", 4, False)
    assert isinstance(by_name["colour"].type, EnumType)
    pair = by_name["pair"].type
    assert isinstance(pair, ArrayType)
    assert pair.length == 2
    assert isinstance(pair.element, StructLayout)
    assert [member[:3] for member in pair.element.members] == [("port", 0, 2), ("text", 2, 6)]
    grid = by_name["grid"].type
    assert isinstance(grid, ArrayType)
    assert grid.element == ArrayType(IntType("signed char", 1, True), 3, 3)
    assert (by_name["high"].bit_offset, by_name["high"].bit_size) == (3, 7)
    assert (by_name["tail"].offset, by_name["tail"].size) == (56, 0)
    assert btf.enums()["colour"]["GREEN"] == 5


def test_what_is_not_there_is_named() -> None:
    btf = Btf(sample())
    with pytest.raises(BtfError, match="struct absent"):
        btf.struct("absent")
    with pytest.raises(BtfError, match="typedef absent"):
        btf.typedef("absent")


def test_files_without_btf(tmp_path: Path) -> None:
    with pytest.raises(BtfError, match=r"no \.BTF section"):
        Btf.from_elf("/bin/sh")
    text = tmp_path / "text"
    text.write_text("this is no program")
    with pytest.raises(ElfError):
        Btf.from_elf(text)
    with pytest.raises(FileNotFoundError):
        Btf.from_elf(tmp_path / "absent")


def test_a_struct_that_contains_itself_is_refused() -> None:
    b = Builder()
    b.add(STRUCT, "loop", 8, b.name("self"), 1, 0, vlen=1)
    with pytest.raises(BtfError, match="contains itself"):
        Btf(b.bytes()).struct("loop")


def test_a_member_beyond_its_struct_is_refused() -> None:
    b = Builder()
    b.add(INT, "int", 4, 32)
    b.add(STRUCT, "short", 4, b.name("late"), 1, 64, vlen=1)
    with pytest.raises(BtfError, match="reaches beyond"):
        Btf(b.bytes()).struct("short")


def read_everything(data: bytes) -> None:
    btf = Btf(data)
    btf.enums()
    for name in btf.struct_names():
        with suppress(SymbolsError):
            btf.struct(name)


@given(
    st.lists(st.tuples(st.integers(0, len(sample()) - 1), st.integers(0, 255)), max_size=8),
    st.integers(0, 400),
)
@settings(max_examples=500, deadline=None)
def test_damage_never_escapes(changes: list[tuple[int, int]], length: int) -> None:
    data = bytearray(sample())
    for at, value in changes:
        data[at] = value
    for damaged in (bytes(data), bytes(data[:length])):
        with suppress(SymbolsError):  # the one error that is allowed
            read_everything(damaged)


@given(st.binary(max_size=200))
def test_noise_never_escapes(data: bytes) -> None:
    with suppress(SymbolsError):
        read_everything(data)


def test_the_running_kernel() -> None:
    kernel = Path("/sys/kernel/btf/vmlinux")
    if not kernel.exists():
        pytest.skip("this kernel has no BTF")
    members = {member.name: member for member in Btf(kernel.read_bytes()).struct("tcp_sock").members}
    assert members["write_seq"].size == 4
    assert members["copied_seq"].size == 4
