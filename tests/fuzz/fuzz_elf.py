#!/usr/bin/env python3
r"""Coverage-guided fuzzing of `symbols`: ELF, symbol tables, Go tables, USDT notes, DWARF, BTF. With the virtual
environment active, from the root:

    pip install atheris
    export PYTHONPATH=.
    tests/fuzz/fuzz_elf.py -max_total_time=600 -max_len=4096 -timeout=5 -rss_limit_mb=1024 \
        NEW_INPUTS tests/fuzz/corpus/elf
    tests/fuzz/fuzz_elf.py -merge=1 -max_len=4096 tests/fuzz/corpus/elf NEW_INPUTS

The first run puts inputs that do something new into the directory NEW_INPUTS. The second adds the useful
ones to the corpus, which the unit tests replay without atheris. `tiny_elf.py` makes files to start from.
"""

from __future__ import annotations

import sys

import atheris

with atheris.instrument_imports(include=["symbols"]):
    from elf_questions import check


def one_input(data: bytes) -> None:
    """What libFuzzer calls."""
    check(data)


if __name__ == "__main__":
    atheris.enabled_hooks.add("RegEx")
    atheris.Setup(sys.argv, one_input)
    atheris.Fuzz()
