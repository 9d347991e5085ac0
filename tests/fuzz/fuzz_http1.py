#!/usr/bin/env python3
"""Coverage-guided fuzzing of the HTTP/1.1 parser. With the virtual environment active, from the root:

    pip install atheris
    export PYTHONPATH=.
    tests/fuzz/fuzz_http1.py -max_total_time=600 -max_len=2048 NEW_INPUTS tests/fuzz/corpus/http1
    tests/fuzz/fuzz_http1.py -merge=1 -max_len=2048 tests/fuzz/corpus/http1 NEW_INPUTS

The first run puts inputs that do something new into the directory NEW_INPUTS. The second adds the useful
ones to the corpus, which the unit tests replay without atheris.
"""

from __future__ import annotations

import sys

import atheris

with atheris.instrument_imports(include=["autotrace.protocols"]):
    from http1_conversation import check


if __name__ == "__main__":
    atheris.enabled_hooks.add("RegEx")
    atheris.Setup(sys.argv, check)
    atheris.Fuzz()
