"""The agent comes to HTTP/2 connections of Node that have been busy for a while: nghttp2 tells what the frames
alone do not, at both ends, of gRPC and of other requests, in TLS too."""

from __future__ import annotations

import shutil
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest
from conversation import BUILT
from harness import SERVICES, SpanRecord, Traced, free_ports, log_entries, running, wait_for
from peer_builds import build_peer
from tls import LOADING_S, Tls, only_copies

CALLS, AT_ONCE, CONNECTIONS, PAUSE_MS = 9000, 50, 3, 150
SIGNS_NS = 500_000_000
"""Until nghttp2 has been seen to take what came from each connection a few times."""

PREFIX = 5
"""Bytes before a message of gRPC."""

PROGRAM = BUILT / "grpcjs" / "busy.js"
PEERS = {"js": PROGRAM, "python": SERVICES / "busy_http2.py"}


def name_of(span: SpanRecord) -> str:
    """The name of the method, "" if it is not known."""
    name = str(span.attributes.get("rpc.method") or span.path).rpartition("/")[2]
    return "" if name == "_OTHER" else name


def is_named(span: SpanRecord, how: str) -> bool:
    return name_of(span) != "" and (how == "http2" or "rpc.method" in span.attributes)


def is_wrong(span: SpanRecord, how: str) -> bool:
    """The size of what the client sent tells the method."""
    name, attributes = name_of(span), span.attributes
    if not name:
        return False
    size = attributes.get("autotrace.rpc.request.size", attributes.get("http.request.body.size"))
    return name != f"same-{int(size) - PREFIX * (how == 'grpc')}"


@pytest.mark.timeout(900)
@pytest.mark.parametrize(("peer", "how"), [("js", "grpc"), ("python", "grpc"), ("python", "http2")])
@pytest.mark.parametrize("secure", [False, True], ids=["plain", "tls"])
def test_the_names_on_old_busy_connections(tmp_path: Path, peer: str, how: str, secure: bool) -> None:
    build_peer("js")
    tls = Tls(tmp_path / "tls")
    node = tls.copy(Path(shutil.which("node") or "").resolve())
    folder = [str(tls.folder)] * secure
    (port,) = free_ports(1)
    logs = tmp_path / "server.log", tmp_path / "client.log"
    server_command = [str(node), str(PROGRAM), "server", str(port), str(logs[0]), how, *folder]
    load = map(str, (CALLS, AT_ONCE, CONNECTIONS, PAUSE_MS))
    runs = str(node) if peer == "js" else sys.executable
    client_command = [runs, str(PEERS[peer]), "client", str(port), str(logs[1]), how, *load, *folder]
    with running(server_command, port) as server:
        client = subprocess.Popen(client_command)
        try:
            wait_for(
                lambda: logs[1].exists() and len(log_entries(logs[1])) > 1000, "calls before the agent", 60
            )
            watched = ["--pid", str(server.pid), *(["--pid", str(client.pid)] if peer == "js" else ())]
            probes = ("--runtime-probes", f"{tls.folder}/*", *(only_copies(tls.folder) if secure else ()))
            with Traced(tmp_path / "agent", [], (*watched, *probes, "--ring-size", "64MiB")) as agent:
                wait_for(lambda: "(nghttp2)" in agent.said(), "the probes in nghttp2", LOADING_S)
                probed = time.time_ns()
                client.wait(600)
                result = agent.finish()
        finally:
            client.kill()
            client.wait()
    shutil.rmtree(tls.libraries)
    result.check_ledger()
    assert not result.dropped, result.said
    assert len(log_entries(logs[1])) == CALLS
    assert "secret" not in (tmp_path / "agent" / "spans.jsonl").read_text()
    served = Counter(entry["number"] for entry in log_entries(logs[0]))
    for kind in ("server", "client")[: len(watched) // 2]:
        spans = [span for span in result.spans if span.kind == kind]
        wrong = [span for span in spans if is_wrong(span, how)]
        named = [span for span in spans if is_named(span, how)]
        later = [span for span in spans if span.start > probed + SIGNS_NS]
        assert not wrong, wrong[:3]
        told = Counter(int(name_of(span).split("-")[1]) for span in named)
        assert told <= served
        assert len(later) > 1000, (len(later), result.said)
        assert sum(is_named(span, how) for span in later) >= 0.95 * len(later), result.said
