"""What is watched: processes, and the functions in their files that have probes."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple


@dataclass(slots=True)
class Process:
    """A watched process and the resource it stands for.

    `resource` holds OpenTelemetry resource attributes (`service.name` and friends). `rungs` names the rungs of
    the linking ladder that this runtime's way of working makes sound, besides `header` and `wire`.
    `forwards_task` and the like belong to runtimes' manifests, not here. `goid_offset` is for the kernel
    (`struct at_watched`): where a Go runtime keeps a goroutine's id, 0 if it is not Go or not known.
    """

    pid: int
    executable: str
    resource: dict[str, str | int]
    runtime: str = "unknown"
    rungs: frozenset[str] = frozenset({"thread"})
    exited_ts: int = 0
    goid_offset: int = 0
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
