"""HTTP/1.1 messages from the bytes of a connection (RFC 9112), also if only the first of them were captured.

What the rules of this parser are where the RFC cannot help, because bytes are missing or malformed:

- A head whose end was not captured is reported with `truncated`, as far as it goes. Where its message ends is
  then told by the next message of either side; see `http1_framing`.
- Bytes that cannot be HTTP give a ProtocolError, and so do bytes that moved uncaptured where a message had to
  begin (reason `gap`). After either, everything is passed over until a turn begins with a whole start line.
  A turn begins where the other side has spoken in between, or where captured bytes follow uncaptured ones.
- Bytes that were counted in a body whose end is not known may hold other messages, if a request waits there: `gap`.
- Which direction carries the requests is learned from the first start line.
"""

from __future__ import annotations

from typing import Final

from autotrace.model import (
    Context,
    Direction,
    Message,
    MessageEnd,
    ProtocolError,
    Request,
    Response,
    Switched,
)
from autotrace.protocols.base import Parser
from autotrace.protocols.http1_framing import (
    Body,
    ChunkedBody,
    LengthBody,
    MalformedError,
    Unrecognised,
    UntilAnswerBody,
    UntilCloseBody,
    content_length,
    has_no_content,
    is_chunked,
    switches_to,
)
from autotrace.protocols.http1_head import (
    HEAD_MAX,
    WHOLE_HEAD_MAX,
    Fields,
    RequestHead,
    ResponseHead,
    head_end,
    read_cut_request,
    read_cut_response,
    read_request,
    read_response,
    start_line,
    whole_request,
    whole_response,
)

PIPELINED_MAX = 1024
"""Requests of one connection that can wait for their responses."""

_HEAD_KEPT_MAX: Final = 512
"""Bytes of the longest head that each side of a connection keeps."""

_CR_LF: Final = b"\r\n"
_RX: Final = Direction.RX


class _Side:
    """One direction. Between messages `body` is None, and `pending` holds the part of a head that has come.
    While `body` is there, `pending` holds bytes that may turn out to be a start line instead of more body.
    `open` is true if a message's head was reported and its end was not. `hole`: since the last answer, bytes
    were counted among which requests may have been missed. `head`: the last whole head if it was short, and what
    was read of it, as the next one on a kept-alive connection often is the same."""

    __slots__ = (
        "body",
        "direction",
        "expected",
        "head",
        "hole",
        "last_ts",
        "open",
        "pending",
        "pending_at",
        "pending_position",
        "request",
        "response",
    )

    def __init__(self, direction: Direction) -> None:
        self.direction = direction
        self.expected = -1
        self.hole = False
        self.last_ts = 0
        self.pending = b""
        self.pending_at: Context | None = None
        self.pending_position = 0
        self.body: Body | None = None
        self.open = False
        self.head = b""
        self.request: RequestHead | None = None
        self.response: ResponseHead | None = None


class Http1Parser(Parser):
    """Parses both directions of one HTTP/1.x connection. See `Parser` for the calls."""

    __slots__ = ("_out", "_over", "_pipelines", "_requests", "_sides", "_speaker", "_task", "_ts", "_waiting")

    def __init__(self) -> None:
        self._sides = (_Side(Direction.RX), _Side(Direction.TX))
        self._requests: _Side | None = None
        self._waiting: list[str] = []
        """Methods of the requests whose final responses have not begun."""
        self._pipelines = False
        """A request was sent while another one waited."""
        self._speaker: Direction | None = None
        self._over = False
        self._out: list[Message] = []
        """What the call in progress has made so far."""
        self._ts = 0
        """When the bytes of the call in progress moved."""
        self._task = 0
        """The runtime's task that moved the bytes that were captured last."""

    @classmethod
    def recognise(cls, direction: Direction, data: bytes) -> bool:
        """Tell if `data` is, or begins like, a request line or a status line. If the request line is not
        finished, its method must be in upper case: fewer other words are taken for one then."""
        whole = start_line(data, request=True, response=True)
        method = data.strip(_CR_LF).partition(b" ")[0]
        return bool(method) and (whole or (whole is None and method == method.upper()))

    def data(
        self, direction: Direction, position: int, data: bytes, at: Context, body_size: int = 0
    ) -> list[Message]:
        side = self._sides[0] if direction is _RX else self._sides[1]
        expected = side.expected
        if position < expected:
            data = data[expected - position :]
            position = expected
        if self._over or not data:
            return []
        out: list[Message] = []
        self._out = out
        self._ts = ts = at.ts
        self._task = at.task
        new_turn = self._speaker is not direction
        self._speaker = direction
        if position > expected >= 0:
            new_turn = True
            self._counted(side, position - expected, b"")
            if self._over:
                return out
        end = side.expected = position + len(data)
        try:
            if (
                side.body is None
                and not side.pending
                and self._whole_head(side, data, position, at, body_size)
            ):
                body_size = 0
            else:
                self._captured(side, data, position, at, new_turn)
        except MalformedError as error:
            self._fail(side, position, str(error))
        if side.body is None or not side.pending:
            side.last_ts = ts
        return out + self.progress(direction, end + body_size, ts, b"") if body_size else out

    def progress(self, direction: Direction, end: int, ts: int, tail: bytes) -> list[Message]:
        side = self._sides[0] if direction is _RX else self._sides[1]
        expected = side.expected
        if self._over or end <= expected:
            return []
        if not ts:
            if expected < 0:
                side.expected = end  # where it will begin
            return []
        out: list[Message] = []
        self._out = out
        self._ts = ts
        self._speaker = None  # whoever is captured next begins a turn
        side.expected = end
        if expected >= 0:
            self._counted(side, end - expected, tail)
        elif self._waiting and side is not self._requests:
            self._fail(side, end, "gap")
        side.last_ts = ts
        return out

    def missed(self, direction: Direction, end: int, ts: int, tail: bytes) -> list[Message]:
        side = self._sides[0] if direction is _RX else self._sides[1]
        if self._over or not ts or end <= side.expected:
            return self.progress(direction, end, ts, tail)
        out: list[Message] = []
        self._out = out
        self._ts = ts
        # What a head lacks is not to be expected any more; and it was there before what was missed.
        for one in self._sides:
            self._give_up_head(one)
        started = side.expected >= 0
        out += self.progress(direction, end, ts, tail)
        told = bool(out) and isinstance(out[-1], ProtocolError) and out[-1].direction is direction
        if not self._over and not told and (not started or (side.body is not None and side.body.may_hide)):
            self._out = out
            self._fail(side, end, "gap")
        return out

    def close(self, ts: int, orderly: bool = True) -> list[Message]:
        if self._over:
            return []
        out: list[Message] = []
        self._out = out
        self._ts = ts
        for side in self._sides:
            self._close_side(side, orderly)
        self._finish()
        return out

    # --- bytes --------------------------------------------------------------------------------------------

    def _captured(self, side: _Side, data: bytes, position: int, at: Context | None, new_turn: bool) -> None:
        """Eat `data`, contiguous with what came before. `at` is None for the tail of counted bytes: a message
        that begins there has no context and is taken for missed. Raises MalformedError."""
        held = len(side.pending)
        first_at = at
        if held:
            first_at = side.pending_at
            data = side.pending + data
            position -= held
            side.pending = b""
        start = 0
        body = side.body
        if body is not None and (new_turn or held) and body.replaceable:
            whole = self._start_line(side, data)
            if whole is None:
                self._keep(side, data, position, first_at)
                return
            if whole:
                self._end(side, side.last_ts, True)
        length = len(data)
        while start < length:
            body = side.body
            if body is not None:
                start = body.take(data, start)
                if not body.done:
                    return
                self._end(side, self._ts, True)
                continue
            if data[start] in _CR_LF:
                start += 1  # section 2.2: empty lines before a start line mean nothing
                continue
            message_at = first_at if start < held else at
            if message_at is None:
                raise MalformedError("gap")
            last, after = head_end(data, start)
            if last < 0:
                self._unfinished_head(side, data[start:], position + start, message_at)
                return
            if self._requests is side or (self._requests is None and not data.startswith(b"HTTP/", start)):
                request = read_request(data, start, last)
                if request is None:
                    raise MalformedError("malformed_start_line")
                start = after + self._request(side, request, position + start, message_at, length - after)
            else:
                response = read_response(data, start, last)
                if response is None:
                    raise MalformedError("malformed_start_line")
                start = after + self._response(side, response, position + start, message_at, length - after)
            if self._over:
                return

    def _whole_head(self, side: _Side, data: bytes, position: int, at: Context, body_size: int) -> bool:
        """What `_captured` does where `data` is a head and nothing else, as most are, and `body_size` uncaptured
        bytes follow it; False if it is something else. Raises MalformedError."""
        requests = self._requests
        if requests is None or len(data) > WHOLE_HEAD_MAX:
            return False
        if requests is side:
            request = side.request if data == side.head else None
            if request is None:
                request = whole_request(data)
                if request is None:
                    return False
                if len(data) <= _HEAD_KEPT_MAX:
                    side.head, side.request, side.response = data, request, None
            left = body_size - self._request(side, request, position, at, body_size)
        else:
            response = side.response if data == side.head else None
            if response is None:
                response = whole_response(data)
                if response is None:
                    return False
                if len(data) <= _HEAD_KEPT_MAX:
                    side.head, side.request, side.response = data, None, response
            left = body_size - self._response(side, response, position, at, body_size)
        if body_size and not self._over:
            side.expected += body_size
            self._speaker = None  # whoever is captured next begins a turn
            if left:
                self._counted(side, left, b"")
        return True

    def _counted(self, side: _Side, count: int, tail: bytes) -> None:
        """Account for the `count` bytes that follow what is known, and of which only `tail` is known."""
        position = side.expected - count
        try:
            if side.pending:
                if side.body is not None:
                    self._release(side)
                elif count <= len(tail):
                    self._captured(side, tail[-count:], position, None, False)
                    return
                else:
                    self._truncated_head(side)
                    if self._over:
                        return
            body = side.body
            if body is not None:
                count = body.skip(count, tail)
                position = side.expected - count
                if body.may_hide and (self._waiting or isinstance(body, Unrecognised)):
                    if side is self._requests:
                        side.hole = True
                    elif self._waiting:
                        # Among these bytes may be a response to one of them.
                        raise MalformedError("gap")
                if body.done:
                    self._end(side, self._ts, True)
            if count and (count > len(tail) or tail[-count:].strip(_CR_LF)):
                position = side.expected - count
                raise MalformedError("gap")
        except MalformedError as error:
            self._fail(side, position, str(error))

    def _start_line(self, side: _Side, data: bytes) -> bool | None:
        """Tell if `data` begins with a start line that this side can send; None if more bytes must tell."""
        return start_line(data, side is self._requests or self._requests is None, side is not self._requests)

    def _unfinished_head(self, side: _Side, data: bytes, position: int, at: Context) -> None:
        """Keep the beginning of a head. Raises MalformedError."""
        if len(data) < HEAD_MAX and self._start_line(side, data) is False:
            raise MalformedError("malformed_start_line")
        self._keep(side, data, position, at)
        if len(data) >= HEAD_MAX:
            self._truncated_head(side)

    def _give_up_head(self, side: _Side) -> None:
        """The rest of a head, if there is one, will not come."""
        if not side.pending:
            return
        try:
            if side.body is not None:
                self._release(side)
            else:
                self._truncated_head(side)
        except MalformedError as error:
            self._fail(side, side.pending_position, str(error))

    def _keep(self, side: _Side, data: bytes, position: int, at: Context | None) -> None:
        side.pending = data
        side.pending_at = at
        side.pending_position = position

    def _release(self, side: _Side) -> None:
        """Give bytes that were held as a possible start line to the body. Raises MalformedError."""
        held, side.pending = side.pending, b""
        self._captured(side, held, side.pending_position, side.pending_at, False)

    # --- heads --------------------------------------------------------------------------------------------

    def _request(self, side: _Side, head: RequestHead, position: int, at: Context, available: int) -> int:
        """Report the request whose head begins at `position`, and behind which `available` bytes have come; how
        many of them are accounted for, as all of its content. Raises MalformedError."""
        method, fields = head.method, head.fields
        self._begin_request(side, method)
        direction = side.direction
        self._out.append(
            Request(
                direction, position, at, method, head.target, head.version, fields.kept, False, self._task
            )
        )
        if method == "CONNECT":
            self._out.append(MessageEnd(direction, self._ts, 0, True))
            # What follows is not HTTP if the response is 2xx, and often does not wait for it.
            side.body = Unrecognised()
        elif fields.transfer_encoding is not None:
            side.open = True
            if not is_chunked(fields.transfer_encoding):
                raise MalformedError("malformed_transfer_encoding")
            side.body = ChunkedBody(fields.expects_continue)
        elif fields.content_length is not None:
            return self._begin_content(side, fields, fields.expects_continue, available)
        else:
            self._out.append(MessageEnd(direction, self._ts, 0, True))
        return 0

    def _response(self, side: _Side, head: ResponseHead, position: int, at: Context, available: int) -> int:
        """The same for a response."""
        status, fields = head.status, head.fields
        kept, coding = fields.kept, fields.transfer_encoding
        method = self._begin_response(side, status)
        if method is None:
            return 0
        direction = side.direction
        self._out.append(Response(direction, position, at, status, head.version, kept))
        protocol = switches_to(method, status, kept) if status == 101 or method == "CONNECT" else ""
        if protocol:
            side.open = True
            self._switch(side, protocol)
        elif has_no_content(method, status):
            self._out.append(MessageEnd(direction, self._ts, 0, True))
        elif coding is not None:
            side.open = True
            side.body = ChunkedBody(not method) if is_chunked(coding) else UntilCloseBody()
        elif fields.content_length is not None:
            # The request may have been a HEAD if it was not seen.
            return self._begin_content(side, fields, not method, available)
        else:
            side.open = True
            side.body = UntilCloseBody()
        return 0

    def _begin_content(self, side: _Side, fields: Fields, optional: bool, available: int) -> int:
        """Begin the content of a message with a Content-Length, `available` bytes having come with its head; how
        many of them it is if that is all of it, else 0: then they are still to be eaten. Raises MalformedError."""
        side.open = True
        length = fields.length
        if length < 0:
            length = content_length(fields.content_length or b"")
        if length > available:
            side.body = LengthBody(length, optional)
            return 0
        side.open = False
        self._out.append(MessageEnd(side.direction, self._ts, length, True))
        return length

    def _truncated_head(self, side: _Side) -> None:
        """Report the head in `side.pending`, whose end was not captured. Raises MalformedError."""
        data, side.pending = side.pending, b""
        at = side.pending_at
        assert at is not None
        size = None
        if self._requests is side or (self._requests is None and not data.startswith(b"HTTP/")):
            request = read_cut_request(data)
            if request is None:
                raise MalformedError("truncated_start_line")
            method, target, version, fields = request
            self._begin_request(side, method)
            self._out.append(
                Request(
                    side.direction,
                    side.pending_position,
                    at,
                    method,
                    target,
                    version,
                    fields.kept,
                    True,
                    self._task,
                )
            )
            side.open = True
        else:
            response = read_cut_response(data)
            if response is None:
                raise MalformedError("truncated_start_line")
            status, version, fields = response
            answered = self._begin_response(side, status)
            if answered is None:
                raise MalformedError("gap")
            self._out.append(
                Response(side.direction, side.pending_position, at, status, version, fields.kept, True)
            )
            side.open = True
            protocol = switches_to(answered, status, fields.kept)
            if protocol:
                self._switch(side, protocol)
                return
            if has_no_content(answered, status):
                size = 0
        if fields.content_length is not None and size is None:
            size = content_length(fields.content_length)
        if fields.transfer_encoding is not None and is_chunked(fields.transfer_encoding):
            side.body = ChunkedBody(lost=True)
        else:
            side.body = UntilAnswerBody(size)

    # --- messages -----------------------------------------------------------------------------------------

    def _begin_request(self, side: _Side, method: str) -> None:
        self._requests = side
        responses = self._opposite(side)
        if side.hole:
            self._report_hole(side)
        if not self._waiting:
            if responses.open and responses.body is not None and responses.body.ended_by_answer:
                self._end(responses, responses.last_ts, True)
        else:
            self._pipelines = True
            if len(self._waiting) >= PIPELINED_MAX:
                self._fail(responses, responses.expected, "too_many_requests_waiting")
        self._waiting.append(method)

    def _begin_response(self, side: _Side, status: int) -> str | None:
        """The method that a response answers, empty if it is not known; None for an interim response."""
        requests = self._opposite(side)
        self._requests = requests
        if status < 200 and status != 101:
            if requests.body is not None:
                requests.body.optional = False
            return None
        if requests.hole:
            if self._pipelines:
                self._report_hole(requests)
            # Else there was but one request, the one that is answered now.
            requests.hole = False
        method = self._waiting.pop(0) if self._waiting else ""
        body = requests.body
        if body is not None and requests.open and not self._waiting and body.ended_by_answer:
            self._end(requests, requests.last_ts, True)
        return method

    def _report_hole(self, requests: _Side) -> None:
        requests.hole = False
        if requests.open:
            self._fail(requests, requests.expected, "gap")
        else:
            self._out.append(ProtocolError(requests.direction, requests.expected, self._ts, "gap"))

    def _end(self, side: _Side, ts: int, complete: bool) -> None:
        body = side.body
        side.body = None
        side.pending = b""  # held bytes were the body's after all
        if side.open:
            side.open = False
            self._out.append(MessageEnd(side.direction, ts, 0 if body is None else body.size, complete))

    def _fail(self, side: _Side, position: int, reason: str) -> None:
        self._end(side, self._ts, False)
        side.body = Unrecognised()
        self._out.append(ProtocolError(side.direction, position, self._ts, reason))
        responses = self._opposite(side)
        if side is not self._requests:
            self._waiting.clear()
        elif reason == "gap" and self._waiting and responses.expected < 0:
            # A request was missed, and perhaps the response before it: no position is known that would tell.
            self._fail(responses, responses.expected, reason)

    # --- the end ------------------------------------------------------------------------------------------

    def _switch(self, side: _Side, protocol: str) -> None:
        self._end(side, self._ts, True)
        other = self._opposite(side)
        self._end(other, other.last_ts, False)
        self._out.append(Switched(self._ts, protocol))
        self._finish()

    def _close_side(self, side: _Side, orderly: bool) -> None:
        try:
            if side.pending and side.body is not None:
                self._release(side)
            elif side.pending:
                self._truncated_head(side)
                side.body = None
                self._end(side, side.last_ts, False)
        except MalformedError as error:
            self._fail(side, side.pending_position, str(error))
        if side.open and side.body is not None:
            self._end(side, side.last_ts, side.body.complete_at_close(orderly))

    def _opposite(self, side: _Side) -> _Side:
        return self._sides[1] if side is self._sides[0] else self._sides[0]

    def _finish(self) -> None:
        self._over = True
        self._waiting.clear()
        for side in self._sides:
            side.pending = b""
            side.body = None
