"""A recording of made-up traffic: nginx as a proxy before a second nginx, both watched, connections kept alive."""

from __future__ import annotations

from pathlib import Path

from autotrace import abi
from autotrace.discovery.processes import to_dict
from autotrace.model import Process
from autotrace.recording import Recorder
from bench.writer import End, Writer

EXCHANGES_PER_REQUEST = 3
"""The front's server and client exchange, and the server exchange of the nginx behind it."""

CONNECTIONS = 8
_FRONT, _BACK = 1001, 1002
_FRONT_PORT, _BACK_PORT = 8080, 8081
_REQUESTS_PER_TICK = 1000
_BODY = 1024


def write_recording(path: Path, requests: int) -> int:
    """Write a recording of `requests` requests to the front nginx; the number of its exchanges."""
    recorder = Recorder(path, wall_offset_ns=1_700_000_000_000_000_000, host="bench")
    for pid, service in ((_FRONT, "front"), (_BACK, "back")):
        recorder.process(to_dict(_process(pid, service)))
    writer = Writer(recorder.record)
    downstream, upstream, behind = _connections()
    for end in (*downstream, *behind):
        writer.opened(end)
    for end, cause in zip(upstream, downstream, strict=True):
        writer.opened(end, cause.id)
    rounds = requests // CONNECTIONS
    for number in range(rounds):
        if number % (_REQUESTS_PER_TICK // CONNECTIONS) == 0:
            recorder.tick(writer.now)
        _round(writer, number, downstream, upstream, behind)
    recorder.tick(writer.now)
    recorder.close()
    return rounds * CONNECTIONS * EXCHANGES_PER_REQUEST


def _connections() -> tuple[list[End], list[End], list[End]]:
    """For each connection to the front: its end there, and both ends of one between the two nginx."""
    downstream, upstream, behind = [], [], []
    for i in range(CONNECTIONS):
        client_port, proxy_port = 40_000 + i, 50_000 + i
        sent, received = 1_000_000 * (i + 1), 100_000_000 * (i + 1)
        downstream.append(End(4096 + i, _FRONT, _FRONT_PORT, client_port, sent, received))
        upstream.append(End(8192 + i, _FRONT, proxy_port, _BACK_PORT, sent + 7, received + 7))
        behind.append(End(12_288 + i, _BACK, _BACK_PORT, proxy_port, received + 7, sent + 7))
    return downstream, upstream, behind


def _round(
    writer: Writer, number: int, downstream: list[End], upstream: list[End], behind: list[End]
) -> None:
    """One request on every connection, all open at once, as an event loop works through them."""
    rx, tx = abi.Direction.RX, abi.Direction.TX
    run = 2 * number
    responses = [_response(f"{number:x}-{i:x}") for i in range(CONNECTIONS)]
    for i in range(CONNECTIONS):
        path = f"/item/{number * CONNECTIONS + i}"
        writer.spoke(downstream[i], rx, _request(path, "shop.example:8080"), run)
        writer.spoke(upstream[i], tx, _request(path, "back"), run, cause=downstream[i].id)
    for i in range(CONNECTIONS):
        path = f"/item/{number * CONNECTIONS + i}"
        writer.spoke(behind[i], rx, _request(path, "back"), run)
        writer.spoke(behind[i], tx, responses[i], run, behind[i].id, _BODY)
    for i in range(CONNECTIONS):
        writer.spoke(upstream[i], rx, responses[i], run + 1, 0, _BODY)
        writer.spoke(downstream[i], tx, responses[i], run + 1, upstream[i].id, _BODY)


def _request(path: str, host: str) -> bytes:
    return (
        f"GET {path} HTTP/1.1\r\nHost: {host}\r\nUser-Agent: bench/1.0\r\nAccept: */*\r\n"
        "Accept-Encoding: gzip, deflate\r\n\r\n"
    ).encode()


def _response(tag: str) -> bytes:
    return (
        "HTTP/1.1 200 OK\r\nServer: nginx\r\nDate: Sun, 22 Nov 2026 12:00:00 GMT\r\nContent-Type: text/plain\r\n"
        f"Content-Length: {_BODY}\r\nLast-Modified: Sun, 22 Nov 2026 11:00:00 GMT\r\nConnection: keep-alive\r\n"
        f'ETag: "{tag}"\r\nAccept-Ranges: bytes\r\n\r\n'
    ).encode()


def _process(pid: int, service: str) -> Process:
    return Process(
        pid,
        "/usr/sbin/nginx",
        {
            "service.name": service,
            "service.instance.id": f"bench:{pid}",
            "process.pid": pid,
            "process.executable.name": "nginx",
            "process.executable.path": "/usr/sbin/nginx",
            "host.name": "bench",
        },
        runtime="nginx",
        rungs=frozenset({"thread", "dispatch"}),
    )
