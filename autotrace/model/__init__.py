"""The types that the stages exchange.

Stages do not import one another: the kernel stage makes the events, streams make connections, protocols make
messages, pairing makes exchanges, correlate makes links, spans makes spans, export sends them.
`autotrace.agent` alone wires them. Every type that crosses from one stage to the next stands here,
a file for each part of the way.

Times are nanoseconds. Unless a name says `unix`, they are on the kernel's monotonic clock
(`CLOCK_MONOTONIC`, what `bpf_ktime_get_ns` returns).
"""

from autotrace.model.connections import Connection, OnWire
from autotrace.model.context import Context, Direction, Role
from autotrace.model.events import (
    Chunk,
    ConnectionClosed,
    ConnectionOpened,
    Event,
    Frames,
    FramesOrigin,
    ProcessExited,
    ProcessSeen,
    ProcessSpeaksTls,
    ProcessStarted,
    Progress,
    StreamClaim,
)
from autotrace.model.exchanges import (
    Confidence,
    Exchange,
    ExchangeEnded,
    ExchangeStarted,
    Link,
    LinkMethod,
    PairingEvent,
)
from autotrace.model.messages import (
    GoAway,
    Message,
    MessageEnd,
    ProtocolError,
    Request,
    Response,
    Rpc,
    StreamEnd,
    StreamGoesOn,
    StreamRequest,
    StreamReset,
    StreamResponse,
    Switched,
)
from autotrace.model.processes import NOT_GO, GoOffsets, Probe, Process, PythonOffsets
from autotrace.model.signals import (
    FINE_STEPS_PER_OCTAVE,
    AttributeValue,
    HistogramPoint,
    RedSnapshot,
    ServiceEdge,
    ServiceMetrics,
    Span,
)

__all__ = [
    "FINE_STEPS_PER_OCTAVE",
    "NOT_GO",
    "AttributeValue",
    "Chunk",
    "Confidence",
    "Connection",
    "ConnectionClosed",
    "ConnectionOpened",
    "Context",
    "Direction",
    "Event",
    "Exchange",
    "ExchangeEnded",
    "ExchangeStarted",
    "Frames",
    "FramesOrigin",
    "GoAway",
    "GoOffsets",
    "HistogramPoint",
    "Link",
    "LinkMethod",
    "Message",
    "MessageEnd",
    "OnWire",
    "PairingEvent",
    "Probe",
    "Process",
    "ProcessExited",
    "ProcessSeen",
    "ProcessSpeaksTls",
    "ProcessStarted",
    "Progress",
    "ProtocolError",
    "PythonOffsets",
    "RedSnapshot",
    "Request",
    "Response",
    "Role",
    "Rpc",
    "ServiceEdge",
    "ServiceMetrics",
    "Span",
    "StreamClaim",
    "StreamEnd",
    "StreamGoesOn",
    "StreamRequest",
    "StreamReset",
    "StreamResponse",
    "Switched",
]
