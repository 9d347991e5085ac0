"""OpenSSL as a shared library: HTTPS gives the spans of HTTP, on the right connection, whoever moves the bytes."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from harness import SERVICES, Traced, free_ports, listening, log_entries, shell, wait_for
from tls import Tls, only_copies

CONNECTIONS = {"threads": 8, "asyncio": 200}
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


@pytest.mark.parametrize("server", ["threads", "asyncio"])
@pytest.mark.parametrize("client", ["threads", "asyncio"])
def test_https_is_seen_as_http_is(tmp_path: Path, server: str, client: str) -> None:
    command, port = commands(tmp_path, server, client)
    with Traced(tmp_path / "agent", command, only_copies(tmp_path)) as agent:
        wait_for(lambda: listening(port), "the server")
        wait_for(lambda: "reads TLS in" in agent.said(), "the library's probes")
        (tmp_path / "go").touch()
        (tmp_path / "start").touch()
        wait_for(lambda: finished(tmp_path / "client.log"), "the client")
        result = agent.finish()
    result.check_ledger()
    served = log_entries(tmp_path / "server.log")
    asked = [entry for entry in log_entries(tmp_path / "client.log") if entry["path"]]
    assert len(served) == len(asked)
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
