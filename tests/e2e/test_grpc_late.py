"""The agent comes to a gRPC connection that has been busy for a while: what it cannot know is unknown, and
never wrong."""

from __future__ import annotations

import os
import subprocess
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest
from grpc_peers import PYTHON, build_go
from harness import Traced, free_ports, listening, log_entries, running, wait_for
from kernel_state import loaded
from rpc_spans import logged, method_of, status_of

CALLS = 8000


def lines(path: Path) -> int:
    return len(log_entries(path)) if path.exists() else 0


@pytest.mark.parametrize("side", ["grpcio", "go"])
def test_an_old_busy_connection(tmp_path: Path, side: str) -> None:
    peer = PYTHON if side == "grpcio" else build_go(tmp_path)
    (port,) = free_ports(1)
    logs = tmp_path / "server.log", tmp_path / "client.log"
    with running([*peer.split(), "server", str(port), str(logs[0])], port) as server:
        client = subprocess.Popen(
            [*peer.split(), "client", str(port), str(logs[1]), str(CALLS), "8", "same", "unary", "fail"],
            env={**os.environ, "PAUSE": "0.005"},
        )
        try:
            wait_for(lambda: lines(logs[1]) > 100, "calls before the agent")
            before = lines(logs[1])
            options = ("--pid", str(server.pid), "--pid", str(client.pid))
            with Traced(tmp_path / "agent", [], options) as agent:
                wait_for(lambda: loaded(agent.process.pid), "the agent to watch")
                client.wait(200)
                result = agent.finish()
        finally:
            client.kill()
            client.wait()
    result.check_ledger()
    assert not result.dropped, result.said
    assert before < CALLS
    asked = logged(logs[1])
    by_id = {span.span_id: span for span in result.spans}
    calls = [span for span in result.spans if "rpc.method" in span.attributes]
    known = [span for span in calls if method_of(span) != "_OTHER"]
    assert len(known) > 1000, (len(calls), result.said)
    for span in known:
        # The log says of each method how it ended; only the status may be missing.
        statuses = {status for method, status in asked if method == method_of(span)}
        assert status_of(span) in statuses | {""}, (span, statuses)
    once: Callable[[str], bool] = lambda method: not method.endswith("/same-7")  # noqa: E731
    for kind in ("server", "client"):
        seen = Counter(method_of(span) for span in known if span.kind == kind)
        assert max(n for method, n in seen.items() if once(method)) == 1
    for span in result.spans:
        if span not in known:
            assert span.attributes["autotrace.request.partial"] is True, span
        if span.parent_id:
            above = by_id[span.parent_id]
            names = {str(each.attributes.get("rpc.method", "_OTHER")) for each in (span, above)} - {"_OTHER"}
            assert (span.link, len(names) <= 1) == ("wire", True), (span, above)
    assert listening(port) is False
