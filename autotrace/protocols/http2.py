"""HTTP/2 messages (RFC 9113) from the frames that the kernel passes on (see `http2_frames`).

What the rules of this parser are where the RFC cannot help, because the agent sees only part of the traffic:

- A connection may be older than the agent. What its header tables hold is not known then; see `http2_hpack`.
  A request of which fields are missing for that reason is `partial`.
- Which direction carries the requests is learned from the first head that has a method or a status, where the
  connection preface was not seen.
- Where records were lost, the streams in progress may have ended unseen: a ProtocolError with the reason
  `gap`, and `StreamGoesOn` for each of them that shows up again.
- What a peer would answer with a connection error is reported and passed over: the peer's answer shows what
  became of it. What it sends is never held against the other side.

Streams that the server starts (push, section 8.4) are decoded, because they change the tables, and give
nothing.
"""

from __future__ import annotations

from autotrace.model import (
    Context,
    Direction,
    Frames,
    FramesOrigin,
    GoAway,
    Message,
    ProtocolError,
    Rpc,
    StreamEnd,
    StreamGoesOn,
    StreamRequest,
    StreamReset,
    StreamResponse,
)
from autotrace.protocols import grpc
from autotrace.protocols.base import FrameParser, MalformedFrameError
from autotrace.protocols.http2_frames import (
    ACK,
    CONTINUATION,
    DATA,
    END_HEADERS,
    END_STREAM,
    FIRST_BYTES,
    GOAWAY,
    HEADERS,
    PADDED,
    PUSH_PROMISE,
    RST_STREAM,
    SETTINGS,
    Frame,
    FrameReader,
    error_name,
    header_block,
)
from autotrace.protocols.http2_hpack import Block, HeaderDecoder, MalformedBlockError

STREAMS_MAX = 2048
"""Streams of a connection whose DATA is counted; of older ones only the end is told."""

HEADER_BLOCK_MAX = 256 * 1024
CONTINUATIONS_MAX = 256
"""What one header block may have; a peer that sends more is not believed (CONTINUATION flood)."""

METHOD_UNKNOWN = "_OTHER"
"""OpenTelemetry's word for a method that is not known."""

_OTHER = (Direction.TX, Direction.RX)


class _Half:
    """What was counted of one direction of a stream. `size` is None if something was missed."""

    __slots__ = ("messages", "size")

    def __init__(self) -> None:
        self.size: int | None = 0
        self.messages = grpc.MessageCounter()

    def lose(self) -> None:
        self.size = None
        self.messages.lose()


class _Stream:
    """`halves` are by direction, made when there is something to count. `http_status`: of the final response.
    `unclear_path` is set if it is not known whether the request is gRPC's, because its content-type is not."""

    __slots__ = ("began", "halves", "http_status", "rpc", "unclear_path")

    def __init__(self) -> None:
        self.began = 0
        self.rpc: Rpc | None = None
        self.unclear_path = ""
        self.http_status = 0
        self.halves: list[_Half | None] = [None, None]


class _Side:
    """One direction. While a header block is not whole, `block` holds its parts, `opener` its first frame,
    and `at` and `position` are those of that frame."""

    __slots__ = (
        "at",
        "block",
        "block_size",
        "decoder",
        "direction",
        "joined",
        "number",
        "opener",
        "position",
        "promised",
        "reader",
    )

    def __init__(self, direction: Direction) -> None:
        self.direction = direction
        self.number = 0
        self.reader = FrameReader()
        self.decoder = HeaderDecoder(False)
        self.joined = True
        self.opener: Frame | None = None
        self.block: list[bytes] = []
        self.block_size = 0
        self.promised = 0
        self.at: Context | None = None
        self.position = 0

    def lose(self) -> None:
        self.reader.lose()
        self.decoder.lose()
        self.drop_block()

    def drop_block(self) -> None:
        self.opener = None
        self.block = []
        self.block_size = 0


class Http2Parser(FrameParser):
    """Parses both directions of one HTTP/2 connection. See `FrameParser` for the calls."""

    __slots__ = (
        "_gap",
        "_last_request",
        "_out",
        "_over",
        "_requests",
        "_sides",
        "_streams",
        "_unsure",
        "_unwalked",
    )

    def __init__(self) -> None:
        self._sides = (_Side(Direction.RX), _Side(Direction.TX))
        self._requests: Direction | None = None
        self._streams: dict[int, _Stream] = {}
        self._unsure: set[int] = set()
        """Streams that may have ended in a gap."""
        self._last_request = -1
        """The highest stream that the client has begun, -1 if that is not known."""
        self._gap = False
        """Requests may have been lost since the last one."""
        self._unwalked = False
        """If so, then because the kernel left frames out: no record is missing."""
        self._over = False
        self._out: list[Message] = []
        """What the call in progress has made so far."""

    def frames(self, record: Frames) -> list[Message]:
        if self._over:
            return []
        out: list[Message] = []
        self._out = out
        side = self._sides[record.direction]
        data = self._in_order(side, record)
        try:
            frames = side.reader.take(data)
        except MalformedFrameError as error:
            self._malformed(side, record, str(error))
            return out
        for frame in frames:
            try:
                self._frame(side, frame, record)
            except MalformedFrameError as error:
                out.append(ProtocolError(side.direction, record.position, record.at.ts, str(error)))
            except MalformedBlockError:
                out.append(ProtocolError(side.direction, record.position, record.at.ts, "header_compression"))
        return out

    def close(self, ts: int, orderly: bool = True) -> list[Message]:
        self._over = True
        self._streams.clear()
        self._unsure.clear()
        for side in self._sides:
            side.lose()
        return []

    # --- records ------------------------------------------------------------------------------------------

    def _in_order(self, side: _Side, record: Frames) -> bytes:
        """What of a record can be read after those that came before it."""
        origin = record.origin
        expected = side.number + 1
        side.number = record.number
        if origin is FramesOrigin.FOLLOWS and record.number == expected:
            # With nothing held, the rest of a frame belongs to one whose beginning was lost.
            return record.data if side.reader.held else record.data[record.lead :]
        if origin is FramesOrigin.START and record.number == 1:
            side.joined = False
            side.decoder = HeaderDecoder(True)
            return record.data
        if record.number > 1:
            self._lost(side, record, record.number == expected)
        # Else it is older than the agent: nothing is known, and nothing was lost.
        return record.data[record.lead :]

    def _lost(self, side: _Side, record: Frames, unwalked: bool) -> None:
        side.lose()
        side.joined = True
        direction = side.direction
        for stream in self._streams.values():
            half = stream.halves[direction]
            if half is None:
                half = stream.halves[direction] = _Half()
            half.lose()
        self._unsure.update(self._streams)
        if direction is self._requests:
            self._unwalked = unwalked and (self._unwalked or not self._gap)
            self._gap = True
        self._out.append(ProtocolError(direction, record.position, record.at.ts, "gap"))

    def _malformed(self, side: _Side, record: Frames, reason: str) -> None:
        side.lose()
        self._out.append(ProtocolError(side.direction, record.position, record.at.ts, reason))

    # --- frames -------------------------------------------------------------------------------------------

    def _frame(self, side: _Side, frame: Frame, record: Frames) -> None:
        kind = frame.kind
        if side.opener is not None:
            if kind == CONTINUATION and frame.stream == side.opener.stream:
                self._block_part(side, frame, record.at)
                return
            # Section 6.10: nothing may come between.
            side.drop_block()
            side.decoder.lose()
            self._out.append(
                ProtocolError(side.direction, record.position, record.at.ts, "header_block_interrupted")
            )
        if kind == DATA:
            self._data(side, frame, record.at)
        elif kind in (HEADERS, PUSH_PROMISE):
            if not frame.stream:
                side.decoder.lose()
                raise MalformedFrameError("stream_0")
            side.opener = frame
            side.at = record.at
            side.position = record.position
            self._block_part(side, frame, record.at)
        elif kind == RST_STREAM:
            if frame.length != 4:
                raise MalformedFrameError("frame_size")
            self._reset(side, frame.stream, record.at.ts, error_name(int.from_bytes(frame.payload)))
        elif kind == GOAWAY:
            if frame.stream:
                raise MalformedFrameError("stream_not_0")
            if frame.length < 8:
                raise MalformedFrameError("frame_size")
            last = int.from_bytes(frame.payload[:4]) & 0x7FFFFFFF
            self._out.append(GoAway(side.direction, record.at.ts, last))
        elif kind == SETTINGS:
            if frame.stream or frame.length % 6 or (frame.flags & ACK and frame.length):
                raise MalformedFrameError("settings")
        else:
            side.decoder.lose()
            raise MalformedFrameError("continuation_of_nothing")

    def _data(self, side: _Side, frame: Frame, at: Context) -> None:
        stream = self._streams.get(frame.stream)
        if not frame.stream:
            raise MalformedFrameError("stream_0")
        self._goes_on(frame.stream)
        if stream is not None:
            half = stream.halves[side.direction]
            if half is None:
                half = stream.halves[side.direction] = _Half()
            if frame.flags & PADDED:
                # How much of it is padding stands in the payload.
                if frame.length:
                    half.lose()
            elif half.size is not None:
                half.size += frame.length
                half.messages.frame(frame.length, frame.payload if frame.flags & FIRST_BYTES else b"")
        if frame.flags & END_STREAM:
            self._end(side, frame.stream, at.ts, {})

    def _reset(self, side: _Side, number: int, ts: int, code: str) -> None:
        if not number:
            raise MalformedFrameError("stream_0")
        stream = self._forget(number)
        rpc_status = ""
        if stream is not None and stream.rpc is not None:
            rpc_status = grpc.status_of_reset(code, stream.rpc, ts - stream.began)
        self._out.append(StreamReset(side.direction, number, ts, code, rpc_status))

    def _end(self, side: _Side, number: int, ts: int, fields: dict[str, str]) -> None:
        """A direction of a stream has ended; `fields` are those of its last header block."""
        direction = side.direction
        answered = direction is not self._requests
        stream = self._forget(number) if answered else self._streams.get(number)
        if stream is None:
            self._out.append(StreamEnd(direction, number, ts, None))
            return
        half = stream.halves[direction]
        size, messages, rpc_status = (0, 0, "") if half is None else (half.size, half.messages.whole, "")
        if stream.rpc is None:
            messages = None
        elif answered:
            rpc_status = grpc.status_name(fields.get("grpc-status", ""))
            if not rpc_status and not side.joined:
                rpc_status = grpc.status_without_trailers(stream.http_status)
        rpc = stream.rpc if answered else None
        self._out.append(StreamEnd(direction, number, ts, size, messages, rpc_status, rpc))

    def _trailers(self, side: _Side, number: int, fields: dict[str, str], unknown: bool) -> None:
        """Trailers can tell that a stream is a call, if its request and its response were not decoded enough: by a
        grpc-status, or if they are not known either, by messages that are framed as gRPC's in both directions."""
        stream = self._streams.get(number)
        if (
            stream is None
            or stream.rpc is not None
            or side.direction is self._requests
            or not stream.unclear_path
        ):
            return
        asked, answered = stream.halves[1 - side.direction], stream.halves[side.direction]
        framed = asked is not None and asked.messages.whole and (answered is None or answered.messages.whole)
        if "grpc-status" in fields or (unknown and framed):
            stream.rpc = grpc.call(stream.unclear_path, {})

    def _goes_on(self, number: int) -> None:
        if self._unsure and number in self._unsure:
            self._unsure.discard(number)
            self._out.append(StreamGoesOn(number))

    def _forget(self, number: int) -> _Stream | None:
        self._unsure.discard(number)
        streams = self._streams
        stream = streams.pop(number, None)
        if not streams:
            streams.clear()  # or it keeps the memory that its most streams took
        return stream

    # --- header blocks ------------------------------------------------------------------------------------

    def _block_part(self, side: _Side, frame: Frame, at: Context) -> None:
        opener = side.opener
        assert opener is not None
        try:
            part, promised = header_block(frame)
        except MalformedFrameError:
            side.drop_block()
            side.decoder.lose()
            raise
        if frame is opener:
            side.promised = promised
        side.block.append(part)
        side.block_size += len(part)
        if side.block_size > HEADER_BLOCK_MAX or len(side.block) > CONTINUATIONS_MAX:
            side.drop_block()
            side.decoder.lose()
            raise MalformedFrameError("header_block_size")
        if not frame.flags & END_HEADERS:
            return
        block = b"".join(side.block) if len(side.block) > 1 else part
        side.drop_block()
        self._head(side, opener, side.decoder.decode(block), at)

    def _head(self, side: _Side, opener: Frame, block: Block, at: Context) -> None:
        """A header block is whole: a request, a response, or trailers."""
        number = opener.stream
        fields, unknown = block
        if opener.kind == PUSH_PROMISE or number % 2 == 0:
            return
        ends = bool(opener.flags & END_STREAM)
        if ":status" in fields:
            if self._requests is None:
                self._requests = _OTHER[side.direction]
            elif self._requests is side.direction:
                raise MalformedFrameError("response_of_the_client")
            self._response(side, number, fields, at, ends)
        elif ":method" in fields or ":scheme" in fields or ":path" in fields or ":authority" in fields:
            if self._requests is None:
                self._requests = side.direction
            elif self._requests is not side.direction:
                raise MalformedFrameError("request_of_the_server")
            self._request(side, number, fields, unknown)
        elif not ends and not unknown:
            raise MalformedFrameError("head_without_pseudo_headers")
        else:
            self._goes_on(number)
            if ends:
                self._trailers(side, number, fields, unknown)
        if ends:
            self._end(side, number, at.ts, fields)

    def _request(self, side: _Side, number: int, fields: dict[str, str], unknown: bool) -> None:
        path = fields.get(":path", "")
        method = fields.get(":method", "")
        if not unknown and (not method or (not path and method != "CONNECT")):
            raise MalformedFrameError("request_without_method_or_path")
        known = self._streams.get(number)
        if known is not None or number <= self._last_request:
            raise MalformedFrameError("stream_closed")
        missed = (number - self._last_request) // 2 - 1 if self._gap and self._last_request >= 0 else 0
        self._gap = False
        self._last_request = number
        if len(self._streams) >= STREAMS_MAX:
            self._forget(next(iter(self._streams)))
        at = side.at
        assert at is not None
        stream = self._streams[number] = _Stream()
        stream.began = at.ts
        headers = _headers(fields)
        if grpc.is_grpc(headers):
            stream.rpc = grpc.call(path, headers)
        elif unknown and method == "POST" and "content-type" not in headers:
            stream.unclear_path = path
        self._out.append(
            StreamRequest(
                side.direction,
                number,
                side.position,
                at,
                method or METHOD_UNKNOWN,
                path or fields.get(":authority", "") if method == "CONNECT" else path,
                headers,
                stream.rpc,
                unknown,
                missed,
                self._unwalked,
            )
        )

    def _response(self, side: _Side, number: int, fields: dict[str, str], at: Context, ends: bool) -> None:
        text = fields[":status"]
        status = int(text) if len(text) == 3 and text.isascii() and text.isdigit() else 0
        self._goes_on(number)
        if 100 <= status < 200 and not ends:
            return
        headers = _headers(fields)
        rpc = None
        stream = self._streams.get(number)
        if stream is not None:
            stream.http_status = status
            if stream.rpc is None and grpc.is_grpc(headers):
                rpc = stream.rpc = grpc.call(stream.unclear_path, {})
        self._out.append(StreamResponse(side.direction, number, at, status, headers, rpc))


def _headers(fields: dict[str, str]) -> dict[str, str]:
    """The fields that are no pseudo-header fields; `:authority` is what Host is elsewhere (section 8.3.1)."""
    headers = {name: value for name, value in fields.items() if name[0] != ":"}
    authority = fields.get(":authority")
    if authority is not None:
        headers["host"] = authority
    return headers
