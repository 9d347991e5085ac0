"""Processes that come, go, change their program and hand on their sockets."""

from __future__ import annotations

import http.client
import os
import signal
import socket
import sys
import time
from collections import Counter
from pathlib import Path

import pytest
from conversation import build
from harness import (
    SERVICES,
    Traced,
    drive,
    free_ports,
    listening,
    log_entries,
    running,
    shell,
    wait_for,
)
from kernel_state import entries


def _server(how: str, where: object, log: Path) -> str:
    return f"{sys.executable} {SERVICES}/handover.py {how} {where} {log}"


def test_children_are_watched_from_their_first_instruction(tmp_path: Path) -> None:
    (port,) = free_ports(1)
    program = build("spawn")
    rounds = 5
    backend = [sys.executable, str(SERVICES / "backend.py"), str(port), str(tmp_path / "log")]
    with running(backend, port):
        loop = f"for i in $(seq {rounds}); do {program} 127.0.0.1 {port}; done"
        with Traced(tmp_path / "agent", ["bash", "-c", loop]) as agent:
            agent.process.wait(60)
            result = agent.finish(0)
    result.check_ledger()
    assert Counter(entry["path"] for entry in log_entries(tmp_path / "log")) == Counter(
        s.path for s in result.spans
    )
    services = {(span.path, span.service, span.status) for span in result.spans}
    by_curl = {(f"/{path}", "curl", 200) for path in ("fork", "vfork", "posix_spawn", "exec")}
    assert services == by_curl | {("/thread", "spawn", 200), ("/no-exec", "spawn", 200)}
    assert len(result.spans) == 6 * rounds


@pytest.mark.parametrize("family", ["inet", "unix"])
@pytest.mark.parametrize("how", ["prefork", "fork", "pass", "dup"])
def test_a_span_is_of_the_process_that_answered(tmp_path: Path, how: str, family: str) -> None:
    (port,) = free_ports(1)
    where: object = port if family == "inet" else tmp_path / "socket"
    log = tmp_path / "log"
    paths = [f"/{how}/{i}" for i in range(60)]
    with Traced(tmp_path / "agent", shell(_server(how, where, log))) as agent:
        if family == "inet":
            wait_for(lambda: listening(port), "the server")
            drive(port, paths, 6)
        else:
            wait_for((tmp_path / "socket").exists, "the server")
            for path in paths:
                assert b"answer" in _ask_unix(str(where), path)
        result = agent.finish()
    result.check_ledger()
    served = Counter((entry["path"], entry["pid"]) for entry in log_entries(log))
    assert served == Counter((span.path, span.pid) for span in result.server("handover"))
    assert len(served) == len(result.spans) == len(paths)
    assert not [span for span in result.spans if span.error]


def _ask_unix(where: str, path: str) -> bytes:
    with socket.socket(socket.AF_UNIX) as connection:
        connection.connect(where)
        connection.sendall(f"GET {path} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
        return connection.recv(4096)


def _children(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def test_threads_that_end_together_leave_nothing(tmp_path: Path) -> None:
    """When one of them has seen that it is the last, others may still be on their way to their end."""
    (port,) = free_ports(1)
    log = tmp_path / "log"
    service = f"{sys.executable} {SERVICES}/backend.py {port} {log}"
    command = f"for i in 1 2 3 4 5 6 7 8; do {service}; done; exec sleep 60"
    with Traced(tmp_path / "agent", ["bash", "-c", command]) as agent:
        known: set[int] = set()
        for _ in range(8):
            wait_for(lambda: listening(port), "the server")
            connections = [http.client.HTTPConnection("127.0.0.1", port, timeout=30) for _ in range(60)]
            for connection in connections:
                connection.request("GET", "/id/1")
                connection.getresponse().read()
            (server,) = _children(_children(agent.process.pid)[0])
            threads = {path.name for path in Path(f"/proc/{server}/task").iterdir()}
            known |= {int(thread) for thread in threads}
            os.kill(server, signal.SIGKILL)
            for connection in connections:
                connection.close()
            wait_for(lambda server=server: not Path(f"/proc/{server}").exists(), "the server to end")
        left = {entry["key"] for entry in entries(agent.process.pid, "threads")}
        assert len(known) > 8 * 60
        assert not left & known
        agent.finish()


@pytest.mark.parametrize("family", ["inet", "unix"])
def test_a_process_that_dies_in_mid_request(tmp_path: Path, family: str) -> None:
    """Its span says so, and nothing of it stays in the kernel, also not if it never closed its sockets."""
    (port,) = free_ports(1)
    where = port if family == "inet" else tmp_path / "socket"
    log = tmp_path / "log"
    with Traced(tmp_path / "agent", shell(_server("fork", where, log))) as agent:
        if family == "inet":
            wait_for(lambda: listening(port), "the server")
            assert drive(port, ["/before"]) == [200]
            connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
            connection.request("GET", "/die")
            with pytest.raises((http.client.HTTPException, OSError)):
                connection.getresponse()
            connection.close()
        else:
            wait_for((tmp_path / "socket").exists, "the server")
            assert b"answer" in _ask_unix(str(where), "/before")
            assert _ask_unix(str(where), "/die") == b""
        pid = agent.process.pid
        wait_for(lambda: not entries(pid, "conns"), "the kernel side to forget the connections")
        # The shell, the server, and what the shell's wait may still hold.
        assert len(entries(pid, "watched")) == 2
        assert len(entries(pid, "threads")) <= 2
        result = agent.finish()
    result.check_ledger()
    (died,) = [span for span in result.spans if span.path == "/die"]
    assert (died.kind, died.error, died.attributes["error.type"]) == ("server", True, "process_exited")
    (before,) = [span for span in result.spans if span.path == "/before"]
    assert (before.status, before.error) == (200, False)
    assert [entry["path"] for entry in log_entries(log)] == ["/before"]


def test_connections_that_never_spoke_leave_nothing_behind(tmp_path: Path) -> None:
    """Unix sockets that a process leaves to its exit, or replaces by dup2, have no close() to be seen."""
    where = tmp_path / "socket"
    leave = (
        "import os, socket, sys\n"
        f"s = [socket.socket(socket.AF_UNIX) for _ in range(40)]\n[c.connect('{where}') for c in s]\n"
        "[c.send(b'no protocol') for c in s[::2]]\n"
        "null = os.open('/dev/null', os.O_RDONLY)\n[os.dup2(null, c.fileno()) for c in s[:10]]\nos._exit(0)"
    )
    script = tmp_path / "leave.py"
    script.write_text(leave)
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(where))
        server.listen(64)
        go = tmp_path / "go"
        command = (
            f"until [ -e {go} ]; do sleep 0.05; done; {sys.executable} {script}; touch {go}.done; sleep 30"
        )
        with Traced(tmp_path / "agent", shell(f"({command})")) as agent:
            time.sleep(0.5)
            go.touch()
            wait_for(Path(f"{go}.done").exists, "the connections")
            wait_for(lambda: not entries(agent.process.pid, "conns"), "the kernel side to forget them")
            result = agent.finish()
    result.check_ledger()
    assert result.spans == []
