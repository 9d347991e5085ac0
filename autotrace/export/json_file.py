"""Spans to a file in the OTLP file format: one `ExportTraceServiceRequest` in JSON per line and batch."""

from __future__ import annotations

import errno
import os
import sys
from pathlib import Path

from autotrace.export.otlp_json import TraceJsonEncoder
from autotrace.export.queue import Outcome, Result
from autotrace.model import Span

DISK_FULL = "disk_full"
UNWRITABLE = "file_unwritable"
STDOUT = "-"

_NO_SPACE = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})


class JsonFileError(Exception):
    """The file cannot be opened; the text is one sentence for the user."""


class JsonFileExporter:
    """Appends lines to a file, or to standard output for the path `-`; feed it through a `SpanQueue`.

    Every line is written by one system call where the kernel takes it whole, so readers that follow the file
    see whole lines. A line that could not be written is dropped and counted, and what the kernel took of it
    is cut off again; later ones are still tried.
    """

    def __init__(self, path: str) -> None:
        """Open `path` for appending. Raises JsonFileError."""
        self._encoder = TraceJsonEncoder()
        self._path = "standard output" if path == STDOUT else path
        self._broken_line = False
        if path == STDOUT:
            self._fd = os.dup(sys.stdout.fileno())
            return
        try:
            self._fd = os.open(Path(path), os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o644)
        except OSError as error:
            raise JsonFileError(
                f"cannot write spans to {path}: {error.strerror}; give --json a file that can be written"
            ) from None

    def export(self, spans: list[Span]) -> Result:
        line = self._encoder.encode(spans).encode() + b"\n"
        if self._broken_line:
            # Ends the piece of a line that could not be taken back, so that this one stays readable.
            line = b"\n" + line
        written = 0
        try:
            while written < len(line):
                written += os.write(self._fd, line[written:] if written else line)
        except OSError as error:
            self._take_back(written)
            reason = DISK_FULL if error.errno in _NO_SPACE else UNWRITABLE
            problem = (
                f"cannot write spans to {self._path}: {error.strerror}; they are dropped until it works again"
            )
            return Result(Outcome.DROPPED, reason, problem)
        self._broken_line = False
        return Result(Outcome.SENT)

    def idle(self) -> None:
        """Nothing waits here."""

    def shutdown(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def _take_back(self, written: int) -> None:
        if not written:
            return
        try:
            os.ftruncate(self._fd, os.fstat(self._fd).st_size - written)
        except OSError:
            self._broken_line = True
