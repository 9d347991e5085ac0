"""Return instructions are found where they are, and nowhere else."""

import shutil
import subprocess
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tiny_elf import CODE

from symbols.code import return_sites
from symbols.elf import AARCH64, X86_64, Elf
from symbols.errors import CodeError
from symbols.image import Image


def test_a_byte_inside_an_instruction_is_no_return() -> None:
    assert CODE.count(b"\xc3") == 6
    assert return_sites(CODE, X86_64) == (5, 11)


def test_a_return_that_drops_arguments() -> None:
    assert return_sites(bytes.fromhex("90 c2 0800 f3c3"), X86_64) == (1, 4)


@pytest.mark.parametrize("code", ["06", "0f0b c3 e8", "b8c3c3", "62f1"])
def test_what_cannot_be_decoded_to_its_end_is_refused(code: str) -> None:
    with pytest.raises(CodeError):
        return_sites(bytes.fromhex(code), X86_64)


def test_arm64() -> None:
    code = bytes.fromhex("1f2003d5 c0035fd6 e0031faa c0035fd6")  # nop, ret, mov x0, xzr, ret
    assert return_sites(code, AARCH64) == (4, 12)
    with pytest.raises(CodeError):
        return_sites(code[:-1], AARCH64)


def test_another_machine() -> None:
    with pytest.raises(CodeError, match="243"):
        return_sites(b"\x82\x80", 243)


@given(st.binary(max_size=300), st.sampled_from([X86_64, AARCH64]))
def test_any_bytes(code: bytes, machine: int) -> None:
    try:
        sites = return_sites(code, machine)
    except CodeError:
        return
    assert list(sites) == sorted(set(sites))
    assert all(0 <= site < len(code) for site in sites)


def test_against_objdump(tmp_path: Path) -> None:
    """Every function of a compiled library returns where objdump says."""
    if not shutil.which("objdump") or not shutil.which("gcc"):
        pytest.skip("needs gcc and objdump")
    source = tmp_path / "many.c"
    source.write_text(
        "#include <string.h>\n"
        + "".join(
            f"double f{i}(double *x, int n) {{ if (n < {i}) return x[n] * {i}.5; char b[{i * 8 + 8}]; "
            f"memset(b, n, sizeof b); for (int k = 0; k < n; k++) x[k] += b[k % {i + 3}]; "
            f"return n > 99 ? x[1] : x[0]; }}\n"
            for i in range(60)
        )
    )
    library = tmp_path / "many.so"
    subprocess.run(["gcc", "-O3", "-mavx2", "-shared", "-fPIC", "-o", library, source], check=True)
    listing = subprocess.run(["objdump", "-d", library], check=True, capture_output=True, text=True).stdout
    expected: dict[str, list[int]] = {}
    current: list[int] = []
    for line in listing.splitlines():
        if line.endswith(">:"):
            current = expected.setdefault(line.split("<")[1][:-2], [])
        elif "\tret" in line or "\trepz ret" in line:
            current.append(int(line.split(":")[0], 16))
    names = [f"f{i}" for i in range(60)]
    with Image(library) as image, Elf.open(library) as elf:
        found = image.functions(names).found
        assert len(found) == 60
        for name, function in found.items():
            code = elf.read(function.offset, function.size)
            assert [function.address + site for site in return_sites(code, X86_64)] == expected[name]
