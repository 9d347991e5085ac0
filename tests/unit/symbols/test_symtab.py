"""Hash tables and symbol tables, whole and damaged; test_image.py has those of real linkers."""

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tiny_elf import LOCAL, Symbol, TinyElf, code_address

from symbols.elf import BytesSource, Elf
from symbols.errors import ElfError
from symbols.symtab import dynamic_symbols, full_table, table_symbols

NAMES = st.lists(
    st.text(st.characters(min_codepoint=33, max_codepoint=126), min_size=1, max_size=12),
    unique=True,
    max_size=12,
)


def tiny(builder: TinyElf) -> Elf:
    return Elf(BytesSource(builder.bytes()))


@given(NAMES, st.booleans(), st.booleans())
def test_every_exported_name_is_found_and_no_other(names: list[str], gnu_hash: bool, versions: bool) -> None:
    symbols = [Symbol(name, code_address(0) + index) for index, name in enumerate(names[::2])]
    elf = tiny(TinyElf().dynsym(symbols, gnu_hash, versions))
    assert {entry.name: entry.address for entry in dynamic_symbols(elf, names)} == {
        symbol.name: symbol.address for symbol in symbols
    }


@given(NAMES)
def test_every_name_of_the_table_is_found_and_no_other(names: list[str]) -> None:
    symbols = [Symbol(name, code_address(0) + index, binding=LOCAL) for index, name in enumerate(names[::2])]
    elf = tiny(TinyElf().symtab(symbols))
    table = full_table(elf)
    assert table is not None
    assert {entry.name: entry.address for entry in table_symbols(elf, table, names)} == {
        symbol.name: symbol.address for symbol in symbols
    }


def test_a_name_that_is_the_end_of_another() -> None:
    """Linkers store `SSL_read` and `_read` once."""
    builder = TinyElf()
    strings = b"\0SSL_read\0"
    rows = bytes(24)
    for place, address in ((1, 100), (4, 200)):
        rows += struct.pack("<IBBHQQ", place, 0x12, 0, 1, address, 8)
    builder.section(".symtab", rows, kind=2, link=2)
    builder.section(".strtab", strings, kind=3)
    elf = tiny(builder)
    table = full_table(elf)
    assert table is not None
    found = {entry.name: entry.address for entry in table_symbols(elf, table, ["SSL_read", "_read", "read"])}
    assert found == {"SSL_read": 100, "_read": 200}


def test_what_is_not_defined_is_not_found() -> None:
    symbols = [Symbol("imported", 0, section=0)]
    for elf in (tiny(TinyElf().dynsym(symbols)), tiny(TinyElf().symtab(symbols))):
        table = full_table(elf)
        assert not list(dynamic_symbols(elf, ["imported"]))
        assert table is None or not list(table_symbols(elf, table, ["imported"]))


def test_versions_that_are_not_the_default_are_marked() -> None:
    symbols = [Symbol("read", 1, version=2), Symbol("read", 2, version=0x8003)]
    entries = dynamic_symbols(tiny(TinyElf().dynsym(symbols, versions=True)), ["read"])
    assert {entry.address: entry.hidden for entry in entries} == {1: False, 2: True}


def with_words(builder: TinyElf, tag: int, words: list[int]) -> Elf:
    place = builder.place(struct.pack(f"<{len(words)}I", *words))
    builder.dynamic = [(tag, builder.address(place)), *(row for row in builder.dynamic if row[0] != tag)]
    return tiny(builder)


def test_a_chain_without_an_end_is_an_error() -> None:
    builder = TinyElf().dynsym([Symbol("read", 1)], gnu_hash=False)
    with pytest.raises(ElfError, match="without an end"):
        list(dynamic_symbols(with_words(builder, 4, [1, 2, 1, 0, 1]), ["other"]))
    builder = TinyElf().dynsym([Symbol("read", 1)])
    with pytest.raises(ElfError, match="without an end"):
        list(dynamic_symbols(with_words(builder, 0x6FFFFEF5, [1, 1, 0, 0, 1] + [2] * 40000), ["other"]))


def test_a_table_without_buckets_finds_nothing() -> None:
    for tag, words in ((4, [0, 0]), (0x6FFFFEF5, [0, 1, 1, 0, 0, 0])):
        builder = TinyElf().dynsym([Symbol("read", 1)], gnu_hash=tag != 4)
        assert not list(dynamic_symbols(with_words(builder, tag, words), ["read"]))


def test_a_name_repeated_without_end_is_an_error() -> None:
    builder = TinyElf()
    builder.section(".symtab", bytes(48), kind=2, link=2)
    builder.section(".strtab", b"\0" + b"read\0" * 70000, kind=3)
    elf = tiny(builder)
    table = full_table(elf)
    assert table is not None
    with pytest.raises(ElfError, match="without end"):
        list(table_symbols(elf, table, ["read"]))


def test_a_symbol_repeated_without_end_is_an_error() -> None:
    elf = tiny(TinyElf().symtab([Symbol("read", address) for address in range(1, 5000)]))
    table = full_table(elf)
    assert table is not None
    strings = bytearray(elf.read(0, elf.size))
    for index in range(1, 5000):  # all of them have the name of the first
        struct.pack_into("<I", strings, table.offset + 24 * index, 1)
    with pytest.raises(ElfError, match="without end"):
        list(table_symbols(Elf(BytesSource(bytes(strings))), table, ["read"]))
