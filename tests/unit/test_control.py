"""The control socket is a real one: a question gets its answer, whatever else is sent to it."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import stat
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from autotrace import control
from autotrace.control import ControlServer, answer, query, running_agents, socket_path
from autotrace.errors import AutotraceError


def status(request: Mapping[str, Any]) -> dict[str, Any]:
    return {"asked": dict(request)}


def fail(request: Mapping[str, Any]) -> dict[str, Any]:
    raise RuntimeError("no books")


HANDLERS = {"status": status, "fail": fail}


@pytest.fixture
def server(tmp_path: Path) -> Iterator[ControlServer]:
    with ControlServer(socket_path(tmp_path / "agents", os.getpid()), HANDLERS) as running:
        yield running


def test_a_question_gets_its_answer(server: ControlServer) -> None:
    assert query(server.path, "status") == {"asked": {"command": "status"}}
    assert query(server.path, "status", pid=7) == {"asked": {"command": "status", "pid": 7}}


def test_only_the_owner_may_connect(server: ControlServer) -> None:
    assert stat.S_IMODE(server.path.stat().st_mode) == 0o600


def test_several_questions_on_one_connection(server: ControlServer) -> None:
    with socket.socket(socket.AF_UNIX) as client, client.makefile("rb") as lines:
        client.connect(str(server.path))
        client.sendall(b'{"command": "status"}\nnonsense\n{"command": "stat')
        client.sendall(b'us"}\n')
        answers = [json.loads(lines.readline()) for _ in range(3)]
    assert [list(each) for each in answers] == [["result"], ["error"], ["result"]]


def test_clients_that_leave_or_send_nothing_do_no_harm(server: ControlServer) -> None:
    for sent in (b"", b"half a line", b"\xff\n", b"x" * 200_000):
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(str(server.path))
            with contextlib.suppress(BrokenPipeError):
                client.sendall(sent)
    assert "asked" in query(server.path, "status")


def test_many_clients_at_once(server: ControlServer) -> None:
    answers: list[dict[str, Any]] = []
    threads = [
        threading.Thread(target=lambda: answers.append(query(server.path, "status"))) for _ in range(20)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert answers == [{"asked": {"command": "status"}}] * 20


@pytest.mark.parametrize(
    ("command", "sentence"), [("fail", "RuntimeError: no books"), ("dance", "unknown command 'dance'")]
)
def test_a_question_that_cannot_be_answered(server: ControlServer, command: str, sentence: str) -> None:
    with pytest.raises(AutotraceError, match=sentence):
        query(server.path, command)
    assert "asked" in query(server.path, "status")


@given(st.binary(max_size=300))
def test_any_line_gets_one_line_of_json(line: bytes) -> None:
    reply = answer(line, HANDLERS)
    assert reply.endswith(b"\n")
    assert reply.count(b"\n") == 1
    assert list(json.loads(reply)) in (["result"], ["error"])


def test_deeply_nested_json_is_an_error_not_the_end() -> None:
    assert b"RecursionError" in answer(b"[" * 50_000, HANDLERS)


def test_stop_removes_the_socket_and_ends_the_thread(tmp_path: Path) -> None:
    before = threading.active_count()
    server = ControlServer(tmp_path / "1.sock", HANDLERS)
    server.start()
    server.stop()
    assert list(tmp_path.iterdir()) == []
    assert threading.active_count() == before


def test_sockets_of_dead_agents_are_removed(tmp_path: Path) -> None:
    die = (
        "import os, socket, sys; listener = socket.socket(socket.AF_UNIX); listener.bind(sys.argv[1]); "
        "listener.listen(); os.kill(os.getpid(), 9)"
    )
    subprocess.run([sys.executable, "-c", die, str(tmp_path / "77.sock")], check=False)
    (tmp_path / "notes.sock").touch()
    with ControlServer(tmp_path / "88.sock", HANDLERS) as server:
        assert running_agents(tmp_path) == [88]
        assert "asked" in query(server.path, "status")
    assert [path.name for path in tmp_path.iterdir()] == ["notes.sock"]


def test_the_socket_of_a_dead_agent_with_our_pid_is_taken_over(tmp_path: Path) -> None:
    path = tmp_path / "5.sock"
    left = socket.socket(socket.AF_UNIX)
    left.bind(str(path))
    left.close()
    with ControlServer(path, HANDLERS):
        assert "asked" in query(path, "status")


def test_no_agent(tmp_path: Path) -> None:
    assert running_agents(tmp_path / "absent") == []
    with pytest.raises(AutotraceError, match=r"No agent answers at .*; start one with `autotrace run`"):
        query(tmp_path / "1.sock", "status")


def test_an_agent_that_is_silent(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as silent:
        silent.bind(str(tmp_path / "1.sock"))
        silent.listen()
        with pytest.raises(AutotraceError, match=r"did not answer within 0\.1 seconds"):
            query(tmp_path / "1.sock", "status", timeout=0.1)


@pytest.mark.parametrize("reply", [b"", b"nonsense\n", b"[]\n", b"{}\n"])
def test_an_agent_that_answers_nonsense(tmp_path: Path, reply: bytes) -> None:
    with socket.socket(socket.AF_UNIX) as odd:
        odd.bind(str(tmp_path / "1.sock"))
        odd.listen()

        def serve() -> None:
            client, _ = odd.accept()
            with client:
                client.recv(1000)
                client.sendall(reply)

        thread = threading.Thread(target=serve)
        thread.start()
        with pytest.raises(AutotraceError, match="gave no usable answer"):
            query(tmp_path / "1.sock", "status")
        thread.join()


def test_a_socket_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for directory in (tmp_path / "file", tmp_path / ("long" * 40)):
        with pytest.raises(AutotraceError, match=r"Cannot make the status socket .* --runtime-dir"):
            ControlServer(directory / "1.sock", HANDLERS).start()


def test_where_the_sockets_are(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert control.runtime_dir(tmp_path) == tmp_path
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    assert control.runtime_dir(None) == Path("/run/autotrace")
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    assert control.runtime_dir(None) == tmp_path / "autotrace"
    monkeypatch.delenv("XDG_RUNTIME_DIR")
    assert control.runtime_dir(None).name == "autotrace-1000"
