"""Where CPython keeps what a thread is working on: held against interpreters that run."""

from __future__ import annotations

import ctypes
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from autotrace.discovery import cpython

READ = """
import contextvars, ctypes, struct, sys, threading
get = ctypes.pythonapi.PyThreadState_Get
get.restype = ctypes.c_void_p
state = get()
thread_id, at = int(sys.argv[1]), int(sys.argv[2])
def word(offset):
    return struct.unpack("<Q", ctypes.string_at(state + offset, 8))[0]
context = contextvars.Context()
before = word(at + 8)
inside, count = context.run(lambda: (word(at), word(at + 8)))
assert word(thread_id) == threading.get_ident()
assert inside == id(context)
assert (count, word(at + 8)) == (before + 1, before + 2)
"""


def interpreters() -> list[str]:
    versions = [f"python3.{minor}" for minor in range(7, 15)]
    found = {str(Path(path).resolve()) for name in versions if (path := shutil.which(name, path="/usr/bin"))}
    pyenv = Path.home() / ".pyenv/versions"
    found |= {str(path.resolve()) for path in pyenv.glob("3.*/bin/python3.*") if path.name[8:].isdigit()}
    return sorted(path for path in found if cpython.offsets(path))


@pytest.mark.skipif(ctypes.sizeof(ctypes.c_void_p) != 8, reason="the offsets are those of 64 bits")
@pytest.mark.parametrize("interpreter", interpreters())
def test_the_offsets_of_an_interpreter_that_is_here(interpreter: str) -> None:
    offsets = cpython.offsets(interpreter)
    assert offsets is not None
    subprocess.run([interpreter, "-c", READ, *map(str, offsets)], check=True, timeout=60)


def test_the_interpreter_of_these_tests_is_known_or_newer() -> None:
    name = f"/usr/bin/python{sys.version_info.major}.{sys.version_info.minor}"
    assert cpython.offsets(name) is not None or sys.version_info > (3, 13)


@pytest.mark.parametrize(
    "name", ["", "/usr/bin/python3", "/usr/bin/python3.99", "/usr/sbin/uwsgi", "python3.11d"]
)
def test_other_names_tell_nothing(name: str) -> None:
    assert cpython.offsets(name) is None
