"""The demo shop runs, and demo_services/expected_trees.yaml tells the truth.

The services' own access logs are the witness for every server span in it.
"""

from __future__ import annotations

import http.client
import os
import signal
import ssl
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from demo_services.shop import Ports, Shop, ShopError, listening_ports, prepare_tls

DEMO = Path(__file__).resolve().parents[2] / "demo_services"
ENTRIES = yaml.safe_load((DEMO / "expected_trees.yaml").read_text())["requests"]
SERVICES = ("nginx", "storefront", "catalogue", "pricing", "delivery", "warehouse", "courier")


def free_base_port() -> int:
    taken = listening_ports()
    return next(base for base in range(18200, 19000, 10) if not taken & set(Ports.from_base(base)))


def spans_of(node: dict[str, Any]) -> Iterator[dict[str, Any]]:
    yield node["span"]
    for child in node.get("children", []):
        yield from spans_of(child)


def edges_of(node: dict[str, Any]) -> Iterator[tuple[dict[str, Any], dict[str, Any]]]:
    for child in node.get("children", []):
        yield node["span"], child["span"]
        yield from edges_of(child)


def send(shop: Shop, method: str, path: str, body: bytes | None) -> int:
    trusted = ssl.create_default_context(cafile=str(prepare_tls().certificate))
    connection = http.client.HTTPSConnection("127.0.0.1", shop.ports.nginx_tls, timeout=20, context=trusted)
    connection.request(method, path, body)
    response = connection.getresponse()
    response.read()
    connection.close()
    return response.status


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shop]:
    with Shop(free_base_port(), tmp_path_factory.mktemp("shop")) as running:
        yield running


def logged(shop: Shop, wanted: int, number: str = "") -> list[tuple[str, dict[str, Any]]]:
    """Access log entries, of one request or of all, each with its service, once there are as many as wanted.

    A line is written just after its response was sent, so it may come a moment after the client has that.
    """
    deadline = time.monotonic() + 10
    while True:
        entries = [
            (service, entry)
            for service in SERVICES
            for entry in shop.access_log(service)
            if entry.get("path", entry.get("id")).endswith(number)
        ]
        if len(entries) >= wanted or time.monotonic() > deadline:
            return entries
        time.sleep(0.05)


def line(service: str, span: dict[str, Any]) -> tuple[object, ...]:
    """What tells a request to a service from others, of an entry of its access log and of a span."""
    if "path" in span:
        return service, span["method"], span["path"], span["status"]
    return service, span.get("call", span["method"] if "id" in span else ""), span["status"], span["messages"]


def test_the_expected_server_spans_are_what_the_services_logged(shop: Shop) -> None:
    expected = []
    for number, entry in enumerate(ENTRIES, start=5000):
        request = entry["request"]
        body = b"x" * request["body_bytes"] if "body_bytes" in request else None
        status = send(shop, request["method"], request["path"].replace("{id}", str(number)), body)
        assert status == entry["tree"]["span"]["status"], request
        for span in spans_of(entry["tree"]):
            if span["kind"] == "server":
                named = {key: str(span[key]).replace("{id}", str(number)) for key in span if key == "path"}
                expected.append(line(span["service"], {**span, **named}))

    assert Counter(line(*entry) for entry in logged(shop, len(expected))) == Counter(expected)


def test_each_access_log_entry_has_its_time_and_duration(shop: Shop) -> None:
    before = time.time()
    for method, path in (("GET", "/slow/6000"), ("GET", "/pricing/quote/6000"), ("POST", "/ship/6000")):
        assert send(shop, method, path, None) in (200, 201)

    entries = logged(shop, 12, number="6000")
    assert {service for service, _ in entries} == set(SERVICES)
    for _, entry in entries:
        assert before - 1 < entry["time"] < time.time() + 1
        assert 0 <= entry["duration"] < 10
    slow = [entry["duration"] for _, entry in entries if entry.get("path") == "/slow/6000"]
    assert len(slow) == 3
    assert min(slow) >= 0.35


@pytest.mark.parametrize("entry", ENTRIES, ids=lambda entry: entry["request"]["path"])
def test_the_expected_trees_are_possible(entry: dict[str, Any]) -> None:
    """Each edge joins what can be joined, by the rung that stands for such an edge."""
    assert entry["tree"]["span"]["link"] == ["none"]
    for parent, child in edges_of(entry["tree"]):
        if child["kind"] == "server":
            assert parent["kind"] == "client"
            assert child["link"] == ["wire"]
            assert all(
                parent.get(key) == child.get(key) for key in ("method", "path", "call", "status", "scheme")
            )
        else:
            assert (parent["kind"], parent["service"]) == ("server", child["service"])
            assert "wire" not in child["link"]
    for span in spans_of(entry["tree"]):
        status = span.get("status", 0)
        if "call" in span:
            assert span.get("error") == (status if span["kind"] == "client" and status != "OK" else None)
            continue
        failed = status >= (500 if span["kind"] == "server" else 400)
        assert span.get("error") == (str(status) if failed else "ECONNREFUSED" if not status else None)


def test_tls_is_prepared_once_and_a_newer_openssl_is_taken(tmp_path: Path) -> None:
    files = prepare_tls(tmp_path)
    certificate, (library, *_) = files.certificate.read_bytes(), sorted(files.libraries.iterdir())
    content, inode = library.read_bytes(), library.stat().st_ino

    assert prepare_tls(tmp_path) == files
    assert (files.certificate.read_bytes(), library.stat().st_ino) == (certificate, inode)

    library.write_bytes(b"an older one")
    with library.open("rb") as mapped:
        prepare_tls(tmp_path)
        assert mapped.read() == b"an older one"
    assert library.read_bytes() == content


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGKILL])
def test_however_the_launcher_ends_no_service_stays(tmp_path: Path, number: signal.Signals) -> None:
    base = free_base_port()
    command = [sys.executable, str(DEMO / "shop.py"), "up", "--port", str(base), "--logs", str(tmp_path)]
    launcher = subprocess.Popen(command, stdout=subprocess.PIPE)
    assert launcher.stdout is not None
    assert b"the shop is open" in launcher.stdout.readline()
    assert not Ports.from_base(base).missing()

    os.kill(launcher.pid, number)

    assert launcher.wait(20) == (-number if number == signal.SIGKILL else 0)
    launcher.stdout.close()
    deadline = time.monotonic() + 20
    while listening_ports() & set(Ports.from_base(base)) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not listening_ports() & set(Ports.from_base(base))


def test_a_service_that_ends_is_named_with_its_log(tmp_path: Path) -> None:
    with Shop(free_base_port(), tmp_path) as shop:
        shop.check()
        os.kill(shop.pid("courier"), signal.SIGKILL)
        shop.processes["courier"].wait(10)
        with pytest.raises(ShopError, match=f"courier ended .* in {tmp_path}/courier.log"):
            shop.check()


def test_a_port_that_is_taken_is_named(shop: Shop, tmp_path: Path) -> None:
    with pytest.raises(ShopError, match=f"port {shop.ports.nginx} is in use"):
        Shop(shop.ports.nginx, tmp_path).start()
