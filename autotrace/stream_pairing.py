"""Requests and responses of multiplexed connections become exchanges.

A stream has one request and one response (RFC 9113 section 8.1), and every message names its stream, so
nothing has to be kept but the exchange of each open stream. `autotrace.pairing` does the same for connections
that answer in order.
"""

from __future__ import annotations

import errno
from collections.abc import Callable, Sequence

from autotrace.model import (
    Connection,
    Direction,
    Exchange,
    ExchangeEnded,
    ExchangeStarted,
    GoAway,
    Message,
    PairingEvent,
    ProtocolError,
    Role,
    StreamEnd,
    StreamGoesOn,
    StreamRequest,
    StreamReset,
    StreamResponse,
)

INCOMPLETE_RESPONSE = "incomplete_response"
NO_RESPONSE = "no_response"
PROCESS_EXITED = "process_exited"
REFUSED_STREAM = "REFUSED_STREAM"
TIMEOUT = "timeout"
"""Values of `Exchange.error`, besides errno names and those of HTTP/2 error codes."""

CANCELLED = "CANCELLED"
"""gRPC's status of a call that its client has given up (github.com/grpc/grpc, doc/statuscodes.md)."""

GAP = "gap"
"""The `ProtocolError.reason` that stands for records that were lost: no fault of the program's."""

TOO_MANY_OPEN = "too_many_open_requests"
RING_FULL = "ring_full"
UNWALKED = "unwalked"
"""Drop reasons: requests beyond `max_open_per_connection`, those in records that were lost, and those among
frames that the kernel left out."""

VERSION = "2"


class _Conversation:
    """The open exchanges of one connection, by stream. `unsure`: those that may have ended unseen, and since
    when."""

    __slots__ = ("connection", "open", "unsure")

    def __init__(self, connection: Connection) -> None:
        self.connection = connection
        self.open: dict[int, Exchange] = {}
        self.unsure: dict[int, int] = {}


class StreamPairing:
    """Open exchanges by connection and stream.

    `seen` is called for each new exchange, `dropped` with the reason for each that was seen and will never
    end, `note` with ("pairing" or "protocols", what) for facts that are not exchanges.
    """

    def __init__(
        self,
        seen: Callable[[], object],
        dropped: Callable[[str], object],
        note: Callable[[str, str], object],
        max_open_per_connection: int = 2048,
    ) -> None:
        self._seen = seen
        self._dropped = dropped
        self._note = note
        self._max_open = max_open_per_connection
        self._conversations: dict[int, _Conversation] = {}

    @property
    def in_flight(self) -> int:
        """Exchanges that have started and not ended."""
        return sum(len(conversation.open) for conversation in self._conversations.values())

    def find(self, connection_id: int, stream: int) -> Exchange | None:
        """The open exchange of a stream."""
        conversation = self._conversations.get(connection_id)
        return conversation.open.get(stream) if conversation is not None else None

    def messages(self, connection: Connection, messages: Sequence[Message]) -> list[PairingEvent]:
        """Take what a parser made of one connection's frames."""
        conversation = self._conversations.get(connection.id)
        if conversation is None:
            conversation = self._conversations[connection.id] = _Conversation(connection)
        events: list[PairingEvent] = []
        together = sum(type(message) is StreamRequest for message in messages) > 1
        answered_together = sum(type(message) is StreamResponse for message in messages) > 1
        for message in messages:
            if isinstance(message, StreamRequest):
                self._request(conversation, message, together, events)
            elif isinstance(message, StreamResponse):
                self._response(conversation, message, answered_together)
            elif isinstance(message, StreamEnd):
                self._stream_end(conversation, message, events)
            elif isinstance(message, StreamReset):
                self._reset(conversation, message, events)
            elif isinstance(message, StreamGoesOn):
                conversation.unsure.pop(message.stream, None)
            elif isinstance(message, GoAway):
                self._go_away(conversation, message, events)
            elif isinstance(message, ProtocolError):
                self._protocol_error(conversation, message)
        return events

    def connection_closed(
        self, connection: Connection, ts: int, error: int, process_exited: bool = False
    ) -> list[PairingEvent]:
        """End what is open on a connection that is gone; `error` is an errno, 0 for an orderly close.

        `process_exited`: it is gone because the watched process is. If it is not, a server's calls are CANCELLED,
        which is what their handlers are told. A client may have given its calls up or been left alone with them:
        their status is not known.
        """
        conversation = self._conversations.pop(connection.id, None)
        if conversation is None:
            return []
        reason = errno.errorcode.get(error, f"errno_{error}") if error else PROCESS_EXITED * process_exited
        events: list[PairingEvent] = []
        for stream, exchange in conversation.open.items():
            cut_short = INCOMPLETE_RESPONSE if exchange.response_start_ns else NO_RESPONSE
            unsure = stream in conversation.unsure
            if (
                exchange.rpc is not None
                and exchange.role is Role.SERVER
                and not unsure
                and not process_exited
            ):
                exchange.rpc.status = CANCELLED
            error_type = "" if unsure else reason or cut_short
            events.append(_end(exchange, ts, error_type))
        return events

    def process_exited(self, pid: int, ts: int) -> list[PairingEvent]:
        """End everything that is open in a process that is gone."""
        gone = [c for c in self._conversations.values() if c.connection.pid == pid]
        events: list[PairingEvent] = []
        for conversation in gone:
            events += self.connection_closed(conversation.connection, ts, 0, True)
        return events

    def expire(self, now: int, timeout_ns: int) -> list[PairingEvent]:
        """Give up exchanges whose request was complete `timeout_ns` ago and whose response has not begun, and
        those that may have ended unseen that long ago. A call may wait for its first message as long as it
        likes."""
        events: list[PairingEvent] = []
        before = now - timeout_ns
        for conversation in self._conversations.values():
            if not conversation.open:
                continue
            for stream, since in list(conversation.unsure.items()):
                if since <= before:
                    events.append(_end(self._take(conversation, stream), since, ""))
            for stream, exchange in list(conversation.open.items()):
                waits = (
                    exchange.rpc is None
                    and not exchange.response_start_ns
                    and stream not in conversation.unsure
                )
                if waits and 0 < exchange.request_end_ns <= before:
                    events.append(_end(self._take(conversation, stream), now, TIMEOUT))
        return events

    def drain(self) -> list[Exchange]:
        """Forget everything; return the exchanges still open, oldest first. The caller accounts for them."""
        exchanges = [
            exchange
            for conversation in self._conversations.values()
            for exchange in conversation.open.values()
        ]
        self._conversations.clear()
        return sorted(exchanges, key=lambda exchange: exchange.start_ns)

    @staticmethod
    def _take(conversation: _Conversation, stream: int) -> Exchange:
        conversation.unsure.pop(stream, None)
        exchange = conversation.open.pop(stream)
        if not conversation.open:
            conversation.open.clear()  # or it keeps the memory that its most streams took
        return exchange

    def _request(
        self,
        conversation: _Conversation,
        request: StreamRequest,
        together: bool,
        events: list[PairingEvent],
    ) -> None:
        connection = conversation.connection
        for _ in range(request.missed):
            self._seen()
            self._dropped(UNWALKED if request.unwalked else RING_FULL)
        connection.requests += 1
        self._seen()
        if len(conversation.open) >= self._max_open:
            self._dropped(TOO_MANY_OPEN)
            return
        exchange = Exchange(
            connection=connection,
            role=Role.SERVER if request.direction is Direction.RX else Role.CLIENT,
            at=request.at,
            position=request.position,
            method=request.method,
            target=request.target,
            version=VERSION,
            request_headers=request.headers,
            start_ns=request.at.ts,
            first_on_connection=connection.from_start and connection.requests == 1,
            stream=request.stream,
            partial=request.partial,
            rpc=request.rpc,
            together=together,
        )
        conversation.open[request.stream] = exchange
        events.append(ExchangeStarted(exchange))

    def _response(self, conversation: _Conversation, response: StreamResponse, together: bool) -> None:
        exchange = conversation.open.get(response.stream)
        if exchange is None or _asks(exchange, response.direction):
            conversation.connection.requests += 1
            self._note("pairing", "orphan_response")
            return
        conversation.unsure.pop(response.stream, None)
        exchange.response_start_ns = response.at.ts
        exchange.response_at = response.at
        exchange.answered_together = together
        exchange.status = response.status
        if exchange.rpc is None and response.rpc is not None:
            exchange.rpc = response.rpc
            exchange.name_call()

    def _stream_end(self, conversation: _Conversation, end: StreamEnd, events: list[PairingEvent]) -> None:
        exchange = conversation.open.get(end.stream)
        if exchange is None:
            return
        rpc = exchange.rpc
        if _asks(exchange, end.direction):
            exchange.request_end_ns = end.ts
            exchange.request_body_size = end.body_size
            if rpc is not None:
                rpc.request_messages = end.messages
            return
        exchange.response_body_size = end.body_size
        if rpc is None:
            rpc = exchange.rpc = end.rpc
            exchange.name_call()
        if rpc is not None:
            rpc.response_messages = end.messages
            rpc.status = end.rpc_status
        events.append(_end(self._take(conversation, end.stream), end.ts, ""))

    def _reset(self, conversation: _Conversation, reset: StreamReset, events: list[PairingEvent]) -> None:
        exchange = conversation.open.get(reset.stream)
        if exchange is None:
            return
        if exchange.rpc is not None:
            exchange.rpc.status = reset.rpc_status
        events.append(_end(self._take(conversation, reset.stream), reset.ts, reset.code))

    def _go_away(self, conversation: _Conversation, away: GoAway, events: list[PairingEvent]) -> None:
        for stream, exchange in list(conversation.open.items()):
            if stream > away.last_stream and not _asks(exchange, away.direction):
                if exchange.rpc is not None:
                    exchange.rpc.status = "UNAVAILABLE"
                events.append(_end(self._take(conversation, stream), away.ts, REFUSED_STREAM))

    def _protocol_error(self, conversation: _Conversation, error: ProtocolError) -> None:
        self._note("protocols", error.reason)
        if error.reason == GAP:
            for stream in conversation.open:
                conversation.unsure.setdefault(stream, error.ts)


def _asks(exchange: Exchange, direction: Direction) -> bool:
    """Tell if `direction` is the way of the request."""
    return (exchange.role is Role.SERVER) is (direction is Direction.RX)


def _end(exchange: Exchange, ts: int, error: str) -> ExchangeEnded:
    exchange.end_ns = ts
    exchange.error = error
    return ExchangeEnded(exchange)
