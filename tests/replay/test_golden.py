"""Recordings of real runs give the spans that stand in their golden files, to the last id and nanosecond."""

from __future__ import annotations

import json

import pytest
from golden import NAMES, RECORDINGS, golden_text

from autotrace import abi
from autotrace.recording import read


@pytest.mark.parametrize("name", NAMES)
def test_the_spans_are_the_golden_ones(name: str) -> None:
    made_with = next(read(RECORDINGS / f"{name}.bin")).json()["abi"]
    assert made_with == abi.DIGEST, "the ABI has changed: run tests/replay/make_recordings.py as root"
    golden = (RECORDINGS / f"{name}.json").read_text()
    assert json.loads(golden_text(name)) == json.loads(golden)


@pytest.mark.parametrize("name", NAMES)
def test_a_replay_gives_the_same_each_time(name: str) -> None:
    assert golden_text(name) == golden_text(name)
