"""TLS connections that are older than the agent: both ends of an exchange are joined, by where its ciphertext is.

The programs' own logs are the truth: each exchange has a path of its own. Of the first one on a connection after
the agent came, an end may be missing; all that is told of it is held against the truth too.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from harness import (
    SERVICES,
    Result,
    Traced,
    free_ports,
    listening,
    log_entries,
    nginx_config,
    running,
    shell,
    wait_for,
)
from test_tls_openssl import finished
from tls import LIBRARIES, Tls, only_copies, reads

CONNECTIONS = {"threads": 8, "asyncio": 200, "uvloop": 200}
EARLY = 3
"""Exchanges on each connection before the agent comes."""
LATER = 5


@pytest.fixture
def tls(tmp_path: Path) -> Iterator[Tls]:
    made = Tls(tmp_path / "tls")
    yield made
    shutil.rmtree(made.libraries)


def client(tmp_path: Path, tls: Tls, port: int, kind: str, connections: int, early: int = EARLY) -> str:
    """The command of a client that makes its early exchanges when it can, the others when `go` is there."""
    return (
        f"{{ until bash -c ': >/dev/tcp/127.0.0.1/{port}' 2>{tmp_path}/refused; do sleep 0.1; done; "
        f"exec {tls.openssl()} {sys.executable} {SERVICES}/tls_client.py {port} {tls.folder} {tmp_path}/client.log "
        f"{kind} {connections} {early + LATER} {tmp_path} {tmp_path}/go {early}; }}"
    )


def server(tmp_path: Path, tls: Tls, port: int, kind: str) -> str:
    """The command of a server."""
    run = f"{tls.openssl()} {sys.executable} {SERVICES}/tls_server.py"
    return f"{run} {port} {tls.folder} {tmp_path}/server.log {kind}"


def asked(tmp_path: Path) -> list[dict[str, Any]]:
    log = tmp_path / "client.log"
    return log_entries(log) if log.exists() else []


def come_late(
    tmp_path: Path, command: list[str], ports: list[int], early: int, files: tuple[str, ...] = ()
) -> tuple[Result, set[str]]:
    """Start programs, let them make `early` exchanges, then an agent, then let them go on.

    Returns what the agent told, and the paths of the exchanges before it.
    """
    with running(command, *ports) as services:
        wait_for(lambda: len(asked(tmp_path)) == early, "the early exchanges")
        before = {entry["path"] for entry in asked(tmp_path)}
        options = (*only_copies(tmp_path), "--pid", str(services.pid))
        with Traced(tmp_path / "agent", [], options) as agent:
            reads(agent, "libssl.so.3", *files)
            (tmp_path / "go").touch()
            wait_for(lambda: finished(tmp_path / "client.log"), "the client")
            result = agent.finish()
    result.check_ledger()
    assert not {span.path for span in result.spans} & before
    assert "wire_position_unknown" not in result.said
    return result, before


def later(
    log: list[dict[str, Any]], before: set[str], missing: int
) -> tuple[set[tuple[str, int]], set[tuple[str, int]]]:
    """Of a server's log, path and client's port: each connection's first exchanges after the agent came, and the
    others."""
    firsts: set[tuple[str, int]] = set()
    rest: set[tuple[str, int]] = set()
    seen: Counter[int] = Counter()
    for path, peer in ((entry["path"], entry["peer"]) for entry in log):
        if path not in before:
            (firsts if seen[peer] < missing else rest).add((path, peer))
            seen[peer] += 1
    return firsts, rest


def check_hop(
    result: Result,
    log: list[dict[str, Any]],
    before: set[str],
    sender: str,
    receiver: str,
    port: int,
    missing: int = 1,
) -> tuple[set[str], set[str]]:
    """Hold the exchanges between two programs against the receiver's log: both ends of each, joined, and on the
    right connection. Of the first `missing` of each connection something may be missing.

    Returns their paths: of those told by the receiver, and of those joined.
    """
    firsts, rest = later(log, before, missing)
    spans = {span.span_id: span for span in result.spans}
    served = [span for span in result.server(receiver) if span.attributes["server.port"] == port]
    told = {(span.path, span.attributes["client.port"]) for span in served}
    assert len(told) == len(served)
    assert rest <= told <= rest | firsts
    calls = [s.path for s in result.client(sender) if s.attributes["network.peer.port"] == port]
    assert len(set(calls)) == len(calls)
    assert {path for path, _ in rest} <= set(calls) <= {path for path, _ in rest | firsts}
    joined = set()
    for span in served:
        above = spans.get(span.parent_id)
        assert (span.link == "wire") == (above is not None), span
        if above is None:
            assert (span.path, span.attributes["client.port"]) in firsts, span
            continue
        assert (above.kind, above.service, above.path, above.status) == (
            "client",
            sender,
            span.path,
            span.status,
        ), span
        joined.add(span.path)
    return {path for path, _ in told & firsts}, {path for path, _ in firsts} & joined


@pytest.mark.parametrize(
    ("serving", "kind", "early"),
    [
        ("threads", "threads", EARLY),
        ("asyncio", "threads", EARLY),
        ("threads", "asyncio", EARLY),
        ("asyncio", "asyncio", EARLY),
        ("uvloop", "uvloop", EARLY),
        ("threads", "threads", 0),
        ("asyncio", "asyncio", 0),
    ],
)
def test_python(tmp_path: Path, tls: Tls, serving: str, kind: str, early: int) -> None:
    """Sockets, and memory BIOs with hundreds of connections on one thread; used before, or only opened."""
    (port,) = free_ports(1)
    command = shell(
        server(tmp_path, tls, port, serving),
        client(tmp_path, tls, port, kind, CONNECTIONS[kind], early),
    )
    result, before = come_late(tmp_path, command, [port], CONNECTIONS[kind] * early)
    log = log_entries(tmp_path / "server.log")
    assert len(log) == len(asked(tmp_path)) - 1
    check_hop(result, log, before, "tls_client", "tls_server", port)
    missed = 2 * (len(log) - len(before)) - len(result.spans)
    noted = re.findall(r"(?:orphan_response|tls_unbound) (\d+)", result.said)
    assert missed <= sum(map(int, noted)), result.said


def pass_on(
    tmp_path: Path, tls: Tls, program: str, service: str, kind: str = "asyncio", missing: int = 1
) -> tuple[set[str], set[str]]:
    """Put a program between a client and a server; `missing` is of its own connections to the server. Returns what
    `check_hop` does for the client's connections."""
    log = tmp_path / "front.log"
    front, back = free_ports(2)
    if service == "nginx":
        body = f"""listen 127.0.0.1:{front} ssl backlog=1024;
            ssl_certificate {tls.folder}/cert.pem; ssl_certificate_key {tls.folder}/key.pem;
            location / {{ proxy_pass https://back; proxy_http_version 1.1; proxy_set_header Connection "";
            access_log {log} hop; }}"""
        # On a slow machine it takes the agent minutes to come.
        http = f"""keepalive_timeout 1h;
            upstream back {{ server 127.0.0.1:{back}; keepalive 64; keepalive_timeout 1h; }}
            log_format hop escape=json '{{"path":"$uri","peer":$remote_port}}';"""
        (plain,) = free_ports(1)
        program = f"{tls.openssl()} nginx -c {nginx_config(tmp_path / 'nginx', plain, body, http)}"
    else:
        program = f"{program} {front} {tls.folder} {log} {back}"
    command = shell(
        program,
        server(tmp_path, tls, back, "asyncio"),
        client(tmp_path, tls, front, kind, 40),
    )
    files = () if service == "nginx" else (Path(program.split()[0]).name,)
    result, before = come_late(tmp_path, command, [front, back], 40 * EARLY, files)
    check_hop(result, log_entries(tmp_path / "server.log"), before, service, "tls_server", back, missing)
    return check_hop(result, log_entries(log), before, "tls_client", service, front)


def test_nginx(tmp_path: Path, tls: Tls) -> None:
    """It reads and writes its sockets inside OpenSSL and never waits there: nothing is missing of its exchanges.
    The client's sockets are of that kind too, so all is told and joined from the first exchange on."""
    told, joined = pass_on(tmp_path, tls, "", "nginx", "threads")
    assert len(told) == len(joined) == 40 + 1


@pytest.mark.skipif(not shutil.which("node"), reason="node is not installed")
def test_node(tmp_path: Path, tls: Tls) -> None:
    """On its one thread it writes each first call while the session of the request is not known either: one more
    exchange goes by until the call's is."""
    node = tls.copy(Path(shutil.which("node") or "").resolve())
    pass_on(tmp_path, tls, f"{node} {SERVICES}/https_node.js", "https_node", missing=2)


def test_go(tmp_path: Path, tls: Tls) -> None:
    """The first answer comes to a read that began before the agent did: it is missed, and what follows is not."""
    go = shutil.which("go") or "/usr/local/go/bin/go"
    program = tls.libraries / "https_go"
    subprocess.run(
        [go, "build", "-o", str(program), "main.go"],
        cwd=SERVICES / "https_go",
        env={**os.environ, "CGO_ENABLED": "0", "GO111MODULE": "off"},
        check=True,
    )
    pass_on(tmp_path, tls, str(program), "https_go")


def test_one_end_that_is_older(tmp_path: Path, tls: Tls) -> None:
    """The server's library is found when the connection is in use already; the client's was known before."""
    (port,) = free_ports(1)
    folder = tls.folder / "late"
    folder.mkdir()
    late = shutil.copy(LIBRARIES / "libssl.so.3", folder)
    run = f"{tls.openssl()} {sys.executable} {SERVICES}"
    command = shell(
        f"{run}/tls_dlopen.py {port} {tls.folder} {tmp_path}/server.log {late}",
        f"{run}/tls_client.py {port} {tls.folder} {tmp_path}/client.log threads 1 {EARLY + LATER} "
        f"{tmp_path}/start {tmp_path}/go {EARLY}",
    )
    with Traced(tmp_path / "agent", command, only_copies(tmp_path)) as agent:
        wait_for(lambda: listening(port), "the server")
        reads(agent, "libraries/libssl.so.3")
        (tmp_path / "start").touch()
        reads(agent, "late/libssl.so.3")
        wait_for(lambda: len(asked(tmp_path)) == EARLY, "the early exchanges")
        (tmp_path / "go").touch()
        wait_for(lambda: len(asked(tmp_path)) == EARLY + LATER, "the others")
        result = agent.finish()
    result.check_ledger()
    truth = [entry["path"] for entry in log_entries(tmp_path / "server.log")]
    assert [span.path for span in result.client()] == truth
    told = [span for span in result.server() if span.path in truth[EARLY + 1 :]]
    assert [span.path for span in told] == truth[EARLY + 1 :]
    for span in told:
        above = result.parent_of(span)
        assert (span.link, above and above.path) == ("wire", span.path)
