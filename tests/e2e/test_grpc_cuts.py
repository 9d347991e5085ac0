"""gRPC messages are counted wherever calls and frames cut them, in their prefix too."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from grpc_peers import PYTHON
from harness import SERVICES, log_entries
from pairs import run_pair
from rpc_spans import check_sizes, method_of, status_of


@pytest.mark.parametrize("how", ["calls", "frames", "both"])
def test_messages_in_pieces(tmp_path: Path, how: str) -> None:
    client = f"{sys.executable} {SERVICES}/grpc_cuts.py {how} {{port}} {{dir}}/client.log"
    result = run_pair(tmp_path, f"{PYTHON} server {{port}} {{dir}}/server.log", client)
    sent = {entry["method"]: entry["messages"] for entry in log_entries(tmp_path / "client.log")}
    served = {entry["method"]: entry["received"] for entry in log_entries(tmp_path / "server.log")}
    assert served == sent
    for spans in (result.client(), result.server()):
        calls = [span for span in spans if "rpc.method" in span.attributes]
        assert {method_of(span): status_of(span) for span in calls} == dict.fromkeys(sent, "OK")
        for each in ("request", "response"):
            told = {method_of(span): span.attributes[f"autotrace.rpc.{each}.messages"] for span in calls}
            assert told == sent
    check_sizes(result)
