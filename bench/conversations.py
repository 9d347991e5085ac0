"""A recording of made-up traffic: nginx as a proxy before a second nginx, both watched, connections kept alive.

The records are what the kernel side makes of such traffic, byte for byte as bpf/include/abi.h describes them, so a
replay of them needs neither root nor a kernel.
"""

from __future__ import annotations

import socket
from pathlib import Path
from typing import NamedTuple

from autotrace import abi
from autotrace.discovery.processes import to_dict
from autotrace.model import Process
from autotrace.recording import Recorder

EXCHANGES_PER_REQUEST = 3
"""The front's server and client exchange, and the server exchange of the nginx behind it."""

CONNECTIONS = 8
_FRONT, _BACK = 1001, 1002
_FRONT_PORT, _BACK_PORT = 8080, 8081
_NETNS = 4026531833
_STEP_NS = 20_000
_REQUESTS_PER_TICK = 1000
_BODY = 1024
_LOOPBACK = socket.inet_aton("127.0.0.1").ljust(128, b"\0")
_AF_INET = 2


class _End(NamedTuple):
    """One end of a connection. `sent_from` and `received_from` are the first positions of its two directions."""

    id: int
    pid: int
    local_port: int
    remote_port: int
    sent_from: int
    received_from: int


class _Writer:
    """Writes records, and keeps the clock, the turns and the positions."""

    def __init__(self, recorder: Recorder) -> None:
        self._recorder = recorder
        self._now = 1_000_000_000
        self._turns: dict[int, int] = {}
        self._reach: dict[tuple[int, abi.Direction], tuple[int, int]] = {}

    def tick(self) -> None:
        self._recorder.tick(self._now)

    def opened(self, end: _End, cause: int = 0) -> None:
        """A connection seen being made; an outgoing one was made because of what was read on `cause`."""
        self._reach[end.id, abi.Direction.RX] = end.received_from, 0
        self._reach[end.id, abi.Direction.TX] = end.sent_from, 0
        flags = abi.ConnFlag.CONN_ESTABLISHED | abi.ConnFlag.CONN_FROM_START
        opened_at = (self._now, 0, cause, end.pid, end.pid, 0, 0) if cause else (0,) * 7
        received, sent = (end.received_from, 0, b"", 0, 0), (end.sent_from, 0, b"", 0, 0)
        self._recorder.record(
            abi.CONN_EVENT.pack(
                abi.EventType.CONN_OPEN, abi.CONN_EVENT.size, self._now, end.id, end.pid, end.pid,
                0xFFFF_8880_0000_0000 + end.id, 0, _NETNS, _AF_INET,
                flags | (abi.ConnFlag.CONN_OUTGOING if cause else 0), end.local_port, end.remote_port, 0,
                *opened_at, *received, *sent, _LOOPBACK, _LOOPBACK,
            )
        )  # fmt: skip

    def spoke(
        self, end: _End, direction: abi.Direction, data: bytes, run: int, cause: int = 0, body_size: int = 0
    ) -> None:
        """One turn: `data` at the position where the last turn of this direction ended, and the body behind it,
        which is not captured."""
        self._now += _STEP_NS
        turn = self._turns[end.id] = self._turns.get(end.id, 0) + 1
        position, _ = self._reach[end.id, direction]
        other_end, other_ts = self._reach[end.id, abi.Direction(1 - direction)]
        self._reach[end.id, direction] = position + len(data) + body_size, self._now
        self._recorder.record(
            abi.CHUNK_EVENT.pack(
                abi.EventType.CHUNK, abi.CHUNK_EVENT.size + len(data), self._now, end.id, end.pid, end.pid,
                self._now, 0, cause, end.pid, end.pid, run, 0,
                other_end, other_ts, b"", 0, 0,
                position, turn, direction, len(data), body_size,
            )
            + data
        )  # fmt: skip


def write_recording(path: Path, requests: int) -> int:
    """Write a recording of `requests` requests to the front nginx; the number of its exchanges."""
    recorder = Recorder(path, wall_offset_ns=1_700_000_000_000_000_000, host="bench")
    for pid, service in ((_FRONT, "front"), (_BACK, "back")):
        recorder.process(to_dict(_process(pid, service)))
    writer = _Writer(recorder)
    downstream, upstream, behind = _connections()
    for end in (*downstream, *behind):
        writer.opened(end)
    for end, cause in zip(upstream, downstream, strict=True):
        writer.opened(end, cause.id)
    rounds = requests // CONNECTIONS
    for number in range(rounds):
        if number % (_REQUESTS_PER_TICK // CONNECTIONS) == 0:
            writer.tick()
        _round(writer, number, downstream, upstream, behind)
    writer.tick()
    recorder.close()
    return rounds * CONNECTIONS * EXCHANGES_PER_REQUEST


def _connections() -> tuple[list[_End], list[_End], list[_End]]:
    """For each connection to the front: its end there, and both ends of one between the two nginx."""
    downstream, upstream, behind = [], [], []
    for i in range(CONNECTIONS):
        client_port, proxy_port = 40_000 + i, 50_000 + i
        sent, received = 1_000_000 * (i + 1), 100_000_000 * (i + 1)
        downstream.append(_End(4096 + i, _FRONT, _FRONT_PORT, client_port, sent, received))
        upstream.append(_End(8192 + i, _FRONT, proxy_port, _BACK_PORT, sent + 7, received + 7))
        behind.append(_End(12_288 + i, _BACK, _BACK_PORT, proxy_port, received + 7, sent + 7))
    return downstream, upstream, behind


def _round(
    writer: _Writer, number: int, downstream: list[_End], upstream: list[_End], behind: list[_End]
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
