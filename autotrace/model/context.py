"""Who moved bytes, when, and which way."""

from __future__ import annotations

from enum import Enum, IntEnum
from typing import Final, NamedTuple

new_tuple: Final = tuple.__new__
"""`new_tuple(Request, (...))` is what `Request(...)` comes to, in half the time: for what every exchange needs."""


class Direction(IntEnum):
    """Which way bytes go, as the watched process sees it. The values are `enum at_direction` in abi.h."""

    RX = 0
    TX = 1

    @property
    def other(self) -> Direction:
        return Direction.TX if self is Direction.RX else Direction.RX


class Role(Enum):
    """Which side of an exchange the watched process is on. The values are OpenTelemetry span kinds."""

    SERVER = "server"
    CLIENT = "client"


class Context(NamedTuple):
    """Who moved some bytes, when, and what its thread had done just before.

    `run` counts how often the thread has come back from epoll_wait, poll or select: two events of one thread
    with the same `run` belong to one run of its event loop. `cause` is the id of the connection the thread
    read last, if no wait lies between that read and this event and nothing else was caused by that read
    before; else 0. `task` is the runtime's own id for what the thread is running (a goroutine id for Go; for Python
    one use of a contextvars.Context by this thread), or 0 where there is none or it is not known. `tid` is 0 if
    one of io_uring's threads did it: such a thread works for whichever thread of its process asked.
    """

    ts: int
    pid: int
    tid: int
    task: int
    run: int
    cause: int
