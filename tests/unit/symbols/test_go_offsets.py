"""The offsets of goroutine ids are those of real programs, and are never guessed."""

import os
import shutil
import subprocess
import tomllib
from collections.abc import Callable
from pathlib import Path

import pytest

from symbols.errors import SymbolsError
from symbols.go import BuildInfo, build_info
from symbols.go_offsets import OFFSETS_FILE, GoidOffsets, RuntimeG, runtime_g_from_dwarf


def test_the_table_agrees_with_the_dwarf_of_this_toolchain(go_program: Callable[..., Path]) -> None:
    program = go_program("local")
    measured, build = runtime_g_from_dwarf(program), build_info(program)
    assert measured is not None
    assert build is not None
    assert GoidOffsets().by_version(build.go_version) == measured


def test_a_release_not_in_the_table_is_read_from_dwarf_and_never_guessed(
    go_program: Callable[..., Path],
) -> None:
    offsets, program, stripped = GoidOffsets(), go_program("local"), go_program("local", "-ldflags=-s -w")
    future = BuildInfo("go1.99.1", "", "", "")
    assert offsets.find(program, future) == runtime_g_from_dwarf(program)
    assert runtime_g_from_dwarf(stripped) is None
    assert offsets.find(stripped, future) is None
    assert offsets.find(stripped, future._replace(go_version="devel go1.30-abcdef")) is None


def test_the_table_is_not_used_for_32_bits(go_program: Callable[..., Path], tmp_path: Path) -> None:
    folder = go_program("local").parent
    go = shutil.which("go") or "/usr/local/go/bin/go"
    environment = {**os.environ, "GOFLAGS": "-buildvcs=false", "GOTOOLCHAIN": "local", "GOARCH": "386"}
    small = tmp_path / "small"
    subprocess.run([go, "build", "-o", small, "."], cwd=folder, env=environment, check=True)
    build = build_info(small)
    assert build is not None
    assert build.bits == 32
    offsets = GoidOffsets().find(small, build)
    assert offsets == runtime_g_from_dwarf(small)
    assert offsets != GoidOffsets().by_version(build.go_version)


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
