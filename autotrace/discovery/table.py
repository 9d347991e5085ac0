"""The processes that are watched, from their start until nothing can refer to them any more."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from autotrace.model import Process

GRACE_NS = 60 * 1_000_000_000
"""How long a process is kept after its exit by default: longer than any late event or open exchange lasts."""

MAX_PROCESSES = 65_536


_OF_THE_PROGRAM = ("process.", "service.", "telemetry.sdk.language")


@dataclass(slots=True, eq=False)
class _Program:
    """The program of a process that is not described yet, shared with the children it forks.

    `pid` executed it, and the kernel calls it `comm`; `before` describes what `pid` was before that. `process` is
    one of those that run it, once one is described.
    """

    pid: int
    comm: str = ""
    before: Process | None = None
    process: Process | None = None


class ProcessTable:
    """pid -> Process.

    A child is described when it is first asked for, which most never are. One that is gone by then gets the
    resource of a process that runs the same program, its parent in most cases, with its own pid. If there is none,
    it gets the name that the kernel gave the program.
    At most `limit` processes are kept: beyond that the one that exited first goes, or else the oldest.
    """

    def __init__(
        self,
        describe: Callable[[int], Process | None],
        grace_ns: int = GRACE_NS,
        limit: int = MAX_PROCESSES,
    ) -> None:
        """`describe` reads a process from the system, and returns None if it is gone."""
        self._describe = describe
        self._grace_ns = grace_ns
        self._limit = limit
        self._known: dict[int, Process] = {}
        self._undescribed: dict[int, _Program] = {}
        self._exited: dict[int, int] = {}  # pid -> time of exit, oldest first

    def __len__(self) -> int:
        return len(self._known) + len(self._undescribed)

    def add(self, process: Process) -> None:
        """Take a process that is described already, from a recording for example."""
        self._forget(process.pid)
        self._make_room()
        self._known[process.pid] = process

    def started(self, pid: int, parent: int) -> None:
        """A watched process `parent` forked `pid`."""
        self._forget(pid)  # the number was used before
        self._make_room()
        known = self._known.get(parent)
        if known is not None:
            self._undescribed[pid] = _Program(parent, process=known)
        else:
            self._undescribed[pid] = self._undescribed.get(parent) or _Program(parent)

    def executed(self, pid: int, comm: str = "") -> None:
        """`pid` runs another program from now on, which the kernel calls `comm`."""
        before = self._known.get(pid)
        program = self._undescribed.get(pid)
        if before is None and program is not None:
            before = program.process or program.before
        self._forget(pid)
        self._make_room()
        self._undescribed[pid] = _Program(pid, comm, before)

    def exited(self, pid: int, ts: int) -> None:
        """The last thread of `pid` ended at `ts` (monotonic ns). It stays known for the grace period."""
        process = self._known.get(pid)
        if process is not None:
            process.exited_ts = ts
        if process is not None or pid in self._undescribed:
            self._exited.pop(pid, None)
            self._exited[pid] = ts

    def get(self, pid: int) -> Process:
        """Return the process; one that nothing is known of is an `unknown_service`."""
        process = self._known.get(pid)
        if process is None:
            process = self._describe_now(pid)
        return process

    def expire(self, now: int) -> None:
        """Forget the processes whose grace period is over at `now` (monotonic ns)."""
        while self._exited:
            pid, ts = next(iter(self._exited.items()))
            if now - ts < self._grace_ns:
                return
            self._forget(pid)

    def _describe_now(self, pid: int) -> Process:
        program = self._undescribed.get(pid)
        # A number whose process exited may belong to another process by now.
        process = self._describe(pid) if pid not in self._exited else None
        if process is None:
            if program is not None and program.pid != pid and self._undescribed.get(program.pid) is program:
                self._describe_now(program.pid)
            process = _stand_in(pid, program)
        elif program is not None:
            program.process = process
        process.exited_ts = self._exited.get(pid, 0)
        if program is None:
            self._make_room()
        self._undescribed.pop(pid, None)
        self._known[pid] = process
        return process

    def _forget(self, pid: int) -> None:
        self._known.pop(pid, None)
        self._undescribed.pop(pid, None)
        self._exited.pop(pid, None)

    def _make_room(self) -> None:
        if len(self) < self._limit:
            return
        for pids in (self._exited, self._undescribed, self._known):
            if pids:
                self._forget(next(iter(pids)))
                return


def _stand_in(pid: int, program: _Program | None) -> Process:
    """What to say of a process that was gone before it could be described."""
    if program is None:
        return Process(pid, "", {"service.name": "unknown_service", "process.pid": pid})
    alike = program.process
    if alike is not None:
        return replace(alike, pid=pid, resource=_with_pid(alike.resource, pid), exited_ts=0)
    resource = _with_pid(program.before.resource if program.before else {}, pid)
    kept = {
        key: value
        for key, value in resource.items()
        if not key.startswith(_OF_THE_PROGRAM) or key == "process.pid"
    }
    return Process(pid, "", {**kept, "service.name": program.comm or "unknown_service"})


def _with_pid(resource: dict[str, str | int], pid: int) -> dict[str, str | int]:
    changed = {**resource, "process.pid": pid}
    host = resource.get("host.name")
    if host is not None:
        changed["service.instance.id"] = f"{host}:{pid}"
    return changed
