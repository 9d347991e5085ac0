"""What every protocol parser offers: bytes of one connection in, messages out. It does no I/O of its own.

A protocol is a `Parser`, fed with the heads of turns, or a `FrameParser`, fed with the frames that the
kernel's walker picks out.
"""

from __future__ import annotations

from abc import ABC, abstractmethod

from autotrace.model import Context, Direction, Frames, Message

HEADERS_KEPT = frozenset(
    {
        "b3",
        "host",
        "traceparent",
        "tracestate",
        "uber-trace-id",
        "upgrade",
        "user-agent",
        "x-b3-flags",
        "x-b3-parentspanid",
        "x-b3-sampled",
        "x-b3-spanid",
        "x-b3-traceid",
    }
)
"""The only headers that leave a parser, in lower case: trace context, and what the stable OpenTelemetry HTTP
conventions need. Everything else in a head is read for framing or not at all."""

HEADER_VALUE_MAX = 1024
"""Characters of a header's value that are kept."""


class Parser(ABC):
    """One connection, both directions.

    Positions are stream positions: the first may be anything, and each byte has the one after its
    predecessor's. The calls come in the order in which the bytes moved. When one side begins to speak, the
    caller first tells by `progress` how far the other side had come, then calls `data`.

    The messages of one direction are a head (Request or Response), then its MessageEnd, then the next head. A
    ProtocolError comes after the MessageEnd (not complete) of the message it broke. A ProtocolError in the
    direction of the responses also means: no response will be recognised for the requests that wait for one.

    No bytes, however malformed, make a parser raise, and the memory it keeps is bounded.
    """

    @classmethod
    @abstractmethod
    def recognise(cls, direction: Direction, data: bytes) -> bool:
        """Tell if `data`, the first bytes of a turn, can be the start of a message of this protocol."""

    @abstractmethod
    def data(
        self, direction: Direction, position: int, data: bytes, at: Context, body_size: int = 0
    ) -> list[Message]:
        """Take captured bytes; `position` is that of the first one, and they moved at `at.ts`. `body_size` bytes
        that were not captured followed them in the same call.

        Bytes between the last known position and `position` moved without being captured. Bytes below the
        last known position are ignored.
        """

    @abstractmethod
    def progress(self, direction: Direction, end: int, ts: int, tail: bytes) -> list[Message]:
        """All bytes before `end` have moved, the last at `ts` (0: none moved yet); `tail`: the last few."""

    @abstractmethod
    def missed(self, direction: Direction, end: int, ts: int, tail: bytes) -> list[Message]:
        """As `progress`, where the bytes up to `end` hold whole turns that should have been captured and were
        lost: unless they fit into a body of known length, messages of this direction were missed."""

    @abstractmethod
    def close(self, ts: int, orderly: bool = True) -> list[Message]:
        """The connection is over; not `orderly` if it was reset or timed out. Later calls give nothing."""


class MalformedFrameError(ValueError):
    """A frame that the protocol does not allow; the text is the reason for the ledger."""


class FrameParser(ABC):
    """One connection, both directions, of a protocol whose messages are interleaved streams.

    Messages name their stream, and those of different streams come in any order. A ProtocolError stands for
    frames that were missed (reason `gap`) or are malformed; streams go on after it.

    No bytes, however malformed, make a parser raise, and the memory it keeps is bounded.
    """

    @abstractmethod
    def frames(self, record: Frames) -> list[Message]:
        """Take the next record of a direction; a jump of its number means that some were lost."""

    @abstractmethod
    def close(self, ts: int, orderly: bool = True) -> list[Message]:
        """The connection is over; not `orderly` if it was reset or timed out."""
