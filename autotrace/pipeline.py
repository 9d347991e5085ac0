"""The user side from event to span: streams, protocols, pairing, correlate, spans and metrics, wired together.

It does no I/O and reads no clock, so the agent and a replay run the same code with the same result.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from opentelemetry.semconv.attributes.http_attributes import HTTP_ROUTE

from autotrace.claims import Claims
from autotrace.correlate import Correlator
from autotrace.kernel.decode import DecodeError, decode
from autotrace.ledger import Ledger
from autotrace.metrics import RedMetrics
from autotrace.model import (
    Chunk,
    Connection,
    ConnectionClosed,
    ConnectionOpened,
    Event,
    Exchange,
    ExchangeEnded,
    ExchangeStarted,
    Frames,
    Message,
    PairingEvent,
    Process,
    ProcessExited,
    ProcessStarted,
    Progress,
    Role,
    Span,
    StreamClaim,
)
from autotrace.pairing import Pairing
from autotrace.protocols import FRAME_PARSER, parser_for
from autotrace.routes import RouteTemplater
from autotrace.spans import URL_TEMPLATE, SpanMaker
from autotrace.stream_pairing import StreamPairing
from autotrace.streams import StreamTable

_AF_UNIX: Final = 1
_SERVER: Final = Role.SERVER
_HELD_MAX = 16_384
"""How many spans may wait to know their trace. Over that, no parent is waited for any more."""

_SLICE: Final = 4
"""Records that are handled before others may have the CPU. Without that they get it at the kernel's next tick, up
to 4 ms later, and their slowest requests are that much slower."""

_EXIT_GRACE_NS = 1_000_000_000
"""How long after a process's exit the ends of its connections may still come."""


class Pipeline:
    """Events in, spans out.

    `process_of` finds a watched process, `emit` takes each finished span (None: nobody does, and none is made; an
    exchange counts as emitted all the same), `stop_capture` is told of a connection
    whose bytes are not wanted, `forget` of one that no record will tell the end of. `host` tells this host,
    since its boot, from all others. `wall_offset_ns` is the Unix time at monotonic time 0.
    """

    def __init__(
        self,
        *,
        process_of: Callable[[int], Process],
        emit: Callable[[Span], object] | None,
        stop_capture: Callable[[Connection], object],
        forget: Callable[[Connection], object],
        ledger: Ledger,
        metrics: RedMetrics,
        host: bytes,
        wall_offset_ns: int,
        exchange_timeout_ns: int,
        route_limit: int,
    ) -> None:
        self._process_of = process_of
        self._emit = emit
        self._forget = forget
        self._ledger = ledger
        self._metrics = metrics
        self._timeout_ns = exchange_timeout_ns
        self._streams = StreamTable(parser_for, FRAME_PARSER, stop_capture, ledger.note)
        self._pairing = Pairing(ledger.seen, ledger.dropped, ledger.note)
        self._stream_pairing = StreamPairing(ledger.seen, ledger.dropped, ledger.note)
        self._claims = Claims(self._stream_pairing.find, ledger.note)
        # The ids of a link take as long as all the rest of it.
        self._correlator = Correlator(process_of, ledger.note, host if emit else None)
        self._routes = RouteTemplater(route_limit)
        self._spans = SpanMaker(process_of, self._routes, wall_offset_ns)
        self._held: dict[Exchange, list[tuple[Exchange, Span]]] = {}
        self._held_count = 0
        self._exited: dict[int, int] = {}
        self._overflowed = 0

    @property
    def connections(self) -> int:
        """How many connections are followed."""
        return len(self._streams)

    @property
    def processes_with_old_frames(self) -> frozenset[int]:
        """The ids of processes with HTTP/2 connections that are older than the agent."""
        return self._streams.processes_with_old_frames

    def records(
        self,
        records: list[bytes],
        before: Callable[[Event], object],
        after: Callable[[bytes, Event], object] | None,
        pause: Callable[[], object],
    ) -> None:
        """Take records of the ring, in its order. `before` is told of each event that is no chunk before it is
        handled here, `after` of each record when its event has been; `pause` is called after every few."""
        for number, record in enumerate(records, 1):
            if not number % _SLICE:
                pause()
            try:
                event = decode(record)
            except DecodeError:
                self._ledger.note("kernel", "record_not_understood")
                continue
            if type(event) is not Chunk:
                before(event)
            self.event(event)
            if after is not None:
                after(record, event)

    def event(self, event: Event) -> None:
        """Take one event, in the order of the ring."""
        if type(event) is Chunk:
            result = self._streams.chunk(event)
            if result is not None:
                self._messages(result[0], result[1])
        elif type(event) is Frames:
            result = self._streams.frames(event)
            if result is not None:
                self._pair(self._stream_pairing.messages(*result))
        elif type(event) is StreamClaim:
            self._claimed(event)
        elif type(event) is Progress:
            result = self._streams.progress(event)
            if result is not None:
                self._messages(result[0], result[1])
        elif type(event) is ConnectionOpened:
            self._streams.opened(event)
        elif type(event) is ConnectionClosed:
            self._closed(event)
        elif type(event) is ProcessExited:
            # Its connections end right after it, and what they say of their last bytes counts.
            self._exited[event.pid] = event.ts
        elif type(event) is ProcessStarted and not event.parent:
            self._claims.process_exited(event.pid)

    def tick(self, now: int) -> None:
        """The clock stands at `now`: give up what has waited too long."""
        self._pair(self._pairing.expire(now, self._timeout_ns))
        self._pair(self._stream_pairing.expire(now, self._timeout_ns))
        for pid, ts in list(self._exited.items()):
            if now - ts >= _EXIT_GRACE_NS:
                self._process_is_gone(pid, ts)
                del self._exited[pid]
        self._correlator.expire(now)
        self._release()
        overflowed = self._routes.overflowed
        if overflowed > self._overflowed:
            self._ledger.note("spans", "route_overflow", overflowed - self._overflowed)
            self._overflowed = overflowed

    def keep_only(
        self, followed: set[int], now: int, handle_rest: Callable[[], object] = lambda: None
    ) -> None:
        """End the connections whose close was lost: `followed` are the ids of those the kernel side still follows.

        `handle_rest` is called in between: it hands over the events that wait, for what these connections said
        before they were closed may be among them.
        """
        # Not their sockets: a closed one's address is soon another's.
        gone = [connection for connection in self._streams.connections() if connection.id not in followed]
        handle_rest()
        for connection in gone:
            self._vanished(connection, now)

    def finish(self, now: int) -> None:
        """No more events: account for what is still open."""
        self.tick(now + _EXIT_GRACE_NS)
        self._correlator.finish()
        self._release()
        for _ in self._pairing.drain() + self._stream_pairing.drain():
            self._ledger.dropped("in_flight_at_stop")

    def _messages(self, connection: Connection, messages: list[Message]) -> None:
        self._pair(self._pairing.messages(connection, messages))

    def _pair(self, events: list[PairingEvent]) -> None:
        for event in events:
            if type(event) is ExchangeStarted:
                self._started(event.exchange)
            elif type(event) is ExchangeEnded:
                self._ended(event.exchange)

    def _claimed(self, claim: StreamClaim) -> None:
        exchange = self._claims.claimed(claim)
        if exchange is not None and exchange.role is _SERVER and claim.task:
            self._correlator.served_by(exchange, claim.task)

    def _started(self, exchange: Exchange) -> None:
        self._claims.started(exchange)
        link = self._correlator.started(exchange)
        parent = link.parent
        if parent is not None and exchange.role is _SERVER:
            exchange.peer_pid = parent.connection.pid
            parent.peer_pid = exchange.connection.pid

    def _ended(self, exchange: Exchange) -> None:
        self._correlator.ended(exchange)
        process = self._process_of(exchange.connection.pid)
        route = ""
        if exchange.link is not None and exchange.link.suppressed:
            self._ledger.dropped("reported_by_process")
        else:
            route = self._make_span(exchange, process)
        peer = self._process_of(exchange.peer_pid) if exchange.peer_pid else None
        self._metrics.observe(exchange, process, route, peer)
        self._release()

    def _make_span(self, exchange: Exchange, process: Process) -> str:
        """Hand over the span of an exchange, or hold it until its place is known; returns its route."""
        if self._emit is None:
            self._ledger.emitted()
            return self._spans.route(exchange, process)
        undecided = self._correlator.undecided_above(exchange)
        span = self._spans.make(exchange)
        route = str(span.attributes.get(HTTP_ROUTE) or span.attributes.get(URL_TEMPLATE) or "")
        if undecided is not None:
            self._hold(undecided, exchange, span)
        else:
            self._emit(span)
            self._ledger.emitted()
        return route

    def _hold(self, undecided: Exchange, exchange: Exchange, span: Span) -> None:
        self._held.setdefault(undecided, []).append((exchange, span))
        self._held_count += 1
        if self._held_count > _HELD_MAX:
            self._ledger.note("correlate", "held_spans_full")
            self._correlator.finish()

    def _release(self) -> None:
        """Hand over the spans at and below calls whose parent is known now, or will not be."""
        for call in self._correlator.take_decided():
            held = self._held.pop(call, [])
            self._held_count -= len(held)
            for exchange, span in held:
                undecided = self._correlator.undecided_above(exchange)
                if undecided is not None:
                    self._hold(undecided, exchange, span)
                elif self._emit is not None:
                    self._spans.place(span, exchange)
                    self._emit(span)
                    self._ledger.emitted()

    def _closed(self, event: ConnectionClosed) -> None:
        connection, messages = self._streams.closed(event)
        if messages:
            exited = connection.pid in self._exited
            self._pair(self._pairing.messages(connection, messages, event.error, exited))
        if not event.established:
            self._pair(self._pairing.connect_failed(connection, connection.opened_at, event.ts, event.error))
        self._connection_is_gone(connection, event.ts, event.error)

    def _vanished(self, connection: Connection, ts: int) -> None:
        result = self._streams.vanished(connection.id, ts)
        if result is not None:
            self._pair(self._pairing.messages(*result, process_exited=connection.pid in self._exited))
        self._connection_is_gone(connection, ts, 0)

    def _connection_is_gone(self, connection: Connection, ts: int, error: int) -> None:
        exited = connection.pid in self._exited
        self._pair(self._pairing.connection_closed(connection, ts, error, process_exited=exited))
        self._pair(self._stream_pairing.connection_closed(connection, ts, error, process_exited=exited))
        self._correlator.connection_closed(connection)
        self._claims.connection_closed(connection.id)
        self._spans.connection_closed(connection.id)

    def _process_is_gone(self, pid: int, ts: int) -> None:
        for connection in self._streams.connections():
            if connection.pid == pid and connection.family == _AF_UNIX:
                self._forget(connection)
                self._vanished(connection, ts)
        self._pair(self._pairing.process_exited(pid, ts))
        self._pair(self._stream_pairing.process_exited(pid, ts))
        self._correlator.process_exited(pid)
        self._claims.process_exited(pid)
