"""The agent comes to gRPC connections of C++ services that have been busy for a while: grpc-core tells the methods
that the frames alone do not, at both ends, in TLS too."""

from __future__ import annotations

import shutil
import subprocess
import time
from collections import Counter
from pathlib import Path

import pytest
from harness import SpanRecord, Traced, free_ports, log_entries, running, wait_for
from peer_builds import build_peer
from tls import LIBRARIES, LOADING_S, Tls, only_copies

CALLS, AT_ONCE, CONNECTIONS, PAUSE_MS = 20_000, 20, 3, 40
SIGNS_NS = 500_000_000
"""Until each transport has been seen a few times to be handed what came from its connection."""

PREFIX = 5
"""Bytes before a message of gRPC."""


def name_of(span: SpanRecord) -> str:
    """The name of the method, "" if it is not known."""
    name = str(span.attributes.get("rpc.method") or span.path).rpartition("/")[2]
    return "" if name == "_OTHER" else name


def is_wrong(span: SpanRecord) -> bool:
    """The size of what the client sent tells the method."""
    attributes = span.attributes
    size = attributes.get("autotrace.rpc.request.size", attributes.get("http.request.body.size"))
    return name_of(span) not in ("", f"same-{int(size) - PREFIX}")


@pytest.mark.timeout(900)
@pytest.mark.parametrize("secure", [False, True], ids=["plain", "tls"])
def test_the_names_on_old_busy_connections(tmp_path: Path, secure: bool) -> None:
    tls = Tls(tmp_path / "tls")
    runs = [*tls.openssl().split(), build_peer("cpp")]
    tls.copy(LIBRARIES / "libgrpc.so.29")
    folder = [str(tls.folder)] * secure
    (port,) = free_ports(1)
    logs = tmp_path / "server.log", tmp_path / "client.log"
    load = map(str, (CALLS, AT_ONCE, CONNECTIONS, PAUSE_MS))
    server_command = [*runs, "server", str(port), str(logs[0]), *folder]
    client_command = [*runs, "client", str(port), str(logs[1]), *load, *folder]
    with running(server_command, port) as server:
        client = subprocess.Popen(client_command)
        try:
            wait_for(
                lambda: logs[1].exists() and len(log_entries(logs[1])) > 1000, "calls before the agent", 60
            )
            watched = ("--pid", str(server.pid), "--pid", str(client.pid))
            probes = ("--runtime-probes", f"{tls.folder}/*", *only_copies(tls.folder))
            with Traced(tmp_path / "agent", [], (*watched, *probes, "--ring-size", "64MiB")) as agent:
                wait_for(lambda: "(grpc-core)" in agent.said(), "the probes in grpc-core", LOADING_S)
                probed = time.time_ns()
                client.wait(600)
                result = agent.finish()
        finally:
            client.kill()
            client.wait()
    shutil.rmtree(tls.libraries)
    result.check_ledger()
    assert not result.dropped, result.said
    served = Counter(entry["number"] for entry in log_entries(logs[0]))
    assert served.total() == len(log_entries(logs[1])) == CALLS
    for kind in ("server", "client"):
        spans = [span for span in result.spans if span.kind == kind]
        wrong = [span for span in spans if is_wrong(span)]
        named = [span for span in spans if name_of(span) and "rpc.method" in span.attributes]
        later = [span for span in spans if span.start > probed + SIGNS_NS]
        assert not wrong, wrong[:3]
        assert Counter(int(name_of(span).split("-")[1]) for span in named) <= served
        assert len(later) > 1000, (len(later), result.said)
        known = sum(bool(name_of(span)) and "rpc.method" in span.attributes for span in later)
        assert known >= 0.95 * len(later), (known, len(later), result.said)
