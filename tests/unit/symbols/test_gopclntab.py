"""Go functions are found in every kind of program, by every layout of the table, and never at a wrong address."""

import shutil
import struct
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_elf import AARCH64, CODE, CODE_AT, FUNCTION_SIZE, TinyElf, code_address

from symbols.elf import BytesSource, Elf
from symbols.errors import ElfError, SymbolsError
from symbols.function import Function
from symbols.gopclntab import go_functions
from symbols.image import Image

EXTERNAL = "-ldflags=-linkmode=external"
PIE = "-buildmode=pie"
NAMES = [
    "main.manyReturns",
    "main.(*account).add",
    "main.main",
    "runtime.newproc1",
    "runtime.mallocgc",
    "main.many",
    "anyReturns",
]
PRESENT = set(NAMES[:5])
BUILDS = [("local", flags) for flags in [(), (PIE,), (EXTERNAL,), (PIE, EXTERNAL)]]
BUILDS += [("1.17.13", ()), ("1.18.10", (PIE,)), ("1.19.13", (EXTERNAL,)), ("1.20.14", (PIE, EXTERNAL))]
BUILDS += [("1.22.12", (PIE,)), ("1.25.5", (PIE, EXTERNAL)), ("1.27.3", ()), ("1.27.3", (PIE, EXTERNAL))]


@pytest.fixture(params=BUILDS, ids=lambda build: "-".join([build[0], *build[1]]))
def built(request: pytest.FixtureRequest, go_program: Callable[..., Path]) -> Path:
    version, flags = request.param
    return go_program(version, *flags)


def stripped(program: Path, folder: Path) -> Path:
    """A copy without symbols, but with the same addresses."""
    copy = folder / "stripped"
    subprocess.run(["strip", "-o", copy, program], check=True)
    return copy


def test_a_stripped_program_gives_the_addresses_that_its_symbols_have(built: Path, tmp_path: Path) -> None:
    with Image(built) as image:
        expected = {name: (f.address, f.offset) for name, f in image.functions(NAMES).found.items()}
    assert expected.keys() == PRESENT
    for program in (built, stripped(built, tmp_path)):
        with Image(program) as image:
            lookup = image.go_functions(NAMES)
        assert {name: (f.address, f.offset) for name, f in lookup.found.items()} == expected
        assert not lookup.refused


def returns_by_objdump(program: Path, function: Function) -> list[int]:
    """File offsets of the return instructions, as the GNU disassembler sees them."""
    command = ["objdump", "-d", f"--start-address={function.address}"]
    command += [f"--stop-address={function.address + function.size}", str(program)]
    listing = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    places = [int(line.split(":")[0], 16) for line in listing.splitlines() if line.rstrip().endswith("\tret")]
    return [place - function.address + function.offset for place in places]


def test_returns_are_where_objdump_sees_them(built: Path) -> None:
    if not shutil.which("objdump"):
        pytest.skip("needs objdump")
    with Image(built) as image:
        found = image.go_functions(NAMES).found
    for function in found.values():
        assert list(function.returns) == returns_by_objdump(built, function)
    assert len(found["main.manyReturns"].returns) >= 2


def test_a_stripped_program_without_a_section_table(go_program: Callable[..., Path], tmp_path: Path) -> None:
    for flags in ((), (PIE, EXTERNAL)):
        program = go_program("local", *flags)
        data = bytearray(program.read_bytes())
        data[0x28:0x30] = bytes(8)  # e_shoff
        data[0x3C:0x40] = bytes(4)  # e_shnum, e_shstrndx
        bare = tmp_path / "bare"
        bare.write_bytes(data)
        with Image(program) as image, Image(bare) as same:
            assert same.go_functions(NAMES) == image.go_functions(NAMES)


def test_most_names_are_of_one_function(go_program: Callable[..., Path]) -> None:
    """Whatever the table gives for all functions that nm lists is what nm says."""
    program = go_program("local")
    listing = subprocess.run(
        ["nm", "--defined-only", program], check=True, capture_output=True, text=True
    ).stdout
    known: dict[str, set[int]] = {}
    for line in listing.splitlines():
        address, kind, name = line.split(maxsplit=2)
        if kind in "tT" and not name.startswith(("_", "go:", "type:")):
            known.setdefault(name.removesuffix(".abi0"), set()).add(int(address, 16))
    with Image(program) as image:
        lookup = image.go_functions(list(known))
    assert len(lookup.found) > 1000
    assert len(lookup.refused) < len(lookup.found) / 100
    for name, function in lookup.found.items():
        assert function.address in known[name]


def test_what_is_no_go_program() -> None:
    for path in ("/bin/sh", "/usr/bin/python3"):
        with Image(path) as image:
            assert image.go_functions(NAMES) == ({}, {})


@pytest.mark.parametrize("magic", [0xFFFFFFFA, 0xFFFFFFF0, 0xFFFFFFF1])
@pytest.mark.parametrize("pie", [False, True])
@pytest.mark.parametrize("named", [False, True])
def test_every_layout(magic: int, pie: bool, named: bool) -> None:
    data = TinyElf().go(["first", "a.b", "b", "last"], magic, pie, named).bytes()
    found = go_functions(Elf(BytesSource(data)), ["first", "b", "last", "a.", "c"]).found
    assert {name: function.address for name, function in found.items()} == {
        "first": code_address(0),
        "b": code_address(2),
        "last": code_address(3),
    }
    assert found["b"].returns == (CODE_AT + 2 * FUNCTION_SIZE + 5, CODE_AT + 2 * FUNCTION_SIZE + 11)


def test_arm64() -> None:
    code = bytes.fromhex("1f2003d5 c0035fd6 1f2003d5 c0035fd6")
    data = TinyElf(code=code, machine=AARCH64).go(["first", "second"], pie=True).bytes()
    found = go_functions(Elf(BytesSource(data)), ["second"]).found
    assert [place - found["second"].offset for place in found["second"].returns] == [4, 12]


def test_a_name_of_two_functions_is_refused() -> None:
    builder = TinyElf().go(["same", "diff"])
    data = bytearray(builder.bytes())
    table = data.index(b"same\0diff\0")
    # The second description gets the first one's name.
    second = data.index(struct.pack("<Ii", FUNCTION_SIZE, 5), table)
    data[second + 4 : second + 8] = bytes(4)
    lookup = go_functions(Elf(BytesSource(bytes(data))), ["same", "diff"])
    assert lookup == ({}, {"same": "there are 2 functions of this name"})


def test_code_that_cannot_be_decoded_is_refused() -> None:
    data = TinyElf(code=b"\x06" * 16).go(["main.main"]).bytes()
    lookup = go_functions(Elf(BytesSource(data)), ["main.main"])
    assert not lookup.found
    assert "no x86-64 instruction" in lookup.refused["main.main"]


def test_a_function_that_starts_inside_an_instruction_is_refused() -> None:
    """The table says that the second function starts where the first still runs."""
    data = TinyElf(code=bytes.fromhex("90" * 13 + "b8c3c3")).go(["first", "second"]).bytes()
    lookup = go_functions(Elf(BytesSource(data)), ["first"])
    assert not lookup.found
    assert lookup.refused.keys() == {"first"}


def test_a_table_whose_text_does_not_fit_is_an_error() -> None:
    """Moved functions would be attached to at wrong addresses."""
    builder = TinyElf().go(["first", "second"])
    data = bytearray(builder.bytes())
    name, _, _, place, size, _ = next(row for row in builder.sections if row[0] == ".go.module")
    assert (name, size) == (".go.module", 23 * 8)
    text = place + 22 * 8
    data[text : text + 8] = struct.pack("<Q", code_address(1))
    with pytest.raises(ElfError, match="no module data"):
        go_functions(Elf(BytesSource(bytes(data))), ["first"])


def variants() -> Iterator[bytes]:
    for magic in (0xFFFFFFFA, 0xFFFFFFF0, 0xFFFFFFF1):
        for pie in (False, True):
            yield TinyElf(code=CODE).go(["main.main", "main.other"], magic, pie, not pie).bytes()


@given(
    st.sampled_from(list(variants())),
    st.lists(st.tuples(st.integers(0, 1500), st.integers(0, 255)), max_size=6),
    st.integers(0, 2000),
)
@settings(max_examples=400, deadline=None)
def test_damage_never_escapes(data: bytes, changes: list[tuple[int, int]], length: int) -> None:
    damaged = bytearray(data)
    for at, value in changes:
        damaged[at % len(data)] = value
    for content in (bytes(damaged), bytes(damaged[:length])):
        try:
            elf = Elf(BytesSource(content))
            found = go_functions(elf, ["main.main", "main.other"]).found
        except SymbolsError:  # the one error that is allowed
            continue
        for function in found.values():
            assert elf.code_offset(function.address) == function.offset
