#!/usr/bin/env python3
"""Coverage-guided fuzzing of the HTTP/2 parser. With the virtual environment active, from the root:

    pip install atheris
    export PYTHONPATH=.
    tests/fuzz/fuzz_http2.py -max_total_time=600 -max_len=2048 NEW_INPUTS tests/fuzz/corpus/http2
    tests/fuzz/fuzz_http2.py -merge=1 -max_len=2048 tests/fuzz/corpus/http2 NEW_INPUTS

The first run puts inputs that do something new into the directory NEW_INPUTS. The second adds the useful ones to
the corpus, which the unit tests replay without atheris.
"""

from __future__ import annotations

import sys

import atheris

with atheris.instrument_imports(include=["autotrace.protocols"]):
    from http2_conversation import check


if __name__ == "__main__":
    atheris.Setup(sys.argv, check)
    atheris.Fuzz()
