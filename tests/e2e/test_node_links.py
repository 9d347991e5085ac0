"""grpc-js servers that call others while several requests are open in their process: no false parent, and which
calls have theirs. The services' own logs vouch for every call."""

from __future__ import annotations

import shutil
from collections import Counter
from pathlib import Path

import pytest
from conversation import BUILT
from harness import Result, SpanRecord, Traced, free_ports, listening, log_entries, shell, wait_for
from peer_builds import build_peer
from tls import LOADING_S, Tls, only_copies

REQUESTS = {1: 280, 10: 700, 50: 1400}
AT_ONCE = frozenset({"atOnce", "awaited", "ticked", "together", "answered", "streamed"})
"""Ways (services/grpcjs/calls.js) whose every call is begun before Node turns to anything else."""

pytestmark = pytest.mark.skipif(not shutil.which("node"), reason="node is not installed")


def name(span: SpanRecord) -> str:
    return str(span.attributes.get("rpc.method", "")).rpartition("/")[2]


@pytest.mark.parametrize(("concurrency", "secure"), [(1, False), (10, False), (50, False), (10, True)])
def test_a_server_that_calls_others(tmp_path: Path, concurrency: int, secure: bool) -> None:
    build_peer("js")
    tls = Tls(tmp_path / "tls")
    node = tls.copy(Path(shutil.which("node") or "").resolve())
    back, front = free_ports(2)
    count, go, done = REQUESTS[concurrency], tmp_path / "go", tmp_path / "done"
    folder = str(tls.folder) if secure else ""
    program = f"{node} {BUILT}/grpcjs/calls.js"
    client = f"{program} client {front} {tmp_path}/client.log {count} {concurrency} {folder}"
    command = shell(
        f"{program} back {back} {tmp_path}/back.log {count} {folder}",
        f"{program} front {front} {tmp_path}/front.log {count} {back} {folder}",
        f"(until [ -e {go} ]; do sleep 0.1; done; {client}; touch {done}; exec sleep 100)",
    )
    options = ("--runtime-probes", f"{tls.folder}/*", *(only_copies(tls.folder) if secure else ()))
    with Traced(tmp_path / "agent", command, options) as agent:
        wait_for(lambda: listening(back) and listening(front), "the services")
        for probes in ("(Node's HTTP/2)", "reads TLS")[: 1 + secure]:
            wait_for(lambda probes=probes: probes in agent.said(), "the probes", LOADING_S)
        go.touch()
        wait_for(done.exists, "the client", 100)
        result = agent.finish()
    shutil.rmtree(tls.libraries)
    result.check_ledger()
    found, made = sort_out(result, tmp_path)
    # In TLS Node often takes what was received when a write is over, and does what is left to do still later.
    share = 0.6 if secure else 0.9
    for way in AT_ONCE:
        assert found[way, "dispatch"] >= share * made[way], (way, found, made)
    for way in ("timed", "immediate", "read", "nobody"):
        assert not found[way, "dispatch"], (way, found, made)
    assert found["chained", "dispatch"] <= made["chained"] / 2


def sort_out(result: Result, logs: Path) -> tuple[Counter[tuple[str, str]], Counter[str]]:
    """How many calls have their parents by way and rung, and how many were made. A false parent fails the test."""
    by_id = {span.span_id: span for span in result.spans}
    ways = {f"serve-{entry['number']}": entry["way"] for entry in log_entries(logs / "front.log")}
    calls = [span for span in result.client() if not name(span).startswith("serve-")]
    sent = Counter(entry["path"].rpartition("/")[2] for entry in log_entries(logs / "back.log"))
    assert Counter(map(name, calls)) == sent
    found: Counter[tuple[str, str]] = Counter()
    made: Counter[str] = Counter()
    for span in calls:
        what, number = name(span).split("-")
        way = "nobody" if what == "nobody" else ways[f"serve-{number}"]
        made[way] += 1
        if not span.parent_id:
            continue
        above = by_id[span.parent_id]
        found[way, span.link] += 1
        assert name(above) == f"serve-{number}", (span, above)
        assert (above.kind, above.pid, above.trace_id) == ("server", span.pid, span.trace_id), (span, above)
    return found, made
