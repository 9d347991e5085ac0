"""nginx as a proxy: every request it sends must hang below the very request that caused it, or below none."""

from __future__ import annotations

import http.client
import sys
import threading
from pathlib import Path

import pytest
from harness import SERVICES, Traced, free_ports, listening, log_entries, nginx_config, shell, wait_for

REQUESTS = {1: 150, 4: 200, 8: 800, 32: 1600}


def _drive(port: int, concurrency: int, requests: int, keep_alive: bool) -> None:
    def client(number: int) -> None:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
        for i in range(requests // concurrency):
            headers = {} if keep_alive else {"Connection": "close"}
            connection.request("GET", f"/id/{number}x{i}", headers=headers)
            response = connection.getresponse()
            response.read()
            assert response.status == 200
        connection.close()

    threads = [threading.Thread(target=client, args=(n,)) for n in range(concurrency)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


@pytest.mark.parametrize(
    ("concurrency", "upstream"),
    [
        *((concurrency, "new") for concurrency in REQUESTS),
        *((concurrency, "kept") for concurrency in (1, 8, 32)),
        pytest.param(4, "kept", marks=pytest.mark.core),
    ],
)
def test_no_false_parent(tmp_path: Path, concurrency: int, upstream: str) -> None:
    front, back = free_ports(2)
    keep = "keepalive 64; keepalive_requests 100000;" if upstream == "kept" else ""
    headers = 'proxy_http_version 1.1; proxy_set_header Connection "";' if upstream == "kept" else ""
    config = nginx_config(
        tmp_path / "nginx",
        front,
        f"location / {{ proxy_pass http://back; {headers} }}",
        f"upstream back {{ server 127.0.0.1:{back}; {keep} }}",
    )
    log = tmp_path / "backend.log"
    command = shell(f"nginx -c {config}", f"{sys.executable} {SERVICES}/backend.py {back} {log} 20")
    with Traced(tmp_path / "agent", command) as agent:
        wait_for(lambda: listening(front) and listening(back), "nginx and the backend")
        _drive(front, concurrency, REQUESTS[concurrency], keep_alive=upstream == "kept")
        result = agent.finish()
    result.check_ledger()
    by_id = {span.span_id: span for span in result.spans}
    sent = result.client("nginx")
    served = [entry for entry in log_entries(log) if entry["path"].startswith("/id/")]
    assert len(sent) == len(served) == REQUESTS[concurrency]
    false = [s for s in sent if s.parent_id and by_id[s.parent_id].path != s.path]
    found = [s for s in sent if s.parent_id and by_id[s.parent_id].path == s.path]
    assert not false, f"{len(false)} false parents, such as {false[0]}"
    assert len(found) >= 0.99 * len(sent), f"{len(found)} of {len(sent)} found"
    backends = [s for s in result.server("backend") if s.path.startswith("/id/")]
    assert len(backends) == len(served)
    joined = [s for s in backends if s.link == "wire" and by_id[s.parent_id].path == s.path]
    assert len(joined) == len(backends)
