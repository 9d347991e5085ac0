"""Members are where the compiler put them, by any version of DWARF; damaged debug information gives one error."""

import ctypes
import shutil
import struct
import subprocess
import zlib
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_elf import TinyElf

from symbols.debugfiles import debug_file_path
from symbols.dwarf import member_offsets
from symbols.elf import BytesSource, Elf
from symbols.errors import ElfError, SymbolsError
from symbols.image import Image

SOURCE = """
struct before { char name[7]; };
struct wanted_not { int first; };
struct wanted {
    char first;
    union { long long second; short third; };
    struct before inner;
    struct { int fourth; struct { char fifth; }; };
    struct wanted *next;
};
union both { int left; double right; };
static struct wanted w;
static struct wanted_not n;
static union both u;
int main(void) { return w.first + n.first + u.left; }
"""
MEMBERS = ["first", "second", "third", "inner", "fourth", "fifth", "next", "name", "absent"]


class Wanted(ctypes.Structure):
    """The same, as the ABI of this machine lays it out."""

    class Fourth(ctypes.Structure):
        _fields_ = (("fourth", ctypes.c_int), ("fifth", ctypes.c_char))

    _fields_ = (
        ("first", ctypes.c_char),
        ("second", ctypes.c_longlong),
        ("inner", ctypes.c_char * 7),
        ("group", Fourth),
        ("next", ctypes.c_void_p),
    )


EXPECTED = {name: getattr(Wanted, name).offset for name in ("first", "second", "inner", "next")}
EXPECTED |= {"third": Wanted.second.offset, "fourth": Wanted.group.offset, "fifth": Wanted.group.offset + 4}


@pytest.mark.parametrize("compiler", ["gcc", "clang"])
@pytest.mark.parametrize("language", ["c", "c++"])
@pytest.mark.parametrize("flags", ["-gdwarf-4", "-gdwarf-5", "-gdwarf-4 -gz"])
def test_what_compilers_write(tmp_path: Path, compiler: str, language: str, flags: str) -> None:
    if not shutil.which(compiler):
        pytest.skip(f"needs {compiler}")
    if language == "c++" and not shutil.which(compiler.replace("gcc", "g++").replace("clang", "clang++")):
        pytest.skip("needs a compiler for C++")
    (tmp_path / "a.c").write_text(SOURCE)
    command = [compiler, *flags.split(), "-x", language, "-no-pie", "-o", "program", "a.c"]
    subprocess.run(command, cwd=tmp_path, check=True)
    with Image(tmp_path / "program") as image:
        assert image.member_offsets("wanted", MEMBERS) == EXPECTED
        assert image.member_offsets("both", ["left", "right"]) == {"left": 0, "right": 0}
        assert image.member_offsets("absent", MEMBERS) is None


def test_a_debug_file(tmp_path: Path) -> None:
    if not shutil.which("gcc") or not shutil.which("objcopy"):
        pytest.skip("needs gcc and objcopy")
    (tmp_path / "a.c").write_text(SOURCE)
    subprocess.run(["gcc", "-g", "-Wl,--build-id", "-o", "program", "a.c"], cwd=tmp_path, check=True)
    with Image(tmp_path / "program") as image:
        debug = debug_file_path(image.build_id, tmp_path)
    debug.parent.mkdir(parents=True)
    subprocess.run(["objcopy", "--only-keep-debug", "program", debug], cwd=tmp_path, check=True)
    subprocess.run(["strip", "program"], cwd=tmp_path, check=True)
    with Image(tmp_path / "program") as image:
        assert image.member_offsets("wanted", MEMBERS) is None
    with Image(tmp_path / "program", root=tmp_path) as image:
        assert image.member_offsets("wanted", MEMBERS) == EXPECTED


def test_a_go_program(go_program: Callable[..., Path]) -> None:
    with Image(go_program("local")) as image:
        assert image.member_offsets("main.account", ["name", "balance"]) == {"name": 0, "balance": 8}
        assert image.member_offsets("runtime.nothing", ["name"]) is None
    with Image(go_program("local", "-ldflags=-s -w")) as image:
        assert image.member_offsets("main.account", ["balance"]) is None


def ask(data: bytes) -> dict[str, int] | None:
    return member_offsets(Elf(BytesSource(data)), "wanted", ["first", "second"])


def test_the_file_that_is_damaged_below() -> None:
    assert ask(TinyElf().dwarf().bytes()) == {"first": 0, "second": 6}


def compressed(kind: int, size: int, content: bytes) -> bytes:
    builder = TinyElf()
    section = struct.pack("<IIQQ", kind, 0, size, 1) + content
    builder.section(".debug_info", section, flags=0x800)
    return builder.bytes()


def test_a_section_that_unpacks_to_more_than_it_claims() -> None:
    bomb = zlib.compress(bytes(200 << 20))
    assert ask(compressed(1, 100, bomb)) is None
    with pytest.raises(ElfError, match="compressed in an unknown way"):
        ask(compressed(1, 1 << 40, bomb))
    with pytest.raises(ElfError, match="compressed in an unknown way"):
        ask(compressed(2, 100, b"zstd"))


def test_a_section_that_cannot_be_unpacked() -> None:
    with pytest.raises(ElfError, match="cannot be read"):
        ask(compressed(1, 100, b"not zlib at all"))


def test_a_structure_that_contains_itself() -> None:
    data = bytearray(TinyElf().dwarf().bytes())
    place = data.index(b"\x05", data.index(b"first\0")) + 1
    unit = data.index(b"\x02wanted\0") - 12
    data[place : place + 4] = struct.pack("<I", 12)
    assert data[unit + 12 :].startswith(b"\x02wanted")
    with pytest.raises(ElfError, match="contains itself"):
        ask(bytes(data))


@given(
    st.lists(st.tuples(st.integers(0, 200), st.integers(0, 255)), max_size=6),
    st.booleans(),
)
@settings(max_examples=300, deadline=None)
def test_damage_never_escapes(changes: list[tuple[int, int]], cut: bool) -> None:
    data = bytearray(TinyElf().dwarf().bytes())
    start = data.index(b"wanted") - 16
    for at, value in changes:
        data[(start + at) % len(data)] = value
    try:
        offsets = ask(bytes(data[: start + len(changes) * 20] if cut else data))
    except SymbolsError:  # the one error that is allowed
        return
    assert offsets is None or offsets.keys() <= {"first", "second"}
