"""The demo shop under the agent: whole trees, as demo_services/expected_trees.yaml says."""

from __future__ import annotations

import json
import ssl
import sys
import time
from bisect import bisect_right
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from http.client import HTTPConnection, HTTPSConnection
from pathlib import Path
from typing import Any

import pytest
import yaml
from harness import Result, SpanRecord, Traced, wait_for
from tls import only_copies, reads

from demo_services.shop import BUILT, BUILT_IN_PLACE, HERE, Ports, listening_ports

ENTRIES = yaml.safe_load((HERE / "expected_trees.yaml").read_text())["requests"]
NEEDED = (
    BUILT / "pricing",
    BUILT / "delivery",
    BUILT / "storefront-venv" / "bin" / "gunicorn",
    BUILT / "warehouse-venv" / "bin" / "python",
    *BUILT_IN_PLACE,
)
missing = [path.relative_to(HERE.parent) for path in NEEDED if not path.exists()]
pytestmark = pytest.mark.skipif(
    bool(missing), reason=f"{', '.join(map(str, missing))} missing: run `make services`"
)
HTTP_SERVICES = ("nginx", "storefront", "catalogue", "pricing")
GRPC_SERVICES = ("delivery", "warehouse", "courier")
MAY_NOT_COUNT = ("storefront", "warehouse")
"""Services of grpcio, which spreads messages over buffers as it likes: then it is not told how many there are."""

NOTE_BYTES, AROUND_NOTE = 200, 14
"""Of a parcel's note in the burst, on top of its request's place in it; of what gRPC and protobuf put around it."""


def _free_base_port() -> int:
    taken = listening_ports()
    return next(base for base in range(19200, 19900, 10) if not taken & set(Ports.from_base(base)))


def _traced(directory: Path, ports: Ports) -> Traced:
    """The shop under an agent that probes nothing but the shop's own files; `_wait_open` waits for both."""
    logs = str(directory / "logs")
    shop = [sys.executable, str(HERE / "shop.py"), "up", "--port", str(ports.nginx), "--logs", logs]
    return Traced(directory / "agent", shop, (*only_copies(BUILT), "--runtime-probes", f"{BUILT}/*"))


def _wait_open(agent: Traced, ports: Ports) -> None:
    wait_for(lambda: not ports.missing(), "the shop to be open", 40)
    reads(agent, "libssl.so.3", "pricing")
    for runtime in (
        "pricing (Go's net/http client)",
        "delivery (gRPC-Go's client)",
        "delivery (gRPC-Go's server)",
    ):
        wait_for(lambda runtime=runtime: runtime in agent.said(), f"the probes of {runtime}")


def _send(ports: Ports, scheme: str, request: dict[str, Any], number: int, body_bytes: int = 0) -> int:
    connection = HTTPConnection("127.0.0.1", ports.nginx, timeout=20)
    if scheme == "https":
        trusted = ssl.create_default_context(cafile=str(BUILT / "tls" / "cert.pem"))
        connection = HTTPSConnection("127.0.0.1", ports.nginx_tls, timeout=20, context=trusted)
    body_bytes = body_bytes or request.get("body_bytes", 0)
    path = request["path"].replace("{id}", str(number))
    connection.request(request["method"], path, b"x" * body_bytes if body_bytes else None)
    response = connection.getresponse()
    response.read()
    connection.close()
    return response.status


def _expected(node: dict[str, Any], scheme: str) -> dict[str, Any]:
    span = dict(node["span"])
    if "call" in span:
        span["name"] = span["call"]
    elif "path" in span:
        span |= {"route": span["path"], "name": f"{span['method']} {span['path']}"}
        span.setdefault(
            "scheme", scheme if (span["service"], span["kind"]) == ("nginx", "server") else "http"
        )
    children = [_expected(child, scheme) for child in node.get("children", ())]
    return {"span": span, "children": sorted(children, key=_key)}


def _key(tree: dict[str, Any]) -> tuple[str, ...]:
    span = tree["span"]
    return span["service"], span["kind"], span.get("path", ""), span.get("call", "")


def _with_roots(
    found: dict[str, Any], expected: dict[str, Any], roots: list[dict[str, Any]]
) -> dict[str, Any]:
    """`found`, with those of the other traces' `roots`, which it takes, that may stand there without a link."""
    children = list(found["children"])
    for wanted in expected["children"]:
        if "none" in wanted["span"]["link"]:
            for root in [root for root in roots if _key(root) == _key(wanted)][:1]:
                roots.remove(root)
                children.append(root)
    children.sort(key=_key)
    pairs = zip(children, expected["children"], strict=False)
    below = [_with_roots(child, wanted, roots) for child, wanted in pairs]
    return {"span": found["span"], "children": below + children[len(below) :]}


def _found(span: SpanRecord, children: dict[str, list[SpanRecord]], number: int) -> dict[str, Any]:
    """A span and what is below it, in the form of the expected trees."""
    attributes = span.attributes
    fields = {
        "service": span.service,
        "kind": span.kind,
        "error": attributes.get("error.type"),
        "link": span.link,
    }
    if "rpc.method" in attributes:
        fields |= {
            "call": attributes["rpc.method"],
            "status": attributes["rpc.response.status_code"],
            "messages": attributes.get("autotrace.rpc.response.messages"),
            "name": span.name,
        }
    elif span.path:
        fields |= {
            "method": attributes.get("http.request.method"),
            "status": attributes.get("http.response.status_code"),
            "path": span.path.replace(str(number), "{id}"),
            "scheme": attributes.get("url.scheme", attributes.get("url.full", "").partition(":")[0]),
            "route": attributes.get("http.route", attributes.get("url.template")),
            "name": span.name,
        }
    return {
        "span": {key: value for key, value in fields.items() if value is not None},
        "children": [_found(child, children, number) for child in children.get(span.span_id, ())],
    }


def _with_the_links_of(found: dict[str, Any], expected: dict[str, Any]) -> dict[str, Any]:
    """`expected`, with each span's link replaced by the one found where that is allowed.

    And without its messages if they are not told and need not be.
    """
    span = dict(expected["span"])
    if "messages" not in found["span"] and found["span"]["service"] in MAY_NOT_COUNT:
        span.pop("messages", None)
    if found["span"]["link"] in span["link"]:
        span["link"] = found["span"]["link"]
    pairs = zip(found["children"], expected["children"], strict=False)
    children = [_with_the_links_of(*pair) for pair in pairs]
    return {"span": span, "children": children + expected["children"][len(children) :]}


def _children(result: Result) -> dict[str, list[SpanRecord]]:
    """Spans by parent, in the order they start; the roots are under an empty id."""
    children: dict[str, list[SpanRecord]] = {}
    for span in sorted(result.spans, key=lambda span: span.start):
        children.setdefault(span.parent_id, []).append(span)
    return children


def _by_request(roots: list[SpanRecord]) -> list[list[SpanRecord]]:
    """The roots of each request, if requests were sent one at a time: nginx sees it before all others."""
    starts = [span.start for span in roots if (span.service, span.kind) == ("nginx", "server")]
    requests: list[list[SpanRecord]] = [[] for _ in starts]
    for span in roots:
        requests[bisect_right(starts, span.start) - 1].append(span)
    return requests


def _number_of(span: SpanRecord) -> str:
    """Which request of the burst a span belongs to; empty if it does not say."""
    if "rpc.method" not in span.attributes:
        return span.path.split("/")[-1]
    if not span.attributes["rpc.method"].endswith(("/Ship", "/Pack", "/Collect")):
        return ""
    return str(7000 + int(span.attributes["autotrace.rpc.request.size"]) - NOTE_BYTES - AROUND_NOTE)


def _edges(result: Result) -> Iterator[tuple[SpanRecord, SpanRecord]]:
    by_id = {span.span_id: span for span in result.spans}
    for span in result.spans:
        if span.parent_id:
            yield by_id[span.parent_id], span


def _http_line(span: SpanRecord) -> tuple[object, ...]:
    """What nginx and the others log of a request that they served; only nginx logs the scheme."""
    attributes = span.attributes
    scheme = attributes["url.scheme"] if span.service == "nginx" else None
    return span.service, attributes["http.request.method"], span.path, span.status, scheme


def _call(span: SpanRecord) -> tuple[str, str]:
    return span.attributes["rpc.method"], span.attributes["rpc.response.status_code"]


def _logged(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_every_request_gives_the_expected_trees(tmp_path: Path) -> None:
    ports = Ports.from_base(_free_base_port())
    sent = [(scheme, entry) for scheme in ("http", "https") for entry in ENTRIES]
    with _traced(tmp_path, ports) as agent:
        _wait_open(agent, ports)
        for number, (scheme, entry) in enumerate(sent, 5000):
            status = _send(ports, scheme, entry["request"], number)
            assert status == entry["tree"]["span"]["status"], entry["request"]
            time.sleep(0.05)
        result = agent.finish()
    result.check_ledger()
    assert "malformed" not in result.said
    children = _children(result)
    requests = _by_request(children[""])
    for number, (scheme, entry), roots in zip(range(5000, 6000), sent, requests, strict=False):
        first, *others = (_found(span, children, number) for span in roots)
        expected = _expected(entry["tree"], scheme)
        found = _with_roots(first, expected, others)
        assert found == _with_the_links_of(found, expected), (scheme, entry["request"])
        assert not others, (scheme, entry["request"])
    assert len(requests) == len(sent)


def test_a_burst_of_everything_at_once_has_no_false_edge(tmp_path: Path) -> None:
    """Each parcel's note has its own length, so that the size of a gRPC request tells which it is."""
    ports = Ports.from_base(_free_base_port())
    requests = [entry["request"] for entry in ENTRIES if "{id}" in entry["request"]["path"]]
    requests += [request for request in requests if request["path"] == "/ship/{id}"] * 5

    def send(n: int) -> None:
        request = requests[n % len(requests)]
        ship = request["path"] == "/ship/{id}"
        _send(ports, ("http", "https")[n // 7 % 2], request, n, NOTE_BYTES + n - 7000 if ship else 0)

    with _traced(tmp_path, ports) as agent:
        _wait_open(agent, ports)
        with ThreadPoolExecutor(16) as pool:
            list(pool.map(send, range(7000, 7480)))
        result = agent.finish()
    result.check_ledger()
    assert "malformed" not in result.said
    false = [
        (parent, child)
        for parent, child in _edges(result)
        if _number_of(parent) != _number_of(child) and _number_of(child)
    ]
    assert not false, f"{len(false)} false edges, such as {false[0]}"
    served = Counter(
        (service, entry["method"], entry["path"], entry["status"], entry.get("scheme"))
        for service in HTTP_SERVICES
        for entry in _logged(tmp_path / "logs" / f"{service}.access.jsonl")
    )
    spans = [span for span in result.server() if "rpc.method" not in span.attributes]
    assert Counter(map(_http_line, spans)) == served
    logged = [
        (service, entry["method"], entry["status"], entry["messages"])
        for service in GRPC_SERVICES
        for entry in _logged(tmp_path / "logs" / f"{service}.access.jsonl")
    ]
    messages = {(method, status): count for _, method, status, count in logged}
    calls = [span for span in result.server() if "rpc.method" in span.attributes]
    assert Counter((span.service, *_call(span)) for span in calls) == Counter(line[:3] for line in logged)
    for span in calls:
        above = result.parent_of(span)
        assert above, span
        assert (span.link, above.kind, _call(above)) == ("wire", "client", _call(span)), (span, above)
        for each in (span, above):
            told = each.attributes.get("autotrace.rpc.response.messages")
            allowed = (messages[_call(span)], *([None] if each.service in MAY_NOT_COUNT else []))
            assert told in allowed, each
    proxied = result.client("nginx")
    assert sum(1 for s in proxied if s.parent_id) >= 0.99 * len(proxied)
