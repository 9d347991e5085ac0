"""The books balance under every flavour: what the services logged = what was emitted + what was dropped."""

from __future__ import annotations

import os
import signal
import sys
import time
from pathlib import Path

from harness import (
    SERVICES,
    Result,
    Traced,
    drive,
    free_ports,
    listening,
    log_entries,
    nginx_config,
    shell,
    wait_for,
)
from kernel_state import loaded

QUIET = 0.02
"""Seconds between requests for which the smallest ring must have room."""


def _check_books(result: Result, exchanges: int) -> None:
    """Every stage: the exchanges of the logs, the ledger's, the exporter's, the file's."""
    result.check_ledger()
    assert result.ledger["seen"] == exchanges, result.said
    exported = result.exported("json")
    assert exported["accepted"] == result.ledger["emitted"]
    assert exported == {"accepted": len(result.spans), "sent": len(result.spans)}


def test_mixed_traffic(tmp_path: Path) -> None:
    """nginx over TCP and a Unix socket to a backend, bodies of all kinds, errors, connections that are closed."""
    front, back = free_ports(2)
    log, socket = tmp_path / "back.log", tmp_path / "middle.sock"
    middle = nginx_config(tmp_path / "middle", front, f"location / {{ proxy_pass http://127.0.0.1:{back}; }}")
    middle.write_text(middle.read_text().replace(f"127.0.0.1:{front} backlog=511", f"unix:{socket}"))
    outer = nginx_config(
        tmp_path / "outer",
        front,
        f"location /own/ {{ return 200 'own'; }} location / {{ proxy_pass http://unix:{socket}; }}",
    )
    backend = f"{sys.executable} {SERVICES}/backend.py {back} {log}"
    with Traced(tmp_path / "agent", shell(backend, f"nginx -c {middle}", f"nginx -c {outer}")) as agent:
        wait_for(lambda: listening(front) and listening(back) and socket.exists(), "the services")
        wait_for(lambda: loaded(agent.process.pid), "the programs to be loaded", 300)
        kinds = ("own", "size/0", "size/70000", "chunked/3000", "status/404", "status/503", "status/204")
        paths = [f"/{kind}/{i}" for i in range(20) for kind in kinds]
        drive(front, paths, 4)
        drive(front, [f"/size/10/closed/{i}" for i in range(20)], 2, keep_alive=False)
        drive(back, [f"/chunked/9000/direct/{i}" for i in range(20)], 2)
        result = agent.finish(1)
    served = [log_entries(tmp_path / name / "access.log") for name in ("outer", "middle")]
    assert len(served[0]) == len(paths) + 20
    # What the middle logs was sent by the outer one, and is sent on; the backend logs its own end.
    _check_books(result, len(served[0]) + 3 * len(served[1]) + len(log_entries(log)))
    assert not result.dropped, result.said


def test_overload(tmp_path: Path) -> None:
    """The agent stands still until its ring is full several times over."""
    (port,) = free_ports(1)
    log = tmp_path / "log"
    paths = {
        name: [f"/id/{name}/{i}" for i in range(n)]
        for name, n in (("before", 10), ("during", 600), ("after", 10))
    }
    with Traced(
        tmp_path / "agent",
        [sys.executable, str(SERVICES / "backend.py"), str(port), str(log)],
        ("--ring-size", "64KiB"),
    ) as agent:
        wait_for(lambda: loaded(agent.process.pid), "the programs to be loaded", 300)
        wait_for(lambda: listening(port), "the backend")
        _drive_gently(port, paths["before"])
        time.sleep(0.5)
        os.kill(agent.process.pid, signal.SIGSTOP)
        try:
            drive(port, paths["during"], 4)
        finally:
            os.kill(agent.process.pid, signal.SIGCONT)
        time.sleep(1)
        _drive_gently(port, paths["after"])
        result = agent.finish(1)
    served = log_entries(log)
    assert len(served) == 620
    _check_books(result, len(served))
    assert set(result.dropped) == {"ring_full"}
    assert result.dropped["ring_full"] > 200
    found = [span.path for span in result.spans]
    assert len(set(found)) == len(found), "a request was reported twice"
    assert set(paths["before"] + paths["after"]) <= set(found)
    assert set(found) <= {entry["path"] for entry in served}


def _drive_gently(port: int, paths: list[str]) -> None:
    for path in paths:
        drive(port, [path])
        time.sleep(QUIET)
