"""Calls that fail give spans with the reason, below the incoming request that caused them."""

from __future__ import annotations

import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from harness import (
    SERVICES,
    Result,
    SpanRecord,
    Traced,
    drive,
    free_ports,
    listening,
    log_entries,
    shell,
    wait_for,
)


@contextmanager
def _full_listener() -> Iterator[int]:
    """A port whose accept queue is full: the kernel drops every further SYN."""
    listener = socket.socket()
    waiting = []
    try:
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        port = listener.getsockname()[1]
        for _ in range(4):
            client = socket.socket()
            client.setblocking(False)
            client.connect_ex(("127.0.0.1", port))
            waiting.append(client)
        yield port
    finally:
        for each in [*waiting, listener]:
            each.close()


def _front_and_faulty(tmp_path: Path, front: int, faulty: int) -> list[str]:
    return shell(
        f"{sys.executable} {SERVICES}/front_threads.py {front} {tmp_path}/front.log",
        f"{sys.executable} {SERVICES}/faulty.py {faulty}",
    )


def _count(file: Path, text: str) -> int:
    return file.read_text().count(text) if file.exists() else 0


def _calls(result: Result, front_path: str) -> list[SpanRecord]:
    """The calls below the request for `front_path`, each of which must be linked by its thread."""
    (incoming,) = [s for s in result.server("front_threads") if s.path == front_path]
    calls = [s for s in result.client("front_threads") if s.parent_id == incoming.span_id]
    assert all(s.link == "thread" for s in calls)
    assert all(incoming.start <= s.start <= s.end <= incoming.end for s in calls)
    return calls


@pytest.mark.parametrize(
    ("path", "seen_by_front", "client_error", "server_error"),
    [
        ("/reset/1", "IncompleteRead", "ECONNRESET", "incomplete_response"),
        ("/truncated/2", "IncompleteRead", "incomplete_response", "incomplete_response"),
        ("/silent/3", "RemoteDisconnected", "no_response", "no_response"),
    ],
)
def test_a_server_that_does_not_answer_rightly(
    tmp_path: Path, path: str, seen_by_front: str, client_error: str, server_error: str
) -> None:
    front, faulty = free_ports(2)
    with Traced(tmp_path / "agent", _front_and_faulty(tmp_path, front, faulty)) as agent:
        wait_for(lambda: listening(front) and listening(faulty), "the services")
        assert drive(front, [f"/to/{faulty}{path}"]) == [502]
        result = agent.finish()
    result.check_ledger()
    (truth,) = log_entries(tmp_path / "front.log")
    assert truth["result"] in (seen_by_front, "ConnectionResetError")
    (call,) = _calls(result, f"/to/{faulty}{path}")
    (served,) = result.server("faulty")
    assert call.path == served.path == path
    assert served.parent_id == call.span_id
    assert call.error
    assert call.attributes["error.type"] == client_error
    assert served.error
    assert served.attributes["error.type"] == server_error


def test_a_connection_that_is_refused(tmp_path: Path) -> None:
    front, faulty, nobody = free_ports(3)
    with Traced(tmp_path / "agent", _front_and_faulty(tmp_path, front, faulty)) as agent:
        wait_for(lambda: listening(front), "the front")
        assert drive(front, [f"/to/{nobody}/any/{i}" for i in range(5)]) == [502] * 5
        result = agent.finish()
    result.check_ledger()
    assert {entry["result"] for entry in log_entries(tmp_path / "front.log")} == {"ConnectionRefusedError"}
    for i in range(5):
        (call,) = _calls(result, f"/to/{nobody}/any/{i}")
        assert call.error
        assert call.attributes["error.type"] == "ECONNREFUSED"
        assert call.attributes["server.port"] == nobody
        assert (
            "http.request.method" not in call.attributes or call.attributes["http.request.method"] == "_OTHER"
        )
    assert len(result.client()) == 5


@pytest.mark.parametrize(
    ("path", "seen_by_front", "error"),
    [("/patience/1", "TimeoutError", "aborted"), ("/retries/2", "TimeoutError", "ETIMEDOUT")],
)
def test_a_connection_that_does_not_come_to_be(
    tmp_path: Path, path: str, seen_by_front: str, error: str
) -> None:
    front, faulty = free_ports(2)
    with (
        _full_listener() as full,
        Traced(tmp_path / "agent", _front_and_faulty(tmp_path, front, faulty)) as agent,
    ):
        wait_for(lambda: listening(front), "the front")
        assert drive(front, [f"/to/{full}{path}"]) == [502]
        result = agent.finish()
    result.check_ledger()
    (truth,) = log_entries(tmp_path / "front.log")
    assert truth["result"] == seen_by_front
    (call,) = _calls(result, f"/to/{full}{path}")
    assert call.attributes["error.type"] == error
    assert call.attributes["server.port"] == full


def test_a_response_that_never_comes(tmp_path: Path) -> None:
    front, faulty = free_ports(2)
    path = f"/to/{faulty}/never/1"
    with Traced(
        tmp_path / "agent", _front_and_faulty(tmp_path, front, faulty), ("--exchange-timeout", "1")
    ) as agent:
        wait_for(lambda: listening(front) and listening(faulty), "the services")
        with socket.create_connection(("127.0.0.1", front)) as client:
            client.sendall(f"GET {path} HTTP/1.1\r\nHost: a\r\n\r\n".encode())
            wait_for(
                lambda: agent.json.exists() and agent.json.read_text().count('"timeout"') >= 3,
                "three spans",
                8,
            )
        result = agent.finish()
    result.check_ledger()
    assert len(result.spans) == 3
    (incoming,) = result.server("front_threads")
    (call,) = result.client("front_threads")
    (served,) = result.server("faulty")
    assert (call.parent_id, served.parent_id) == (incoming.span_id, call.span_id)
    assert [s.attributes["error.type"] for s in result.spans] == ["timeout"] * 3
    assert all(s.end - s.start >= 1_000_000_000 for s in result.spans)


def test_a_client_that_gives_up(tmp_path: Path) -> None:
    """Its call is over when it closes the connection, whenever the server comes to notice that."""
    front, faulty = free_ports(2)
    path = "/deaf/patience/1"
    with Traced(tmp_path / "agent", _front_and_faulty(tmp_path, front, faulty)) as agent:
        wait_for(lambda: listening(front) and listening(faulty), "the services")
        assert drive(front, [f"/to/{faulty}{path}"]) == [502]
        wait_for(lambda: _count(agent.json, '"no_response"') >= 2, "both ends of the call", 8)
        result = agent.finish()
    result.check_ledger()
    (truth,) = log_entries(tmp_path / "front.log")
    assert truth["result"] == "TimeoutError"
    (call,) = _calls(result, f"/to/{faulty}{path}")
    (served,) = result.server("faulty")
    assert served.parent_id == call.span_id
    assert served.end - served.start >= 2_000_000_000


@pytest.mark.core
def test_failures_at_once_stay_with_their_own_requests(tmp_path: Path) -> None:
    """Many failing calls, of all kinds, from many threads: each below the request that made it."""
    front, faulty, nobody = free_ports(3)
    targets = [f"{nobody}/any", f"{faulty}/reset", f"{faulty}/truncated", f"{faulty}/silent"]
    paths = [f"/to/{targets[i % 4]}/{i}" for i in range(200)]
    with Traced(tmp_path / "agent", _front_and_faulty(tmp_path, front, faulty)) as agent:
        wait_for(lambda: listening(front) and listening(faulty), "the services")
        assert set(drive(front, paths, concurrency=8)) == {502}
        result = agent.finish()
    result.check_ledger()
    for i, path in enumerate(paths):
        (call,) = _calls(result, path)
        assert (call.attributes["error.type"] == "ECONNREFUSED") is (i % 4 == 0)
        if i % 4:
            assert call.path.endswith(f"/{i}")
