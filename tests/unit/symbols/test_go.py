"""Go programs are recognised by their build information."""

import shutil
import subprocess
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tiny_elf import TinyElf

from symbols.elf import BytesSource, Elf
from symbols.errors import ElfError, SymbolsError
from symbols.go import BuildInfo, build_info, links_function, read_build_info

SENTINEL = "A" * 16
MODULES = f"{SENTINEL}path\\texample.com/shop/cmd\\nmod\\texample.com/shop\\tv1.2.3\\t\\n{SENTINEL}"

POINTERS = f"""
__attribute__((section(".rodata"))) const char version[] = "go1.13.4";
const char modules[] = "{MODULES}";
struct text {{ const char *data; unsigned long size; }};
struct text version_text = {{ version, sizeof(version) - 1 }};
struct text modules_text = {{ modules, sizeof(modules) - 1 }};
struct {{ unsigned char magic[14], pointer_size, flags; struct text *version, *modules; }}
info __attribute__((section(".go.buildinfo"), aligned(16))) = {{
    {{ 0xff, ' ', 'G', 'o', ' ', 'b', 'u', 'i', 'l', 'd', 'i', 'n', 'f', ':' }}, 8, 0,
    &version_text, &modules_text }};
int main(void) {{ return 0; }}
"""


def toolchain_version(program: Path) -> str:
    command = [shutil.which("go") or "/usr/local/go/bin/go", "version", program]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()[-1]


def test_a_program_of_this_toolchain(go_program: Callable[..., Path]) -> None:
    program = go_program("local")
    info = build_info(program)
    assert info is not None
    assert info[:5] == (
        toolchain_version(program),
        "example.com/accounts",
        "example.com/accounts",
        "(devel)",
        64,
    )
    assert info.setting("GOARCH") == "amd64"
    assert info.setting("absent") == ""


def test_a_stripped_program_still_has_its_version(go_program: Callable[..., Path]) -> None:
    program, stripped = go_program("local"), go_program("local", "-ldflags=-s -w")
    info, unstripped = build_info(stripped), build_info(program)
    assert info is not None
    assert unstripped is not None
    assert info[:5] == unstripped[:5]
    assert info.setting("-ldflags") == "-s -w"


def test_functions_of_a_stripped_program(go_program: Callable[..., Path], tmp_path: Path) -> None:
    stripped = go_program("local", "-ldflags=-s -w")
    assert links_function(stripped, "runtime.newproc1")
    assert not links_function(stripped, "crypto/tls.(*Conn).Write")
    assert not links_function("/bin/sh", "runtime.newproc1")
    (tmp_path / "empty").touch()
    assert not links_function(tmp_path / "empty", "runtime.newproc1")


def test_modules_and_settings() -> None:
    lines = [
        "path\texample.com/shop/cmd",
        "mod\texample.com/shop\tv1.2.3\th1:abc=",
        "dep\tgoogle.golang.org/grpc\tv1.60.1\th1:abc=",
        "dep\texample.com/forked\tv1.0.0",
        "=>\texample.com/fork\tv1.0.1\th1:abc=",
        'build\t-tags="a b"',
        "build\tCGO_ENABLED=0",
        "",
    ]
    text = b"A" * 16 + "\n".join(lines).encode() + b"A" * 16
    inline = b"\x08go1.22.3" + bytes([len(text) & 0x7F | 0x80, len(text) >> 7]) + text
    builder = TinyElf()
    builder.section(".go.buildinfo", b"\xff Go buildinf:" + bytes([8, 2]) + bytes(16) + inline, align=16)
    info = read_build_info(Elf(BytesSource(builder.bytes())))
    assert info is not None
    assert info[:4] == ("go1.22.3", "example.com/shop/cmd", "example.com/shop", "v1.2.3")
    assert info.dependency("google.golang.org/grpc") == "v1.60.1"
    assert info.dependency("example.com/forked") == "v1.0.1"
    assert info.dependency("absent") == ""
    assert info.settings == (("-tags", "a b"), ("CGO_ENABLED", "0"))


def test_a_program_without_a_section_table(go_program: Callable[..., Path], tmp_path: Path) -> None:
    stripped = go_program("local", "-ldflags=-s -w")
    data = bytearray(stripped.read_bytes())
    data[0x28:0x30] = bytes(8)  # e_shoff
    data[0x3C:0x40] = bytes(4)  # e_shnum, e_shstrndx
    bare = tmp_path / "bare"
    bare.write_bytes(data)
    assert build_info(bare) == build_info(stripped)


def test_build_information_with_pointers(tmp_path: Path) -> None:
    """Before Go 1.18 the build information pointed to its strings."""
    source, built = tmp_path / "old.c", tmp_path / "old"
    source.write_text(POINTERS)
    subprocess.run(["clang", "-no-pie", "-o", built, source], check=True)
    assert build_info(built) == BuildInfo("go1.13.4", "example.com/shop/cmd", "example.com/shop", "v1.2.3")


def test_what_is_not_go(tmp_path: Path) -> None:
    assert build_info("/bin/sh") is None
    script = tmp_path / "script"
    script.write_text("#!/bin/sh\n")
    with pytest.raises(ElfError):
        build_info(script)
    with pytest.raises(FileNotFoundError):
        build_info(tmp_path / "absent")


@pytest.fixture(scope="module")
def small_program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small ELF file with build information, to be damaged."""
    folder = tmp_path_factory.mktemp("small")
    (folder / "old.c").write_text(POINTERS.replace("int main(void)", "int _start(void)"))
    command = ["clang", "-nostdlib", "-static", "-Wl,-z,noseparate-code", "-o", "small", "old.c"]
    subprocess.run(command, cwd=folder, check=True)
    return folder / "small"


@given(data=st.data())
@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_damage_never_escapes(small_program: Path, tmp_path: Path, data: st.DataObject) -> None:
    content = bytearray(small_program.read_bytes())
    # Half of the changes hit the ELF header and the tables, where they hurt most.
    sections = int.from_bytes(content[0x28:0x30], "little")
    places = st.one_of(
        st.integers(0, 400), st.integers(sections, len(content) - 1), st.integers(0, len(content) - 1)
    )
    for at, value in data.draw(st.lists(st.tuples(places, st.integers(0, 255)), min_size=1, max_size=6)):
        content[at] = value
    damaged = tmp_path / "damaged"
    damaged.write_bytes(
        content[: data.draw(st.integers(0, len(content)))] if data.draw(st.booleans()) else content
    )
    with suppress(SymbolsError):  # the one error that is allowed
        build_info(damaged)
