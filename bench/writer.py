"""Records of made-up traffic, byte for byte as bpf/include/abi.h describes them and as the kernel side makes them.

A replay of them needs neither root nor a kernel.
"""

from __future__ import annotations

import socket
from collections.abc import Callable
from typing import NamedTuple

from autotrace import abi

_NETNS = 4026531833
_STEP_NS = 20_000
_LOOPBACK = socket.inet_aton("127.0.0.1").ljust(128, b"\0")
_AF_INET = 2


class End(NamedTuple):
    """One end of a connection. `sent_from` and `received_from` are the first positions of its two directions."""

    id: int
    pid: int
    local_port: int
    remote_port: int
    sent_from: int
    received_from: int


class Writer:
    """Makes records for `record`, and keeps the clock, the turns and the positions."""

    def __init__(self, record: Callable[[bytes], object]) -> None:
        self._record = record
        self.now = 1_000_000_000
        self._turns: dict[int, int] = {}
        self._numbers: dict[tuple[int, abi.Direction], int] = {}
        self._reach: dict[tuple[int, abi.Direction], tuple[int, int]] = {}

    def opened(self, end: End, cause: int = 0) -> None:
        """A connection seen being made; an outgoing one was made because of what was read on `cause`."""
        self._reach[end.id, abi.Direction.RX] = end.received_from, 0
        self._reach[end.id, abi.Direction.TX] = end.sent_from, 0
        flags = abi.ConnFlag.CONN_ESTABLISHED | abi.ConnFlag.CONN_FROM_START
        opened_at = (self.now, 0, cause, end.pid, end.pid, 0, 0) if cause else (0,) * 7
        received, sent = (end.received_from, 0, b"", 0, 0), (end.sent_from, 0, b"", 0, 0)
        self._record(
            abi.CONN_EVENT.pack(
                abi.EventType.CONN_OPEN, abi.CONN_EVENT.size, self.now, end.id, end.pid, end.pid,
                0xFFFF_8880_0000_0000 + end.id, 0, _NETNS, _AF_INET,
                flags | (abi.ConnFlag.CONN_OUTGOING if cause else 0), end.local_port, end.remote_port, 0,
                *opened_at, *received, *sent, _LOOPBACK, _LOOPBACK,
            )
        )  # fmt: skip

    def spoke(
        self, end: End, direction: abi.Direction, data: bytes, run: int, cause: int = 0, body_size: int = 0
    ) -> None:
        """One turn: `data` at the position where the last turn of this direction ended, and the body behind it,
        which is not captured."""
        self.now += _STEP_NS
        turn = self._turns[end.id] = self._turns.get(end.id, 0) + 1
        position, _ = self._reach[end.id, direction]
        other_end, other_ts = self._reach[end.id, abi.Direction(1 - direction)]
        self._reach[end.id, direction] = position + len(data) + body_size, self.now
        self._record(
            abi.CHUNK_EVENT.pack(
                abi.EventType.CHUNK, abi.CHUNK_EVENT.size + len(data), self.now, end.id, end.pid, end.pid,
                self.now, 0, cause, end.pid, end.pid, run, 0,
                other_end, other_ts, b"", 0, 0,
                position, turn, direction, len(data), body_size, 0, 0,
            )
            + data
        )  # fmt: skip

    def framed(self, end: End, direction: abi.Direction, frames: bytes, task: int) -> None:
        """Frames of HTTP/2 that a task moved in one call, as the walker passes them on."""
        self.now += _STEP_NS
        number = self._numbers[end.id, direction] = self._numbers.get((end.id, direction), 0) + 1
        position, _ = self._reach[end.id, direction]
        self._reach[end.id, direction] = position + len(frames), self.now
        origin = abi.FramesOrigin.FRAMES_START if number == 1 else abi.FramesOrigin.FRAMES_FOLLOW
        self._record(
            abi.FRAMES_EVENT.pack(
                abi.EventType.FRAMES, abi.FRAMES_EVENT.size + len(frames), self.now, end.id, end.pid, end.pid,
                self.now, task, 0, end.pid, end.pid, 0, 0,
                position, number, direction, origin, 0, len(frames), 0,
            )
            + frames
        )  # fmt: skip

    def closed(self, end: End) -> None:
        """A connection is over."""
        reached = {}
        for direction in abi.Direction:
            reached[direction] = (*self._reach.pop((end.id, direction)), b"", 0, 0)
            self._numbers.pop((end.id, direction), None)
        self._record(
            abi.CONN_EVENT.pack(
                abi.EventType.CONN_CLOSE, abi.CONN_EVENT.size, self.now, end.id, end.pid, end.pid,
                0xFFFF_8880_0000_0000 + end.id, 0, _NETNS, _AF_INET,
                abi.ConnFlag.CONN_ESTABLISHED, end.local_port, end.remote_port, 0,
                *(0,) * 7, *reached[abi.Direction.RX], *reached[abi.Direction.TX], _LOOPBACK, _LOOPBACK,
            )
        )  # fmt: skip

    def claimed(
        self, end: End, direction: abi.Direction, stream: int, path: str, carrier: int, task: int, parent: int
    ) -> None:
        """A runtime's word on a call of gRPC; what it serves has a task of its own."""
        own = abi.StreamFlag.STREAM_OWN_TASK if direction is abi.Direction.RX else 0
        self._record(
            abi.STREAM_EVENT.pack(
                abi.EventType.STREAM, abi.STREAM_EVENT.size + len(path), self.now, 0, end.pid, end.pid,
                carrier, 0, task, parent, 0, stream, 0, direction, abi.StreamFlag.STREAM_GRPC | own, 0, len(path),
            )
            + path.encode()
        )  # fmt: skip
