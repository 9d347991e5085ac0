"""Where gRPC-Go keeps which stream it is: the offsets of `method` and `id` in `internal/transport.Stream`.

They come from a table generated from real releases (`symbols/offsets/go_grpc_stream.toml`), or from the program's
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

MODULE = "google.golang.org/grpc"
OFFSETS_FILE = Path(__file__).parent / "offsets" / "go_grpc_stream.toml"

_STREAM = f"{MODULE}/internal/transport.Stream"
_SERVER_STREAM = f"{MODULE}/internal/transport.ServerStream"
_POINTER_SIZE = 8
_RELEASE = re.compile(r"v(\d+)\.(\d+)\.(\d+)")

_Version = tuple[int, ...]


class GrpcStream(NamedTuple):
    """Byte offsets in `transport.Stream`. `by_pointer`: what a server's handler is given begins with a pointer to
    that (`ServerStream`, v1.69 to v1.76); else it begins with that itself."""

    method: int
    id: int
    by_pointer: bool


class GrpcStreamOffsets:
    """The table by release of gRPC-Go, read once."""

    def __init__(self, file: Path = OFFSETS_FILE) -> None:
        """Raises SymbolsError if the table is damaged."""
        try:
            rows = tomllib.loads(file.read_text())["stream"]
            measured = [
                (release(row["grpc"]), GrpcStream(row["method"], row["id"], row["by_pointer"]))
                for row in rows
            ]
        except (tomllib.TOMLDecodeError, KeyError, TypeError) as error:
            raise SymbolsError(f"{file.name} is not a table of gRPC-Go offsets: {error}") from error
        self._measured = sorted((version, stream) for version, stream in measured if version is not None)

    def by_version(self, version: str) -> GrpcStream | None:
        """Offsets for a version such as `v1.60.1`: what the nearest release below and the nearest above agree on;
        None if they do not, or if it is newer or older than all that were measured."""
        wanted = release(version)
        if wanted is None:
            return None
        below = [stream for measured, stream in self._measured if measured <= wanted]
        above = [stream for measured, stream in self._measured if measured >= wanted]
        return below[-1] if below and above and below[-1] == above[0] else None

    def find(self, path: str | Path, build: BuildInfo) -> GrpcStream | None:
        """Offsets for the program at `path`: from the table, else from its DWARF, else None: never a guess. None
        too for a program without gRPC-Go.

        Raises OSError and SymbolsError, and only for a program that the table does not cover.
        """
        version = build.dependency(MODULE)
        if not version or build.bits != 64:
            return None
        return self.by_version(version) or grpc_stream_from_dwarf(path)


def release(version: str) -> _Version | None:
    """`v1.60.1`, `v1.61.0-dev` -> (1, 60, 1), (1, 61, 0); None for what is no version."""
    match = _RELEASE.match(version)
    return tuple(map(int, match.groups())) if match else None


def grpc_stream_from_dwarf(path: str | Path) -> GrpcStream | None:
    """Read the offsets from the program's own DWARF; None if it was stripped, or is laid out in another way.

    Raises OSError if the file cannot be read and SymbolsError if it is damaged.
    """
    with Elf.open(path) as elf:
        stream = member_offsets(elf, _STREAM, ["id", "method"])
        server_stream = member_offsets(elf, _SERVER_STREAM, ["Stream", "st"])
    if stream is None or stream.keys() != {"id", "method"}:
        return None
    by_pointer = False
    if server_stream:
        if server_stream.get("Stream") != 0 or "st" not in server_stream:
            return None
        by_pointer = server_stream["st"] == _POINTER_SIZE
    return GrpcStream(stream["method"], stream["id"], by_pointer)
