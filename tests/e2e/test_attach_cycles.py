"""Hooks are set and taken away again and again under load: nothing is left behind, no request fails."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from harness import SERVICES, free_ports, running, wait_for
from kernel_state import bpf_descriptors, flavour_in_use
from steady_load import SteadyLoad

from autotrace import abi
from autotrace.kernel.object import Object
from autotrace.kernel.source import spec
from autotrace.model import NOT_GO

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


@pytest.mark.timeout(120 + 30 * CYCLES)
def test_hooks_of_programs_that_are_loaded_once(tmp_path: Path) -> None:
    """As above without the agent, whose start takes a guest ten seconds."""
    (port,) = free_ports(1)
    log = tmp_path / "log"
    me = os.getpid()
    with (
        running([sys.executable, str(SERVICES / "backend.py"), str(port), str(log), "4"], port) as server,
        Object(spec(flavour_in_use())) as programs,
        SteadyLoad(port, log) as load,
    ):
        ring = programs.open_ring()
        slot = server.pid % programs.max_entries("maybe_watched")
        programs.update("maybe_watched", slot.to_bytes(4, sys.byteorder), b"\1")
        programs.update("watched", server.pid.to_bytes(4, sys.byteorder), abi.WATCHED.pack(0, *NOT_GO, 0, 0))
        descriptors, kprobes = bpf_descriptors(me), _kprobes()
        for _ in range(CYCLES):
            programs.attach()
            wait_for(ring.take, "something of the load")
            programs.detach()
            assert bpf_descriptors(me) == descriptors
            assert _kprobes() == kprobes
            ring.take()
            answered = load.answered
            wait_for(lambda before=answered: load.answered > before + 4, "more of the load")
            assert not ring.unread()
    load.check()
