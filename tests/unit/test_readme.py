"""The trace in the README is one that the demo shop gives: a tree of demo_services/expected_trees.yaml."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parents[2]
LINE = re.compile(
    r"(?P<indent>[ │├╰─]*)(?P<service>\w+) (?P<client>-> )?(?P<method>[A-Z]+) (?P<where>\S+)(?P<cut>…)? +"
    r"(?P<status>\d+) +[\d.]+ (?:ms|µs) +━+ +(?P<link>\w+)"
)
Told = tuple[int, str, str, str, str, int]


def told(line: str) -> tuple[Told, str]:
    """Depth, service, kind, method, path and status of a line, and its link."""
    found = LINE.fullmatch(line)
    assert found is not None, line
    path = "/" + found["where"].partition("/")[2].removesuffix("…")
    kind = "client" if found["client"] else "server"
    depth = len(found["indent"]) // 3
    return (depth, found["service"], kind, found["method"], path, int(found["status"])), found["link"]


def expected(node: dict[str, Any], depth: int = 0) -> Iterator[tuple[Told, list[str]]]:
    span = node["span"]
    yield (depth, *(span[key] for key in ("service", "kind", "method", "path", "status"))), span["link"]
    for child in node.get("children", ()):
        yield from expected(child, depth + 1)


def test_the_trace_of_the_demo_shop() -> None:
    readme = (ROOT / "README.md").read_text()
    head, *lines = (
        next(part for part in readme.split("```") if part.startswith("\ntrace ")).strip().split("\n")
    )
    entries = yaml.safe_load((ROOT / "demo_services" / "expected_trees.yaml").read_text())["requests"]
    spans, links = zip(*map(told, lines), strict=True)
    tree = next(each["tree"] for each in entries if each["request"]["path"] == spans[0][4])
    truth = list(expected(tree))
    assert len(truth) == len(spans)
    for span, link, (true, possible) in zip(spans, links, truth, strict=True):
        assert span[:4] == true[:4]
        assert true[4].startswith(span[4])
        assert span[5] == true[5]
        assert ("none" if link == "root" else link) in possible
    services = {span[1] for span in spans}
    assert f"· {len(spans)} spans · {len(services)} services" in head
