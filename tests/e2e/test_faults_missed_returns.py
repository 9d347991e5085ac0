"""Hundreds of threads wait in socket calls: more than a kretprobe has instances for. No exchange may be lost."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest
from harness import SERVICES, Traced, free_ports, listening, log_entries, shell, wait_for
from kernel_state import loaded

THREADS = 150
"""The kernel gives a kretprobe 10 instances, or two for each CPU if that is more (register_kretprobe)."""


@pytest.mark.parametrize("unix", [False, True], ids=["tcp", "unix"])
def test_more_waiting_threads_than_a_kretprobe_has_instances(tmp_path: Path, unix: bool) -> None:
    address = str(tmp_path / "socket") if unix else str(free_ports(1)[0])
    go, done = tmp_path / "go", tmp_path / "done"
    blocked = f"{sys.executable} {SERVICES}/blocked.py"
    with Traced(
        tmp_path / "agent",
        shell(
            f"{blocked} serve {address} {tmp_path}/server.log",
            f"(until test -e {go}; do sleep 0.05; done; "
            f"{blocked} ask {address} {tmp_path}/client.log {THREADS}; echo $? > {done})",
        ),
    ) as agent:
        wait_for(lambda: loaded(agent.process.pid), "the programs to be loaded", 300)
        wait_for(lambda: Path(address).exists() if unix else listening(int(address)), "the server")
        go.touch()
        wait_for(done.exists, "the end of the conversations", 300)
        result = agent.finish(1)
    assert done.read_text() == "0\n"
    logs = [
        sorted(entry["path"] for entry in log_entries(tmp_path / f"{who}.log"))
        for who in ("client", "server")
    ]
    assert logs[0] == logs[1]
    assert len(logs[0]) == 3 * THREADS
    result.check_ledger()
    assert not result.dropped, result.said
    by_id = {span.span_id: span for span in result.spans}
    for spans in (result.server("blocked"), result.client("blocked")):
        assert sorted(span.path for span in spans) == logs[0], (len(spans), result.said)
        for span in spans:
            assert (span.status, span.error) == (200, False), span
            assert span.attributes["http.response.body.size"] == int(span.path.split("/")[2]), span
    for span in result.server("blocked"):
        assert (span.link, by_id[span.parent_id].path) == ("wire", span.path), span
    missed = re.search(r"missed_returns (\d+)", result.said)
    if "attached by kprobe" in result.said:
        assert missed, result.said
        assert int(missed[1]) >= THREADS, result.said
    else:
        assert not missed, result.said
