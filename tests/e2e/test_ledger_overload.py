"""The ring is far too small: what is lost is counted to the last request, and nothing is paired wrongly."""

from __future__ import annotations

import itertools
import os
import shutil
import signal
import subprocess
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import pytest
from harness import Result, Traced, drive, free_ports, listening, log_entries, nginx_config, shell, wait_for

STATUSES = (200, 404, 503)
WRK_SCRIPT = """
local statuses, number = {200, 404, 503}, 0
request = function()
  number = number + 1
  local path = "/status/" .. statuses[number % 3 + 1] .. "/" .. number .. "x" .. math.random(1000000000)
  return wrk.format("GET", path)
end
"""


def _answering_nginx(directory: Path, port: int) -> list[str]:
    locations = "".join(f"location /status/{code}/ {{ return {code} 'x'; }}" for code in STATUSES)
    return shell(f"nginx -c {nginx_config(directory, port, locations)}")


def _paths(count: int, name: str) -> list[str]:
    return [f"/status/{STATUSES[i % 3]}/{name}{i}" for i in range(count)]


def _check_against_the_log(result: Result, log: Path) -> None:
    result.check_ledger()
    served = log_entries(log)
    assert result.ledger["seen"] == len(served)
    spans = result.server("nginx")
    assert len(spans) == len(result.spans)
    truth = {entry["path"]: entry["status"] for entry in served}
    assert len(truth) == len(served)
    assert len({span.path for span in spans}) == len(spans), "a request was reported twice"
    wrong = [s for s in spans if s.status not in (0, truth[s.path])]
    assert not wrong, f"{len(wrong)} spans with another request's status, such as {wrong[0]}"


def _check_loss(result: Result) -> None:
    assert set(result.dropped) == {"ring_full"}
    assert result.dropped["ring_full"] > 0
    assert "lost_request" in result.said


def _drive_gently(port: int, paths: list[str]) -> None:
    """Requests that the smallest ring has room for, however slow this machine is just now."""
    for path in paths:
        drive(port, [path], concurrency=1)
        time.sleep(0.02)


@contextmanager
def _load(port: int) -> Iterator[None]:
    """Requests without a pause on connections that come and go, until the end of the block."""
    enough = threading.Event()

    def drive_on() -> None:
        for batch in itertools.count():
            drive(port, _paths(320, f"during{batch}x"), 16)
            if enough.is_set():
                return

    with ThreadPoolExecutor(1) as pool:
        running = pool.submit(drive_on)
        try:
            yield
        finally:
            enough.set()
        running.result()


def _wait_for_more(file: Path, lines: int) -> None:
    end = file.read_bytes().count(b"\n") + lines
    wait_for(lambda: file.read_bytes().count(b"\n") >= end, f"{lines} more requests")


def _wait_until_accounted(agent: Traced, log: Path) -> None:
    """Until the agent's books have every request of the log: then it is done with what was in the ring."""

    def accounted() -> bool:
        books = agent.status().get("ledger", {}).get("exchanges", {})
        return bool(books) and books["seen"] == len(log_entries(log))

    # Where the machine is so busy that rings overflow, the agent is long in answering.
    wait_for(accounted, "every request to be accounted for", 300)


@pytest.mark.core
def test_an_agent_that_cannot_run_for_a_while(tmp_path: Path) -> None:
    (port,) = free_ports(1)
    before, after = _paths(40, "before"), _paths(40, "after")
    log = tmp_path / "nginx" / "access.log"
    with Traced(
        tmp_path / "agent", _answering_nginx(tmp_path / "nginx", port), ("--ring-size", "64KiB")
    ) as agent:
        wait_for(lambda: listening(port), "nginx")
        _drive_gently(port, before)
        with _load(port):
            for _ in range(3):
                os.kill(agent.process.pid, signal.SIGSTOP)
                _wait_for_more(log, 400)
                os.kill(agent.process.pid, signal.SIGCONT)
                _wait_for_more(log, 200)
        _wait_until_accounted(agent, log)
        _drive_gently(port, after)
        result = agent.finish()
    _check_against_the_log(result, log)
    _check_loss(result)
    by_path = {span.path: span for span in result.spans}
    assert len(by_path) < len(log_entries(log))
    for path in before + after:
        assert by_path[path].status == int(path.split("/")[2]), path


@pytest.mark.skipif(not shutil.which("wrk"), reason="wrk is not installed")
def test_more_requests_than_the_agent_can_take(tmp_path: Path) -> None:
    (port,) = free_ports(1)
    script = tmp_path / "paths.lua"
    script.write_text(WRK_SCRIPT)
    with Traced(
        tmp_path / "agent", _answering_nginx(tmp_path / "nginx", port), ("--ring-size", "64KiB")
    ) as agent:
        wait_for(lambda: listening(port), "nginx")
        subprocess.run(
            ["wrk", "-t1", "-c32", "-d3s", "-s", str(script), f"http://127.0.0.1:{port}"],
            check=True,
            capture_output=True,
        )
        time.sleep(0.5)
        _drive_gently(port, _paths(40, "after"))
        result = agent.finish(quiet=2)
    _check_against_the_log(result, tmp_path / "nginx" / "access.log")
    _check_loss(result)
    after = [span for span in result.spans if "/after" in span.path]
    assert len(after) == 40
    assert all(span.status == int(span.path.split("/")[2]) for span in after)
