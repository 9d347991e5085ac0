"""Reading a manifest: a TOML file whose every key is known, present where it must be, and of the right type."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from pathlib import Path

from autotrace.errors import AutotraceError


class ManifestError(AutotraceError):
    """A manifest is wrong. The text is one sentence that names the file and the key."""


class Table:
    """A TOML table whose keys are taken one by one; what is left at the end is unknown."""

    def __init__(self, file: Path, values: object, prefix: str = "") -> None:
        self._file = file
        self._prefix = prefix
        if not isinstance(values, Mapping):
            raise ManifestError(f"{file.name}: {prefix.rstrip('.')} must be a table")
        self._values = dict(values)

    def error(self, key: str, problem: str) -> ManifestError:
        return ManifestError(f"{self._file.name}: {self._prefix}{key} {problem}")

    def text(self, key: str, default: str | None = None) -> str:
        value = self._values.pop(key, default)
        if value is None:
            raise self.error(key, "is missing")
        if not isinstance(value, str) or (default is None and not value):
            raise self.error(key, "must be a text that is not empty")
        return value

    def flag(self, key: str) -> bool:
        value = self._values.pop(key, False)
        if not isinstance(value, bool):
            raise self.error(key, "must be true or false")
        return value

    def texts(self, key: str, *, required: bool = False) -> tuple[str, ...]:
        if required and key not in self._values:
            raise self.error(key, "is missing")
        value = self._values.pop(key, [])
        if not isinstance(value, list) or not all(isinstance(item, str) and item for item in value):
            raise self.error(key, "must be a list of texts")
        return tuple(value)

    def table(self, key: str) -> Table:
        return Table(self._file, self._values.pop(key), f"{self._prefix}{key}.")

    def tables(self, key: str) -> list[Table]:
        value = self._values.pop(key, [])
        if not isinstance(value, list):
            raise self.error(key, "must be a list of tables")
        return [Table(self._file, item, f"{self._prefix}{key}.") for item in value]

    def has(self, key: str) -> bool:
        return key in self._values

    def finish(self) -> None:
        for key in self._values:
            raise self.error(key, "is not a key that a manifest can have")


def read_table(file: Path) -> Table:
    """Read a TOML file. Raises ManifestError if it is none."""
    try:
        return Table(file, tomllib.loads(file.read_text(encoding="utf-8")))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ManifestError(f"{file.name} is not TOML: {error}") from error
