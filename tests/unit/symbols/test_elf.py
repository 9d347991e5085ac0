"""ELF headers are read as readelf reads them, and files that are not what they claim give one error."""

import os
import shutil
import struct
import subprocess
from pathlib import Path

import pytest
from elftools.elf.elffile import ELFFile
from tiny_elf import BUILD_ID, CODE_AT, TinyElf, code_address

from symbols.elf import MAX_READ, MAX_TABLE, PF_R, PF_X, PT_LOAD, BytesSource, Elf
from symbols.errors import ElfError


def tiny(data: bytes) -> Elf:
    return Elf(BytesSource(data))


@pytest.mark.parametrize("path", ["/bin/sh", "/usr/bin/python3"])
def test_a_program_of_this_machine(path: str) -> None:
    with Elf.open(path) as elf, Path(path).open("rb") as stream:
        known = ELFFile(stream)
        assert [section.name for section in elf.sections] == [
            section.name for section in known.iter_sections()
        ]
        assert [(s.type, s.address) for s in elf.segments if s.type == PT_LOAD] == [
            (PT_LOAD, s["p_vaddr"]) for s in known.iter_segments("PT_LOAD")
        ]
        text = known.get_section_by_name(".text")
        assert elf.offset_of(text["sh_addr"]) == elf.code_offset(text["sh_addr"]) == text["sh_offset"]
        assert elf.read_address(text["sh_addr"], 64) == text.data()[:64]
        data = known.get_section_by_name(".data")
        assert elf.offset_of(data["sh_addr"]) == data["sh_offset"]
        assert elf.code_offset(data["sh_addr"]) is None
        bss = known.get_section_by_name(".bss")
        assert elf.offset_of(bss["sh_addr"] + bss["sh_size"] - 1) is None
        assert elf.offset_of(1 << 62) is None
        note = known.get_section_by_name(".note.gnu.build-id")
        assert elf.build_id == next(note.iter_notes())["n_desc"]


def test_a_program_of_32_bits(tmp_path: Path) -> None:
    source = tmp_path / "a.c"
    source.write_text("int function(void) { return 1; }\n")
    subprocess.run(["clang", "-m32", "-c", source, "-o", tmp_path / "a.o"], check=True)
    with Elf.open(tmp_path / "a.o") as elf:
        assert elf.bits == 32
        assert elf.section(".text") is not None
        assert elf.segments == ()


def test_the_build_id() -> None:
    assert tiny(TinyElf().build_id().bytes()).build_id == BUILD_ID.hex()
    assert tiny(TinyElf().bytes()).build_id == ""


def test_an_address_is_not_an_offset() -> None:
    elf = tiny(TinyElf().bytes())
    assert elf.offset_of(code_address(0)) == CODE_AT
    assert elf.offset_of(CODE_AT) is None


def test_a_file_without_a_section_table_has_no_sections() -> None:
    data = bytearray(TinyElf().bytes())
    data[0x28:0x30] = bytes(8)
    data[0x3C:0x40] = bytes(4)
    assert tiny(bytes(data)).sections == ()


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "not an ELF file"),
        (b"#!/bin/sh\n" * 20, "not an ELF file"),
        (b"\x7fELF\x02\x01\x01" + bytes(45), "points outside itself"),
        (b"\x7fELF\x02\x02\x01" + bytes(57), "little-endian"),
        (b"\x7fELF\x09\x01\x01" + bytes(57), "32 or 64 bits"),
    ],
)
def test_what_is_not_elf(data: bytes, reason: str) -> None:
    with pytest.raises(ElfError, match=reason):
        tiny(data)


def test_a_truncated_file_is_named() -> None:
    with pytest.raises(ElfError, match="cut short"):
        _ = tiny(TinyElf().bytes()[:-30]).sections


@pytest.mark.parametrize(("place", "size"), [(0x38, 2), (0x3C, 2)])
def test_a_claim_of_many_headers_is_refused(place: int, size: int) -> None:
    data = bytearray(TinyElf().bytes())
    data[place : place + size] = b"\xff" * size
    with pytest.raises(ElfError, match="claims more than"):
        tiny(bytes(data))


def test_a_claimed_size_costs_no_memory(tmp_path: Path) -> None:
    """A sparse file can really be as large as it claims."""
    data = bytearray(TinyElf().build_id().bytes())
    segments = struct.unpack_from("<Q", data, 32)[0]
    note = segments + 56 * 2  # after the two loaded ones
    assert struct.unpack_from("<I", data, note)[0] == 4
    data[note + 32 : note + 40] = struct.pack("<Q", 1 << 39)
    path = tmp_path / "sparse"
    path.write_bytes(data)
    os.truncate(path, 1 << 40)
    with Elf.open(path) as elf:
        assert elf.build_id == ""
        with pytest.raises(ElfError, match="damaged"):
            next(elf.notes(0, 1 << 39))
        with pytest.raises(ElfError, match="damaged"):
            elf.read(0, MAX_READ + 1)
        with pytest.raises(ElfError, match="more than is searched"):
            next(elf.chunks(0, 1 << 39))


def test_a_file_that_shrinks_while_it_is_open(tmp_path: Path) -> None:
    path = tmp_path / "program"
    path.write_bytes(TinyElf().build_id().bytes())
    with Elf.open(path) as elf:
        os.truncate(path, 64)
        with pytest.raises(ElfError, match="cut short"):
            _ = elf.build_id


def test_what_is_no_file(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(ElfError, match="not a regular file"):
        Elf.open(tmp_path / "pipe")
    with pytest.raises(ElfError, match="not a regular file"):
        Elf.open("/dev/zero")
    with pytest.raises(IsADirectoryError):
        Elf.open(tmp_path)
    with pytest.raises(FileNotFoundError):
        Elf.open(tmp_path / "absent")


def test_no_descriptor_is_left_open(tmp_path: Path) -> None:
    text = tmp_path / "text"
    text.write_text("no program")
    shutil.copy("/bin/sh", tmp_path / "sh")
    before = len(list(Path("/proc/self/fd").iterdir()))
    for _ in range(3):
        with pytest.raises(ElfError):
            Elf.open(text)
        with Elf.open(tmp_path / "sh"):
            pass
    assert len(list(Path("/proc/self/fd").iterdir())) == before


def test_notes_are_bounded_by_their_table() -> None:
    elf = tiny(TinyElf().bytes() + struct.pack("<III", 4, 1 << 30, 3) + b"GNU\0")
    with pytest.raises(ElfError, match="note that is cut short"):
        list(elf.notes(elf.size - 16, 16))


def test_segments_that_show_the_same_bytes_are_not_searched_again_and_again(tmp_path: Path) -> None:
    builder = TinyElf()
    for _ in range(5):
        builder.segments.append((PT_LOAD, PF_R, 0, MAX_TABLE // 2, 4096))
    path = tmp_path / "many"
    path.write_bytes(builder.bytes())
    os.truncate(path, MAX_TABLE)
    with Elf.open(path) as elf:
        assert sum(len(chunk) for _, chunk in elf.loaded_chunks(PF_R, PF_X, 0)) == MAX_TABLE
