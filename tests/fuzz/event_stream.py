"""What must hold of decoder and pipeline whatever records the ring gives, checked on inputs that a fuzzer makes.

An input is a list of steps: a byte that names what happens (low four bits, see `What`) and the connection it
happens to (the next three bits), then that step's operands. Connections 2n and 2n + 1 are the two ends of one.
"""

from __future__ import annotations

import struct
from contextlib import suppress
from enum import IntEnum

from autotrace import abi
from autotrace.kernel.decode import DecodeError, decode
from autotrace.ledger import Ledger
from autotrace.metrics import RedMetrics
from autotrace.model import Connection, Process, ProcessExited, Span
from autotrace.pipeline import Pipeline

SECOND = 1_000_000_000
START = 1_000 * SECOND
FIRST_POSITION = 1 << 32
PIDS = (10, 11)
ROUTE_LIMIT = 3
_AF_UNIX, _AF_INET, _AF_INET6 = 1, 2, 10
_FAMILIES = (_AF_INET, _AF_INET6, _AF_UNIX, _AF_INET)
_PROCESS_TYPES = (
    abi.EventType.PROCESS_START,
    abi.EventType.PROCESS_SEEN,
    abi.EventType.PROCESS_EXIT,
)


class What(IntEnum):
    OPEN = 0
    """Operand: options (bits 0-1: family, 2: seen from its start, 3: made by connect, 4-6: cause)."""
    CHUNK = 1
    """Operands: options (bit 0: direction, 1: later chunk of a turn, 2: bytes before it were not captured, 3:
    it begins in what was captured before, 4-6: cause), a length, that many bytes."""
    PROGRESS = 2
    """Operands: options (bit 0: direction), bytes that moved (times 16), a length, that many bytes of tail."""
    CLOSE = 3
    """Operand: the errno; 255: it never came to be."""
    PROCESS = 4
    """Operand: options (bit 0: which process, bits 1-2: what happens to it)."""
    WAIT = 5
    """Operand: seconds that pass, with a tick of the clock at the end."""
    KEEP_ONLY = 6
    """Operand: a bit for each connection that the kernel side still follows."""
    RAW = 7
    """Operands: a length, that many bytes, which are a record."""
    DAMAGE = 8
    """Operands: an offset and a byte. The next record has that byte there."""
    CUT = 9
    """Operand: the next record has so many bytes less."""
    STOP = 10
    """The agent ends here."""


class Stream:
    """Steps in, records out; checks the books after each of them."""

    def __init__(self) -> None:
        self.now = START
        self.turns: dict[int, int] = {}
        self.ends: dict[int, list[int]] = {}
        self.generation = [0] * 8
        self.damage: list[tuple[int, int]] = []
        self.cut = 0
        self.spans: list[Span] = []
        self.ledger = Ledger()
        self.pipeline = Pipeline(
            process_of=lambda pid: Process(
                pid, "p", {"service.name": f"s{pid}"}, "nginx", frozenset(("thread", "dispatch"))
            ),
            emit=self.emitted,
            stop_capture=lambda _connection: None,
            forget=self.forgotten,
            ledger=self.ledger,
            metrics=RedMetrics(self.ledger),
            host=b"host",
            wall_offset_ns=SECOND,
            exchange_timeout_ns=100 * SECOND,
            route_limit=ROUTE_LIMIT,
        )

    def emitted(self, span: Span) -> None:
        assert 0 < span.trace_id < 1 << 128
        assert 0 < span.span_id < 1 << 64
        assert span.start_unix_ns <= span.end_unix_ns
        assert span.is_error or not span.status_message
        for value in (span.name, span.status_message, span.trace_state, *span.attributes.values()):
            if isinstance(value, str):
                value.encode()
        self.spans.append(span)

    def forgotten(self, connection: Connection) -> None:
        assert connection.family == _AF_UNIX

    def record(self, record: bytes) -> None:
        """Hand a record over, as damaged as was asked for."""
        if self.damage or self.cut:
            damaged = bytearray(record)
            for offset, value in self.damage:
                if offset < len(damaged):
                    damaged[offset] = value
            record = bytes(damaged[: max(len(damaged) - self.cut, 0)])
            self.damage.clear()
            self.cut = 0
        with suppress(DecodeError):
            self.pipeline.event(decode(record))
        self.check_books()

    def check_books(self) -> None:
        assert self.ledger.balance(self.pipeline._pairing.in_flight) == 0
        assert self.ledger.snapshot()["exchanges"]["emitted"] == len(self.spans)

    def conn(self, index: int) -> int:
        return index + 1 + 8 * self.generation[index]

    def header(self, kind: int, size: int, index: int) -> tuple[int, ...]:
        pid = PIDS[index & 1]
        return (kind, size, self.now, self.conn(index), pid, 10 * pid)

    def context(self, index: int, options: int) -> tuple[int, ...]:
        pid, cause = PIDS[index & 1], options >> 4 & 7
        return (self.now, 0, self.conn(cause) if cause else 0, pid, 10 * pid + (index >> 1 & 1), 1, 0)

    def reach(self, index: int, direction: int, tail: bytes = b"") -> tuple[int | bytes, ...]:
        end = self.ends_of(index)[direction]
        last_ts = self.now if end != FIRST_POSITION else 0
        return (end, last_ts, tail[-8:].rjust(8, b"\0"), min(len(tail), 8), 0)

    def ends_of(self, index: int) -> list[int]:
        return self.ends.setdefault(self.conn(index), [FIRST_POSITION, FIRST_POSITION])

    def conn_record(self, kind: int, index: int, options: int, error: int, flags: int) -> bytes:
        family = _FAMILIES[options & 3]
        ports = (1000 + (index >> 1) + 8 * self.generation[index], 80)
        local, remote = ports if index & 1 else ports[::-1]
        address = b"/run/s" if family == _AF_UNIX else bytes([127, 0, 0, 1])
        sockets = (self.conn(index), self.conn(index ^ 1) if family == _AF_UNIX else 0)
        opened = self.context(index, options) if options & 8 else (0,) * 7
        return abi.CONN_EVENT.pack(
            *self.header(kind, abi.CONN_EVENT.size, index),
            *(*sockets, 1, family, flags, local, remote, error, *opened),
            *(*self.reach(index, 0), *self.reach(index, 1), address, address),
        )

    # --- steps ----------------------------------------------------------------------------------------------

    def open(self, index: int, options: int) -> None:
        flags = abi.ConnFlag.CONN_ESTABLISHED | (options >> 2 & 1)
        self.record(self.conn_record(abi.EventType.CONN_OPEN, index, options, 0, flags))

    def chunk(self, index: int, options: int, data: bytes) -> None:
        direction = options & 1
        ends = self.ends_of(index)
        if options & 4:
            ends[direction] += 48
        position = ends[direction] - (2 if options & 8 else 0)
        conn = self.conn(index)
        if not options & 2:
            self.turns[conn] = self.turns.get(conn, 0) + 1
        other = (0, 0, b"", 0, 0) if options & 2 else self.reach(index, 1 - direction)
        record = abi.CHUNK_EVENT.pack(
            *self.header(abi.EventType.CHUNK, abi.CHUNK_EVENT.size + len(data), index),
            *(
                *self.context(index, options),
                *other,
                position,
                self.turns.get(conn, 0),
                direction,
                len(data),
                0,
                options & 16 and position & 0xFFFFFFFF,
                options & 32 and (position + len(data)) & 0xFFFFFFFF,
            ),
        )
        ends[direction] = max(ends[direction], position + len(data))
        self.record(record + data)

    def progress(self, index: int, options: int, moved: int, tail: bytes) -> None:
        direction = options & 1
        self.ends_of(index)[direction] += moved
        size = abi.PROGRESS_EVENT.size
        self.record(
            abi.PROGRESS_EVENT.pack(
                *self.header(abi.EventType.PROGRESS, size, index),
                *(*self.reach(index, direction, tail[:moved]), direction, 0),
            )
        )

    def close(self, index: int, error: int) -> None:
        flags = abi.ConnFlag.CONN_FROM_START | (0 if error == 255 else abi.ConnFlag.CONN_ESTABLISHED)
        self.record(self.conn_record(abi.EventType.CONN_CLOSE, index, 0, error % 255, flags))
        self.generation[index] += 1

    def process(self, options: int) -> None:
        kind = _PROCESS_TYPES[(options >> 1 & 3) % 3]
        pid = PIDS[options & 1]
        self.record(
            abi.PROCESS_EVENT.pack(kind, abi.PROCESS_EVENT.size, self.now, 0, pid, pid, 0, 0, b"comm")
        )

    def wait(self, seconds: int) -> None:
        self.now += seconds * SECOND
        self.pipeline.tick(self.now)
        self.check_books()

    def keep_only(self, bits: int) -> None:
        followed = {self.conn(index) for index in range(8) if bits >> index & 1}
        self.pipeline.keep_only(followed, self.now)
        self.check_books()

    # --- the end --------------------------------------------------------------------------------------------

    def stop(self) -> None:
        """End as the agent does, with whatever is still open."""
        self.pipeline.finish(self.now)
        self.check_books()
        assert self.ledger.balance() == 0

    def end_everything(self) -> None:
        """Let every connection and process end, and see that nothing of them is kept."""
        pipeline = self.pipeline
        self.now = 1 << 64  # later than any record can claim
        self.keep_only(0)
        for pid in set(pipeline._correlator._requests):
            pipeline.event(ProcessExited(self.now, pid))
        pipeline.tick(self.now + 2 * SECOND)
        self.check_books()
        assert self.ledger.balance() == 0
        assert pipeline.connections == 0
        assert not pipeline._exited
        assert not pipeline._pairing._conversations
        assert not pipeline._pairing._of_process
        assert not pipeline._correlator._requests
        assert not pipeline._spans._of_connection
        # Requests whose answer never came are kept for some seconds more.
        wire = pipeline._correlator._wire
        assert len(wire._by_key) == len(wire._by_client) <= len(wire._unanswered)
        self.stop()


def check(data: bytes) -> Stream:
    """Run one input. Raises AssertionError, or whatever else escaped."""
    stream = Stream()
    rest = memoryview(data)

    def take(count: int) -> bytes:
        nonlocal rest
        taken, rest = rest[:count], rest[count:]
        return bytes(taken).ljust(count, b"\0")

    def text() -> bytes:
        nonlocal rest
        length = take(1)[0]
        taken, rest = rest[:length], rest[length:]
        return bytes(taken)

    while rest:
        stream.now += 1000
        (first,) = take(1)
        what, index = first & 15, first >> 4 & 7
        if what == What.OPEN:
            stream.open(index, take(1)[0])
        elif what == What.CHUNK:
            stream.chunk(index, take(1)[0], text())
        elif what == What.PROGRESS:
            options, moved = take(2)
            stream.progress(index, options, 16 * moved, text())
        elif what == What.CLOSE:
            stream.close(index, take(1)[0])
        elif what == What.PROCESS:
            stream.process(take(1)[0])
        elif what == What.WAIT:
            stream.wait(take(1)[0])
        elif what == What.KEEP_ONLY:
            stream.keep_only(take(1)[0])
        elif what == What.RAW:
            stream.record(text())
        elif what == What.DAMAGE:
            stream.damage.append(struct.unpack("<HB", take(3)))
        elif what == What.CUT:
            stream.cut = take(1)[0]
        elif what == What.STOP:
            stream.stop()
            return stream
    stream.end_everything()
    return stream


def step(what: What, index: int = 0, *operands: int | bytes) -> bytes:
    """A step of an input. Operands that are bytes get their length before them."""
    encoded = [
        bytes([len(operand)]) + operand if isinstance(operand, bytes) else bytes([operand])
        for operand in operands
    ]
    return bytes([what | index << 4]) + b"".join(encoded)
