"""The scripts of the set-up do not depend on how fast a pipe is read."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SCRIPTS = sorted([*(ROOT / "scripts").glob("*.sh"), ROOT / ".ci" / "run"])
CLOSES_EARLY = re.compile(r"\|\s*(grep -\w*q|head)\b")


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda script: script.name)
def test_no_pipe_is_closed_early(script: Path) -> None:
    """With `pipefail` the writer, which SIGPIPE ends, would make the pipe fail although grep has found its line: so
    wrk and bpftool were not installed where apt knew them."""
    text = script.read_text()
    assert "pipefail" not in text or not CLOSES_EARLY.search(text)
