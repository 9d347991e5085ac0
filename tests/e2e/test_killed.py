"""An agent that comes, goes or is killed at any moment: the watched server never notices."""

from __future__ import annotations

import random
import sys
import time
from pathlib import Path

from harness import SERVICES, Traced, free_ports, running
from steady_load import SteadyLoad


def test_killed_at_random_moments(tmp_path: Path) -> None:
    (port,) = free_ports(1)
    log = tmp_path / "log"
    moments = random.Random(4)
    with (
        running([sys.executable, str(SERVICES / "backend.py"), str(port), str(log), "4"], port) as server,
        SteadyLoad(port, log) as load,
    ):
        for number in range(12):
            # Some of these moments lie before the programs are loaded, some between two that are attached.
            with Traced(tmp_path / f"agent{number}", [], ("--pid", str(server.pid))) as agent:
                time.sleep(moments.uniform(0.05, 0.9))
                agent.process.kill()
                agent.process.wait()
        assert server.poll() is None
    load.check()
