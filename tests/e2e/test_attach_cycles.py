"""An agent attaches and detaches again and again under load: nothing is left behind, no request fails."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from harness import SERVICES, free_ports, running
from steady_load import SteadyLoad

CYCLES = int(os.environ.get("AUTOTRACE_ATTACH_CYCLES", "10"))
SETTLED = 5
"""Attachments after which the agent's memory should not grow any more."""

KPROBES = Path("/sys/kernel/debug/kprobes/list")


def _kprobes() -> str:
    return KPROBES.read_text() if KPROBES.exists() else ""


@pytest.mark.timeout(60 + 30 * CYCLES)
def test_attached_and_detached_many_times(tmp_path: Path) -> None:
    (port,) = free_ports(1)
    log = tmp_path / "log"
    kprobes = _kprobes()
    with (
        running([sys.executable, str(SERVICES / "backend.py"), str(port), str(log), "4"], port) as server,
        SteadyLoad(port, log) as load,
    ):
        times = subprocess.run(
            [sys.executable, "-m", "tests.e2e.services.attach_many", str(server.pid), str(CYCLES)],
            check=True,
            stdout=subprocess.PIPE,
            text=True,
        )
    load.check()
    books = [json.loads(line) for line in times.stdout.splitlines()]
    assert len(books) == CYCLES
    wanted = os.environ.get("AUTOTRACE_HOOKS", "auto")
    assert {each["hooks"] for each in books} == {wanted if wanted != "auto" else books[0]["hooks"]}
    for each in books:
        assert each["seen"] == each["emitted"] + sum(each["dropped"].values())
        assert set(each["dropped"]) <= {"in_flight_at_stop"}
        assert each["emitted"] > 0
        assert each["bpf_objects"] == 0, each
    assert len({each["descriptors"] for each in books[1:]}) == 1, books
    assert books[-1]["resident"] - books[SETTLED]["resident"] < 2 << 20, books
    assert _kprobes() == kprobes
