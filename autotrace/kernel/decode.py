"""Records of the ring buffer (bpf/include/abi.h) to events."""

from __future__ import annotations

import socket
import struct
from functools import lru_cache

from autotrace import abi
from autotrace.model import (
    Chunk,
    ConnectionClosed,
    ConnectionOpened,
    Context,
    Direction,
    Event,
    ProcessExited,
    ProcessSeen,
    ProcessStarted,
    Progress,
)

_AF_UNIX = 1
_AF_INET6 = 10
_DIRECTIONS = (Direction.RX, Direction.TX)
_CHUNK = abi.CHUNK_EVENT
_CHUNK_SIZE = abi.CHUNK_EVENT.size
_V4_MAPPED = b"\0" * 10 + b"\xff\xff"


class DecodeError(ValueError):
    """A record is not what abi.h describes. The record is lost, the next one is whole: the ring keeps sizes."""


def decode(record: bytes) -> Event:
    """Turn one record into an event. Raises DecodeError."""
    if len(record) < abi.HEADER.size:
        raise DecodeError(f"record of {len(record)} bytes")
    kind = record[0]
    try:
        if kind == abi.EventType.CHUNK:
            return _chunk(record)
        if kind == abi.EventType.PROGRESS:
            return _progress(record)
        if kind == abi.EventType.CONN_OPEN:
            return _opened(abi.CONN_EVENT.unpack_from(record))
        if kind == abi.EventType.CONN_CLOSE:
            return _closed(record)
        return _process(record)
    except (ValueError, IndexError, struct.error) as error:
        raise DecodeError(f"record of type {kind}: {error}") from error


def _chunk(record: bytes) -> Chunk:
    (
        _type, size, _ts, conn, _pid, _tid,
        at_ts, task, cause, pid, tid, run, _pad,
        other_end, other_last_ts, other_tail, other_tail_len, _other_pad,
        position, turn, direction, data_len, _last_pad,
    ) = _CHUNK.unpack_from(record)  # fmt: skip
    if size != _CHUNK_SIZE + data_len or size > len(record):
        raise DecodeError(f"chunk of {data_len} bytes in a record of {len(record)}")
    return Chunk(
        conn,
        _DIRECTIONS[direction],
        turn,
        position,
        record[_CHUNK_SIZE:size],
        Context(at_ts, pid, tid, task, run, cause),
        other_end,
        other_last_ts,
        _tail(other_tail, other_tail_len),
    )


def _progress(record: bytes) -> Progress:
    (_type, _size, ts, conn, _pid, _tid, end, last_ts, tail, tail_len, _pad, direction, _pad2) = (
        abi.PROGRESS_EVENT.unpack_from(record)
    )
    return Progress(ts, conn, _DIRECTIONS[direction], end, last_ts, _tail(tail, tail_len))


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


def _opened(fields: tuple[int | bytes, ...]) -> ConnectionOpened:
    (
        _type, _size, ts, conn, pid, _tid, sock, peer_sock, netns, family, flags, local_port, remote_port, _error,
        o_ts, o_task, o_cause, o_pid, o_tid, o_run, _pad,
    ) = fields[:21]  # fmt: skip
    opened_at = Context(o_ts, o_pid, o_tid, o_task, o_run, o_cause) if o_ts else None  # type: ignore[arg-type]
    return ConnectionOpened(
        ts,  # type: ignore[arg-type]
        conn,  # type: ignore[arg-type]
        pid,  # type: ignore[arg-type]
        family,  # type: ignore[arg-type]
        sock,  # type: ignore[arg-type]
        peer_sock,  # type: ignore[arg-type]
        netns,  # type: ignore[arg-type]
        _address(family, fields[31]),  # type: ignore[arg-type]
        local_port,  # type: ignore[arg-type]
        _address(family, fields[32]),  # type: ignore[arg-type]
        remote_port,  # type: ignore[arg-type]
        bool(flags & abi.ConnFlag.CONN_FROM_START),  # type: ignore[operator]
        opened_at,
    )


def _process(record: bytes) -> Event:
    kind, _size, ts, _conn, pid, _tid, parent, _pad, comm = abi.PROCESS_EVENT.unpack_from(record)
    if kind == abi.EventType.PROCESS_START:
        return ProcessStarted(ts, pid, parent, comm.partition(b"\0")[0].decode(errors="replace"))
    if kind == abi.EventType.PROCESS_SEEN:
        return ProcessSeen(ts, pid)
    if kind == abi.EventType.PROCESS_EXIT:
        return ProcessExited(ts, pid)
    raise DecodeError(f"unknown type {kind}")


def _tail(tail: bytes, length: int) -> bytes:
    return tail[8 - length :] if 0 < length <= 8 else b""


@lru_cache(maxsize=1024)
def _address(family: int, raw: bytes) -> str:
    """An address as text; IPv4 in IPv6 (RFC 4291 section 2.5.5.2) is IPv4; an abstract Unix name starts with @."""
    if family == _AF_UNIX:
        path = b"@" + raw[1:] if raw[:1] == b"\0" and raw.strip(b"\0") else raw
        return path.rstrip(b"\0").decode(errors="replace")
    if family == _AF_INET6 and not raw.startswith(_V4_MAPPED):
        return socket.inet_ntop(socket.AF_INET6, raw[:16])
    return socket.inet_ntop(socket.AF_INET, raw[12:16] if family == _AF_INET6 else raw[:4])
