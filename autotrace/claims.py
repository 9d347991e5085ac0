"""What runtimes say of requests (`StreamClaim`) finds the exchanges that it is about.

A claim on a request that is made comes before the request's bytes, so that its exchange has it when it gets its
link. A claim on a request that is served comes when its exchange has started, but before anything that the request
causes.

Where records are lost a claim can wait for a request that has gone by. A stream's number or a connection's id
never comes again, and a task's only with another program. Without streams, a claim on a request that is made is
older than the answer to it, and one on a request that is served is about the first of its connection.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from autotrace.model import Direction, Exchange, Role, Rpc, StreamClaim

_SERVER: Final = Role.SERVER
_RX: Final = Direction.RX
_TX: Final = Direction.TX

_Carrier = tuple[int, int, Direction]
"""Process, task, direction of the requests whose bytes the task moves."""

_Place = tuple[int | _Carrier, int]
"""A connection or its carrier, and a stream."""

METHOD_OF_CALLS = "POST"
"""What gRPC's calls are made with (gRPC over HTTP/2, "Requests")."""

_METHODS_OF_CALLS: Final = (METHOD_OF_CALLS, "_OTHER")
"""As they are decoded: the other one is not known."""


class Claims:
    """Claims that wait for their requests, which of these were begun because of which, and which connection a task
    carries.

    `find` finds the open exchange of a connection and a stream. `note` is called with ("claims", what) for facts
    worth counting. At most `capacity` claims of each kind wait; the oldest goes for a new one.
    """

    def __init__(
        self,
        find: Callable[[int, int], Exchange | None],
        note: Callable[[str, str], object],
        capacity: int = 16_384,
    ) -> None:
        self._find = find
        self._note = note
        self._capacity = capacity
        self._waiting: dict[_Place, StreamClaim] = {}
        self._causes: dict[tuple[int, int], Exchange] = {}
        """By connection and stream: requests because of which calls were begun whose bytes are still to come."""
        self._carried: dict[_Carrier, int] = {}
        self._carriers: dict[int, set[_Carrier]] = {}
        self._claiming: set[int] = set()
        """Processes that have claimed something."""

    def claimed(self, claim: StreamClaim) -> Exchange | None:
        """Take a claim. Returns the exchange that it is about, which knows now all that it says but the task; None
        if its request is still to come."""
        self._claiming.add(claim.pid)
        if claim.cause:
            self._caused(claim)
            return None
        carrier = (claim.pid, claim.carrier, claim.direction)
        connection_id = claim.conn or self._carried.get(carrier, 0)
        if not connection_id and claim.carrier_parent:
            parent = (claim.pid, claim.carrier_parent, claim.direction)
            connection_id = self._carried.get(parent, 0)
        exchange = self._find(connection_id, claim.stream) if connection_id and claim.stream else None
        if exchange is not None and (exchange.role is _SERVER) is (claim.direction is _RX):
            _apply(claim, exchange)
            if claim.direction is _TX:
                self._note("claims", "came_after_its_request")
            return exchange
        self._wait((claim.conn or carrier, claim.stream), claim)
        return None

    def started(self, exchange: Exchange) -> None:
        """An exchange begins: if there is a claim on it, it knows now what that says."""
        if not exchange.stream and not self._waiting:
            return
        if self._causes:
            exchange.cause = self._causes.pop((exchange.connection.id, exchange.stream), None)
        connection, task = exchange.connection, exchange.at.task
        direction = _RX if exchange.role is _SERVER else _TX
        carrier = (connection.pid, task, direction)
        if exchange.stream and task and self._carried.get(carrier) != connection.id:
            self._carried[carrier] = connection.id
            self._carriers.setdefault(connection.id, set()).add(carrier)
        if not self._waiting:
            return
        claim = self._waiting.pop((carrier, exchange.stream), None) if task else None
        claim = claim or self._waiting.pop((connection.id, exchange.stream), None)
        if claim is not None and not exchange.stream and _is_over(claim, exchange):
            self._note("claims", "request_never_came")
            claim = None
        if claim is not None:
            exchange.task = claim.task
            _apply(claim, exchange)

    def connection_closed(self, connection_id: int) -> None:
        """A connection is gone."""
        for carrier in self._carriers.pop(connection_id, ()):
            if self._carried.get(carrier) == connection_id:
                del self._carried[carrier]

    def process_exited(self, pid: int) -> None:
        """A process is gone, or runs another program: what it claimed and did not do will not come."""
        if pid not in self._claiming:
            return
        self._claiming.discard(pid)
        for carriers in self._carriers.values():
            for carrier in [carrier for carrier in carriers if carrier[0] == pid]:
                carriers.discard(carrier)
                self._carried.pop(carrier, None)
        for place, claim in list(self._waiting.items()):
            if claim.pid == pid:
                del self._waiting[place]
                self._note("claims", "request_never_came")
        for called, cause in list(self._causes.items()):
            if cause.connection.pid == pid:
                del self._causes[called]
                self._note("claims", "request_never_came")

    def _caused(self, claim: StreamClaim) -> None:
        """A call was begun because of a request. What came behind the answer to that was not for its sake."""
        cause = self._find(claim.cause, claim.cause_stream)
        if cause is None or cause.role is not _SERVER or cause.connection.pid != claim.pid:
            return
        if len(self._causes) >= self._capacity:
            self._note("claims", "request_never_came")
            del self._causes[next(iter(self._causes))]
        self._causes[claim.conn, claim.stream] = cause

    def _wait(self, place: _Place, claim: StreamClaim) -> None:
        if self._waiting.pop(place, None) is not None or len(self._waiting) >= self._capacity:
            self._note("claims", "request_never_came")
        if len(self._waiting) >= self._capacity:
            del self._waiting[next(iter(self._waiting))]
        self._waiting[place] = claim


def _is_over(claim: StreamClaim, exchange: Exchange) -> bool:
    """Tell if the request is over that a claim without a stream was on, of which `exchange` is not the one."""
    if claim.direction is _RX:
        return not exchange.first_on_connection
    return claim.ts < exchange.connection.heard_at


def _apply(claim: StreamClaim, exchange: Exchange) -> None:
    exchange.parent_task, exchange.own_task = claim.parent, claim.own_task
    if claim.path and exchange.partial and not exchange.target:
        exchange.target = claim.path
    if claim.grpc and exchange.partial and _may_be_a_call(exchange):
        exchange.method = METHOD_OF_CALLS
        if exchange.rpc is None:
            exchange.rpc = Rpc("grpc", "")
    if exchange.rpc is not None and exchange.partial:
        exchange.name_call()


def _may_be_a_call(exchange: Exchange) -> bool:
    """Tell if nothing that was decoded of it says that it is not gRPC's."""
    if exchange.rpc is None and "content-type" in exchange.request_headers:
        return False
    return exchange.method in _METHODS_OF_CALLS
