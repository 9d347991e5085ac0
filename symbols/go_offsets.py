"""Where the Go runtime keeps a goroutine's id: the offsets of `goid` and `parentGoid` in `runtime.g`.

They come from a table generated from real toolchains (`symbols/offsets/go_runtime_g.toml`), or from the program's
own DWARF.
"""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import NamedTuple

from symbols.dwarf import member_offsets
from symbols.elf import Elf
from symbols.errors import SymbolsError
from symbols.go import BuildInfo

OFFSETS_FILE = Path(__file__).parent / "offsets" / "go_runtime_g.toml"

_RELEASE = re.compile(r"go(\d+)\.(\d+)")


class RuntimeG(NamedTuple):
    """Byte offsets in `runtime.g`. `parent_goid` is None before Go 1.21, which did not keep it."""

    goid: int
    parent_goid: int | None


class GoidOffsets:
    """The table of `runtime.g` offsets by Go release, read once."""

    def __init__(self, file: Path = OFFSETS_FILE) -> None:
        """Raises SymbolsError if the table is damaged."""
        try:
            rows = tomllib.loads(file.read_text())["runtime_g"]
            self._by_release = {
                _release(row["go"]): RuntimeG(row["goid"], row.get("parent_goid")) for row in rows
            }
        except (tomllib.TOMLDecodeError, KeyError, TypeError) as error:
            raise SymbolsError(f"{file.name} is not a table of Go offsets: {error}") from error

    def by_version(self, go_version: str) -> RuntimeG | None:
        """Offsets for a version such as `go1.22.3`; None for a release that was never measured."""
        return self._by_release.get(_release(go_version))

    def find(self, path: str | Path, build: BuildInfo) -> RuntimeG | None:
        """Offsets for the program at `path`: from the table, else from its DWARF, else None: never a guess.
        The table is for programs of 64 bits.

        Raises OSError and SymbolsError as `runtime_g_from_dwarf` does, and only for a program that the table
        does not cover.
        """
        known = self.by_version(build.go_version) if build.bits == 64 else None
        return known or runtime_g_from_dwarf(path)


def _release(go_version: str) -> tuple[int, int] | None:
    """`go1.22.3`, `go1.22rc1`, `go1.22.3 X:boringcrypto` -> (1, 22); None for `devel ...` and the like."""
    match = _RELEASE.match(go_version)
    return (int(match[1]), int(match[2])) if match else None


def runtime_g_from_dwarf(path: str | Path) -> RuntimeG | None:
    """Read the offsets from the program's own DWARF; None if it was stripped.

    Raises OSError if the file cannot be read and SymbolsError if it is damaged.
    """
    with Elf.open(path) as elf:
        offsets = member_offsets(elf, "runtime.g", ["goid", "parentGoid"])
    if offsets is None or "goid" not in offsets:
        return None
    return RuntimeG(offsets["goid"], offsets.get("parentGoid"))
