"""What is not HTTP/1 makes no exchange, and costs no events: it is left alone after a first look."""

from __future__ import annotations

import re
import sys
from pathlib import Path

from harness import SERVICES, Traced, free_ports


def test_other_protocols_are_left_alone(tmp_path: Path) -> None:
    (port,) = free_ports(1)
    log = tmp_path / "log"
    command = [sys.executable, str(SERVICES / "talk.py"), str(port), str(log)]
    with Traced(tmp_path / "agent", command) as agent:
        assert agent.process.wait(60) == 0
        result = agent.finish(0)
    result.check_ledger()
    protocols = log.read_text().split()
    assert len(protocols) == 11
    assert result.spans == []
    sent = re.search(r"kernel: sent (\d+)", result.said)
    assert sent, result.said
    # Each connection's description, first bytes and end on both sides, and the processes.
    assert int(sent[1]) < 12 * len(protocols), result.said
