"""Coverage-guided fuzzing of the HTTP/1.1 parser. From the root of the repository:

    pip install atheris
    PYTHONPATH=. python tests/fuzz/fuzz_http1.py -max_total_time=600 NEW_INPUTS tests/fuzz/corpus/http1

Inputs that find something new go to the directory NEW_INPUTS. `-merge=1 tests/fuzz/corpus/http1 NEW_INPUTS`
puts the useful ones into the corpus, which the unit tests replay without atheris.
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
