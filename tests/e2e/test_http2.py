"""HTTP/2 without TLS between the usual programs: by prior knowledge, by upgrade, and with many streams at once."""

from __future__ import annotations

import re
import shutil
import sys
from collections import Counter
from pathlib import Path

import pytest
from harness import SERVICES, Result, Traced, free_ports, listening, log_entries, shell, wait_for
from pairs import run_pair

pytestmark = pytest.mark.skipif(
    not (shutil.which("nghttpd") and shutil.which("h2load")),
    reason="needs nghttpd and h2load (Debian: nghttp2-server, nghttp2-client)",
)


def run(directory: Path, client: str, log: bool = True) -> Result:
    """Run a client, given with {port} and {dir}, against nghttpd, which serves `files` in `directory`."""
    files = directory / "files"
    files.mkdir()
    for size in (100, 40_000):
        (files / f"size-{size}").write_bytes(b"x" * size)
    words = "--verbose" if log else ""
    server = f"nghttpd --no-tls {words} --htdocs={files} {{port}} > {{dir}}/server.log"
    return run_pair(directory, server, client)


def check_pairs(result: Result, count: int) -> None:
    """`count` exchanges, each with a span on both sides that say the same."""
    servers, clients = result.server("nghttpd"), [span for span in result.client() if span.status]
    assert (len(servers), len(clients)) == (count, count), result.said
    by_id = {span.span_id: span for span in result.spans}
    for span in servers:
        above = by_id[span.parent_id]
        assert span.link == "wire", span
        for name in ("http.response.status_code", "http.response.body.size", "network.protocol.version"):
            assert span.attributes[name] == above.attributes[name], (name, span, above)
        assert span.attributes["network.protocol.version"] == "2"
        assert span.path == above.path


def test_curl_by_prior_knowledge(tmp_path: Path) -> None:
    names = ["size-100", "size-40000", "missing"]
    curl = "curl -s --http2-prior-knowledge http://127.0.0.1:{port}/"
    result = run(tmp_path, f"for name in {' '.join(names * 7)}; do {curl}$name; done > {{dir}}/out")
    check_pairs(result, 21)
    told = Counter((span.path, span.status) for span in result.server("nghttpd"))
    assert told == Counter({(f"/{name}", 404 if name == "missing" else 200): 7 for name in names})
    sizes = {
        span.path: span.attributes["http.response.body.size"]
        for span in result.client()
        if span.status == 200
    }
    assert sizes == {"/size-100": 100, "/size-40000": 40_000}


def test_h2load_with_100_streams_at_once(tmp_path: Path) -> None:
    urls = "http://127.0.0.1:{port}/size-100 http://127.0.0.1:{port}/missing"
    result = run(tmp_path, f"h2load -n 2000 -c 2 -m 100 {urls} > {{dir}}/h2load")
    check_pairs(result, 2000)
    log = (tmp_path / "server.log").read_text()
    served = Counter(re.findall(r":status: (\d+)", log))
    told = Counter(str(span.status) for span in result.server("nghttpd"))
    assert told == served == Counter({"200": 1000, "404": 1000})


def test_access_log_and_spans_at_concurrency_50(tmp_path: Path) -> None:
    client = "h2load -n 3000 -c 50 -m 1 --log-file={dir}/client.log http://127.0.0.1:{port}/size-40000"
    result = run(tmp_path, f"{client} > {{dir}}/h2load")
    check_pairs(result, 3000)
    asked = [line.split("\t")[1] for line in (tmp_path / "client.log").read_text().splitlines()]
    served = re.findall(r":status: (\d+)", (tmp_path / "server.log").read_text())
    assert asked == served == ["200"] * 3000
    assert Counter(span.status for span in result.spans if span.status) == {200: 6000}
    assert {span.attributes["http.response.body.size"] for span in result.spans if span.status} == {40_000}


@pytest.mark.parametrize("first", ["early", "late"])
def test_curl_by_upgrade(tmp_path: Path, first: str) -> None:
    """The first request came before there were streams: it ends with its 101, and its response as stream 1 is
    passed over. All that come after it are there."""
    urls = " ".join(f"http://127.0.0.1:{{port}}/{name}" for name in (first, "second", "third"))
    server = f"{sys.executable} {SERVICES}/h2c_upgrade.py {{port}}"
    result = run_pair(tmp_path, server, f"curl -s --http2 {urls} > {{dir}}/out")
    assert (tmp_path / "out").read_text() == f"/{first}/second/third"
    for kind in ("server", "client"):
        told = [
            (span.path, span.status, span.attributes["network.protocol.version"])
            for span in sorted(result.spans, key=lambda span: span.start)
            if span.kind == kind
        ]
        assert told == [(f"/{first}", 101, "1.1"), ("/second", 200, "2"), ("/third", 200, "2")], result.said
    assert {span.link for span in result.server()} == {"wire"}


def three_requests(directory: Path, words: str = "") -> Result:
    """What the agent tells of services/h2_long_call.py, which asks nghttpd for /same."""
    (port,) = free_ports(1)
    (directory / "files").mkdir()
    (directory / "files" / "same").write_bytes(b"x" * 100)
    client = f"{sys.executable} {SERVICES}/h2_long_call.py {port} /same {words}"
    go, done = directory / "go", directory / "done"
    command = shell(
        f"nghttpd --no-tls --htdocs={directory}/files {port}",
        f"(until [ -e {go} ]; do sleep 0.1; done; {client} && touch {done}; exec sleep 60)",
    )
    with Traced(directory / "agent", command) as agent:
        wait_for(lambda: listening(port), "the server")
        go.touch()
        wait_for(done.exists, "the client")
        result = agent.finish()
    result.check_ledger()
    return result


def test_a_call_with_more_frames_than_are_walked(tmp_path: Path) -> None:
    """What is left out is counted, as is the request in it, and the next call is walked again."""
    result = three_requests(tmp_path)
    assert re.search(r"kernel: .*\bunwalked 1\b", result.said), result.said
    assert result.dropped == {"unwalked": 1}, result.said
    clients = [span for span in result.client() if span.status]
    assert [(span.path, span.status) for span in result.server()] == [("/same", 200)] * 3
    assert [(span.path, span.status) for span in clients] == [("/same", 200)] * 2
    below = [span.parent_id for span in result.server()]
    assert [below.count(span.span_id) for span in clients] == [1, 1]


@pytest.mark.parametrize("pieces", [260, 1024])
def test_a_call_of_many_pieces(tmp_path: Path, pieces: int) -> None:
    """gRPC's C core hands over up to 260 at once, the kernel takes 1,024."""
    result = three_requests(tmp_path, str(pieces))
    assert not result.dropped, result.said
    check_pairs(result, 3)


def test_a_call_that_was_cut_goes_on_with_something_else(tmp_path: Path) -> None:
    """What a call did not take need not be what the next one brings. The answer that was put in between is missed,
    and that is counted; nothing of the body is taken for frames, and the next answer is there."""
    (port,) = free_ports(1)
    log = tmp_path / "log"
    command = [sys.executable, f"{SERVICES}/h2_retry.py", str(port), str(log)]
    with Traced(tmp_path / "agent", command) as agent:
        agent.process.wait(60)
        result = agent.finish(0)
    result.check_ledger()
    assert [entry["stream"] for entry in log_entries(log)] == [1, 3, 5]
    assert not result.dropped, result.said
    assert re.search(r"kernel: .*\bunwalked 1\b", result.said), result.said
    assert "protocols: gap 1\n" in result.said
    assert {span.path: span.status for span in result.client()} == {"/1": 200, "/3": 200, "/5": 200}
    assert {span.path: span.status for span in result.server()} == {"/1": 200, "/3": 0, "/5": 200}
