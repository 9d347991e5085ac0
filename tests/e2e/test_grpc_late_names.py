"""The agent comes to a gRPC-Go connection that has been busy for a while, in TLS too: the runtime tells the methods
that the frames alone do not."""

from __future__ import annotations

import os
import subprocess
import time
from pathlib import Path

import pytest
from go_chain import asked_all, build_chain, name_of
from harness import Result, SpanRecord, Traced, free_ports, log_entries, running, wait_for
from tls import Tls, only_copies, reads

SAME = 40
"""Methods leaf-0 to leaf-39, each of which has a message of as many bytes as its number."""

PREFIX = 5
CALLS = 14_000


@pytest.fixture(params=[False, True], ids=["plain", "tls"])
def seen(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> tuple[Result, int]:
    """What was seen of it, and when all probes were set (Unix time in ns)."""
    driver, front, _ = build_chain(tmp_path / "programs", "-ldflags=-s -w")
    rpc, web = free_ports(2)
    log = tmp_path / "front.log"
    secure: tuple[str, ...] = ()
    if request.param:
        monkeypatch.setenv("TLS_FOLDER", str(Tls(tmp_path / "tls").folder))
        secure = only_copies(tmp_path / "programs")
    with running(
        [str(front), "serve", *map(str, (rpc, web)), str(log), *map(str, (rpc, web))], rpc
    ) as server:
        client = subprocess.Popen(
            [str(driver), "drive", str(rpc), str(web), str(CALLS), "8", "same"],
            env={**os.environ, "PAUSE": "0.01"},
        )
        try:
            wait_for(lambda: log.exists() and len(log_entries(log)) > 1000, "calls before the agent")
            options = ("--pid", str(server.pid), "--pid", str(client.pid))
            probes = ("--runtime-probes", f"{tmp_path}/programs/*", "--ring-size", "64MiB")
            with Traced(tmp_path / "agent", [], (*options, *probes, *secure)) as agent:
                asked_all(agent, front, driver)
                reads(agent, *(["front", "driver"] if secure else []))
                probed = time.time_ns()
                client.wait(200)
                result = agent.finish()
        finally:
            client.kill()
            client.wait()
    return result, probed


def is_right(span: SpanRecord) -> bool:
    """The size of the message tells the method."""
    return int(name_of(span).split("-")[1]) == int(span.attributes["autotrace.rpc.request.size"]) - PREFIX


def test_the_methods_of_an_old_busy_connection(seen: tuple[Result, int]) -> None:
    result, probed = seen
    result.check_ledger()
    assert not result.dropped, result.said
    named = [span for span in result.spans if "-" in name_of(span)]
    sized = [span for span in named if "autotrace.rpc.request.size" in span.attributes]
    assert all(map(is_right, sized)), [span for span in sized if not is_right(span)][:3]
    for kind in ("server", "client"):
        later = [span for span in result.spans if span.kind == kind and span.start > probed]
        known = [span for span in later if "-" in name_of(span)]
        assert len(later) > 1000, (len(later), result.said)
        assert len(known) >= 0.95 * len(later)
