"""Holds the spans of remote calls against the logs of their client and their server."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

from harness import Result, SpanRecord, log_entries

SERVER_ERRORS = {"UNKNOWN", "DEADLINE_EXCEEDED", "UNIMPLEMENTED", "INTERNAL", "UNAVAILABLE", "DATA_LOSS"}
GIVEN_UP = {"CANCELLED", "DEADLINE_EXCEEDED"}


def method_of(span: SpanRecord) -> str:
    return str(span.attributes["rpc.method"])


def status_of(span: SpanRecord) -> str:
    return str(span.attributes.get("rpc.response.status_code", ""))


def logged(path: Path) -> Counter[tuple[str, str]]:
    return Counter((entry["method"], entry["status"]) for entry in log_entries(path))


def outcome(status: str) -> str:
    """That a deadline was why is told by time, which each side has its own of, and the agent too."""
    return "given up" if status in GIVEN_UP else status


def check_calls(result: Result, server_log: Path, client_log: Path) -> None:
    """One span on each side of every call, with the status that side logged; the server's below the client's."""
    servers = [span for span in result.server() if "rpc.method" in span.attributes]
    clients = [span for span in result.client() if "rpc.method" in span.attributes]
    asked, served = logged(client_log), logged(server_log)
    # A call that is cancelled at once may not even be sent, on a slow machine.
    unsent = {method for method, _ in asked} - {method_of(span) for span in clients}
    assert {status for method, status in asked if method in unsent} <= GIVEN_UP, unsent
    assert not unsent & {method for method, _ in served}, unsent
    told = Counter((method_of(span), outcome(status_of(span))) for span in clients)
    expected = Counter(
        (method, outcome(status)) for method, status in asked.elements() if method not in unsent
    )
    wrong, missing = told - expected, expected - told
    # On a slow machine an answer can come when its client has just given up: the wire does not tell.
    late = {(method, outcome(status)) for method, status in served} & set(wrong)
    assert {(method, "given up") for method, _ in late} >= set(missing), (wrong, missing, result.said)
    assert set(wrong) == late, (wrong, missing, result.said)
    assert len(servers) == len(clients), result.said
    # A call that was cancelled at once may not have come to the server's program.
    unheard = Counter(method_of(s) for s in servers) - Counter(method for method, _ in served.elements())
    assert {status_of(s) for s in servers if method_of(s) in unheard} <= GIVEN_UP, unheard
    heard = Counter((method_of(s), outcome(status_of(s))) for s in servers if method_of(s) not in unheard)
    assert heard == Counter((method, outcome(status)) for method, status in served.elements()), result.said
    by_id = {span.span_id: span for span in result.spans}
    for span in servers:
        above = by_id[span.parent_id]
        assert (span.link, method_of(above)) == ("wire", method_of(span)), (span, above)
        assert outcome(status_of(above)) == outcome(status_of(span)), (span, above)
        assert span.error == (status_of(span) in SERVER_ERRORS), span
        assert above.start <= span.start, (span, above)
    for span in clients:
        assert span.error == (status_of(span) != "OK"), span


def check_sizes(result: Result) -> None:
    """What methods named KIND-NUMBER say of their messages (services/grpc_peer.py), so that none was crossed."""
    for span in result.spans:
        kind, _, number = method_of(span).rpartition("/")[2].partition("-")
        n, attributes = int(number), span.attributes
        if status_of(span) != "OK":
            continue
        requests = n % 5 if kind in ("client", "both") else 1
        responses = n % 5 if kind in ("server", "both") else 1
        assert attributes["autotrace.rpc.request.size"] == requests * (n + 5), span
        assert attributes["autotrace.rpc.response.size"] == responses * (2 * n + 5), span
        assert attributes.get("autotrace.rpc.request.messages", requests) == requests, span
        assert attributes.get("autotrace.rpc.response.messages", responses) == responses, span
