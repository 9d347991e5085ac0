"""nginx between a gRPC client and a gRPC server (grpc_pass): it serves each call and makes it again, on another
connection."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest
from grpc_peers import PYTHON, build_go
from harness import SpanRecord, Traced, free_ports, listening, log_entries, nginx_config, shell, wait_for
from rpc_spans import GIVEN_UP, logged, method_of, status_of

CALLS, AT_ONCE = 270, 50
KINDS = "unary server client both fail halfway slow cancel both"


@pytest.mark.parametrize("upstream", ["new", "kept"])
@pytest.mark.parametrize("peer", ["grpcio", "go"])
def test_a_span_for_each_end_of_both_connections(tmp_path: Path, peer: str, upstream: str) -> None:
    front, back = free_ports(2)
    program = PYTHON if peer == "grpcio" else build_go(tmp_path)
    keep = "keepalive 64; keepalive_requests 100000;" if upstream == "kept" else ""
    config = nginx_config(
        tmp_path / "nginx",
        front,
        "location / { grpc_pass grpc://back; }",
        f"upstream back {{ server 127.0.0.1:{back}; {keep} }}",
    )
    config.write_text(config.read_text().replace("backlog=511", "backlog=511 http2"))
    logs = tmp_path / "server.log", tmp_path / "client.log"
    go, done = tmp_path / "go", tmp_path / "done"
    command = shell(
        f"{program} server {back} {logs[0]}",
        f"nginx -c {config}",
        f"(until [ -e {go} ]; do sleep 0.1; done; "
        f"{program} client {front} {logs[1]} {CALLS} {AT_ONCE} {KINDS}; touch {done}; exec sleep 60)",
    )
    with Traced(tmp_path / "agent", command) as agent:
        wait_for(lambda: listening(front) and listening(back), "nginx and the server")
        go.touch()
        wait_for(done.exists, "the client", 120)
        result = agent.finish()
    result.check_ledger()
    assert not result.dropped, result.said
    service = "grpc_peer" if peer == "grpcio" else "gogrpc"
    asked, served = logged(logs[1]), logged(logs[0])
    access = Counter(entry["path"][1:] for entry in log_entries(tmp_path / "nginx" / "access.log"))
    by_id = {span.span_id: span for span in result.spans}

    asking = {method_of(span): span for span in result.client(service)}
    passing = {method_of(span): span for span in result.server("nginx")}
    passed = {method_of(span): span for span in result.client("nginx")}
    serving = {method_of(span): span for span in result.server(service)}
    assert len(result.spans) == 4 * CALLS
    assert access.total() == CALLS
    assert set(asking) == set(passing) == set(passed) == set(serving) == set(access)

    for method, status in asked:
        spans = (asking[method], passing[method], passed[method], serving[method])
        for above, below in ((asking[method], passing[method]), (passed[method], serving[method])):
            assert (below.link, by_id[below.parent_id]) == ("wire", above), spans
        caller = by_id.get(passed[method].parent_id)
        assert caller is None or caller is passing[method], spans
        if method.split("/")[1].startswith(("slow", "cancel")):
            # At the deadline each of them may be the first: nginx makes a 502 of a server's reset.
            told = {status_of(asking[method]), status_of(passing[method])}
            assert told <= GIVEN_UP | {"UNAVAILABLE"}, spans
            _check_given_up(passed[method], serving[method])
        else:
            assert {status_of(span) for span in spans} == {status}, spans
    for method, status in served:
        if status not in GIVEN_UP:
            assert status_of(serving[method]) == status


def _check_given_up(passed: SpanRecord, serving: SpanRecord) -> None:
    """nginx ends a call by closing its connection. A server of grpcio answers UNAVAILABLE even so."""
    assert status_of(serving) in GIVEN_UP | {"UNAVAILABLE"}, serving
    assert (status_of(passed), passed.attributes["error.type"]) == ("", "no_response") or (
        # The server may have been sooner.
        status_of(passed) in GIVEN_UP | {"UNAVAILABLE"}
    ), passed
    assert passed.error, passed
