"""HTTP/2 by Python programs: hypercorn as the server, httpx and h2load as clients, 50 requests at once."""

from __future__ import annotations

import re
import shutil
import sys
from collections import Counter
from pathlib import Path

import pytest
from harness import SERVICES, Result, log_entries
from pairs import run_pair

pytest.importorskip("hypercorn", reason="needs hypercorn, a development dependency")
pytest.importorskip("httpx", reason="needs httpx, a development dependency")

APP = f"{sys.executable} {SERVICES}/h2_app.py"
COUNT = 600


def run(directory: Path, client: str) -> Result:
    """Run a client, given with {port} and {dir}, against the server; its log is server.log in `directory`."""
    return run_pair(directory, f"{APP} server {{port}} {{dir}}/server.log", client)


def logged(path: Path) -> Counter[tuple[str, int]]:
    return Counter((entry["path"], entry["status"]) for entry in log_entries(path))


def check_pairs(result: Result, served: Counter[tuple[str, int]]) -> None:
    """The server's log, its spans and its client's spans are the same exchanges, and say the same."""
    servers, clients = result.server(), [span for span in result.client() if span.status]
    by_id = {span.span_id: span for span in result.spans}
    for spans in (servers, clients):
        assert Counter((span.path, span.status) for span in spans) == served, result.said
    for span in servers:
        above = by_id[span.parent_id]
        assert (span.link, above.path, above.status) == ("wire", span.path, span.status), (span, above)
        size, number = map(int, span.path.split("/")[2:])
        for each in (span, above):
            assert each.attributes["network.protocol.version"] == "2"
            assert each.attributes["http.response.body.size"] == size, each
        assert span.attributes["http.request.method"] == above.attributes["http.request.method"]
        if span.attributes["http.request.method"] == "POST":
            assert span.attributes["http.request.body.size"] == number, span


def test_httpx(tmp_path: Path) -> None:
    result = run(tmp_path, f"{APP} client {{port}} {{dir}}/client.log {COUNT} 50")
    served = logged(tmp_path / "server.log")
    assert served == logged(tmp_path / "client.log")
    assert served.total() == len(served) == COUNT
    check_pairs(result, served)


@pytest.mark.skipif(not shutil.which("h2load"), reason="needs h2load (Debian: nghttp2-client)")
@pytest.mark.parametrize("shape", ["-c 50 -m 1", "-c 1 -m 50"])
def test_h2load(tmp_path: Path, shape: str) -> None:
    urls = "http://127.0.0.1:{port}/200/2500/2 http://127.0.0.1:{port}/503/40000/1"
    result = run(tmp_path, f"h2load -n {COUNT} {shape} {urls} > {{dir}}/h2load")
    told = re.search(
        r"status codes: (\d+) 2xx, \d+ 3xx, \d+ 4xx, (\d+) 5xx", (tmp_path / "h2load").read_text()
    )
    assert told is not None
    served = logged(tmp_path / "server.log")
    assert served == {("/200/2500/2", 200): int(told[1]), ("/503/40000/1", 503): int(told[2])}
    assert served.total() == COUNT
    check_pairs(result, served)
