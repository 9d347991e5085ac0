"""The example of the README does what it says."""

import doctest
from pathlib import Path

import pytest

README = Path(__file__).parents[3] / "symbols" / "README.md"


def test_the_example() -> None:
    if "/libc.so.6" not in Path("/proc/self/maps").read_text():
        pytest.skip("the example looks into the GNU C library")
    failed, tried = doctest.testfile(str(README), module_relative=False)
    assert tried >= 4
    assert failed == 0
