"""Connections that are older than the agent: the next whole exchange is right, and nothing before it is made up."""

from __future__ import annotations

import http.client
import socket
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

import pytest
from harness import SERVICES, Result, Traced, free_ports, running, wait_for
from kernel_state import loaded


@pytest.fixture
def server() -> Iterator[tuple[int, int]]:
    """The port and the pid of a server that runs before the agent does."""
    (port,) = free_ports(1)
    with running([sys.executable, str(SERVICES / "raw_server.py"), str(port)], port) as process:
        yield port, process.pid


@contextmanager
def _attach(directory: Path, pid: int) -> Iterator[Traced]:
    with Traced(directory / "agent", [], ("--pid", str(pid))) as agent:
        wait_for(lambda: loaded(agent.process.pid), "the agent to watch the server")
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
    """Not in the core set: fentry and kprobes miss the receive that the server is in when they attach."""
    port, pid = server
    connection = _connect(port)
    _get(connection, "/before")
    with _attach(tmp_path, pid) as agent:
        for i in range(3):
            _get(connection, f"/after/{i}")
        connection.close()
        result = agent.finish()
    _only(result, "/after/0", "/after/1", "/after/2")


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
