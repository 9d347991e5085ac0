#!/usr/bin/env python3
"""Coverage-guided fuzzing of the record decoder and the whole pipeline behind it. With the virtual environment
active, from the root:

    pip install atheris
    export PYTHONPATH=.
    tests/fuzz/fuzz_decode.py -max_total_time=600 -max_len=1024 NEW_INPUTS tests/fuzz/corpus/decode
    tests/fuzz/fuzz_decode.py -merge=1 -max_len=1024 tests/fuzz/corpus/decode NEW_INPUTS

The first run puts inputs that do something new into the directory NEW_INPUTS. The second adds the useful
ones to the corpus, which the unit tests replay without atheris.
"""

from __future__ import annotations

import sys

import atheris

_PACKAGES = ("kernel.decode", "pipeline", "streams", "protocols", "pairing", "correlate", "spans", "metrics")

with atheris.instrument_imports(include=[f"autotrace.{name}" for name in _PACKAGES]):
    from event_stream import check


def one_input(data: bytes) -> None:
    """What libFuzzer calls."""
    check(data)


if __name__ == "__main__":
    atheris.Setup(sys.argv, one_input)
    atheris.Fuzz()
