"""OpenSSL as a shared library: HTTPS gives the spans of HTTP, on the right connection, whoever moves the bytes."""

from __future__ import annotations

import json
import shlex
import sys
import urllib.request
from pathlib import Path

import pytest
from harness import SERVICES, Traced, cli, free_ports, listening, log_entries, shell, wait_for
from kernel_state import entries
from tls import Tls, only_copies, reads

CONNECTIONS = {"threads": 8, "asyncio": 200, "uvloop": 200}
REQUESTS = 5


def commands(tmp_path: Path, server: str, client: str) -> tuple[list[str], int]:
    """A server and a client side by side, and the server's port."""
    tls = Tls(tmp_path / "tls")
    (port,) = free_ports(1)
    run = f"{tls.openssl()} {sys.executable} {SERVICES}"
    connections = f"{CONNECTIONS[client]} {REQUESTS} {tmp_path}/start {tmp_path}/go"
    return shell(
        f"{run}/tls_server.py {port} {tls.folder} {tmp_path}/server.log {server}",
        f"{run}/tls_client.py {port} {tls.folder} {tmp_path}/client.log {client} {connections}",
    ), port


def finished(log: Path) -> bool:
    return log.exists() and '"path": ""' in log.read_text()


@pytest.mark.parametrize(
    ("server", "client"),
    [
        pytest.param("threads", "threads", marks=pytest.mark.core),
        ("asyncio", "threads"),
        ("threads", "asyncio"),
        ("asyncio", "asyncio"),
        ("uvloop", "uvloop"),
    ],
)
def test_https_is_seen_as_http_is(tmp_path: Path, server: str, client: str) -> None:
    command, port = commands(tmp_path, server, client)
    with Traced(tmp_path / "agent", command, only_copies(tmp_path)) as agent:
        wait_for(lambda: listening(port), "the server")
        reads(agent, "libssl.so.3")
        (tmp_path / "go").touch()
        (tmp_path / "start").touch()
        wait_for(lambda: finished(tmp_path / "client.log"), "the client")
        result = agent.finish()
    result.check_ledger()
    served = log_entries(tmp_path / "server.log")
    asked = [entry for entry in log_entries(tmp_path / "client.log") if entry["path"]]
    assert len(served) == len(asked)
    assert sum(entry["reused"] for entry in served) == 2 * (client == "threads")
    truth = sorted((entry["path"], entry["peer"]) for entry in served)
    assert sorted((s.path, s.attributes["client.port"]) for s in result.server()) == truth
    assert sorted(s.path for s in result.client()) == sorted(entry["path"] for entry in asked)
    by_id = {span.span_id: span for span in result.spans}
    for span in result.server():
        assert span.link == "wire"
        assert by_id[span.parent_id].path == span.path
        assert span.attributes["url.scheme"] == "https"
    for span in result.client():
        assert span.attributes["url.full"] == f"https://localhost:{port}{span.path}"
        assert span.attributes["network.peer.port"] == port


def test_no_secret_is_in_anything_that_the_agent_says(tmp_path: Path) -> None:
    """Not in spans, log, recording, metrics or answers: from bodies, queries and fields that are not kept."""
    command, port = commands(tmp_path, "asyncio", "threads")
    events = tmp_path / "events.bin"
    (metrics,) = free_ports(1)
    options = ("--record", str(events), "--log-level", "debug", "--metrics-port", str(metrics))
    with Traced(tmp_path / "agent", command, (*only_copies(tmp_path), *options)) as agent:
        wait_for(lambda: listening(port), "the server")
        reads(agent, "libssl.so.3")
        (tmp_path / "go").touch()
        (tmp_path / "start").touch()
        wait_for(lambda: finished(tmp_path / "client.log"), "the client")
        wait_for(lambda: agent.status()["ledger"]["exchanges"]["emitted"], "spans")
        answers = [json.dumps(agent.status())]
        answers += [cli("explain", str(pid)).stdout for pid in agent.watched()]
        with urllib.request.urlopen(f"http://127.0.0.1:{metrics}/metrics") as page:
            answers.append(page.read().decode())
        result = agent.finish()
    result.check_ledger()
    assert result.server()
    assert "http_server_request_duration" in answers[-1]
    assert all("SECRET" not in answer for answer in answers)
    for file in (events, *filter(Path.is_file, (tmp_path / "agent").rglob("*"))):
        assert b"SECRET" not in file.read_bytes(), file


def test_the_next_agent_need_not_search_again(tmp_path: Path) -> None:
    tls = Tls(tmp_path / "tls")
    command = shell(f"{tls.openssl()} {sys.executable} -c 'import ssl, time; time.sleep(600)'")
    cache = tmp_path / "cache"
    used = []
    for number in range(2):
        options = (*only_copies(tmp_path), "--cache-dir", str(cache))
        with Traced(tmp_path / f"agent-{number}", command, options) as agent:
            reads(agent, "libssl.so.3")
            agent.finish()
        used.append({entry.name: entry.stat() for entry in cache.iterdir()})
    first, second = used
    assert first.keys() == second.keys()
    # An entry that answers is marked as used; one that is written anew is another file.
    assert [entry.st_ino for entry in first.values()] == [entry.st_ino for entry in second.values()]
    assert all(second[name].st_mtime_ns > entry.st_mtime_ns for name, entry in first.items())


def test_ten_thousand_sessions_leave_nothing(tmp_path: Path) -> None:
    tls = Tls(tmp_path / "tls")
    script = (
        "import ssl, sys, time, pathlib\n"
        "context = ssl.create_default_context()\n"
        f"while not pathlib.Path('{tmp_path}/go').exists(): time.sleep(0.01)\n"
        "for i in range(10000):\n"
        "    ssl_object = context.wrap_bio(ssl.MemoryBIO(), ssl.MemoryBIO(), server_hostname='localhost')\n"
        "    try: ssl_object.do_handshake()\n"
        "    except ssl.SSLWantReadError: pass\n"
        "del ssl_object\n"
        f"pathlib.Path('{tmp_path}/done').touch()\n"
        "time.sleep(600)\n"
    )
    command = shell(f"{tls.openssl()} {sys.executable} -c {shlex.quote(script)}")
    with Traced(tmp_path / "agent", command, only_copies(tmp_path)) as agent:
        reads(agent, "libssl.so.3")
        (tmp_path / "go").touch()
        wait_for(lambda: entries(agent.process.pid, "tls_sessions"), "a session")
        wait_for((tmp_path / "done").exists, "the sessions")
        assert entries(agent.process.pid, "tls_sessions") == []
        agent.finish()


@pytest.mark.parametrize("layers", [2, 3])
def test_tls_inside_tls_is_neither_doubled_nor_misplaced(tmp_path: Path, layers: int) -> None:
    """What the session next to the socket carries is TLS; the exchange inside it is told, once. One that is a layer
    further down is not told at all."""
    tls = Tls(tmp_path / "tls")
    (port,) = free_ports(1)
    service = f"{SERVICES}/tls_nested.py {port} {tls.folder} {tmp_path}/go {tmp_path}/done {layers}"
    command = shell(f"{tls.openssl()} {sys.executable} {service}")
    with Traced(tmp_path / "agent", command, only_copies(tmp_path)) as agent:
        reads(agent, "libssl.so.3")
        (tmp_path / "go").touch()
        wait_for((tmp_path / "done").exists, "the requests")
        result = agent.finish()
    result.check_ledger()
    asked = sorted(f"/inner/{number}" for number in range(10 if layers == 2 else 0))
    assert sorted(s.path for s in result.client()) == asked
    assert sorted(s.path for s in result.server()) == asked
    for span in result.server():
        parent = result.parent_of(span)
        assert (span.link, parent and parent.path) == ("wire", span.path)
        assert parent.attributes["network.peer.port"] == port
    counted = dict(item.rsplit(" ", 1) for item in result.said.rpartition("kernel: ")[2].strip().split(", "))
    assert counted["tls_conns"] == "20"
    assert "tls_conflicts" not in counted
