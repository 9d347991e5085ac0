"""Who moved bytes, when, and which way."""

from __future__ import annotations

from enum import Enum, IntEnum
from typing import Final

from autotrace.model.value import Value


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


class Context(Value):
    """Who moved some bytes, when, and what its thread had done just before.

    `run` counts how often the thread has come back from epoll_wait, poll or select: two events of one thread
    with the same `run` belong to one run of its event loop. `cause` is the id of the connection the thread
    read last, if no wait lies between that read and this event and nothing else was caused by that read
    before; else 0. `task` is the runtime's own id for what the thread is running (a goroutine id for Go; for Python
    one use of a contextvars.Context by this thread), or 0 where there is none or it is not known. `tid` is 0 if
    one of io_uring's threads did it: such a thread works for whichever thread of its process asked. `lineage` says
    when the contextvars.Context was made that Python sent HTTP/2 frames in, and when those were that it was copied
    from, nearest first; these times name them in their process. It is empty where that is not known.
    """

    __slots__ = ("cause", "lineage", "pid", "run", "task", "tid", "ts")

    def __init__(
        self, ts: int, pid: int, tid: int, task: int, run: int, cause: int, lineage: tuple[int, ...] = ()
    ) -> None:
        self.ts: Final = ts
        self.pid: Final = pid
        self.tid: Final = tid
        self.task: Final = task
        self.run: Final = run
        self.cause: Final = cause
        self.lineage: Final = lineage
