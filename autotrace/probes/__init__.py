"""Runtime manifests: what a runtime is recognised by and which links its way of working makes sound.

One TOML file per runtime stands beside this module; docs/adding-a-runtime.md describes the keys. Adding a
runtime takes one file and no code.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path, PurePath
from typing import NamedTuple

from autotrace.probes.table import ManifestError, Table, read_table

_RUNGS = frozenset(
    {"thread", "dispatch", "goroutine", "stream-thread", "stream-loop", "stream-dispatch", "answer"}
)


@dataclass(frozen=True, slots=True)
class Launcher:
    """A script that runs someone else's application (`gunicorn shop:app`): the application gives the name.

    It is the value of one of `options`, or of the environment variable `environment`, or the first argument
    of the form `module:attribute`.
    """

    scripts: tuple[str, ...]
    options: tuple[str, ...] = ()
    environment: str = ""


@dataclass(frozen=True, slots=True)
class Interpreter:
    """How the command line of an interpreter names the program.

    The program is the value of the first of `name_options`, else the first argument that is not an option.
    `value_options` take the next argument as their value. After one of `code_options` comes program text,
    and so no name. `clustered` says that short options can be joined (`-um module`). `suffixes` are cut off
    the program's name. A program called one of `generic` is named by its directory instead. `titles` are
    regular expressions for process titles set at run time; group 1 is the name.
    """

    name_options: tuple[str, ...] = ()
    value_options: tuple[str, ...] = ()
    code_options: tuple[str, ...] = ()
    clustered: bool = False
    suffixes: tuple[str, ...] = ()
    generic: tuple[str, ...] = ()
    titles: tuple[str, ...] = ()
    launchers: tuple[Launcher, ...] = ()


@dataclass(frozen=True, slots=True)
class Recognise:
    """What a runtime is recognised by. Patterns are shell patterns for a base name: of the executable, or of
    a file mapped into the process. `go_buildinfo` asks for a Go program, `anything` takes what no other
    manifest took."""

    executables: tuple[str, ...] = ()
    libraries: tuple[str, ...] = ()
    go_buildinfo: bool = False
    anything: bool = False


@dataclass(frozen=True, slots=True)
class Manifest:
    """One runtime.

    `language` is the value of `telemetry.sdk.language`, `process_runtime` that of `process.runtime.name` ("":
    none). `links` are the rungs of the linking ladder that its way of working makes sound besides `header`
    and `wire`, and `why` says what makes them so, or what rules them out. `goid` is true if its tasks are
    goroutines. `builtin_tls` names the TLS library inside the runtime itself, if there is one.
    """

    name: str
    display: str
    language: str
    recognise: Recognise
    links: tuple[str, ...]
    why: str
    process_runtime: str = ""
    goid: bool = False
    builtin_tls: str = ""
    interpreter: Interpreter | None = None


class Match(NamedTuple):
    """The runtime of a process, and in `reason` what it was recognised by (a clause, no full stop).

    `by_name` is true if the executable is the runtime's own, so that its command line can be read as the
    manifest's `interpreter` says.
    """

    manifest: Manifest
    reason: str
    by_name: bool = False


class Manifests:
    """All runtimes that are known."""

    def __init__(self, manifests: Iterable[Manifest]) -> None:
        """Raises ManifestError if names repeat, or if not exactly one manifest takes anything."""
        self._all = sorted(manifests, key=lambda manifest: manifest.name)
        names = [manifest.name for manifest in self._all]
        for name in names:
            if names.count(name) > 1:
                raise ManifestError(f"two runtime manifests have the name {name!r}; rename one of them")
        fallbacks = [manifest for manifest in self._all if manifest.recognise.anything]
        if len(fallbacks) != 1:
            raise ManifestError(f"{len(fallbacks)} runtime manifests have recognise.anything; one must")
        self._fallback = fallbacks[0]

    @classmethod
    def load(cls, directory: Path | None = None) -> Manifests:
        """Read every manifest in `directory`, by default those that come with autotrace.

        Raises ManifestError for an unknown, missing or wrong key, naming the file and the key.
        """
        folder = directory or Path(__file__).parent
        return cls(_read(file) for file in sorted(folder.glob("*.toml")))

    def __iter__(self) -> Iterator[Manifest]:
        return iter(self._all)

    def __getitem__(self, name: str) -> Manifest:
        for manifest in self._all:
            if manifest.name == name:
                return manifest
        raise KeyError(name)

    def match(
        self, executable: str, libraries: Callable[[], Iterable[str]], is_go: Callable[[], bool]
    ) -> Match:
        """Find the runtime of a process: by the name of its executable, then as a Go program, then by the
        files mapped into it. The two callables read the process; they are called only when they are needed.
        """
        base = PurePath(executable).name
        for manifest in self._all:
            for pattern in manifest.recognise.executables:
                if fnmatchcase(base, pattern):
                    return Match(manifest, f"the executable is called {base}", True)
        for manifest in self._all:
            if manifest.recognise.go_buildinfo and is_go():
                return Match(manifest, "the executable holds Go build information")
        mapped = {PurePath(path).name for path in libraries()}
        for manifest in self._all:
            for pattern in manifest.recognise.libraries:
                for name in sorted(mapped):
                    if fnmatchcase(name, pattern):
                        return Match(manifest, f"{name} is mapped into the process")
        return Match(self._fallback, "nothing about it is specific to a known runtime")


def _read(file: Path) -> Manifest:
    table = read_table(file)
    if not table.has("recognise"):
        raise table.error("recognise", "is missing")
    manifest = Manifest(
        name=table.text("name"),
        display=table.text("display"),
        language=table.text("language"),
        links=_links(table),
        why=table.text("why"),
        process_runtime=table.text("process_runtime", ""),
        goid=table.flag("goid"),
        builtin_tls=table.text("builtin_tls", ""),
        recognise=_recognise(table.table("recognise")),
        interpreter=_interpreter(table.table("interpreter")) if table.has("interpreter") else None,
    )
    table.finish()
    return manifest


def _links(table: Table) -> tuple[str, ...]:
    links = table.texts("links", required=True)
    for rung in links:
        if rung not in _RUNGS:
            raise table.error("links", f"has {rung!r}, which is none of {', '.join(sorted(_RUNGS))}")
    return links


def _recognise(table: Table) -> Recognise:
    recognise = Recognise(
        executables=table.texts("executables"),
        libraries=table.texts("libraries"),
        go_buildinfo=table.flag("go_buildinfo"),
        anything=table.flag("anything"),
    )
    table.finish()
    if recognise == Recognise():
        raise table.error("executables", "or another way to recognise the runtime is missing")
    return recognise


def _interpreter(table: Table) -> Interpreter:
    interpreter = Interpreter(
        name_options=table.texts("name_options"),
        value_options=table.texts("value_options"),
        code_options=table.texts("code_options"),
        clustered=table.flag("clustered"),
        suffixes=table.texts("suffixes"),
        generic=table.texts("generic"),
        titles=table.texts("titles"),
        launchers=tuple(_launcher(each) for each in table.tables("launchers")),
    )
    table.finish()
    for title in interpreter.titles:
        try:
            groups = re.compile(title).groups
        except re.error as error:
            raise table.error(
                "titles", f"has {title!r}, which is not a regular expression: {error}"
            ) from error
        if groups != 1:
            raise table.error("titles", f"has {title!r}, which must have exactly one group")
    return interpreter


def _launcher(table: Table) -> Launcher:
    launcher = Launcher(
        scripts=table.texts("scripts", required=True),
        options=table.texts("options"),
        environment=table.text("environment", ""),
    )
    table.finish()
    return launcher
