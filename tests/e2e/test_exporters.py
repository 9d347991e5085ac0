"""Spans in a file and metrics on /metrics, and what can be in their way."""

from __future__ import annotations

import socket
import subprocess
import sys
import time
import urllib.request
from collections import Counter
from pathlib import Path

from harness import (
    SERVICES,
    Traced,
    drive,
    free_ports,
    listening,
    log_entries,
    shell,
    wait_for,
)
from prometheus_client.parser import text_string_to_metric_families

ROUTES = {"item": "/item/{id}", "status": "/status/{id}/{id}"}


def _backend(port: int, tmp_path: Path) -> list[str]:
    return shell(f"{sys.executable} {SERVICES}/backend.py {port} {tmp_path}/log")


def test_a_disk_that_is_full(tmp_path: Path) -> None:
    (port,) = free_ports(1)
    with Traced(tmp_path / "agent", _backend(port, tmp_path), ("--json", "/dev/full")) as agent:
        wait_for(lambda: listening(port), "the backend")
        for i in range(4):
            drive(port, [f"/id/{i}x{j}" for j in range(20)])
            time.sleep(0.4)
        result = agent.finish()
    assert result.code == 0
    assert result.ledger == {"seen": 80, "emitted": 80, "dropped": 0, "in_flight": 0}
    assert result.exported("json") == {"accepted": 80, "disk_full": 80}
    (sentence,) = [line for line in result.said.splitlines() if "No space left" in line]
    assert "/dev/full" in sentence


def _scrape(port: int) -> dict[tuple[str, frozenset[tuple[str, str]]], float]:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10) as response:
        text = response.read().decode()
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def _sum_by(
    samples: dict[tuple[str, frozenset[tuple[str, str]]], float], name: str, *labels: str
) -> Counter[tuple[str, ...]]:
    counted: Counter[tuple[str, ...]] = Counter()
    for (sample, its_labels), value in samples.items():
        if sample == name and value:
            values = dict(its_labels)
            counted[tuple(values.get(label, "") for label in labels)] += int(value)
    return counted


def test_metrics_tell_the_truth_during_the_run(tmp_path: Path) -> None:
    front, first, second, metrics = free_ports(4)
    command = shell(
        f"{sys.executable} {SERVICES}/front_threads.py {front} {tmp_path}/front.log",
        f"OTEL_SERVICE_NAME=first {sys.executable} {SERVICES}/backend.py {first} {tmp_path}/first.log",
        f"OTEL_SERVICE_NAME=second {sys.executable} {SERVICES}/backend.py {second} {tmp_path}/second.log",
    )
    paths = [
        *(f"/to/{first},{second}/item/{i}" for i in range(60)),
        *(f"/to/{second}/status/503/{i}" for i in range(30)),
    ]
    duration = "http_server_request_duration_seconds"
    with Traced(tmp_path / "agent", command, ("--metrics-port", str(metrics))) as agent:
        wait_for(lambda: all(map(listening, (front, first, second))), "the services")
        drive(front, paths, concurrency=4)
        wait_for(
            lambda: _sum_by(_scrape(metrics), f"{duration}_count").total() >= 240, "all to be counted", 5
        )
        samples = _scrape(metrics)
        result = agent.finish()
    result.check_ledger()
    truth: Counter[tuple[str, ...]] = Counter(
        (
            service,
            entry["method"],
            "/item/{id}" if "item" in entry["path"] else "/status/{id}/{id}",
            str(entry["status"]),
        )
        for service in ("first", "second")
        for entry in log_entries(tmp_path / f"{service}.log")
    )
    labels = ("job", "http_request_method", "http_route", "http_response_status_code")
    counted = _sum_by(samples, f"{duration}_count", *labels)
    assert {key: n for key, n in counted.items() if key[0] != "front_threads"} == truth
    assert sum(n for key, n in counted.items() if key[0] == "front_threads") == len(paths)
    buckets = {
        (name, labels - {("le", "+Inf")}): value
        for (name, labels), value in samples.items()
        if name == f"{duration}_bucket" and ("le", "+Inf") in labels
    }
    assert buckets == {
        (f"{duration}_bucket", labels): value
        for (name, labels), value in samples.items()
        if name == f"{duration}_count"
    }
    calls = Counter((entry["port"], entry["result"] >= 500) for entry in log_entries(tmp_path / "front.log"))
    edges = _sum_by(samples, "traces_service_graph_request_total", "client", "server")
    failed = _sum_by(samples, "traces_service_graph_request_failed_total", "client", "server")
    assert edges["front_threads", "first"] == calls[first, False] == 60
    assert edges["front_threads", "second"] == calls[second, False] + calls[second, True] == 90
    assert failed == {("front_threads", "second"): 30}
    assert _sum_by(samples, "autotrace_exchanges_seen_total").total() == len(result.spans)


def test_a_port_that_is_in_use(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        command = [
            *(sys.executable, "-m", "autotrace.cli", "run", "--metrics-port", str(port), "--console", "off"),
            *("--runtime-dir", str(tmp_path), "--", "touch", str(tmp_path / "started")),
        ]
        ended = subprocess.run(command, capture_output=True, text=True, timeout=30)
    assert ended.returncode == 1
    (sentence,) = [line for line in ended.stderr.splitlines() if line.startswith("Error: ")]
    assert str(port) in sentence
    assert "Traceback" not in ended.stderr
    assert not (tmp_path / "started").exists()
