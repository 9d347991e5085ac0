"""The linking ladder: the first rung that answers gives an exchange its parent; see docs/links.md."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from autotrace.correlate.answers import UndecidedCalls, undecided_above
from autotrace.correlate.causality import OpenRequests
from autotrace.correlate.identity import Identity, Ids
from autotrace.correlate.trace_headers import TraceContext, trace_context
from autotrace.correlate.wire import Key, WireJoins
from autotrace.model import (
    Confidence,
    Connection,
    Direction,
    Exchange,
    Link,
    LinkMethod,
    OnWire,
    Process,
    Role,
)

_AF_UNIX: Final = 1

# Enum members as globals: a look-up in the class costs three times as much, and every exchange makes many.
_RX: Final = Direction.RX
_TX: Final = Direction.TX
_SERVER: Final = Role.SERVER
_CLIENT: Final = Role.CLIENT
_HEADER: Final = LinkMethod.HEADER
_WIRE: Final = LinkMethod.WIRE
_NONE: Final = LinkMethod.NONE
_EXACTLY: Final = Confidence.EXACT
_UNCLAIMED: Final = Confidence.NONE


class Correlator:
    """Gives every exchange its `Link` when its request is seen. The parent of a call may show later: see
    `undecided_above`.

    A parent is always known before its child: a request is written before it is read, and an incoming request
    is read before what it causes is sent. `process_of` finds a process by pid. `note` is called with
    ("correlate", what) for facts worth counting. `host` tells this host, since its last boot, from all
    others; None: nobody wants spans, and links have no ids (0).
    """

    def __init__(
        self,
        process_of: Callable[[int], Process | None],
        note: Callable[[str, str], object],
        host: bytes | None,
        wire_capacity: int = 65_536,
    ) -> None:
        self._process_of = process_of
        self._identity = None if host is None else Identity(host)
        self._wire = WireJoins(note, wire_capacity)
        self._note = note
        self._requests: dict[int, OpenRequests] = {}
        self._undecided = UndecidedCalls(note)

    def started(self, exchange: Exchange) -> Link:
        """Link an exchange whose request was just seen. Sets `exchange.link`."""
        pid = exchange.connection.pid
        requests = self._requests.get(pid)
        if requests is None:
            requests = self._requests[pid] = OpenRequests()
        if exchange.role is _SERVER:
            return self._link_incoming(exchange, requests)
        return self._link_outgoing(exchange, requests)

    def served_by(self, exchange: Exchange, task: int) -> None:
        """The runtime says which of its tasks serves an incoming request that has started."""
        if requests := self._requests.get(exchange.connection.pid):
            requests.served_by(exchange, task)

    def ended(self, exchange: Exchange) -> None:
        """An exchange is over."""
        requests = self._requests.get(exchange.connection.pid)
        if exchange.role is _CLIENT:
            self._wire.ended(exchange)
            if requests is not None:
                requests.call_ended(exchange)
        elif requests is not None:
            requests.ended(exchange)
            if exchange.stream:
                self._undecided.answered(exchange, requests.against_answers(), requests.own_context(exchange))
                if self._undecided.ever:
                    self._undecided.only_since(exchange.connection.pid, requests.oldest_open())

    def connection_closed(self, connection: Connection) -> None:
        """A connection is gone; its exchanges have been ended."""
        if requests := self._requests.get(connection.pid):
            requests.connection_closed(connection.id)

    def process_exited(self, pid: int) -> None:
        """A process is gone; its exchanges have been ended."""
        self._requests.pop(pid, None)
        self._undecided.process_exited(pid)

    def undecided_above(self, exchange: Exchange) -> Exchange | None:
        """The call, this exchange or one above it, whose parent may still show: until `take_decided` gives it, the
        trace of the exchange is not known."""
        return undecided_above(exchange) if self._undecided.ever else None

    def take_decided(self) -> list[Exchange]:
        """The calls for which it is decided since this was asked last if they have a parent."""
        return self._undecided.take_decided()

    def expire(self, now: int) -> None:
        """Wait no longer for parents that should have shown by `now`."""
        self._undecided.expire(now)

    def finish(self) -> None:
        """Wait for no parent any more."""
        self._undecided.process_exited(0)

    def _link_incoming(self, exchange: Exchange, requests: OpenRequests) -> Link:
        # Where nothing was sent and nobody wants ids, a key is made for nothing.
        key = exchange.wire_key(_RX) if self._identity is not None or len(self._wire) else None
        on_wire = exchange.on_wire(_RX) if exchange.connection.tls else None
        client, conflict = self._wire.join(key, on_wire)
        context = trace_context(exchange.request_headers)
        ids = self._ids(key, exchange, client)
        made_here = False
        if client is not None and client.link is not None:
            made_here = client.link.suppressed and client.connection.pid == exchange.connection.pid
            if client.link.suppressed:
                link = _child(_HEADER, "trace header made by the sending process", ids, client)
            else:
                link = _child(_WIRE, _wire_evidence(exchange, client, on_wire), ids, client)
        elif context is not None:
            link = _adopt(context, f"{context.header} header", ids[0])
        elif conflict:
            link = _root("two requests claim these bytes", ids, 1)
        elif on_wire is None and not exchange.has_wire_key:
            self._note("correlate", "wire_position_unknown")
            link = _root("no trace header, and which bytes of the connection these are is not known", ids, 0)
        else:
            link = _root("no trace header, and the sender is not traced on this host", ids, 0)
        exchange.link = link
        # A header that this process made and sent to itself is not one that others gave it.
        requests.began(exchange, (context.trace_id, context.span_id) if context and not made_here else None)
        return link

    def _link_outgoing(self, exchange: Exchange, requests: OpenRequests) -> Link:
        key = exchange.wire_key(_TX) if exchange.method else None
        ids = self._ids(key, exchange, exchange)
        context = trace_context(exchange.request_headers)
        carrying = requests.carrying((context.trace_id, context.span_id)) if context else []
        if len(carrying) == 1:
            evidence = "same trace header as one open request"
            link = _child(_HEADER, evidence, ids, carrying[0])
        elif context is not None and not carrying:
            link = _adopt(context, f"{context.header} header made by the process", context.span_id)
            link.parent_span_id = 0
            link.suppressed = True
        else:
            parent, method, evidence, confidence = requests.find_parent(
                exchange, self._process_of(exchange.connection.pid)
            )
            if parent is not None and (context is None or parent in carrying):
                link = _child(method, evidence, ids, parent, confidence)
            elif context is not None:
                link = _adopt(context, f"same trace header as {len(carrying)} open requests", ids[0])
                link.candidates = len(carrying)
            else:
                link = _root(evidence, ids, len(requests.open))
        exchange.link = link
        if link.method is _NONE and requests.may_show_late(
            exchange, self._process_of(exchange.connection.pid)
        ):
            if requests.descends(exchange):
                self._undecided.wait_for_context(exchange)
            else:
                self._undecided.wait(exchange, requests.only_open(exchange))
        if requests.shares_context(exchange):
            self._undecided.doubt_context(exchange.at)
        requests.called(exchange)
        on_wire = exchange.on_wire(_TX) if exchange.connection.tls and exchange.method else None
        if key is not None or on_wire is not None:
            self._wire.sent(exchange, key, on_wire)
        elif exchange.method:
            self._note("correlate", "wire_position_unknown")
        return link

    def _ids(self, key: Key | None, exchange: Exchange, client: Exchange | None) -> Ids:
        if self._identity is None:
            return 0, 0
        connection = exchange.connection
        return self._identity.ids(
            key or f"('connection', {connection.id}, {exchange.stream or exchange.position})",
            exchange.role,
            (client or exchange).start_ns,
        )


def _child(
    method: LinkMethod, evidence: str, ids: Ids, parent: Exchange, confidence: Confidence = _EXACTLY
) -> Link:
    above = parent.link
    if above is None:
        raise ValueError("the parent of an exchange has no link: it was not given to started()")
    link = Link(method, confidence, evidence, above.trace_id, ids[0], above.span_id, parent)
    link.sampled = above.sampled
    link.trace_state = above.trace_state
    return link


def _adopt(context: TraceContext, evidence: str, span_id: int) -> Link:
    link = Link(_HEADER, _EXACTLY, evidence, context.trace_id, span_id, context.span_id)
    link.sampled = context.sampled
    link.trace_state = context.trace_state
    return link


def _root(evidence: str, ids: Ids, candidates: int) -> Link:
    span_id, trace_id = ids
    return Link(_NONE, _UNCLAIMED, evidence, trace_id, span_id, 0, None, candidates)


def _wire_evidence(exchange: Exchange, client: Exchange, on_wire: OnWire | None) -> str:
    connection = exchange.connection
    if exchange.stream:
        return f"same HTTP/2 stream {exchange.stream} of one connection on both ends"
    if connection.family == _AF_UNIX:
        return f"same byte {exchange.position} on both ends"
    if connection.tls and connection.from_start and client.connection.from_start:
        return f"same byte {exchange.position} of the plaintext on both ends"
    if on_wire is not None:
        return f"the only request sent between TCP sequence numbers {on_wire.start} and {on_wire.end}"
    return f"same TCP sequence number {exchange.position & 0xFFFFFFFF} on both ends"
