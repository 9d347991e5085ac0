"""Library manifests: how a library is recognised in a process, and which BPF program stands at which function.

One TOML file per library stands beside this module; docs/adding-a-runtime.md describes the keys.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import Enum
from fnmatch import fnmatchcase
from pathlib import Path

from autotrace.probes.table import Table, read_table


class Kind(Enum):
    """What the probes of a library tell: the plaintext of TLS, or which task works for which request."""

    TLS = "tls"
    STREAMS = "streams"


@dataclass(frozen=True, slots=True)
class Function:
    """A function of a library, and the BPF programs at its entry and its return ("": none). A file without one that
    is `required` is not probed at all; a version of the library may lack any other. One that is required and has no
    program only tells versions apart. `names` are those that it has in different versions: the first that is there
    counts."""

    names: tuple[str, ...]
    required: bool = False
    enters: str = ""
    returns: str = ""


@dataclass(frozen=True, slots=True)
class Library:
    """One library. `programs` names the object its BPF programs are in.

    A mapped file is the library if its base name matches one of `files`, shell patterns. It may have the library
    inside if its base name matches one of `inside`, or if it is the executable itself: it has it, if it has the
    required functions. With `go` it is part of Go programs: only these are looked into, and what stands at returns
    stands at each return instruction. With `old_connections` it is asked only about HTTP/2 connections older than
    the agent: a file is probed as long as a process that maps it has such a connection. With `needs`, which
    are shell patterns too, only in processes that have mapped a file whose base name matches one of them.
    """

    name: str
    display: str
    programs: str
    files: tuple[str, ...]
    inside: tuple[str, ...]
    functions: tuple[Function, ...]
    go: bool = False
    kind: Kind = Kind.TLS
    old_connections: bool = False
    needs: tuple[str, ...] = ()

    def is_file(self, path: str) -> bool:
        """Tell if the file at `path` is this library, by its name."""
        return _matches(path, self.files)

    def is_needed(self, paths: Iterable[str]) -> bool:
        """Tell if a process that has mapped the files at `paths` is to be asked."""
        return not self.needs or any(_matches(path, self.needs) for path in paths)

    def may_be_inside(self, path: str) -> bool:
        """Tell if the file at `path`, which is no executable, may have this library inside."""
        return _matches(path, self.inside)


def load(directory: Path | None = None) -> tuple[Library, ...]:
    """Read every manifest in `directory`, by default those that come with autotrace.

    Raises ManifestError for an unknown, missing or wrong key, naming the file and the key.
    """
    folder = directory or Path(__file__).parent
    return tuple(_read(file) for file in sorted(folder.glob("*.toml")))


def _matches(path: str, patterns: tuple[str, ...]) -> bool:
    base = path.rpartition("/")[2]
    return any(fnmatchcase(base, pattern) for pattern in patterns)


def _read(file: Path) -> Library:
    table = read_table(file)
    recognise = table.table("recognise")
    library = Library(
        name=table.text("name"),
        display=table.text("display"),
        programs=table.text("programs"),
        kind=_kind(table),
        files=recognise.texts("files"),
        inside=recognise.texts("inside"),
        go=recognise.flag("go"),
        old_connections=table.flag("old_connections"),
        needs=table.texts("needs"),
        functions=tuple(_function(each) for each in table.tables("functions")),
    )
    recognise.finish()
    table.finish()
    if not library.files and not library.inside and not library.go:
        raise recognise.error("files", "or inside or go is missing")
    if not any(function.required for function in library.functions):
        raise table.error("functions", "has none that is required: any file would have the library inside")
    return library


def _kind(table: Table) -> Kind:
    text = table.text("kind", Kind.TLS.value)
    try:
        return Kind(text)
    except ValueError as error:
        raise table.error("kind", f"is {text!r}, which is neither tls nor streams") from error


def _function(table: Table) -> Function:
    function = Function(
        names=(table.text("name"), *table.texts("or")),
        required=table.flag("required"),
        enters=table.text("enters", ""),
        returns=table.text("returns", ""),
    )
    table.finish()
    if not function.enters and not function.returns and not function.required:
        raise table.error("enters", "or returns or required is missing")
    return function
