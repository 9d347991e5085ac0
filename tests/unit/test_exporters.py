"""Which exporters a configuration opens, and that an error leaves none of them open."""

from __future__ import annotations

import io
import json
import socket
import subprocess
import sys
import threading
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from autotrace.config import Config
from autotrace.errors import AutotraceError
from autotrace.exporters import Exporters
from autotrace.ledger import Ledger
from autotrace.metrics import RedMetrics
from autotrace.model import Process, Role, Span

SPAN = Span(
    1, 2, 0, "GET /", Role.SERVER, 1000, 2000, {}, False, "", Process(7, "p", {"service.name": "shop"})
)


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture
def ledger() -> Ledger:
    return Ledger()


@pytest.fixture(autouse=True)
def no_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_PROTOCOL"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture(autouse=True)
def nothing_left_running() -> Iterator[None]:
    before = set(threading.enumerate())
    yield
    assert set(threading.enumerate()) <= before


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


def is_free(port: int) -> bool:
    with socket.socket() as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


def config(**options: Any) -> Config:
    """What is left out is off."""
    chosen: dict[str, Any] = {"metrics_port": 0, "console": "off"} | options
    return Config(**chosen)


def open_with(ledger: Ledger, **options: Any) -> Exporters:
    return Exporters(config(**options), ledger, RedMetrics(ledger))


def names(ledger: Ledger) -> set[str]:
    return set(ledger.snapshot()["exporters"])


def test_with_all_off_there_is_none_and_spans_go_nowhere(ledger: Ledger) -> None:
    exporters = open_with(ledger)
    assert not exporters
    exporters.emit(SPAN)
    exporters.close()
    assert (names(ledger), exporters.metrics_url) == (set(), "")


def test_a_file_gets_the_spans_and_the_ledger_says_so(ledger: Ledger, tmp_path: Path) -> None:
    path = tmp_path / "spans.jsonl"
    exporters = open_with(ledger, json_path=path)
    assert exporters
    exporters.emit(SPAN)
    exporters.close()
    (line,) = path.read_text().splitlines()
    assert json.loads(line)["resourceSpans"][0]["scopeSpans"][0]["spans"][0]["name"] == "GET /"
    account = ledger.snapshot()["exporters"]["json"]
    assert (account["accepted"], account["sent"], account["queued"]) == (1, 1, 0)


def test_metrics_are_served_until_the_end(ledger: Ledger) -> None:
    port = free_port()
    exporters = open_with(ledger, metrics_port=port)
    assert exporters
    assert exporters.metrics_url == f"http://localhost:{port}/metrics"
    with urllib.request.urlopen(exporters.metrics_url) as answer:
        assert b"autotrace_" in answer.read()
    exporters.close()
    assert is_free(port)
    assert names(ledger) == set()


@pytest.mark.parametrize(
    ("console", "screen", "opened"),
    [
        ("auto", Terminal, True),
        ("auto", io.StringIO, False),
        ("on", io.StringIO, True),
        ("off", Terminal, False),
    ],
)
def test_the_console_is_for_terminals_unless_told(
    ledger: Ledger, monkeypatch: pytest.MonkeyPatch, console: str, screen: type[io.StringIO], opened: bool
) -> None:
    output = screen()
    monkeypatch.setattr(sys, "stdout", output)
    exporters = open_with(ledger, console=console)
    exporters.emit(SPAN)
    exporters.close()
    assert names(ledger) == ({"console"} if opened else set())
    assert ("GET /" in output.getvalue()) is opened


@pytest.mark.parametrize(
    ("traces", "metrics", "opened"),
    [(True, False, {"otlp"}), (False, True, {"otlp-metrics"}), (True, True, {"otlp", "otlp-metrics"})],
)
def test_otlp_opens_what_is_asked_for(ledger: Ledger, traces: bool, metrics: bool, opened: set[str]) -> None:
    exporters = open_with(
        ledger,
        otlp_traces=traces,
        otlp_metrics=metrics,
        otlp_endpoint=f"http://127.0.0.1:{free_port()}",
        otlp_protocol="http/protobuf",
    )
    assert exporters
    exporters.close()
    assert names(ledger) - {"otlp-metrics"} == opened - {"otlp-metrics"}


def test_every_exporter_gets_every_span(
    ledger: Ledger, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(sys, "stdout", io.StringIO())
    exporters = open_with(
        ledger,
        json_path=tmp_path / "spans.jsonl",
        console="on",
        otlp_traces=True,
        otlp_endpoint=f"http://127.0.0.1:{free_port()}",
        otlp_protocol="http/protobuf",
    )
    for _ in range(3):
        exporters.emit(SPAN)
    exporters.close()
    accounts = ledger.snapshot()["exporters"]
    assert {name: account["accepted"] for name, account in accounts.items()} == {
        "json": 3,
        "console": 3,
        "otlp": 3,
    }
    assert {account["queued"] for account in accounts.values()} == {0}


def test_closing_twice_is_closing_once(ledger: Ledger, tmp_path: Path) -> None:
    exporters = open_with(ledger, json_path=tmp_path / "spans.jsonl", metrics_port=free_port())
    exporters.close()
    assert not exporters
    exporters.close()


def test_an_error_leaves_nothing_open(ledger: Ledger, tmp_path: Path) -> None:
    port = free_port()
    with pytest.raises(AutotraceError, match="absent"):
        open_with(ledger, metrics_port=port, json_path=tmp_path / "absent" / "spans.jsonl")
    assert is_free(port)


def test_an_error_of_the_last_leaves_nothing_of_the_others(
    ledger: Ledger, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    port = free_port()
    path = tmp_path / "spans.jsonl"
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_METRICS_PROTOCOL", "carrier-pigeon")
    with pytest.raises(AutotraceError, match="carrier-pigeon"):
        open_with(ledger, metrics_port=port, json_path=path, otlp_traces=True, otlp_metrics=True)
    assert is_free(port)
    open_files = {link.resolve() for link in Path("/proc/self/fd").iterdir()}
    assert path not in open_files


def test_a_port_that_is_taken_is_one_sentence(ledger: Ledger) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(AutotraceError) as caught:
            open_with(ledger, metrics_host="127.0.0.1", metrics_port=port)
    assert f"127.0.0.1:{port}" in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(("host", "port"), [("no.such.host.invalid", 9464), ("192.0.2.1", 9464)])
def test_an_address_that_is_not_here_is_one_sentence(ledger: Ledger, host: str, port: int) -> None:
    with pytest.raises(AutotraceError, match=f"cannot serve /metrics on {host}:{port}"):
        open_with(ledger, metrics_host=host, metrics_port=port)


IMPORTED = """
import sys
from pathlib import Path
from autotrace.config import Config
from autotrace.exporters import Exporters
from autotrace.ledger import Ledger
from autotrace.metrics import RedMetrics
ledger = Ledger()
options = {"metrics_port": 0, "console": "off", "json_path": Path(sys.argv[1])}
Exporters(Config(**options), ledger, RedMetrics(ledger)).close()
print(sorted({"grpc", "prometheus_client", "rich"} & set(sys.modules)))
"""


def test_what_is_not_used_is_not_imported(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", IMPORTED, str(tmp_path / "spans.jsonl")],
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout == "[]\n"
