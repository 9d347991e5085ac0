"""Look-ups of functions on disk: a program is searched once, not at every start of whoever asks.

An entry is for one build-id together with what the kernel says about the file: device, inode, size, times. The
build-id alone would not do. Anybody can give a file the build-id of a library that others use, and would then
choose where the probes on that library go.
"""

from __future__ import annotations

import hashlib
import json
import os
import stat
import tempfile
from collections.abc import Callable, Collection
from contextlib import suppress
from pathlib import Path
from typing import Any

from symbols.function import Function, Lookup

_FORMAT = b"symbols 1\n"
"""Changes with what is stored and with how it is found: entries of another format are not read."""
_MAX_ENTRIES = 512
_MAX_ENTRY_SIZE = 1 << 20
_MAX_NAMES = 4096

_Known = dict[str, dict[str, Any]]
"""Look-up -> name -> the fields of a Function, or why it is refused, or None where there is no such function."""


def identity(status: os.stat_result | None) -> tuple[int, ...]:
    """What tells a file from every other and from itself before a change; nothing for a file that is not there."""
    if status is None:
        return ()
    return (status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns)


class Cache:
    """Look-ups in a directory, one file for each program. Several processes may use one directory.

    It never fails: an entry that is damaged is as good as none and is written anew. A directory that belongs to
    another user, or that others may write to, is not used.
    """

    def __init__(self, folder: str | Path, max_entries: int = _MAX_ENTRIES) -> None:
        """`folder` is made, for its owner only, with the first entry. Beyond `max_entries` the oldest go."""
        self._folder = Path(folder)
        self._max_entries = max_entries

    def look_up(
        self, key: object, kind: str, names: Collection[str], search: Callable[[Collection[str]], Lookup]
    ) -> Lookup:
        """Answer from the entry of `key`; `search` is asked for the names that it does not have.

        `key` is whatever names the file, by its `repr`; `kind` tells one sort of search from another. Raises what
        `search` raises.
        """
        path = self._folder / hashlib.sha256(repr(key).encode()).hexdigest()
        entry = self._read(path)
        known = entry.setdefault(kind, {})
        missing = [name for name in names if name not in known]
        if missing:
            found, refused = search(missing)
            for name in missing:
                function = found.get(name)
                known[name] = list(function) if function is not None else refused.get(name)
            self._write(path, entry if len(known) <= _MAX_NAMES else {})
        else:
            with suppress(OSError):
                os.utime(path)
        answers = {name: known[name] for name in names}
        return Lookup(
            {
                name: Function(fields[0], fields[1], fields[2], fields[3], tuple(fields[4]))
                for name, fields in answers.items()
                if isinstance(fields, list)
            },
            {name: reason for name, reason in answers.items() if isinstance(reason, str)},
        )

    def _is_private(self) -> bool:
        status = self._folder.stat()
        return status.st_uid == os.geteuid() and not stat.S_IMODE(status.st_mode) & 0o022

    def _read(self, path: Path) -> _Known:
        try:
            if not self._is_private():
                return {}
            with path.open("rb") as stream:
                data = stream.read(_MAX_ENTRY_SIZE + 1)
        except OSError:
            return {}
        digest, _, content = data.partition(b"\n")
        if digest != _digest(content):
            return {}
        known: _Known = json.loads(content)
        return known

    def _write(self, path: Path, entry: _Known) -> None:
        content = json.dumps(entry).encode()
        if len(content) > _MAX_ENTRY_SIZE - 65:
            return
        with suppress(OSError):
            self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            if not self._is_private():
                return
            descriptor, temporary = tempfile.mkstemp(dir=self._folder)
            try:
                with open(descriptor, "wb") as stream:  # noqa: PTH123 (a descriptor is no path)
                    stream.write(_digest(content) + b"\n" + content)
                os.replace(temporary, path)  # noqa: PTH105 (as above)
            except OSError:
                os.unlink(temporary)  # noqa: PTH108 (as above)
                raise
            self._remove_oldest()

    def _remove_oldest(self) -> None:
        """Keep the entries that were used last; what a killed writer left behind ages like an entry."""
        with os.scandir(self._folder) as listing:
            files = [file for file in listing if file.is_file(follow_symlinks=False)]
        if len(files) <= self._max_entries:
            return
        ages = {}
        for file in files:
            with suppress(OSError):
                ages[file.path] = file.stat(follow_symlinks=False).st_mtime_ns
        for oldest in sorted(ages, key=ages.__getitem__)[: len(files) - self._max_entries]:
            with suppress(OSError):
                Path(oldest).unlink()


def _digest(content: bytes) -> bytes:
    return hashlib.sha256(_FORMAT + content).hexdigest().encode()
