#!/usr/bin/env python3
"""Coverage-guided fuzzing of the reader of recordings. With the virtual environment active, from the root:

pip install atheris
export PYTHONPATH=.
tests/fuzz/fuzz_recording.py -max_total_time=300 -max_len=512
"""

from __future__ import annotations

import json
import sys
import tempfile
from contextlib import suppress
from pathlib import Path

import atheris

with atheris.instrument_imports(include=["autotrace.recording"]):
    from autotrace import abi
    from autotrace.errors import AutotraceError
    from autotrace.recording import MAGIC, read

_META = json.dumps({"abi": abi.DIGEST, "wall_offset_ns": 0, "host": "h"}).encode()
_BEFORE = (b"", MAGIC, MAGIC + b"\1" + len(_META).to_bytes(4, "little") + _META)


def check(path: Path, data: bytes) -> None:
    """Read a file that begins as a recording does, as far as the input's first byte says."""
    path.write_bytes(_BEFORE[data[0] % len(_BEFORE)] + data[1:] if data else b"")
    with suppress(AutotraceError):
        for entry in read(path):
            for content in (entry.json, entry.counters, entry.tick):
                with suppress(ValueError):
                    content()


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as directory:
        scratch = Path(directory) / "events.bin"
        atheris.Setup(sys.argv, lambda data: check(scratch, data))
        atheris.Fuzz()
