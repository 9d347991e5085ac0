"""Go programs are recognised by their build information, and their goroutine offsets are never guessed."""

import os
import shutil
import subprocess
import tomllib
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from symbols.errors import ElfError, SymbolsError
from symbols.go import BuildInfo, build_info, links_function
from symbols.go_offsets import OFFSETS_FILE, GoidOffsets, RuntimeG, runtime_g_from_dwarf

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


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Go program built here, with symbols and DWARF."""
    go = shutil.which("go") or "/usr/local/go/bin/go"
    if not Path(go).exists():
        pytest.skip("there is no Go toolchain here")
    folder = tmp_path_factory.mktemp("go")
    (folder / "go.mod").write_text("module example.com/tiny\n\ngo 1.19\n")
    (folder / "main.go").write_text('package main\n\nfunc main() { println("x") }\n')
    environment = {**os.environ, "GOFLAGS": "-buildvcs=false", "GOTOOLCHAIN": "local"}
    subprocess.run([go, "build", "-o", "tiny", "."], cwd=folder, env=environment, check=True)
    subprocess.run(
        [go, "build", "-ldflags=-s -w", "-o", "stripped", "."], cwd=folder, env=environment, check=True
    )
    return folder / "tiny"


def toolchain_version(program: Path) -> str:
    go = shutil.which("go") or "/usr/local/go/bin/go"
    return subprocess.run(
        [go, "version", program], check=True, capture_output=True, text=True
    ).stdout.split()[-1]


def test_a_program_of_this_toolchain(program: Path) -> None:
    info = build_info(program)
    assert info is not None
    assert info[:5] == (toolchain_version(program), "example.com/tiny", "example.com/tiny", "(devel)", 64)
    assert info.setting("GOARCH") == "amd64"


def test_the_table_agrees_with_the_dwarf_of_this_toolchain(program: Path) -> None:
    measured = runtime_g_from_dwarf(program)
    assert measured is not None
    assert GoidOffsets().by_version(toolchain_version(program)) == measured


def test_a_stripped_program_still_has_its_version_but_no_dwarf(program: Path) -> None:
    stripped = program.with_name("stripped")
    info, unstripped = build_info(stripped), build_info(program)
    assert info is not None
    assert unstripped is not None
    assert info[:5] == unstripped[:5]
    assert info.setting("-ldflags") == "-s -w"
    assert runtime_g_from_dwarf(stripped) is None
    assert links_function(stripped, "runtime.newproc1")
    assert not links_function(stripped, "crypto/tls.(*Conn).Write")


def test_a_release_not_in_the_table_is_read_from_dwarf_and_never_guessed(program: Path) -> None:
    offsets, stripped = GoidOffsets(), program.with_name("stripped")
    future = BuildInfo("go1.99.1", "", "", "")
    assert offsets.find(program, future) == runtime_g_from_dwarf(program)
    assert offsets.find(stripped, future) is None
    assert offsets.find(stripped, future._replace(go_version="devel go1.30-abcdef")) is None


def test_the_table_is_not_used_for_32_bits(program: Path) -> None:
    go = shutil.which("go") or "/usr/local/go/bin/go"
    environment = {**os.environ, "GOFLAGS": "-buildvcs=false", "GOTOOLCHAIN": "local", "GOARCH": "386"}
    command = [go, "build", "-o", "small", "."]
    subprocess.run(command, cwd=program.parent, env=environment, check=True)
    small = program.with_name("small")
    build = build_info(small)
    assert build is not None
    assert build.bits == 32
    offsets = GoidOffsets().find(small, build)
    assert offsets == runtime_g_from_dwarf(small)
    assert offsets != GoidOffsets().by_version(build.go_version)


def test_a_program_without_a_section_table(program: Path, tmp_path: Path) -> None:
    data = bytearray(program.with_name("stripped").read_bytes())
    data[0x28:0x30] = bytes(8)  # e_shoff
    data[0x3C:0x40] = bytes(4)  # e_shnum, e_shstrndx
    bare = tmp_path / "bare"
    bare.write_bytes(data)
    assert build_info(bare) == build_info(program.with_name("stripped"))


def test_build_information_with_pointers(tmp_path: Path) -> None:
    """Before Go 1.18 the build information pointed to its strings."""
    source, built = tmp_path / "old.c", tmp_path / "old"
    source.write_text(POINTERS)
    subprocess.run(["clang", "-no-pie", "-o", built, source], check=True)
    assert build_info(built) == BuildInfo("go1.13.4", "example.com/shop/cmd", "example.com/shop", "v1.2.3")


@pytest.mark.parametrize(
    ("version", "expected"),
    [
        ("go1.20.14", RuntimeG(152, None)),
        ("go1.21", RuntimeG(152, 272)),
        ("go1.23.4", RuntimeG(160, 280)),
        ("go1.24.1 X:boringcrypto", RuntimeG(160, 280)),
        ("go1.27rc1", RuntimeG(152, 280)),
        ("go1.99", None),
        ("devel +abcdef", None),
        ("", None),
    ],
)
def test_offsets_by_version(version: str, expected: RuntimeG | None) -> None:
    assert GoidOffsets().by_version(version) == expected


def test_the_table_has_no_gap() -> None:
    rows = tomllib.loads(OFFSETS_FILE.read_text())["runtime_g"]
    releases = [int(row["go"].split(".")[1]) for row in rows]
    assert releases == list(range(releases[0], releases[-1] + 1))


def test_a_damaged_table_is_named(tmp_path: Path) -> None:
    table = tmp_path / "table.toml"
    table.write_text("[[runtime_g]]\ngo = 'go1.22'\n")
    with pytest.raises(SymbolsError, match=r"table\.toml"):
        GoidOffsets(table)


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
    for read in (build_info, runtime_g_from_dwarf):
        with suppress(SymbolsError):  # the one error that is allowed
            read(damaged)
