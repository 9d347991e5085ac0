"""Records of the ring without what a recording must not hold: see `http1_redact` and `http2_redact` in
`autotrace.protocols`."""

from __future__ import annotations

from collections.abc import Callable
from struct import Struct
from typing import Protocol

from autotrace import abi
from autotrace.model import (
    Chunk,
    ConnectionClosed,
    ConnectionOpened,
    Direction,
    Event,
    Frames,
    Progress,
    StreamClaim,
)

CONNECTIONS_MAX = 65536
"""Connections that are followed. The oldest is forgotten for a new one; its bytes are all overwritten then."""


class Redactor(Protocol):
    """What is needed of a protocol's redactor (`autotrace.protocols.http1_redact.Http1Redactor`)."""

    def data(self, direction: Direction, turn: int, position: int, data: bytes, body_size: int) -> bytes: ...
    def progress(self, direction: Direction, end: int, tail: bytes) -> bytes: ...


class FrameRedactor(Protocol):
    """The same of a protocol of frames (`autotrace.protocols.http2_redact.Http2Redactor`)."""

    def frames(self, record: Frames) -> bytes: ...


def _tails(record: Struct) -> list[int]:
    """Where the tails (`at_reach`) stand among a record's fields."""
    return [index for index, field in enumerate(record.unpack(bytes(record.size))) if field == bytes(8)]


_CHUNK_TAIL, _PROGRESS_TAIL, _CONN_TAILS = map(_tails, (abi.CHUNK_EVENT, abi.PROGRESS_EVENT, abi.CONN_EVENT))

_FRAMES_SIZE, _FRAMES_LEAD, _FRAMES_DATA_LEN = 1, 17, 18
"""Where these stand among the fields of a record of frames (abi.FRAMES_EVENT)."""


_STREAM_SIZE, _STREAM_PATH_LEN = 1, -1
"""The same of a runtime's word on a request (abi.STREAM_EVENT)."""


class Redaction:
    """Redacts the records of a recording, in their order. `redactor` makes what redacts one connection's bytes,
    `frame_redactor` what redacts its frames."""

    def __init__(self, redactor: Callable[[], Redactor], frame_redactor: Callable[[], FrameRedactor]) -> None:
        self._redactor = redactor
        self._frame_redactor = frame_redactor
        self._of_frames: dict[int, FrameRedactor] = {}
        self._connections: dict[int, Redactor] = {}

    def redact(self, record: bytes, event: Event) -> bytes:
        """What of `record` may be kept; `event` is what it was decoded to."""
        if isinstance(event, Chunk):
            return self._chunk(record, event)
        if isinstance(event, Frames):
            return self._frames(record, event)
        if isinstance(event, Progress):
            return self._progress(record, event)
        if isinstance(event, StreamClaim):
            return _without_query(record, event)
        if isinstance(event, ConnectionClosed):
            return self._closed(record, event)
        if isinstance(event, ConnectionOpened):
            return _with_tails(abi.CONN_EVENT, record, _CONN_TAILS, [b"", b""])
        return record

    def _chunk(self, record: bytes, event: Chunk) -> bytes:
        redactor = self._connections.get(event.conn)
        if redactor is None:
            redactor = self._connections[event.conn] = self._redactor()
            if len(self._connections) > CONNECTIONS_MAX:
                del self._connections[next(iter(self._connections))]
        other = Direction.TX if event.direction is Direction.RX else Direction.RX
        tail = redactor.progress(other, event.other_end, event.other_tail) if event.other_last_ts else b""
        data = redactor.data(event.direction, event.turn, event.position, event.data, event.body_size)
        return _with_tails(abi.CHUNK_EVENT, record, _CHUNK_TAIL, [tail]) + data

    def _frames(self, record: bytes, event: Frames) -> bytes:
        redactor = self._of_frames.get(event.conn)
        if redactor is None:
            redactor = self._of_frames[event.conn] = self._frame_redactor()
            if len(self._of_frames) > CONNECTIONS_MAX:
                del self._of_frames[next(iter(self._of_frames))]
        data = redactor.frames(event)
        fields = list(abi.FRAMES_EVENT.unpack_from(record))
        lineage = record[abi.FRAMES_EVENT.size + fields[_FRAMES_DATA_LEN] : fields[_FRAMES_SIZE]]
        fields[_FRAMES_SIZE] = abi.FRAMES_EVENT.size + len(data) + len(lineage)
        fields[_FRAMES_LEAD], fields[_FRAMES_DATA_LEN] = 0, len(data)
        return abi.FRAMES_EVENT.pack(*fields) + data + lineage

    def _progress(self, record: bytes, event: Progress) -> bytes:
        redactor = self._connections.get(event.conn)
        tail = redactor.progress(event.direction, event.end, event.tail) if redactor else b""
        return _with_tails(abi.PROGRESS_EVENT, record, _PROGRESS_TAIL, [tail])

    def _closed(self, record: bytes, event: ConnectionClosed) -> bytes:
        redactor = self._connections.pop(event.conn, None)
        self._of_frames.pop(event.conn, None)
        tails = [b"", b""]
        if redactor:
            tails = [
                redactor.progress(Direction.RX, event.rx_end, event.rx_tail),
                redactor.progress(Direction.TX, event.tx_end, event.tx_tail),
            ]
        return _with_tails(abi.CONN_EVENT, record, _CONN_TAILS, tails)


def _without_query(record: bytes, event: StreamClaim) -> bytes:
    path = event.path.partition("?")[0].encode("latin-1")
    fields = list(abi.STREAM_EVENT.unpack_from(record))
    fields[_STREAM_SIZE], fields[_STREAM_PATH_LEN] = abi.STREAM_EVENT.size + len(path), len(path)
    return abi.STREAM_EVENT.pack(*fields) + path


def _with_tails(form: Struct, record: bytes, where: list[int], tails: list[bytes]) -> bytes:
    """The fixed part of `record` with other tails; a tail stands at the end of its eight bytes."""
    fields = list(form.unpack_from(record))
    for index, tail in zip(where, tails, strict=True):
        fields[index] = tail.rjust(8, b"\0")
    return form.pack(*fields)
