"""A client that breaks every rule of HTTP/2: the agent counts what is wrong, and misses no request around it."""

from __future__ import annotations

import re
import sys
from collections import Counter
from pathlib import Path

from harness import SERVICES, Traced, free_ports, listening, log_entries, shell, wait_for
from http2_sequences import ENDINGS, FIRST, LAST, SEQUENCES


def test_what_no_client_may_say(tmp_path: Path) -> None:
    (port,) = free_ports(1)
    program = f"{sys.executable} {SERVICES}/h2_forbidden.py"
    log, go, done = tmp_path / "log", tmp_path / "go", tmp_path / "done"
    command = shell(
        f"{program} server {port} {log}",
        f"(until [ -e {go} ]; do sleep 0.1; done; {program} client {port} && touch {done}; exec sleep 60)",
    )
    with Traced(tmp_path / "agent", command) as agent:
        wait_for(lambda: listening(port), "the server")
        go.touch()
        wait_for(done.exists, "the client", 120)
        result = agent.finish()
    assert result.code == 0, result.said
    result.check_ledger()
    assert not result.dropped, result.said
    served = Counter(entry["stream"] for entry in log_entries(log))
    assert served[FIRST] >= len(SEQUENCES) + len(ENDINGS)
    assert served[LAST] >= len(SEQUENCES)
    expected = {"/before": served[FIRST], "/after": served[LAST]}
    by_id = {span.span_id: span for span in result.spans}
    for spans in (result.server(), result.client()):
        assert Counter(span.path for span in spans if span.status) == expected, result.said
        # The others got no answer.
        assert {span.attributes["error.type"] for span in spans if not span.status} == {
            "CANCEL",
            "no_response",
        }
        assert Counter(span.attributes.get("error.type") for span in spans)["CANCEL"] == 1000
    for span in result.server():
        assert (span.link, by_id[span.parent_id].path) == ("wire", span.path), span
    told = re.search(r"protocols: (.*)", result.said)
    assert told is not None, result.said
    reasons = {reason for sequence in SEQUENCES.values() for reason in sequence.reasons}
    assert {item.rsplit(" ", 1)[0] for item in told[1].split(", ")} >= reasons
