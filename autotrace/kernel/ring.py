"""The ring buffer that the kernel side writes records to, read from its memory.

libbpf's own reader calls back for every record, which through ctypes costs more than all that is done here. The
layout is that of kernel/bpf/ringbuf.c: a page with the reader's position, one with the writers' position, then the
data, mapped twice so that a record that wraps is one range of bytes. Before a record stands a head of 8 bytes.
"""

from __future__ import annotations

import mmap
import platform
import select
import struct
from threading import Lock
from typing import Final

_POSITION = struct.Struct("=Q")
_DISCARDED: Final = 1 << 30
"""BPF_RINGBUF_DISCARD_BIT"""
_HEAD: Final = 8
_ALIGNMENT: Final = 8
_ORDERED = frozenset({"x86_64"})
"""Machines on which what one CPU writes in an order, another reads in it."""


class _Fence:
    """Calling it orders memory: what is read before it is not newer than what is read after it. Giving a lock back
    keeps what is before it before it, taking it keeps what is behind it behind it."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._lock.acquire()

    def __call__(self) -> None:
        self._lock.release()
        self._lock.acquire()


class Ring:
    """Reads the ring buffer map `map_fd` of `size` bytes, alone. Raises OSError if it cannot be mapped."""

    def __init__(self, map_fd: int, size: int) -> None:
        page = mmap.PAGESIZE
        self._mask = size - 1
        self._reader = mmap.mmap(map_fd, page)
        self._writers = mmap.mmap(map_fd, page, prot=mmap.PROT_READ, offset=page)
        self._data = mmap.mmap(map_fd, 2 * size, prot=mmap.PROT_READ, offset=2 * page)
        self._fence = None if platform.machine() in _ORDERED else _Fence()
        self._position: int = _POSITION.unpack_from(self._reader)[0]
        self._epoll = select.epoll()
        # Edge-triggered: only the kernel side's wake-ups count, not that there is a record.
        self._epoll.register(map_fd, select.EPOLLIN | select.EPOLLET)

    def wait(self, seconds: float, enough: int) -> None:
        """Wait until the kernel side wakes us, or for so long; not if there are `enough` unread bytes."""
        if self.unread() < enough:
            self._epoll.poll(seconds)

    def take(self, most: int | None = None) -> list[bytes]:
        """The records that are finished, in order; those behind one that is not have to wait for it. With `most`,
        only those that begin in the next `most` bytes."""
        unread = self.unread()
        if most is not None and most < unread:
            unread = most
        if not unread:
            return []
        start = self._position & self._mask
        records, end = finished_records(self._data, start, start + unread, self._fence)
        self._position += end - start
        _POSITION.pack_into(self._reader, 0, self._position)
        return records

    def close(self) -> None:
        """Unmap the ring."""
        self._epoll.close()
        self._data.close()
        self._writers.close()
        self._reader.close()

    def unread(self) -> int:
        """How many bytes wait to be taken."""
        written: int = _POSITION.unpack_from(self._writers)[0]
        return written - self._position


def finished_records(
    data: mmap.mmap | bytes, start: int, end: int, fence: _Fence | None = None
) -> tuple[list[bytes], int]:
    """The records between two offsets of a ring's data up to the first that is not finished, and where that is.

    `fence` keeps the order in which memory is read: a head after the position behind it, a record after its head.
    """
    records: list[bytes] = []
    # A head begins with the record's length. Bit 31, BPF_RINGBUF_BUSY_BIT: it is not finished yet.
    lengths = memoryview(data).cast("i")
    at = start
    while at < end:
        if fence is not None:
            fence()
        length: int = lengths[at // 4]
        if length < 0:
            break
        if fence is not None:
            fence()
        at += _HEAD
        if length < _DISCARDED:
            stop = at + length
            records.append(data[at:stop])
        else:
            stop = at + length - _DISCARDED
        stop += _ALIGNMENT - 1
        at = stop - stop % _ALIGNMENT
    if fence is not None:
        fence()
    return records, at
