"""Thousands of mixed requests at once: what the services logged and what the spans say is the same, one for one."""

from __future__ import annotations

import json
import random
import statistics
import subprocess
import sys
from collections.abc import Callable, Iterable
from email.utils import formatdate
from pathlib import Path
from typing import Any

import pytest
from harness import (
    SERVICES,
    SpanRecord,
    Traced,
    free_ports,
    listening,
    log_entries,
    nginx_config,
    shell,
    wait_for,
)

REQUESTS = 5200
CONCURRENCY = 50
SIZES = [0, 1, 100, 1000, 3900, 4096, 5000, 20_000, 100_000]
LARGE = [1_000_000, 5 * 1024 * 1024]
LOG_FORMAT = (
    'log_format mixed escape=json \'{"method":"$request_method","path":"$request_uri","status":$status,'
    '"sent":$body_bytes_sent,"s":$request_time}\';'
)


def _size(rng: random.Random) -> int:
    return rng.choice(LARGE) if rng.random() < 0.01 else rng.choice(SIZES)


def _request(rng: random.Random, number: int, nginx: int, backend: int) -> dict[str, Any]:
    """One request; its path has its number, so that every log and every span can be told apart."""
    request: dict[str, Any] = {"port": nginx, "method": "GET", "body": 0, "headers": {}}
    kind = rng.choice(["static", "static", "code", "proxy", "proxy", "direct", "direct", "direct"])
    request["close"] = rng.random() < 0.1
    request["old"] = rng.random() < 0.05
    if kind == "static":
        request["path"] = (
            f"/static/{number}/{rng.choice([*SIZES, *LARGE]) if rng.random() < 0.1 else rng.choice(SIZES)}"
        )
        request["method"] = rng.choice(["GET", "GET", "GET", "HEAD"])
        if rng.random() < 0.1:
            request["headers"]["If-Modified-Since"] = formatdate(usegmt=True)
        return request
    if kind == "code":
        request["path"] = f"/code/{rng.choice([200, 204, 404, 500])}/{number}"
        return request
    if kind == "direct":
        request["port"] = backend
    what = rng.choice(["size", "size", "chunked", "status"])
    detail = rng.choice([204, 304, 404, 500]) if what == "status" else _size(rng)
    request["path"] = f"{'/proxy' if kind == 'proxy' else ''}/{what}/{detail}/{number}"
    request["method"] = rng.choice(["GET", "GET", "POST", "PUT", "DELETE", "HEAD"])
    if request["method"] in ("POST", "PUT"):
        request["body"] = _size(rng)
        if not request["old"]:
            request["chunked"] = rng.random() < 0.2
            request["expect"] = not request["chunked"] and rng.random() < 0.2
    return request


def _files(directory: Path) -> None:
    directory.mkdir()
    for size in {*SIZES, *LARGE}:
        (directory / str(size)).write_bytes(b"f" * size)


def _compare(
    spans: Iterable[SpanRecord], entries: Iterable[dict[str, Any]], seconds: Callable[[dict[str, Any]], float]
) -> None:
    """Every entry of a log has one span and the other way round; they say the same."""
    spans, entries = list(spans), list(entries)
    by_path = {span.path: span for span in spans}
    assert sorted(s.path for s in spans) == sorted(e["path"] for e in entries)
    assert len(by_path) == len(spans)
    differences = []
    for entry in entries:
        span = by_path[entry["path"]]
        said = (span.attributes["http.request.method"], span.status)
        assert said == (entry["method"], entry["status"]), (entry, span)
        assert "error.type" not in span.attributes or span.attributes["error.type"] == str(span.status), span
        differences.append((span.end - span.start) / 1e9 - seconds(entry))
    assert abs(statistics.median(differences or [0])) < 0.05
    assert max(map(abs, differences), default=0) < 2


def _compare_sizes(spans: Iterable[SpanRecord], truth: dict[str, tuple[int | None, int | None]]) -> None:
    """`truth` has the sizes of a request's and its response's content; None: it was not counted apart."""
    for span in spans:
        for way, size in zip(("request", "response"), truth[span.path], strict=True):
            seen = span.attributes.get(f"http.{way}.body.size")
            assert size is None or seen in (size, None), (way, size, span)


@pytest.mark.parametrize("client", ["watched", "not_watched"])
def test_spans_equal_the_logs(tmp_path: Path, client: str) -> None:
    nginx, backend = free_ports(2)
    rng = random.Random(20)
    planned = [_request(rng, number, nginx, backend) for number in range(REQUESTS)]
    plan = tmp_path / "plan.json"
    plan.write_text(json.dumps([planned[i::CONCURRENCY] for i in range(CONCURRENCY)]))
    _files(tmp_path / "files")
    codes = "".join(f"location /code/{code}/ {{ return {code} 'c'; }}\n" for code in (200, 204, 404, 500))
    config = nginx_config(
        tmp_path / "nginx",
        nginx,
        f"""access_log {tmp_path}/nginx/mixed.log mixed; client_max_body_size 0; sendfile on;
        {codes}
        location ~ ^/static/\\d+/(.*)$ {{ alias {tmp_path}/files/$1; }}
        location /proxy/ {{ proxy_pass http://back/; proxy_http_version 1.1; proxy_set_header Connection ""; }}""",
        f"{LOG_FORMAT} upstream back {{ server 127.0.0.1:{backend}; keepalive 20; }}",
    )
    load = [sys.executable, str(SERVICES / "load.py"), str(plan), str(tmp_path / "load.log")]
    services = [
        f"nginx -c {config}",
        f"{sys.executable} {SERVICES}/backend.py {backend} {tmp_path}/backend.log",
    ]
    if client == "watched":
        go = tmp_path / "go"
        services.append(f"(until [ -e {go} ]; do sleep 0.1; done; exec {' '.join(load)}; )")
    with Traced(tmp_path / "agent", shell(*services), ("--ring-size", "64MiB")) as agent:
        wait_for(lambda: listening(nginx) and listening(backend), "nginx and the backend")
        if client == "watched":
            go.touch()
            wait_for(
                lambda: (
                    (tmp_path / "load.log").exists()
                    and (tmp_path / "load.log").read_bytes().count(b"\n") == REQUESTS
                ),
                "the load",
                100,
            )
        else:
            subprocess.run(load, check=True, timeout=100)
        result = agent.finish()
    result.check_ledger()
    assert not result.dropped, result.said
    asked = log_entries(tmp_path / "load.log")
    assert len(asked) == REQUESTS
    nginx_log = log_entries(tmp_path / "nginx/mixed.log")
    backend_log = log_entries(tmp_path / "backend.log")
    _compare(result.server("nginx"), nginx_log, lambda entry: entry["s"])
    _compare(result.server("backend"), backend_log, lambda entry: entry["ns"] / 1e9)
    asked_paths = {entry["path"] for entry in asked}
    through_nginx = [entry for entry in backend_log if entry["path"] not in asked_paths]
    _compare(result.client("nginx"), through_nginx, lambda entry: entry["ns"] / 1e9)
    _compare(result.client("load"), asked if client == "watched" else [], lambda entry: entry["ns"] / 1e9)
    sizes: dict[str, tuple[int | None, int | None]] = {
        entry["path"]: (entry["received"], entry["sent"]) for entry in backend_log
    }
    _compare_sizes(result.server("backend"), sizes)
    _compare_sizes(result.client("nginx"), sizes)
    _compare_sizes(result.client("load"), {e["path"]: (e["sent"], e["received"]) for e in asked})
    # What nginx counts as sent has the framing of the chunked coding in it, and the 100 (Continue).
    more = {r["path"] for r in planned if r.get("expect") or "/chunked/" in r["path"]}
    _compare_sizes(
        result.server("nginx"),
        {e["path"]: (None, None if e["path"] in more else e["sent"]) for e in nginx_log},
    )
    joined = [span for span in result.server() if span.link == "wire"]
    by_id = {span.span_id: span for span in result.spans}
    assert all(span.path == by_id[span.parent_id].path for span in joined)
    assert len(joined) == len(through_nginx) + (REQUESTS if client == "watched" else 0)
    plain = {r["path"] for r in planned if not r.get("chunked") and "/chunked/" not in r["path"]}
    unsized = [
        span
        for span in result.server("backend")
        if span.path in plain and "http.response.body.size" not in span.attributes
    ]
    assert not unsized, unsized[0]
