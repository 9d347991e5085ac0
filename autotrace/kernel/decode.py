"""Records of the ring buffer (bpf/include/abi.h) to events."""

from __future__ import annotations

import socket
import struct
from collections.abc import Callable
from functools import lru_cache
from typing import Any, Final

from librt.strings import read_i32_le, read_i64_le

from autotrace import abi
from autotrace.model import (
    Chunk,
    ConnectionClosed,
    ConnectionOpened,
    Context,
    Direction,
    Event,
    Frames,
    FramesOrigin,
    ProcessExited,
    ProcessSeen,
    ProcessSpeaksTls,
    ProcessStarted,
    Progress,
    StreamClaim,
)

_AF_UNIX: Final = 1
_AF_INET: Final = 2
_AF_INET6: Final = 10
_RX: Final = Direction.RX
_TX: Final = Direction.TX
_DIRECTIONS: Final = (_RX, _TX)
_ORIGINS = tuple(FramesOrigin)
_CHUNK_TYPE: Final = int(abi.EventType.CHUNK)
_FRAMES_SIZE = abi.FRAMES_EVENT.size
_V4_MAPPED = b"\0" * 10 + b"\xff\xff"


class DecodeError(ValueError):
    """A record is not what abi.h describes. The record is lost, the next one is whole: the ring keeps sizes."""


def decode(record: bytes) -> Event:
    """Turn one record into an event. Raises DecodeError."""
    # Nine of ten records are chunks.
    if len(record) >= abi.CHUNK_EVENT_BYTES and read_i32_le(record, abi.CHUNK_EVENT_H_TYPE) == _CHUNK_TYPE:
        return _chunk(record)
    kind = int.from_bytes(record[:4], "little")
    decoder = _DECODERS.get(kind)
    if decoder is None:
        raise DecodeError(f"record of {len(record)} bytes, too short or of unknown type {kind}")
    try:
        return decoder(record)
    except (ValueError, IndexError, struct.error) as error:
        raise DecodeError(f"{abi.EventType(kind).name}: {error}") from error


def _chunk(record: bytes) -> Chunk:
    """A chunk, member by member: compiled (setup.py), that is a third of the cost of a format's tuple.
    Raises DecodeError."""
    size, data_size = _u32(record, abi.CHUNK_EVENT_H_SIZE), _u32(record, abi.CHUNK_EVENT_DATA_LEN)
    direction = _u32(record, abi.CHUNK_EVENT_DIRECTION)
    if size != abi.CHUNK_EVENT_BYTES + data_size or size > len(record) or direction > 1:
        raise DecodeError(f"CHUNK: {data_size} bytes of data in a record of {len(record)}")
    tail_size, tail_end = _u32(record, abi.CHUNK_EVENT_OTHER_TAIL_LEN), abi.CHUNK_EVENT_OTHER_TAIL + 8
    return Chunk(
        conn=_u64(record, abi.CHUNK_EVENT_H_CONN),
        direction=_TX if direction else _RX,
        turn=_u32(record, abi.CHUNK_EVENT_TURN),
        position=_u64(record, abi.CHUNK_EVENT_POSITION),
        data=record[abi.CHUNK_EVENT_BYTES : size],
        at=Context(
            ts=_u64(record, abi.CHUNK_EVENT_AT_TS),
            pid=_u32(record, abi.CHUNK_EVENT_AT_PID),
            tid=_u32(record, abi.CHUNK_EVENT_AT_TID),
            task=_u64(record, abi.CHUNK_EVENT_AT_TASK),
            run=_u32(record, abi.CHUNK_EVENT_AT_RUN),
            cause=_u64(record, abi.CHUNK_EVENT_AT_CAUSE),
        ),
        other_end=_u64(record, abi.CHUNK_EVENT_OTHER_END),
        other_last_ts=_u64(record, abi.CHUNK_EVENT_OTHER_LAST_TS),
        other_tail=record[tail_end - tail_size : tail_end] if 0 < tail_size <= 8 else b"",
        body_size=_u32(record, abi.CHUNK_EVENT_BODY_LEN),
        wire_from=_u32(record, abi.CHUNK_EVENT_WIRE_FROM),
        wire_end=_u32(record, abi.CHUNK_EVENT_WIRE_END),
    )


def _u32(record: bytes, at: int) -> int:
    value: int = read_i32_le(record, at)
    return value if value >= 0 else value + (1 << 32)


def _u64(record: bytes, at: int) -> int:
    value: int = read_i64_le(record, at)
    return value if value >= 0 else value + (1 << 64)


def _frames(record: bytes) -> Frames:
    (
        _type, size, _ts, conn, _pid, _tid,
        at_ts, task, cause, pid, tid, run, _pad,
        position, number, direction, origin, lead, data_len, generations,
    ) = abi.FRAMES_EVENT.unpack_from(record)  # fmt: skip
    end = _FRAMES_SIZE + data_len
    if size != end + 8 * generations or size > len(record) or lead > data_len:
        raise ValueError(f"{data_len} bytes of frames in a record of {len(record)}")
    lineage: tuple[int, ...] = struct.unpack_from(f"={generations}Q", record, end) if generations else ()
    return Frames(
        conn,
        _DIRECTIONS[direction],
        number,
        position,
        record[_FRAMES_SIZE:end],
        lead,
        _ORIGINS[origin],
        Context(at_ts, pid, tid, task, run, cause, lineage),
    )


def _stream(record: bytes) -> StreamClaim:
    (
        _type, size, ts, conn, pid, _tid,
        carrier, carrier_parent, task, parent, cause,
        stream, cause_stream, direction, flags, _pad, path_len,
    ) = abi.STREAM_EVENT.unpack_from(record)  # fmt: skip
    start = abi.STREAM_EVENT.size
    if size != start + path_len or size > len(record):
        raise ValueError(f"{path_len} bytes of a path in a record of {len(record)}")
    path = record[start:size].decode("latin-1")
    grpc = bool(flags & abi.StreamFlag.STREAM_GRPC)
    own_task = bool(flags & abi.StreamFlag.STREAM_OWN_TASK)
    return StreamClaim(
        ts,
        conn,
        pid,
        carrier,
        task,
        parent,
        stream,
        _DIRECTIONS[direction],
        path,
        grpc,
        own_task,
        carrier_parent,
        cause,
        cause_stream,
    )


def _progress(record: bytes) -> Progress:
    (_type, _size, ts, conn, _pid, _tid, end, last_ts, tail, tail_len, _pad, direction, _pad2) = (
        abi.PROGRESS_EVENT.unpack_from(record)
    )
    return Progress(ts, conn, _DIRECTIONS[direction], end, last_ts, _tail(tail, tail_len))


def _open(record: bytes) -> ConnectionOpened:
    return _opened(abi.CONN_EVENT.unpack_from(record))


def _closed(record: bytes) -> ConnectionClosed:
    fields = abi.CONN_EVENT.unpack_from(record)
    flags, error = fields[10], fields[13]
    (rx_end, rx_last_ts, rx_tail, rx_tail_len, _, tx_end, tx_last_ts, tx_tail, tx_tail_len, _) = fields[21:31]
    return ConnectionClosed(
        fields[2],
        fields[3],
        error,
        bool(flags & abi.ConnFlag.CONN_ESTABLISHED),
        rx_end,
        rx_last_ts,
        _tail(rx_tail, rx_tail_len),
        tx_end,
        tx_last_ts,
        _tail(tx_tail, tx_tail_len),
        _opened(fields),
    )


def _opened(fields: tuple[Any, ...]) -> ConnectionOpened:
    (
        _type, _size, ts, conn, pid, _tid, sock, peer_sock, netns, family, flags, local_port, remote_port, _error,
        o_ts, o_task, o_cause, o_pid, o_tid, o_run, _pad,
    ) = fields[:21]  # fmt: skip
    opened_at = Context(o_ts, o_pid, o_tid, o_task, o_run, o_cause) if o_ts else None
    return ConnectionOpened(
        ts,
        conn,
        pid,
        family,
        sock,
        peer_sock,
        netns,
        _address(family, fields[31]),
        local_port,
        _address(family, fields[32]),
        remote_port,
        bool(flags & abi.ConnFlag.CONN_FROM_START),
        opened_at,
        rx_end=fields[21],
        rx_last_ts=fields[22],
        tx_end=fields[26],
        tx_last_ts=fields[27],
        tls=bool(flags & abi.ConnFlag.CONN_TLS),
    )


def _started(record: bytes) -> ProcessStarted:
    _type, _size, ts, _conn, pid, _tid, parent, _pad, comm = abi.PROCESS_EVENT.unpack_from(record)
    return ProcessStarted(ts, pid, parent, comm.partition(b"\0")[0].decode(errors="replace"))


def _exited(record: bytes) -> ProcessExited:
    fields = abi.PROCESS_EVENT.unpack_from(record)
    return ProcessExited(fields[2], fields[4])


def _seen(record: bytes) -> ProcessSeen:
    fields = abi.PROCESS_EVENT.unpack_from(record)
    return ProcessSeen(fields[2], fields[4])


def _speaks_tls(record: bytes) -> ProcessSpeaksTls:
    fields = abi.PROCESS_EVENT.unpack_from(record)
    return ProcessSpeaksTls(fields[2], fields[4])


def _tail(tail: bytes, length: int) -> bytes:
    if not length:
        return b""
    if length > len(tail):
        raise ValueError(f"tail of {length} bytes")
    return tail[-length:]


@lru_cache(maxsize=1024)
def _address(family: int, raw: bytes) -> str:
    """An address as text; IPv4 in IPv6 (RFC 4291 section 2.5.5.2) is IPv4; an abstract Unix name starts with @."""
    if family == _AF_UNIX:
        path = b"@" + raw[1:] if raw[:1] == b"\0" and raw.strip(b"\0") else raw
        return path.rstrip(b"\0").decode(errors="replace")
    if family == _AF_INET:
        return socket.inet_ntop(socket.AF_INET, raw[:4])
    if family != _AF_INET6:
        raise ValueError(f"unknown address family {family}")
    if raw.startswith(_V4_MAPPED):
        return socket.inet_ntop(socket.AF_INET, raw[12:16])
    return socket.inet_ntop(socket.AF_INET6, raw[:16])


_DECODERS: dict[int, Callable[[bytes], Event]] = {
    int(kind): decoder
    for kind, decoder in (
        (abi.EventType.FRAMES, _frames),
        (abi.EventType.STREAM, _stream),
        (abi.EventType.PROGRESS, _progress),
        (abi.EventType.CONN_OPEN, _open),
        (abi.EventType.CONN_CLOSE, _closed),
        (abi.EventType.PROCESS_START, _started),
        (abi.EventType.PROCESS_EXIT, _exited),
        (abi.EventType.PROCESS_SEEN, _seen),
        (abi.EventType.PROCESS_TLS, _speaks_tls),
    )
}
