"""An agent that comes, goes or is killed at any moment: the watched server never notices."""

from __future__ import annotations

import json
import random
import subprocess
import sys
import threading
import time
from pathlib import Path

from harness import SERVICES, Traced, drive, free_ports, log_entries, running

SETTLED = 5
"""Attachments after which the agent's memory should not grow any more."""


class _Load:
    """Requests to the server that the agents watch, from outside their tree, until it is left."""

    def __init__(self, port: int, log: Path) -> None:
        self._port = port
        self._log = log
        self._stopping = threading.Event()
        self._failure: list[BaseException] = []
        self._sent: list[str] = []
        self._thread = threading.Thread(target=self._run)

    def __enter__(self) -> _Load:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopping.set()
        self._thread.join()

    def _run(self) -> None:
        try:
            while not self._stopping.is_set():
                paths = [f"/status/{code}/{len(self._sent) + code}" for code in (200, 201, 404, 503)]
                assert drive(self._port, paths, concurrency=4) == [200, 201, 404, 503]
                self._sent += paths
        except BaseException as failure:
            self._failure.append(failure)

    def check(self) -> None:
        """Every request was answered, and rightly."""
        assert not self._failure, self._failure
        assert len(self._sent) > 100
        assert len(log_entries(self._log)) == len(self._sent)


def test_killed_at_random_moments(tmp_path: Path) -> None:
    (port,) = free_ports(1)
    log = tmp_path / "log"
    moments = random.Random(4)
    with (
        running([sys.executable, str(SERVICES / "backend.py"), str(port), str(log), "4"], port) as server,
        _Load(port, log) as load,
    ):
        for number in range(12):
            # Some of these moments lie before the programs are loaded, some between two that are attached.
            with Traced(tmp_path / f"agent{number}", [], ("--pid", str(server.pid))) as agent:
                time.sleep(moments.uniform(0.05, 0.9))
                agent.process.kill()
                agent.process.wait()
        assert server.poll() is None
    load.check()


def test_attached_and_detached_many_times(tmp_path: Path) -> None:
    (port,) = free_ports(1)
    log = tmp_path / "log"
    with (
        running([sys.executable, str(SERVICES / "backend.py"), str(port), str(log), "4"], port) as server,
        _Load(port, log) as load,
    ):
        times = subprocess.run(
            [sys.executable, "-m", "tests.e2e.services.attach_many", str(server.pid), "20"],
            check=True,
            stdout=subprocess.PIPE,
            text=True,
        )
    load.check()
    books = [json.loads(line) for line in times.stdout.splitlines()]
    assert len(books) == 20
    for each in books:
        assert each["seen"] == each["emitted"] + sum(each["dropped"].values())
        assert set(each["dropped"]) <= {"in_flight_at_stop"}
        assert each["emitted"] > 0
    assert len({each["descriptors"] for each in books[1:]}) == 1, books
    assert books[-1]["resident"] - books[SETTLED]["resident"] < 2 << 20, books
