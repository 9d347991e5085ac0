"""The demo shop under the agent: whole trees, as demo_services/expected_trees.yaml says."""

from __future__ import annotations

import json
import sys
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

import pytest
import yaml
from harness import Result, SpanRecord, Traced, wait_for

from demo_services.shop import BUILT, HERE, Ports, listening_ports

ENTRIES = yaml.safe_load((HERE / "expected_trees.yaml").read_text())["requests"]
NEEDED = (
    BUILT / "pricing",
    BUILT / "storefront-venv" / "bin" / "gunicorn",
    HERE / "node_express" / "node_modules" / "express",
)
missing = [path.relative_to(HERE.parent) for path in NEEDED if not path.exists()]
pytestmark = pytest.mark.skipif(
    bool(missing), reason=f"{', '.join(map(str, missing))} missing: run `make services`"
)


def _free_base_port() -> int:
    taken = listening_ports()
    return next(base for base in range(19200, 19900, 5) if not taken & set(Ports.from_base(base)))


def _shop(directory: Path, base: int) -> list[str]:
    return [
        sys.executable,
        str(HERE / "shop.py"),
        "up",
        "--port",
        str(base),
        "--logs",
        str(directory / "logs"),
    ]


def _wait_open(ports: Ports) -> None:
    wanted = set(ports) - {ports.dead}
    wait_for(lambda: wanted <= listening_ports(), "the shop to be open", 40)


def _send(port: int, request: dict[str, Any], number: int) -> int:
    connection = HTTPConnection("127.0.0.1", port, timeout=20)
    body = b"x" * request["body_bytes"] if "body_bytes" in request else None
    connection.request(request["method"], request["path"].replace("{id}", str(number)), body)
    response = connection.getresponse()
    response.read()
    connection.close()
    return response.status


def _expected(node: dict[str, Any]) -> dict[str, Any]:
    span = node["span"]
    route = {"route": span["path"], "name": f"{span['method']} {span['path']}"} if "path" in span else {}
    return {"span": {**span, **route}, "children": [_expected(child) for child in node.get("children", ())]}


def _found(span: SpanRecord, children: dict[str, list[SpanRecord]], number: int) -> dict[str, Any]:
    """A span and what is below it, in the form of the expected trees."""
    attributes = span.attributes
    fields = {
        "service": span.service,
        "kind": span.kind,
        "method": attributes.get("http.request.method"),
        "status": attributes.get("http.response.status_code"),
        "path": span.path.replace(str(number), "{id}") or None,
        "error": attributes.get("error.type"),
        "link": span.link,
        "route": attributes.get("http.route", attributes.get("url.template")),
        "name": span.name if span.path else None,
    }
    return {
        "span": {key: value for key, value in fields.items() if value is not None},
        "children": [_found(child, children, number) for child in children.get(span.span_id, ())],
    }


def _with_the_links_of(found: dict[str, Any], expected: dict[str, Any]) -> dict[str, Any]:
    """`expected`, with each span's link replaced by the one found where that is allowed."""
    span = dict(expected["span"])
    if found["span"]["link"] in span["link"]:
        span["link"] = found["span"]["link"]
    pairs = zip(found["children"], expected["children"], strict=False)
    children = [_with_the_links_of(*pair) for pair in pairs]
    return {"span": span, "children": children + expected["children"][len(children) :]}


def _sort_key(tree: dict[str, Any]) -> tuple[str, str, str]:
    span = tree["span"]
    return span["service"], span["kind"], span.get("path", "")


def _children(result: Result) -> dict[str, list[SpanRecord]]:
    """Spans by parent, in the order they start; the roots are under an empty id."""
    children: dict[str, list[SpanRecord]] = {}
    for span in sorted(result.spans, key=lambda span: span.start):
        children.setdefault(span.parent_id, []).append(span)
    return children


def _number_of(span: SpanRecord) -> str:
    return span.path.split("/")[-1]


def _edges(result: Result) -> Iterator[tuple[SpanRecord, SpanRecord]]:
    by_id = {span.span_id: span for span in result.spans}
    for span in result.spans:
        if span.parent_id:
            yield by_id[span.parent_id], span


def test_every_request_gives_the_expected_trees(tmp_path: Path) -> None:
    ports = Ports.from_base(_free_base_port())
    with Traced(tmp_path / "agent", _shop(tmp_path, ports.nginx)) as agent:
        _wait_open(ports)
        for number, entry in enumerate(ENTRIES, 5000):
            status = _send(ports.nginx, entry["request"], number)
            assert status == entry["traces"][0]["span"]["status"], entry["request"]
            time.sleep(0.05)
        result = agent.finish()
    result.check_ledger()
    assert "malformed" not in result.said
    children = _children(result)
    matched = 0
    for number, entry in enumerate(ENTRIES, 5000):
        mark = entry["request"]["path"].split("/")[-1].replace("{id}", str(number))
        roots = [_found(span, children, number) for span in children[""] if _number_of(span) == mark]
        found = sorted(roots, key=_sort_key)
        expected = sorted(map(_expected, entry["traces"]), key=_sort_key)
        assert len(found) == len(expected), entry["request"]
        for tree, wanted in zip(found, expected, strict=True):
            assert tree == _with_the_links_of(tree, wanted), entry["request"]
        matched += len(found)
    assert matched == len(children[""]), "there are traces that belong to no request"


def test_a_burst_of_everything_at_once_has_no_false_edge(tmp_path: Path) -> None:
    ports = Ports.from_base(_free_base_port())
    requests = [entry["request"] for entry in ENTRIES if "{id}" in entry["request"]["path"]]
    with Traced(tmp_path / "agent", _shop(tmp_path, ports.nginx)) as agent:
        _wait_open(ports)
        with ThreadPoolExecutor(16) as pool:
            list(pool.map(lambda n: _send(ports.nginx, requests[n % len(requests)], n), range(7000, 7420)))
        result = agent.finish()
    result.check_ledger()
    assert "malformed" not in result.said
    false = [
        (parent, child)
        for parent, child in _edges(result)
        if child.path and _number_of(parent) != _number_of(child)
    ]
    assert not false, f"{len(false)} false edges, such as {false[0]}"
    served = Counter(
        (service, entry["method"], entry["path"], entry["status"])
        for service in ("nginx", "storefront", "catalogue", "pricing")
        for entry in _logged(tmp_path / "logs" / f"{service}.access.jsonl")
    )
    spans = result.server()
    assert (
        Counter((s.service, s.attributes["http.request.method"], s.path, s.status) for s in spans) == served
    )
    proxied = result.client("nginx")
    assert sum(1 for s in proxied if s.parent_id) >= 0.99 * len(proxied)


def _logged(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]
