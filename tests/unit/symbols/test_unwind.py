"""The start of a function is told from its middle, and a table that cannot be read from one that lies."""

import pytest
from tiny_elf import FUNCTION_SIZE, TinyElf, code_address

from symbols.elf import PT_GNU_EH_FRAME, BytesSource, Elf
from symbols.errors import ElfError
from symbols.unwind import UnwindTable

STARTS = [code_address(0), code_address(1), code_address(3)]


def table(data: bytes) -> UnwindTable:
    return UnwindTable(Elf(BytesSource(data)))


def test_every_address_around_the_functions() -> None:
    unwind = table(TinyElf().unwind(STARTS).bytes())
    for address in range(code_address(0) - 20, code_address(4) + 20):
        inside = any(start < address < start + FUNCTION_SIZE for start in STARTS)
        assert unwind.is_inside_function(address) is inside


def test_a_file_without_the_table_knows_nothing() -> None:
    assert not table(TinyElf().bytes()).is_inside_function(code_address(0) + 1)


def header_place(data: bytes) -> int:
    return next(s.offset for s in Elf(BytesSource(data)).segments if s.type == PT_GNU_EH_FRAME)


def test_another_encoding_knows_nothing() -> None:
    data = bytearray(TinyElf().unwind(STARTS).bytes())
    data[header_place(data) + 3] = 0x1B
    assert not table(bytes(data)).is_inside_function(code_address(0) + 1)


def test_an_entry_of_another_function_knows_nothing() -> None:
    data = bytearray(TinyElf().unwind(STARTS).bytes())
    data[header_place(data) + 12 + 4] += 20  # the first row's entry
    assert not table(bytes(data)).is_inside_function(code_address(0) + 1)


def test_a_table_longer_than_its_segment() -> None:
    data = bytearray(TinyElf().unwind(STARTS).bytes())
    data[header_place(data) + 8 : header_place(data) + 12] = b"\xff\xff\xff\x7f"
    with pytest.raises(ElfError, match="cut short"):
        table(bytes(data))
