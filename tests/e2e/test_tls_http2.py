"""HTTP/2 in TLS is HTTP/2: the frames are found in the plaintext, and both ends are joined by stream."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest
from grpc_peers import AT_ONCE, CALLS, build_go
from harness import Traced, free_ports, listening, shell, wait_for
from rpc_spans import check_calls, check_sizes, logged
from tls import WAIT, Tls, only_copies, reads


@pytest.mark.skipif(
    not (shutil.which("nghttpd") and shutil.which("h2load")),
    reason="needs nghttpd and h2load (Debian: nghttp2-server, nghttp2-client)",
)
def test_many_streams_in_tls(tmp_path: Path) -> None:
    (port,) = free_ports(1)
    tls = Tls(tmp_path / "tls")
    environment = tls.openssl()
    files = tmp_path / "files"
    files.mkdir()
    (files / "page").write_bytes(b"x" * 30_000)
    go, done = tmp_path / "go", tmp_path / "done"
    load = f"{environment} h2load -n 600 -c 4 -m 30 https://127.0.0.1:{port}/page > {tmp_path}/h2load"
    command = shell(
        f"{environment} nghttpd --htdocs={files} {port} {tls.folder}/key.pem {tls.folder}/cert.pem",
        f"(until [ -e {go} ]; do sleep 0.1; done; {load}; touch {done}; exec sleep 60)",
    )
    with Traced(tmp_path / "agent", command, only_copies(tmp_path)) as agent:
        wait_for(lambda: listening(port), "nghttpd")
        reads(agent, "libssl.so.3")
        go.touch()
        wait_for(done.exists, "h2load", 120)
        result = agent.finish()
    shutil.rmtree(tls.libraries)
    result.check_ledger()
    told = re.search(r"(\d+) succeeded", (tmp_path / "h2load").read_text())
    assert told is not None
    assert int(told[1]) == 600
    servers = result.server("nghttpd")
    by_id = {span.span_id: span for span in result.spans}
    assert len(servers) == 600, result.said
    for span in servers:
        assert (span.path, span.status, span.link) == ("/page", 200, "wire"), span
        assert span.attributes["network.protocol.version"] == "2"
        assert span.attributes["url.scheme"] == "https"
        assert span.attributes["http.response.body.size"] == 30_000
        assert by_id[span.parent_id].service == "h2load"


def test_grpc_in_tls(tmp_path: Path) -> None:
    """All kinds of calls at once on one connection, and no message of any is in what the agent writes."""
    tls = Tls(tmp_path / "tls")
    program = build_go(tls.libraries)
    (port,) = free_ports(1)
    logs = tmp_path / "server.log", tmp_path / "client.log"
    go, done, events = tmp_path / "go", tmp_path / "done", tmp_path / "events.bin"
    run = f"env TLS={tls.folder} {program}"
    command = shell(
        f"{run} server {port} {logs[0]}",
        f"{{ {WAIT.replace('GO', str(go))} {run} client {port} {logs[1]} {CALLS} {AT_ONCE}; touch {done}; }}",
    )
    options = (*only_copies(tmp_path), "--record", str(events), "--log-level", "debug")
    with Traced(tmp_path / "agent", command, options) as agent:
        wait_for(lambda: listening(port), "the server")
        reads(agent, "gogrpc")
        go.touch()
        wait_for(done.exists, "the client")
        result = agent.finish()
    result.check_ledger()
    assert sum(logged(logs[1]).values()) == CALLS
    check_calls(result, *logs)
    check_sizes(result)
    for span in result.server():
        assert (span.link, span.attributes["server.port"]) == ("wire", port)
    for file in (events, *filter(Path.is_file, (tmp_path / "agent").rglob("*"))):
        content = file.read_bytes()
        assert b"qqqqqqqq" not in content, file
        assert b"rrrrrrrr" not in content, file
