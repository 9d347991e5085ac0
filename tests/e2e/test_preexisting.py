"""Connections that are older than the agent: the next whole exchange is right, and nothing before it is made up."""

from __future__ import annotations

import http.client
import socket
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import BinaryIO

import pytest
from harness import SERVICES, Result, Traced, free_ports, running, wait_for
from kernel_state import bpf_descriptors, loaded

READERS = 5
"""The ways of services/readers.py to receive."""

RECEIVING_CALLS = 5
"""The system calls that receive."""

PERF_EVENT = "anon_inode:[perf_event]"
"""What is open for each tracepoint of a system call."""


@pytest.fixture
def server() -> Iterator[tuple[int, int]]:
    """The port and the pid of a server that runs before the agent does."""
    (port,) = free_ports(1)
    with running([sys.executable, str(SERVICES / "raw_server.py"), str(port)], port) as process:
        yield port, process.pid


@contextmanager
def _attach(directory: Path, pid: int) -> Iterator[Traced]:
    with Traced(directory / "agent", [], ("--pid", str(pid))) as agent:
        wait_for(lambda: loaded(agent.process.pid), "the agent to watch the server", 300)
        yield agent


def _connect(port: int) -> http.client.HTTPConnection:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
    connection.connect()
    return connection


def _get(connection: http.client.HTTPConnection, path: str) -> None:
    connection.request("GET", path)
    response = connection.getresponse()
    response.read()
    assert response.status == 200


def _answer(stream: BinaryIO, size: int) -> None:
    assert stream.readline().startswith(b"HTTP/1.1 200")
    while stream.readline() != b"\r\n":
        pass
    stream.read(size)


def _only(result: Result, *paths: str) -> None:
    result.check_ledger()
    assert [span.path for span in result.spans] == list(paths), result.said
    for span in result.spans:
        assert (span.kind, span.status, span.error) == ("server", 200, False), span
        assert span.link == "none"


def test_a_kept_connection_in_use(tmp_path: Path, server: tuple[int, int]) -> None:
    port, pid = server
    connection = _connect(port)
    _get(connection, "/before")
    with _attach(tmp_path, pid) as agent:
        for i in range(3):
            _get(connection, f"/after/{i}")
        connection.close()
        result = agent.finish()
    _only(result, "/after/0", "/after/1", "/after/2")


def _all_wait(pid: int, threads: int) -> bool:
    tasks = list(Path(f"/proc/{pid}/task").iterdir())
    return len(tasks) == threads and all(
        (task / "stat").read_text().rpartition(")")[2].split()[0] == "S" for task in tasks
    )


@pytest.mark.core
def test_receives_that_are_in_progress(tmp_path: Path) -> None:
    """A thread waits in each of the receiving calls when the agent attaches, and for longer than the agent's first
    round; what is there for them alone goes with the last of them."""
    (port,) = free_ports(1)
    addresses = ((socket.AF_INET, ("127.0.0.1", port)), (socket.AF_UNIX, str(tmp_path / "socket")))
    command = [sys.executable, str(SERVICES / "readers.py"), str(port), str(tmp_path / "socket")]
    with ExitStack() as open_now:
        server = open_now.enter_context(running(command))
        connections = []
        for family, address in addresses:
            for _ in range(READERS):
                connections.append(open_now.enter_context(socket.socket(family)))
                wait_for(lambda to=address: connections[-1].connect_ex(to) == 0, "the server")
        paths = [f"/{turn}/{number}" for turn in range(2) for number in range(len(connections))]
        wait_for(lambda: _all_wait(server.pid, 1 + len(connections)), "all threads to wait")
        with _attach(tmp_path, server.pid) as agent:
            wait_for(lambda: server.pid in agent.watched(), "the agent's first round", 300)
            held = bpf_descriptors(agent.process.pid)[PERF_EVENT]
            for path in paths:
                connection = connections[int(path.rpartition("/")[2])]
                connection.sendall(f"GET {path} HTTP/1.1\r\nHost: readers\r\n\r\n".encode())
                assert connection.recv(4096).endswith(b"ok")
            if "attached by tracepoint" not in agent.said():
                wait_for(
                    lambda: bpf_descriptors(agent.process.pid)[PERF_EVENT] == held - RECEIVING_CALLS,
                    "the end of what is there for late calls",
                )
            result = agent.finish()
    result.check_ledger()
    assert sorted(span.path for span in result.spans) == sorted(paths), result.said
    assert {(span.kind, span.status, span.error) for span in result.spans} == {("server", 200, False)}
    assert not result.dropped, result.said


def test_a_connection_that_was_never_used(tmp_path: Path, server: tuple[int, int]) -> None:
    port, pid = server
    connection = _connect(port)
    with _attach(tmp_path, pid) as agent:
        _get(connection, "/first")
        connection.close()
        result = agent.finish()
    _only(result, "/first")


@pytest.mark.parametrize("kind", ["piece", "letters", "chunked"])
@pytest.mark.parametrize("size", [3_000, 300_000])
def test_in_the_middle_of_a_response(tmp_path: Path, server: tuple[int, int], kind: str, size: int) -> None:
    port, pid = server
    connection = _connect(port)
    connection.request("GET", f"/{kind}/{size}/150/before")
    response = connection.getresponse()
    response.read(size // 10)
    with _attach(tmp_path, pid) as agent:
        response.read()
        for i in range(2):
            _get(connection, f"/after/{i}")
        connection.close()
        result = agent.finish()
    _only(result, "/after/0", "/after/1")


@pytest.mark.parametrize("filler", [b"x", b"POST"])
def test_in_the_middle_of_a_request(tmp_path: Path, server: tuple[int, int], filler: bytes) -> None:
    """The request's head was sent before; its body goes on."""
    port, pid = server
    connection = _connect(port)
    body = filler * 2000
    connection.putrequest("POST", "/before")
    connection.putheader("Content-Length", str(2 * len(body)))
    connection.endheaders(body)
    time.sleep(0.1)
    with _attach(tmp_path, pid) as agent:
        connection.send(body)
        assert connection.getresponse().read() == b"ok"
        for i in range(2):
            _get(connection, f"/after/{i}")
        connection.close()
        result = agent.finish()
    _only(result, "/after/0", "/after/1")


def test_in_the_middle_of_pipelined_requests(tmp_path: Path, server: tuple[int, int]) -> None:
    """How many answers are still to come is not known: what cannot be told apart is dropped, and counted."""
    port, pid = server
    with socket.create_connection(("127.0.0.1", port)) as connection, connection.makefile("rb") as stream:
        for i in range(3):
            connection.sendall(f"GET /piece/30/100/before{i} HTTP/1.1\r\n\r\n".encode())
        time.sleep(0.2)
        with _attach(tmp_path, pid) as agent:
            # Two or three of the answers above are still to come.
            for i in range(3):
                connection.sendall(f"GET /between/{i} HTTP/1.1\r\n\r\n".encode())
            for size in (30, 30, 30, 2, 2, 2):
                _answer(stream, size)
            for i in range(2):
                connection.sendall(f"GET /after/{i} HTTP/1.1\r\n\r\n".encode())
                _answer(stream, 2)
            result = agent.finish()
    result.check_ledger()
    answered = [span for span in result.spans if span.status]
    assert {span.attributes["http.response.body.size"] for span in answered} <= {2}, answered
    assert not [span for span in result.spans if "before" in span.path]
    assert set(result.dropped) <= {"pipelined_answers_unknown"}, result.said
