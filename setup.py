"""The modules that every exchange goes through, compiled by mypyc (https://mypyc.readthedocs.io) from the same
sources, which also run as they are. pyproject.toml says all the rest.

`python setup.py build_ext --inplace` puts them beside their sources, where Python prefers them. A wheel has
them there. AUTOTRACE_COMPILED=0 leaves everything to the interpreter.
"""

import os
from pathlib import Path

from setuptools import setup

GROUP = "autotrace.compiled"
"""The one library that all of them are in."""

PACKAGES = ("autotrace/correlate", "autotrace/model", "autotrace/protocols")
MODULES = (
    "autotrace/abi.py",
    "autotrace/authority.py",
    "autotrace/claims.py",
    "autotrace/discovery/table.py",
    "autotrace/kernel/decode.py",
    "autotrace/kernel/ring.py",
    "autotrace/ledger.py",
    "autotrace/metrics.py",
    "autotrace/pairing.py",
    "autotrace/pipeline.py",
    "autotrace/routes.py",
    "autotrace/rpc.py",
    "autotrace/spans.py",
    "autotrace/stream_pairing.py",
    "autotrace/streams/table.py",
)


def sources():
    within = (str(path) for package in PACKAGES for path in Path(package).glob("*.py"))
    return sorted({*MODULES, *within} - {f"{package}/__init__.py" for package in PACKAGES})


def extensions():
    if os.environ.get("AUTOTRACE_COMPILED", "1") == "0":
        return []
    from mypyc.build import mypycify

    return mypycify(sources(), group_name=GROUP, target_dir="build/compiled", debug_level="0")


setup(ext_modules=extensions())
