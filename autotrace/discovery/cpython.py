"""Where CPython keeps what a thread is working on."""

from __future__ import annotations

import re
from pathlib import PurePosixPath

from autotrace.model import PythonOffsets

_OFFSETS = {
    "3.7": PythonOffsets(176, 256),
    "3.8": PythonOffsets(176, 240),
    "3.9": PythonOffsets(176, 240),
    "3.10": PythonOffsets(176, 240),
    "3.11": PythonOffsets(152, 224),
    "3.12": PythonOffsets(136, 208),
    "3.13": PythonOffsets(152, 208),
}
"""Measured in running interpreters, 64 bits, no debug builds; 3.11.2 and 3.11.7 are the same. The struct is part of
a release's ABI: it does not change between its patches."""

_NAME = re.compile(r"python(\d+\.\d+)")


def offsets(executable: str) -> PythonOffsets | None:
    """The offsets for an interpreter, by its file's name (`python3.11`); None if they are not known.

    A wrong guess does no harm: the kernel side checks that what it finds is the state of that very thread.
    """
    found = _NAME.fullmatch(PurePosixPath(executable).name)
    return _OFFSETS.get(found[1]) if found else None
