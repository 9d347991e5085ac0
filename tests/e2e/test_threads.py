"""Fronts that call two services for each request, in a thread each or on an event loop: no false parent."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import pytest
from harness import SERVICES, SpanRecord, Traced, drive, free_ports, listening, log_entries, shell, wait_for

REQUESTS = {1: 60, 8: 240, 32: 480}


def _calls(tmp_path: Path, front: str, concurrency: int) -> tuple[list[SpanRecord], dict[str, SpanRecord]]:
    """Drive a front that calls two backends; its client spans, and all spans by id.

    The services' own logs vouch for every span, and each backend's spans must hang below the very calls.
    """
    port, first, second = free_ports(3)
    command = shell(
        f"{front} {port} {tmp_path}/front.log",
        f"{sys.executable} {SERVICES}/backend.py {first} {tmp_path}/first.log 8",
        f"{sys.executable} {SERVICES}/backend.py {second} {tmp_path}/second.log 8",
    )
    paths = [f"/to/{first},{second}/id/{i}" for i in range(REQUESTS[concurrency])]
    with Traced(tmp_path / "agent", command) as agent:
        wait_for(lambda: all(map(listening, (port, first, second))), "the services")
        assert set(drive(port, paths, concurrency)) == {200}
        result = agent.finish()
    result.check_ledger()
    by_id = {span.span_id: span for span in result.spans}
    sent = result.client()
    truth = sorted((entry["port"], entry["path"]) for entry in log_entries(tmp_path / "front.log"))
    assert sorted((s.attributes["server.port"], s.path) for s in sent) == truth
    assert len(truth) == 2 * len(paths)
    served = result.server("backend")
    assert len(served) == len(truth)
    assert all(s.link == "wire" and by_id[s.parent_id].path == s.path for s in served)
    return sent, by_id


def _found(sent: list[SpanRecord], by_id: dict[str, SpanRecord]) -> int:
    """How many calls have a parent. A false one fails the test."""
    linked = [s for s in sent if s.parent_id]
    false = [s for s in linked if by_id[s.parent_id].path.split("/")[-1] != s.path.split("/")[-1]]
    assert not false, f"{len(false)} false parents of {len(sent)}, such as {false[0]}"
    return len(linked)


@pytest.mark.parametrize("concurrency", [1, 8, 32])
def test_a_thread_for_each_connection(tmp_path: Path, concurrency: int) -> None:
    sent, by_id = _calls(tmp_path, f"{sys.executable} {SERVICES}/front_threads.py", concurrency)
    assert _found(sent, by_id) == len(sent)
    assert {s.link for s in sent} == {"thread"}


@pytest.mark.parametrize("concurrency", [1, 8])
def test_asyncio(tmp_path: Path, concurrency: int) -> None:
    found = _found(*_calls(tmp_path, f"{sys.executable} {SERVICES}/front_asyncio.py", concurrency))
    if concurrency == 1:
        assert found == 2 * REQUESTS[1]


@pytest.mark.skipif(not shutil.which("node"), reason="node is not installed")
@pytest.mark.parametrize("concurrency", [1, 8, 32])
def test_node(tmp_path: Path, concurrency: int) -> None:
    found = _found(*_calls(tmp_path, f"node {SERVICES}/front_node.js", concurrency))
    if concurrency == 1:
        assert found == 2 * REQUESTS[1]
