"""The demo shop runs, and demo_services/expected_trees.yaml tells the truth.

The services' own access logs are the witness for every server span in it.
"""

from __future__ import annotations

import http.client
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from demo_services.shop import Ports, Shop, ShopError, listening_ports

DEMO = Path(__file__).resolve().parents[2] / "demo_services"
ENTRIES = yaml.safe_load((DEMO / "expected_trees.yaml").read_text())["requests"]
SERVICES = ("nginx", "storefront", "catalogue", "pricing")


def free_base_port() -> int:
    taken = listening_ports()
    return next(base for base in range(18200, 19000, 5) if not taken & set(Ports.from_base(base)))


def spans_of(nodes: list[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    for node in nodes:
        yield node["span"]
        yield from spans_of(node.get("children", []))


def edges_of(nodes: list[dict[str, Any]]) -> Iterator[tuple[dict[str, Any], dict[str, Any]]]:
    for node in nodes:
        for child in node.get("children", []):
            yield node["span"], child["span"]
        yield from edges_of(node.get("children", []))


def send(port: int, method: str, path: str, body: bytes | None) -> int:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
    connection.request(method, path, body)
    response = connection.getresponse()
    response.read()
    connection.close()
    return response.status


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shop]:
    with Shop(free_base_port(), tmp_path_factory.mktemp("shop")) as running:
        yield running


def logged(shop: Shop, wanted: int, path_end: str = "") -> list[tuple[str, dict[str, Any]]]:
    """Access log entries, each with its service, once there are as many as wanted.

    A line is written just after its response was sent, so it may come a moment after the client has that.
    """
    deadline = time.monotonic() + 10
    while True:
        entries = [
            (service, entry)
            for service in SERVICES
            for entry in shop.access_log(service)
            if entry["path"].endswith(path_end)
        ]
        if len(entries) >= wanted or time.monotonic() > deadline:
            return entries
        time.sleep(0.05)


def test_the_expected_server_spans_are_what_the_services_logged(shop: Shop) -> None:
    expected = []
    for number, entry in enumerate(ENTRIES, start=5000):
        request = entry["request"]
        body = b"x" * request["body_bytes"] if "body_bytes" in request else None
        status = send(shop.ports.nginx, request["method"], request["path"].replace("{id}", str(number)), body)
        assert status == entry["traces"][0]["span"]["status"], request
        expected += [
            (span["service"], span["method"], span["path"].replace("{id}", str(number)), span["status"])
            for span in spans_of(entry["traces"])
            if span["kind"] == "server"
        ]

    found = [
        (service, entry["method"], entry["path"], entry["status"])
        for service, entry in logged(shop, len(expected))
    ]
    assert Counter(found) == Counter(expected)


def test_each_access_log_entry_has_its_time_and_duration(shop: Shop) -> None:
    before = time.time()
    for path in ("/slow/6000", "/pricing/quote/6000"):
        assert send(shop.ports.nginx, "GET", path, None) == 200

    entries = logged(shop, 6, path_end="/6000")
    assert {service for service, _ in entries} == set(SERVICES)
    for _, entry in entries:
        assert before - 1 < entry["time"] < time.time() + 1
        assert 0 <= entry["duration"] < 10
    slow = [entry["duration"] for _, entry in entries if entry["path"] == "/slow/6000"]
    assert len(slow) == 3
    assert min(slow) >= 0.35


@pytest.mark.parametrize("entry", ENTRIES, ids=lambda entry: entry["request"]["path"])
def test_the_expected_trees_are_possible(entry: dict[str, Any]) -> None:
    """Each edge joins what can be joined, by the rung that stands for such an edge."""
    assert [root["span"]["link"] for root in entry["traces"]] == [["none"]] * len(entry["traces"])
    for parent, child in edges_of(entry["traces"]):
        if child["kind"] == "server":
            assert parent["kind"] == "client"
            assert child["link"] == ["wire"]
            assert all(parent[key] == child[key] for key in ("method", "path", "status"))
        else:
            assert (parent["kind"], parent["service"]) == ("server", child["service"])
            assert "thread" in child["link"]
    for span in spans_of(entry["traces"]):
        status = span.get("status", 0)
        failed = status >= (500 if span["kind"] == "server" else 400)
        assert span.get("error") == (str(status) if failed else "ECONNREFUSED" if not status else None)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGKILL])
def test_however_the_launcher_ends_no_service_stays(tmp_path: Path, number: signal.Signals) -> None:
    base = free_base_port()
    command = [sys.executable, str(DEMO / "shop.py"), "up", "--port", str(base), "--logs", str(tmp_path)]
    launcher = subprocess.Popen(command, stdout=subprocess.PIPE)
    assert launcher.stdout is not None
    assert b"the shop is open" in launcher.stdout.readline()
    assert listening_ports() >= set(Ports.from_base(base)[:4])

    os.kill(launcher.pid, number)

    assert launcher.wait(20) == (-number if number == signal.SIGKILL else 0)
    launcher.stdout.close()
    deadline = time.monotonic() + 20
    while listening_ports() & set(Ports.from_base(base)) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not listening_ports() & set(Ports.from_base(base))


def test_a_port_that_is_taken_is_named(shop: Shop, tmp_path: Path) -> None:
    with pytest.raises(ShopError, match=f"port {shop.ports.nginx} is in use"):
        Shop(shop.ports.nginx, tmp_path).start()
