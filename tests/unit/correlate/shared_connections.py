"""A program whose requests and calls come and go on connections that they share, as the correlator sees it."""

from __future__ import annotations

import itertools
from collections import Counter

from autotrace.correlate import Correlator
from autotrace.correlate.streams import SURE_AFTER_READS
from autotrace.model import Connection, Context, Exchange, Link, LinkMethod, Process, Role, Rpc

HELPER = 900


class Program:
    """A process with connections that its requests come on and calls go out on. Threads and times are as the
    kernel tells them."""

    def __init__(self, *rungs: str) -> None:
        process = Process(1, "", {}, rungs=frozenset(rungs))
        self.grpc = True
        self.notes: Counter[str] = Counter()
        self.correlator = Correlator(lambda pid: process, self.note, b"host")
        self.clock = itertools.count(1)
        self.streams = itertools.count(1, 2)
        self.shared = self.connection()

    def note(self, stage: str, what: str) -> None:
        self.notes[what] += 1

    def connection(self) -> Connection:
        id = next(self.clock)
        opened_at = self.at(1)
        return Connection(id, 1, 2, 0, 0, 1, "127.0.0.1", 1000 + id, "127.0.0.1", 80, True, opened_at)

    def at(
        self,
        tid: int,
        cause: Connection | None = None,
        run: int = 1,
        task: int = 0,
        lineage: tuple[int, ...] = (),
    ) -> Context:
        return Context(next(self.clock), 1, tid, task, run, cause.id if cause else 0, lineage)

    def _exchange(self, role: Role, connection: Connection, at: Context, stream: int) -> Exchange:
        exchange = Exchange(connection, role, at, at.ts, "GET", "/", "2", {}, at.ts, stream=stream)
        exchange.rpc = Rpc("grpc", "") if stream and self.grpc else None
        return exchange

    def incoming(self, tid: int, shared: Connection | None = None, run: int = 1, task: int = 0) -> Exchange:
        connection = shared or self.connection()
        at = self.at(tid, run=run, task=task)
        exchange = self._exchange(Role.SERVER, connection, at, next(self.streams) if shared else 0)
        self.correlator.started(exchange)
        return exchange

    def call(
        self,
        tid: int,
        cause: Connection | None = None,
        run: int = 1,
        together: bool = False,
        task: int = 0,
        lineage: tuple[int, ...] = (),
        begun_for: Exchange | None = None,
    ) -> Exchange:
        at = self.at(tid, cause, run, task, lineage)
        exchange = self._exchange(Role.CLIENT, self.shared, at, next(self.streams))
        exchange.together = together
        exchange.cause = begun_for
        self.correlator.started(exchange)
        return exchange

    def get(self, tid: int, cause: Connection | None = None, task: int = 0) -> Exchange:
        at = self.at(tid, cause, task=task)
        exchange = self._exchange(Role.CLIENT, self.connection(), at, 0)
        self.correlator.started(exchange)
        return exchange

    def end(
        self,
        exchange: Exchange,
        tid: int,
        run: int = 1,
        task: int = 0,
        together: bool = False,
        lineage: tuple[int, ...] = (),
    ) -> None:
        if exchange.response_at is None:
            self.begin_answer(exchange, tid, run, task, lineage)
        exchange.answered_together = together
        exchange.end_ns = next(self.clock)
        exchange.status = 200
        self.correlator.ended(exchange)

    def begin_answer(
        self, exchange: Exchange, tid: int, run: int = 1, task: int = 0, lineage: tuple[int, ...] = ()
    ) -> None:
        exchange.response_at = self.at(tid, run=run, task=task, lineage=lineage)
        exchange.response_start_ns = exchange.response_at.ts

    def warm_up(self, reader: int = HELPER) -> None:
        """As many calls as it takes to know who reads the answers."""
        for _ in range(SURE_AFTER_READS):
            self.end(self.call(HELPER), reader)


def link(exchange: Exchange) -> Link:
    assert exchange.link is not None
    return exchange.link


def why_not(exchange: Exchange) -> str:
    found = link(exchange)
    assert (found.method, found.parent, found.parent_span_id) == (LinkMethod.NONE, None, 0)
    return found.evidence
