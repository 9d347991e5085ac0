"""A recording that was cut short or damaged: one clear sentence, or as much as is there."""

from __future__ import annotations

import random
import subprocess
import sys
from pathlib import Path

import pytest
from golden import NAMES, RECORDINGS, replayed
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from autotrace.errors import AutotraceError
from autotrace.recording import MAGIC


def _check(path: Path) -> None:
    """A replay ends by itself, or with a sentence for the user."""
    try:
        made = replayed(path)
    except AutotraceError as error:
        sentence = str(error)
    else:
        sentence = ""
        books = made["exchanges"]
        assert books["seen"] == books["emitted"] + sum(books["dropped"].values())
        assert books["in_flight"] == 0
    assert not sentence or (str(path) in sentence and "\n" not in sentence)


@pytest.mark.parametrize("name", NAMES)
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_cut_at_any_byte(tmp_path: Path, name: str, data: st.DataObject) -> None:
    whole = (RECORDINGS / f"{name}.bin").read_bytes()
    path = tmp_path / "cut.bin"
    path.write_bytes(whole[: data.draw(st.integers(0, len(whole)))])
    _check(path)


@pytest.mark.parametrize("name", NAMES)
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(seed=st.integers(0, 1 << 32), changes=st.integers(1, 40))
@example(seed=362, changes=4)  # a path with U+0085
def test_bytes_changed_anywhere(tmp_path: Path, name: str, seed: int, changes: int) -> None:
    damaged = bytearray((RECORDINGS / f"{name}.bin").read_bytes())
    source = random.Random(seed)
    for _ in range(changes):
        damaged[source.randrange(len(damaged))] = source.randrange(256)
    path = tmp_path / "damaged.bin"
    path.write_bytes(damaged)
    _check(path)


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (b"", "is not a recording"),
        (b"GIF89a and more", "is not a recording"),
        (MAGIC, "is empty"),
        (MAGIC + b"\x02\x05\x00\x00\x00hello", "has no valid first entry"),
        (MAGIC + b"\x01\x02\x00\x00\x00[]", "has no valid first entry"),
    ],
)
def test_the_command_says_so_in_one_sentence(tmp_path: Path, content: bytes, sentence: str) -> None:
    path = tmp_path / "events.bin"
    path.write_bytes(content)
    command = [sys.executable, "-m", "autotrace.cli", "replay", str(path), "--console", "off"]
    ended = subprocess.run(command, capture_output=True, text=True)
    assert ended.returncode == 1
    (line,) = ended.stderr.splitlines()
    assert line.startswith("Error: ")
    assert sentence in line
