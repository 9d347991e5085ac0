"""USDT probes are those that readelf lists, and their arguments are parsed or left as text."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_elf import CODE_AT, TinyElf, code_address

from symbols.elf import BytesSource, Elf
from symbols.errors import ElfError, SymbolsError
from symbols.image import Image
from symbols.usdt import Argument, Constant, Memory, Probe, Register, probes

SOURCE = """
unsigned short counter __attribute__((section(".probes"))) = 0;
#define PROBE(name, arguments) __asm__ volatile( \\
    "990: nop\\n.pushsection .note.stapsdt,\\"?\\",\\"note\\"\\n.balign 4\\n.4byte 992f-991f, 994f-993f, 3\\n" \\
    "991: .asciz \\"stapsdt\\"\\n992: .balign 4\\n993: .8byte 990b\\n.8byte _.stapsdt.base\\n.8byte counter\\n" \\
    ".asciz \\"shop\\"\\n.asciz \\"" name "\\"\\n.asciz \\"" arguments "\\"\\n994: .balign 4\\n.popsection\\n" \\
    ".ifndef _.stapsdt.base\\n.pushsection .stapsdt.base,\\"aG\\",\\"progbits\\",.stapsdt.base,comdat\\n" \\
    ".weak _.stapsdt.base\\n.hidden _.stapsdt.base\\n_.stapsdt.base: .space 1\\n.popsection\\n.endif\\n")
int sell(int n) { PROBE("sold", "-4@%edi 8@$-1"); return n + 1; }
int main(int n, char **v) { PROBE("start", ""); return sell(n); }
"""


def tiny(builder: TinyElf) -> Elf:
    return Elf(BytesSource(builder.bytes()))


@pytest.mark.parametrize("link", ["-no-pie", "-pie", "-shared"])
def test_a_program_with_probes(tmp_path: Path, link: str) -> None:
    if not shutil.which("gcc"):
        pytest.skip("needs gcc")
    (tmp_path / "a.c").write_text(SOURCE)
    subprocess.run(["gcc", "-O1", "-fPIC", link, "-o", "program", "a.c"], cwd=tmp_path, check=True)
    with Image(tmp_path / "program") as image:
        functions = image.functions(["sell", "main"]).found
        found = {probe.name: probe for probe in image.usdt()}
        counter = Elf.open(tmp_path / "program").section(".probes")
    assert found.keys() == {"sold", "start"}
    assert counter is not None
    for name, function in {"sold": functions["sell"], "start": functions["main"]}.items():
        probe = found[name]
        assert function.offset <= probe.offset < function.offset + function.size
        assert (probe.provider, probe.semaphore) == ("shop", counter.offset)
        assert (tmp_path / "program").read_bytes()[probe.offset] == 0x90  # nop
    assert found["start"].arguments() == ()
    assert [argument.place for argument in found["sold"].arguments()] == [Register("edi"), Constant(-1)]


@pytest.mark.parametrize("pattern", ["usr/bin/python3.*[0-9]", "usr/lib/jvm/*/lib/server/libjvm.so"])
def test_what_readelf_lists(pattern: str) -> None:
    paths = sorted(str(path) for path in Path("/").glob(pattern))
    if not paths or not shutil.which("readelf"):
        pytest.skip("needs a program with probes and readelf")
    listing = subprocess.run(["readelf", "-nW", paths[0]], check=True, capture_output=True, text=True).stdout
    fields = (
        r"Provider: (\S+)\s+Name: (\S+)\s+Location: (\S+), Base: \S+, Semaphore: (\S+)\s+Arguments: ?(.*)"
    )
    expected = [
        (provider, name, int(address, 16), bool(int(semaphore, 16)), arguments.strip())
        for provider, name, address, semaphore, arguments in re.findall(fields, listing)
    ]
    with Image(paths[0]) as image:
        found = image.usdt()
    if not expected:
        pytest.skip(f"{paths[0]} has no probes")
    assert [(p.provider, p.name, p.address, p.semaphore is not None, p.text) for p in found] == expected
    for probe in found:
        assert all(argument.place is not None for argument in probe.arguments())


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("-4@%edi", (4, True, False, Register("edi"))),
        ("8@%rax", (8, False, False, Register("rax"))),
        ("8f@%xmm0", (8, False, True, Register("xmm0"))),
        ("-8@$-3", (8, True, False, Constant(-3))),
        ("1@$0x10", (1, False, False, Constant(16))),
        ("1@$010", (1, False, False, Constant(10))),
        ("8@-24(%rbp)", (8, False, False, Memory("rbp", -24))),
        ("8@(%rax)", (8, False, False, Memory("rax"))),
        ("4@8(%rax,%rbx,4)", (4, False, False, Memory("rax", 8, "rbx", 4))),
        ("8@(,%rbx,8)", (8, False, False, Memory("", 0, "rbx", 8))),
        ("8@counter(%rip)", (8, False, False, Memory("rip", symbol="counter"))),
        ("8@counter+16(%rip)", (8, False, False, Memory("rip", 16, symbol="counter"))),
        ("%edi", (8, False, False, Register("edi"))),
        ("8@x0", (8, False, False, Register("x0"))),
        ("-4@[sp, 12]", (4, True, False, Memory("sp", 12))),
        ("-4@[x19]", (4, True, False, Memory("x19"))),
        ("8@[x0, x1]", (8, False, False, Memory("x0", 0, "x1"))),
        ("8@45", (8, False, False, Constant(45))),
        ("8@something else", None),
        ("3@%edi", None),
        ("", ()),
    ],
)
def test_arguments(text: str, expected: tuple[object, ...] | None) -> None:
    arguments = Probe("p", "n", 0, 0, None, text).arguments()
    if expected:
        assert arguments == (Argument(text, *expected),)
    elif expected is None:
        assert all(argument.place is None for argument in arguments)
        assert "".join(argument.text for argument in arguments) == text.replace(" ", "")
    else:
        assert arguments == ()


def test_a_library_that_prelink_moved() -> None:
    """The notes keep the old addresses; the section .stapsdt.base tells how far the code went."""
    builder = TinyElf()
    base = builder.address(builder.section(".stapsdt.base", b"\0"))
    builder.usdt((code_address(1) - 0x1000, "p", "n", ""), base=base - 0x1000)
    (probe,) = probes(tiny(builder))
    assert (probe.address, probe.offset) == (code_address(1), CODE_AT + 16)


def test_a_probe_that_is_not_in_the_code_is_left_out() -> None:
    builder = TinyElf().usdt((0x10, "p", "low", ""), (code_address(0), "p", "good", ""))
    assert [probe.name for probe in probes(tiny(builder))] == ["good"]
    builder = TinyElf().usdt((code_address(0), "p", "n", ""), semaphore=code_address(1))
    assert probes(tiny(builder)) == []


def test_a_note_that_is_cut_short() -> None:
    builder = TinyElf()
    builder.section(".note.stapsdt", b"\x08\0\0\0\x04\0\0\0\x03\0\0\0stapsdt\0abcd", kind=7)
    with pytest.raises(ElfError, match="cut short"):
        probes(tiny(builder))


@pytest.mark.parametrize("part", ["1", "-1", "a1", "1+", "+1", "-", "[", "(", "%a,", "0x1"])
def test_a_text_made_to_be_slow_to_parse(part: str) -> None:
    """Without an end: a pattern that can split a text in many ways would try them all."""
    for head in ("8@", "8@x", "8@[x1, ", "8@(%rax,", ""):
        Probe("p", "n", 0, 0, None, head + part * (4000 // len(part))).arguments()


def test_a_text_without_end_is_an_error() -> None:
    with pytest.raises(ElfError, match="too long"):
        probes(tiny(TinyElf().usdt((code_address(0), "p", "n", "8@%rax " * 1000))))


@given(st.text(max_size=200))
def test_any_argument_text(text: str) -> None:
    for argument in Probe("p", "n", 0, 0, None, text).arguments():
        assert argument.text in text


@given(st.binary(max_size=200))
@settings(deadline=None)
def test_any_notes(data: bytes) -> None:
    builder = TinyElf()
    builder.section(".note.stapsdt", data, kind=7)
    try:
        found = probes(tiny(builder))
    except SymbolsError:  # the one error that is allowed
        return
    assert all(probe.offset < builder.code_end for probe in found)
