"""Requests and responses become exchanges.

HTTP/1.1 answers in order (RFC 9112 section 9.3.2), so each connection needs a queue of open exchanges and
nothing else: no ids, no clocks.
"""

from __future__ import annotations

import errno
from collections.abc import Callable, Sequence
from typing import Final

from autotrace.model import (
    Connection,
    Context,
    Direction,
    Exchange,
    ExchangeEnded,
    ExchangeStarted,
    Message,
    MessageEnd,
    PairingEvent,
    ProtocolError,
    Request,
    Response,
    Role,
    Switched,
)

ABORTED = "aborted"
INCOMPLETE_RESPONSE: Final = "incomplete_response"
NO_RESPONSE = "no_response"
PROCESS_EXITED = "process_exited"
PROTOCOL_ERROR = "protocol_error"
TIMEOUT = "timeout"
"""Values of `Exchange.error`, besides errno names."""

GAP = "gap"
"""The `ProtocolError.reason` that stands for bytes the agent missed: no fault of the program's."""

TOO_MANY_OPEN = "too_many_open_requests"
"""Drop reason of requests beyond `max_open_per_connection`."""

ANSWERS_UNKNOWN = "pipelined_answers_unknown"
"""Drop reason of requests on a connection whose client pipelines, after some were missed: which response answers
which request cannot be told from then on."""


# Enum members as globals: a look-up in the class costs three times as much, and every exchange makes many.
_RX: Final = Direction.RX
_SERVER: Final = Role.SERVER
_CLIENT: Final = Role.CLIENT

_SOMETIME: Final = 1
_SINCE: Final = 2


class _Conversation:
    """The open exchanges of one connection, oldest first.

    An exchange that was given up (`end_ns` is set) keeps its place in `open`, so that its late response is
    not taken for the next one's. `asking` still sends its request, `answering` has begun its response.
    `skipped` requests, all younger than `open`, were dropped; their responses are passed over. `pipelines`: a
    request was sent while another one waited. `lost`: an unknown number of messages was missed since.
    `gaps` says, by direction, if messages were missed since the last one that tells: _SINCE, or _SOMETIME if it
    is not known whether the other side has spoken after that. `unsure`: the one in `open` came just after such a
    gap, so the next response may be for what was missed.
    """

    __slots__ = (
        "answering",
        "asking",
        "connection",
        "gaps",
        "lost",
        "open",
        "pipelines",
        "skipped",
        "unsure",
    )

    def __init__(self, connection: Connection) -> None:
        self.connection = connection
        self.open: list[Exchange] = []
        self.asking: Exchange | None = None
        self.answering: Exchange | None = None
        self.skipped = 0
        self.gaps = [0, 0]
        self.unsure = False
        self.pipelines = False
        self.lost = False

    def waits(self) -> bool:
        """Tell if a request has no response yet, not even the beginning of one."""
        return len(self.open) > (self.answering is not None)

    def live(self) -> list[Exchange]:
        return [exchange for exchange in self.open if not exchange.end_ns]


class Pairing:
    """Queues of open exchanges, one for each connection that has asked something.

    `seen` is called for each new exchange, `dropped` with the reason for each that was seen and will never
    end, `note` with ("pairing" or "protocols", what) for facts that are not exchanges.
    """

    def __init__(
        self,
        seen: Callable[[], object],
        dropped: Callable[[str], object],
        note: Callable[[str, str], object],
        max_open_per_connection: int = 256,
    ) -> None:
        self._seen = seen
        self._dropped = dropped
        self._note = note
        self._max_open = max_open_per_connection
        self._conversations: dict[int, _Conversation] = {}
        self._of_process: dict[int, set[int]] = {}

    @property
    def in_flight(self) -> int:
        """Exchanges that have started and not ended."""
        return sum(len(conversation.live()) for conversation in self._conversations.values())

    def messages(
        self,
        connection: Connection,
        messages: Sequence[Message],
        error: int = 0,
        process_exited: bool = False,
    ) -> list[PairingEvent]:
        """Take what a parser made of one connection's bytes.

        The last messages come with what `connection_closed` will be called with: why a response was cut short.
        """
        conversation = self._conversations.get(connection.id)
        events: list[PairingEvent] = []
        for index, message in enumerate(messages):
            if type(message) is MessageEnd:
                if conversation is not None:
                    reason = "" if message.complete else _reason(message, messages[index + 1 : index + 2])
                    if reason == INCOMPLETE_RESPONSE:
                        reason = _closed_by(error, process_exited) or reason
                    self._message_end(conversation, message, reason, events)
            elif type(message) is Request:
                if conversation is None:
                    conversation = self._begin(connection)
                self._request(conversation, message, events)
            elif type(message) is Response:
                self._response(connection, conversation, message, events)
            elif type(message) is ProtocolError:
                if conversation is None:
                    conversation = self._begin(connection)
                self._protocol_error(conversation, message, events)
            elif type(message) is Switched and conversation is not None:
                self._switched(conversation, message, events)
        return events

    def connection_closed(
        self, connection: Connection, ts: int, error: int, process_exited: bool = False
    ) -> list[PairingEvent]:
        """End what is open on a connection that is gone; `error` is an errno, 0 for an orderly close.

        `process_exited`: it is gone because the watched process is.
        """
        conversation = self._conversations.pop(connection.id, None)
        if conversation is None:
            return []
        self._forget(conversation)
        reason = _closed_by(error, process_exited)
        return [
            _end(exchange, ts, reason or (INCOMPLETE_RESPONSE if exchange.response_start_ns else NO_RESPONSE))
            for exchange in conversation.live()
        ]

    def connect_failed(
        self, connection: Connection, context: Context | None, ts: int, error: int
    ) -> list[PairingEvent]:
        """Make an exchange of a connection that could not be made; `error` 0: the program gave up waiting.

        `context` is that of the connect call, None if it was not seen.
        """
        self._seen()
        exchange = Exchange(
            connection=connection,
            role=_CLIENT,
            at=context or Context(ts, connection.pid, 0, 0, 0, 0),
            position=0,
            method="",
            target="",
            version="",
            request_headers={},
            start_ns=context.ts if context else ts,
        )
        return [ExchangeStarted(exchange), _end(exchange, ts, _errno_name(error) if error else ABORTED)]

    def process_exited(self, pid: int, ts: int) -> list[PairingEvent]:
        """End everything that is open in a process that is gone."""
        return [
            _end(exchange, ts, PROCESS_EXITED)
            for connection_id in sorted(self._of_process.pop(pid, ()))
            for exchange in self._conversations.pop(connection_id).live()
        ]

    def expire(self, now: int, timeout_ns: int) -> list[PairingEvent]:
        """Give up exchanges whose request was complete `timeout_ns` ago and whose response has not begun."""
        return [
            _end(exchange, now, TIMEOUT)
            for conversation in self._conversations.values()
            for exchange in conversation.open
            if not exchange.end_ns
            and not exchange.response_start_ns
            and 0 < exchange.request_end_ns <= now - timeout_ns
        ]

    def drain(self) -> list[Exchange]:
        """Forget everything; return the exchanges still open, oldest first. The caller accounts for them."""
        exchanges = [
            exchange for conversation in self._conversations.values() for exchange in conversation.live()
        ]
        self._conversations.clear()
        self._of_process.clear()
        return sorted(exchanges, key=lambda exchange: exchange.start_ns)

    def _begin(self, connection: Connection) -> _Conversation:
        conversation = self._conversations[connection.id] = _Conversation(connection)
        self._of_process.setdefault(connection.pid, set()).add(connection.id)
        return conversation

    def _forget(self, conversation: _Conversation) -> None:
        pid = conversation.connection.pid
        of_process = self._of_process[pid]
        of_process.discard(conversation.connection.id)
        if not of_process:
            del self._of_process[pid]

    def _request(self, conversation: _Conversation, request: Request, events: list[PairingEvent]) -> None:
        connection = conversation.connection
        connection.requests += 1
        self._seen()
        if conversation.open and conversation.waits():
            conversation.pipelines = True
            connection.forget_turn()
            if not connection.from_start:
                # More may have been asked before the agent looked.
                self._lose_order(conversation, request.at.ts, "", events)
        gaps = conversation.gaps
        gap = gaps[request.direction]
        gaps[1 - request.direction] = 0
        if gap:
            connection.forget_turn()
        if gap == _SINCE:
            # Another one was sent just before, and was not answered yet.
            conversation.lost = conversation.pipelines = True
            if conversation.unsure:
                self._lose_order(conversation, request.at.ts, "", events)
        if conversation.lost:
            conversation.asking = None
            self._dropped(ANSWERS_UNKNOWN)
            return
        # Once one was dropped, all are until the queue is empty: only then is the order known again.
        if conversation.skipped or len(conversation.open) >= self._max_open:
            conversation.skipped += 1
            conversation.asking = None
            self._dropped(TOO_MANY_OPEN)
            return
        at = request.at
        # By position, and nothing that has a default: half the time.
        exchange = Exchange(
            connection,
            _SERVER if request.direction is _RX else _CLIENT,
            at,
            request.position,
            request.method,
            request.target,
            request.version,
            request.headers,
            at.ts,
        )
        exchange.first_on_connection = connection.requests == 1 and connection.from_start
        exchange.task = request.task
        exchange.partial = request.truncated
        conversation.open.append(exchange)
        conversation.asking = exchange
        events.append(ExchangeStarted(exchange))
        if gap:
            gaps[request.direction] = _SINCE
            conversation.unsure = True

    def _response(
        self,
        connection: Connection,
        conversation: _Conversation | None,
        response: Response,
        events: list[PairingEvent],
    ) -> None:
        if conversation is not None and conversation.answering is not None:
            self._finish(conversation, response.at.ts, INCOMPLETE_RESPONSE, events)
        if conversation is not None and conversation.unsure:
            self._lose_order(conversation, response.at.ts, "", events)
        if conversation is None or not conversation.open:
            if conversation is not None and conversation.skipped:
                conversation.skipped -= 1
                return
            if conversation is not None:
                conversation.gaps[:] = 0, 0
            # There was a request, although it was not seen: the next one is not the connection's first.
            connection.requests += 1
            self._note("pairing", "orphan_response")
            return
        exchange = conversation.open[0]
        if conversation.gaps[1 - response.direction] == _SINCE:
            # What was missed was sent while this one waited.
            conversation.pipelines = conversation.lost = True
        if exchange.end_ns:
            conversation.open.pop(0)
            self._note("pairing", "late_response")
            return
        if _asks(exchange, response.direction):
            self._note("pairing", "orphan_response")
            return
        exchange.response_start_ns = response.at.ts
        exchange.response_at = response.at
        exchange.status = response.status
        conversation.answering = exchange

    def _message_end(
        self, conversation: _Conversation, end: MessageEnd, error: str, events: list[PairingEvent]
    ) -> None:
        asking, answering = conversation.asking, conversation.answering
        if asking is not None and _asks(asking, end.direction):
            asking.request_end_ns = end.ts
            asking.request_body_size = end.body_size
            conversation.asking = None
        elif answering is not None and not _asks(answering, end.direction):
            answering.response_body_size = end.body_size
            self._finish(conversation, end.ts, error, events)

    def _protocol_error(
        self, conversation: _Conversation, error: ProtocolError, events: list[PairingEvent]
    ) -> None:
        self._note("protocols", error.reason)
        gaps = conversation.gaps
        if gaps[1 - error.direction]:
            gaps[:] = _SOMETIME, _SOMETIME
        else:
            gaps[error.direction] = _SINCE if error.reason == GAP else _SOMETIME
        if conversation.open and not _asks(conversation.open[0], error.direction):
            self._lose_order(conversation, error.ts, _error_of(error), events)
        conversation.lost = conversation.pipelines

    @staticmethod
    def _lose_order(conversation: _Conversation, ts: int, reason: str, events: list[PairingEvent]) -> None:
        """Which request the next response answers is not known any more."""
        events.extend(_end(exchange, ts, reason) for exchange in conversation.live())
        conversation.open.clear()
        conversation.skipped = 0
        conversation.unsure = False
        conversation.asking = conversation.answering = None
        conversation.lost = conversation.pipelines

    def _switched(self, conversation: _Conversation, switched: Switched, events: list[PairingEvent]) -> None:
        if conversation.answering is not None:
            self._finish(conversation, switched.ts, "", events)

    def _finish(self, conversation: _Conversation, ts: int, error: str, events: list[PairingEvent]) -> None:
        """End the oldest exchange, which has been answered."""
        exchange = conversation.open.pop(0)
        conversation.answering = None
        if conversation.asking is exchange:
            conversation.asking = None
        events.append(_end(exchange, ts, error))


def _asks(exchange: Exchange, direction: Direction) -> bool:
    """Tell if `direction` is the way of the request."""
    return (exchange.role is _SERVER) is (direction is _RX)


def _error_of(error: ProtocolError) -> str:
    return "" if error.reason == GAP else PROTOCOL_ERROR


def _reason(end: MessageEnd, following: Sequence[Message]) -> str:
    """Why a message is not complete: the parser puts the error that broke it behind its end."""
    for message in following:
        if isinstance(message, ProtocolError) and message.direction is end.direction:
            return _error_of(message)
    return INCOMPLETE_RESPONSE


def _closed_by(error: int, process_exited: bool) -> str:
    """Why a connection ended, empty if in order."""
    return _errno_name(error) if error else PROCESS_EXITED if process_exited else ""


def _end(exchange: Exchange, ts: int, error: str) -> ExchangeEnded:
    exchange.end_ns = ts
    exchange.error = error
    return ExchangeEnded(exchange)


def _errno_name(number: int) -> str:
    return errno.errorcode.get(number, f"errno_{number}")
