"""Recordings: the kernel's records in a file, with what else the user side needs to make the same spans again.

A file is the magic line, then entries: a 5-byte head (kind, length of the payload, little-endian), the payload.
The first entry is META. Records stand in the order in which they were handled; TICK entries stand where the
clock made the user side act, so that a replay acts at the same points. An entry that a crash cut short ends the
file; anything else that is not as described here is damage.
"""

from __future__ import annotations

import json
import os
import stat
import struct
from collections.abc import Iterator
from enum import IntEnum
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

from autotrace import abi
from autotrace.errors import AutotraceError

MAGIC = b"autotrace recording 1\n"
_HEAD = struct.Struct("<BI")
_TICK = struct.Struct("<Q")
_PAYLOAD_MAX = 1 << 24


class Kind(IntEnum):
    """What an entry's payload is."""

    META = 1
    """JSON: abi digest, wall_offset_ns (Unix time minus monotonic time), host."""

    RECORD = 2
    """One record of the ring, as bpf/include/abi.h describes it."""

    PROCESS = 3
    """JSON: a process as the discovery stage described it."""

    TICK = 4
    """The monotonic time of a clock tick."""

    COUNTERS = 5
    """JSON: the kernel side's counters."""


class Entry(NamedTuple):
    """One entry of a recording."""

    kind: Kind
    payload: bytes

    def json(self) -> dict[str, Any]:
        """The payload of a JSON entry. Raises ValueError."""
        try:
            value = json.loads(self.payload)
        except RecursionError as error:
            raise ValueError("an entry is nested too deeply") from error
        if not isinstance(value, dict):
            raise ValueError("an entry is no JSON object")
        return value

    def counters(self) -> dict[str, int]:
        """The payload of a COUNTERS entry. Raises ValueError."""
        counters = self.json()
        if not all(isinstance(count, int) for count in counters.values()):
            raise ValueError("a counter is no number")
        return counters

    def tick(self) -> int:
        """The time of a TICK entry. Raises ValueError."""
        if len(self.payload) != _TICK.size:
            raise ValueError(f"tick of {len(self.payload)} bytes")
        return int(_TICK.unpack(self.payload)[0])


class Recorder:
    """Writes a recording. Raises AutotraceError if the file cannot be made.

    A write that fails later (a full disk) ends the recording, not the agent: `failed` is one sentence that tells
    why.
    """

    def __init__(self, path: Path, wall_offset_ns: int, host: str) -> None:
        self.failed = ""
        self._path = path
        try:
            # It holds paths and who called whom: for its owner alone.
            self._file: BinaryIO = open(path, "wb", opener=_private)  # noqa: SIM115
        except OSError as error:
            raise AutotraceError(f"the recording {path} cannot be written: {error.strerror}") from error
        self._file.write(MAGIC)
        self._json(Kind.META, {"abi": abi.DIGEST, "wall_offset_ns": wall_offset_ns, "host": host})

    def record(self, record: bytes) -> None:
        """Save one record of the ring."""
        self._entry(Kind.RECORD, record)

    def process(self, description: dict[str, object]) -> None:
        """Save how a process was described."""
        self._json(Kind.PROCESS, description)

    def tick(self, now: int) -> None:
        """Save that the user side looked at the clock, and have everything so far in the file."""
        self._entry(Kind.TICK, _TICK.pack(now))
        try:
            self._file.flush()
        except OSError as error:
            self._fail(error)

    def counters(self, counters: dict[str, int]) -> None:
        """Save the kernel side's counters."""
        self._json(Kind.COUNTERS, counters)

    def close(self) -> None:
        """End the file."""
        try:
            self._file.close()
        except OSError as error:
            self._fail(error)

    def _json(self, kind: Kind, value: object) -> None:
        self._entry(kind, json.dumps(value, separators=(",", ":")).encode())

    def _entry(self, kind: Kind, payload: bytes) -> None:
        if self.failed:
            return
        try:
            self._file.write(_HEAD.pack(kind, len(payload)) + payload)
        except OSError as error:
            self._fail(error)

    def _fail(self, error: OSError) -> None:
        self.failed = self.failed or (
            f"the recording {self._path} ends here, it cannot be written: {error.strerror}; give it another place"
        )


def read(path: Path) -> Iterator[Entry]:
    """The entries of a recording.

    Raises AutotraceError if it is none, or from another version of the ABI, and where its entries are damaged.
    """
    try:
        with path.open("rb") as file:
            yield from _entries(path, file)
    except OSError as error:
        raise AutotraceError(f"the recording {path} cannot be read: {error.strerror}") from error


def _entries(path: Path, file: BinaryIO) -> Iterator[Entry]:
    if file.read(len(MAGIC)) != MAGIC:
        raise AutotraceError(f"{path} is not a recording: make one with `autotrace record`")
    first = True
    while (entry := _next_entry(path, file)) is not None:
        if first:
            _check_meta(path, entry)
            first = False
        yield entry
    if first:
        raise AutotraceError(f"the recording {path} is empty")


def damaged(path: Path, why: object) -> AutotraceError:
    """The error for a recording whose entries are not as they were written."""
    return AutotraceError(
        f"the recording {path} is damaged ({why}): what stands before that was replayed, the rest is lost"
    )


def _next_entry(path: Path, file: BinaryIO) -> Entry | None:
    head = file.read(_HEAD.size)
    if len(head) < _HEAD.size:
        return None
    kind, length = _HEAD.unpack(head)
    if length > _PAYLOAD_MAX or kind not in _KINDS:
        raise damaged(path, f"there is no entry of kind {kind} with {length} bytes")
    payload = file.read(length)
    return Entry(_KINDS[kind], payload) if len(payload) == length else None


def _check_meta(path: Path, entry: Entry) -> None:
    try:
        meta = entry.json() if entry.kind is Kind.META else {}
        version = meta["abi"]
        valid = isinstance(meta["wall_offset_ns"], int) and isinstance(meta["host"], str)
    except (ValueError, KeyError):
        valid = False
    if not valid:
        raise AutotraceError(f"the recording {path} has no valid first entry")
    if version != abi.DIGEST:
        raise AutotraceError(
            f"the recording {path} is from another version of autotrace ({version}, this one has {abi.DIGEST}): "
            "replay it with that version"
        )


def _private(path: str, flags: int) -> int:
    descriptor = os.open(path, flags, 0o600)
    if stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.fchmod(descriptor, 0o600)  # the file may have been there, and open to all
    return descriptor


_KINDS = {kind.value: kind for kind in Kind}
