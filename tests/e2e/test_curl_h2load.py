"""curl and h2load, 50 requests at once: to nginx by HTTP/2, and to gRPC servers, though they know nothing of gRPC.

Their own logs, the server's log and the spans of both sides are the same, one for one.
"""

from __future__ import annotations

import json
import shutil
from collections import Counter
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import grpc
import pytest
from grpc_peers import PYTHON, build_go
from harness import Result, SpanRecord, log_entries, nginx_config
from pairs import run_pair
from rpc_spans import check_calls, check_sizes, logged, method_of, status_of

pytestmark = pytest.mark.skipif(
    not (shutil.which("curl") and shutil.which("h2load")),
    reason="needs curl and h2load (Debian: curl, nghttp2-client)",
)

COUNT, AT_ONCE = 300, 50
KINDS = "unary", "server", "client", "both", "fail", "halfway"
CODES = {code.value[0]: code for code in grpc.StatusCode}
TOLD = (
    '{"url":"%{url_effective}","status":%{http_code},"size":%{size_download},'
    '"connections":%{num_connects},"rpc":"%header{grpc-status}"}\\n'
)
SHAPES = "-c 1 -m 50", "-c 50 -m 1"


def curl(directory: Path, requests: list[tuple[str, list[str]]]) -> str:
    """The command, with {port} and {dir}, of one curl that makes these requests (a path, and options), 50 at once;
    it logs TOLD of each.

    Only the first goes by prior knowledge, and the others on its connection: curl 7.88 says a second preface on a
    connection that it knows to speak HTTP/2 already.
    """
    (directory / "told").write_text(TOLD)
    transfers = []
    for number, (path, options) in enumerate(requests):
        lines = [
            f'url = "http://127.0.0.1:PORT{path}"',
            "http2" if number else "http2-prior-knowledge",
            "output = /dev/null",
            f'write-out = "@{directory}/told"',
            *options,
        ]
        transfers.append("\n".join(lines))
    (directory / "transfers").write_text("\nnext\n".join(transfers) + "\n")
    config = "sed s/PORT/{port}/ {dir}/transfers"
    return f"{config} | curl -s --parallel --parallel-max {AT_ONCE} -K - > {{dir}}/curl.log"


def curl_log(directory: Path) -> list[dict[str, Any]]:
    """What curl says of its requests, which went on one connection."""
    entries = log_entries(directory / "curl.log")
    assert sum(entry["connections"] for entry in entries) == 1
    return [{"path": urlsplit(entry["url"]).path, **entry} for entry in entries]


def nginx(directory: Path) -> str:
    """The command, with {port}, of an nginx that serves the folder `files` by HTTP/2."""
    config = nginx_config(directory / "nginx", 12345, f"root {directory}/files;")
    text = config.read_text().replace("127.0.0.1:12345 backlog=511", "127.0.0.1:PORT backlog=511 http2")
    config.write_text(text)
    (directory / "files").mkdir()
    return f"sed -i s/PORT/{{port}}/ {config} && exec nginx -c {config}"


def check_wire(result: Result, count: int) -> tuple[list[SpanRecord], list[SpanRecord]]:
    """The server's and the client's spans: `count` of each, each of the former below one of the latter."""
    servers, clients = result.server(), result.client()
    assert (len(servers), len(clients)) == (count, count), result.said
    by_id = {span.span_id: span for span in clients}
    assert {span.link for span in servers} == {"wire"}
    assert {span.parent_id for span in servers} == set(by_id)
    for span in servers:
        above = by_id[span.parent_id]
        assert (span.path, span.status) == (above.path, above.status), (span, above)
    return servers, clients


def test_curl_to_nginx(tmp_path: Path) -> None:
    server = nginx(tmp_path)
    for number in range(0, COUNT, 2):
        (tmp_path / "files" / f"file-{number}").write_bytes(b"x" * number * 100)
    result = run_pair(tmp_path, server, curl(tmp_path, [(f"/file-{i}", []) for i in range(COUNT)]))
    asked = {entry["path"]: (entry["status"], entry["size"]) for entry in curl_log(tmp_path)}
    assert len(asked) == COUNT
    access = Counter(
        (entry["path"], entry["status"]) for entry in log_entries(tmp_path / "nginx" / "access.log")
    )
    assert access == Counter((path, status) for path, (status, _) in asked.items())
    for spans in check_wire(result, COUNT):
        told = {span.path: (span.status, span.attributes["http.response.body.size"]) for span in spans}
        assert told == asked


@pytest.mark.parametrize("shape", SHAPES)
def test_h2load_to_nginx(tmp_path: Path, shape: str) -> None:
    server = nginx(tmp_path)
    (tmp_path / "files" / "file").write_bytes(b"x" * 20_000)
    urls = "http://127.0.0.1:{port}/file http://127.0.0.1:{port}/missing"
    result = run_pair(
        tmp_path, server, f"h2load -n {COUNT} {shape} --log-file={{dir}}/h2load.log {urls} > {{dir}}/out"
    )
    access = Counter(
        (entry["path"], entry["status"]) for entry in log_entries(tmp_path / "nginx" / "access.log")
    )
    assert access == {("/file", 200): COUNT // 2, ("/missing", 404): COUNT // 2}
    assert h2load_log(tmp_path) == {200: COUNT // 2, 404: COUNT // 2}
    for spans in check_wire(result, COUNT):
        assert Counter((span.path, span.status) for span in spans) == access


def h2load_log(directory: Path) -> Counter[int]:
    """How many requests got which status, by h2load's own log."""
    return Counter(int(line.split("\t")[1]) for line in (directory / "h2load.log").read_text().splitlines())


def grpc_server(name: str, directory: Path) -> str:
    return f"{PYTHON if name == 'grpcio' else build_go(directory)} server {{port}} {{dir}}/server.log"


def message(number: int) -> bytes:
    return b"\0" + number.to_bytes(4) + b"q" * number


@pytest.mark.parametrize("server", ["grpcio", "go"])
def test_curl_to_grpc(tmp_path: Path, server: str) -> None:
    """It says all messages of a request at once, and learns the status from the trailers."""
    requests = []
    for number in range(COUNT):
        kind, said = KINDS[number % len(KINDS)], tmp_path / f"request-{number}"
        said.write_bytes(message(number) * (number % 5 if kind in ("client", "both") else 1))
        options = (
            'header = "content-type: application/grpc"',
            'header = "te: trailers"',
            f'data-binary = "@{said}"',
        )
        requests.append((f"/shop.Cart/{kind}-{number}", [*options]))
    result = run_pair(tmp_path, grpc_server(server, tmp_path), curl(tmp_path, requests))
    asked = [
        {"method": entry["path"][1:], "status": CODES[int(entry["rpc"])].name} for entry in curl_log(tmp_path)
    ]
    log = tmp_path / "client.log"
    log.write_text("".join(json.dumps(entry) + "\n" for entry in asked))
    assert len(logged(log)) == COUNT
    assert logged(log) == logged(tmp_path / "server.log")
    check_wire(result, COUNT)
    check_calls(result, tmp_path / "server.log", log)
    check_sizes(result)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("server", ["grpcio", "go"])
def test_h2load_to_grpc(tmp_path: Path, server: str, shape: str) -> None:
    """Its log has no more than HTTP's status, which is the same for all: the server's has gRPC's."""
    (tmp_path / "request").write_bytes(message(7))
    methods = "shop.Cart/unary-7", "shop.Cart/server-7", "shop.Cart/fail-7"
    headers = "-H 'content-type: application/grpc' -H 'te: trailers'"
    client = f"h2load -n {COUNT} {shape} -d {{dir}}/request {headers} --log-file={{dir}}/h2load.log"
    urls = " ".join(f"http://127.0.0.1:{{port}}/{method}" for method in methods)
    result = run_pair(tmp_path, grpc_server(server, tmp_path), f"{client} {urls} > {{dir}}/out")
    served = logged(tmp_path / "server.log")
    assert served == dict.fromkeys(zip(methods, ("OK", "OK", CODES[8].name), strict=True), COUNT // 3)
    assert h2load_log(tmp_path) == {200: COUNT}
    for spans in check_wire(result, COUNT):
        assert Counter((method_of(span), status_of(span)) for span in spans) == served
    check_sizes(result)
