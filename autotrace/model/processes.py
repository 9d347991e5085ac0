"""What is watched: processes, and the functions in their files that have probes."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple


class GoOffsets(NamedTuple):
    """Where a Go program keeps what the kernel side reads (`struct at_watched`); 0: not known, or not there."""

    goid: int = 0
    parent_goid: int = 0
    stream_method: int = 0
    stream_id: int = 0
    stream_by_pointer: bool = False


NOT_GO = GoOffsets()


class PythonOffsets(NamedTuple):
    """Where CPython's PyThreadState has its members: the thread's own id, and the current contextvars.Context
    with a count behind it that goes up when the thread enters or leaves one."""

    thread_id: int
    context: int


@dataclass(slots=True)
class Process:
    """A watched process and the resource it stands for.

    `resource` holds OpenTelemetry resource attributes (`service.name` and friends). `rungs` names the rungs of
    the linking ladder that this runtime's way of working makes sound, besides `header` and `wire`.
    `go` and `python_offsets` are for the kernel side alone.
    """

    pid: int
    executable: str
    resource: dict[str, str | int]
    runtime: str = "unknown"
    rungs: frozenset[str] = frozenset({"thread"})
    exited_ts: int = 0
    go: GoOffsets = NOT_GO
    python_offsets: PythonOffsets | None = None
    service: str = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        self.service = str(self.resource.get("service.name", "unknown_service"))


class Probe(NamedTuple):
    """A BPF program at a function of a file: `offset` is that of the function in the file.

    `at_return`: it runs when the function returns, not when it is entered.
    """

    program: str
    offset: int
    at_return: bool
