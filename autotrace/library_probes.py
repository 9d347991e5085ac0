"""Keeps probes set in the libraries that watched processes have mapped, and in no others."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol

from autotrace.discovery.libraries import FileId, LibraryFinder, Use
from autotrace.errors import AutotraceError
from autotrace.model import Probe
from autotrace.probes.libraries import Kind

_LOOK_AGAIN_NS = (50_000_000, 250_000_000, 1_000_000_000, 3_000_000_000, 10_000_000_000, 30_000_000_000)
"""How long after its start a program is looked at again: it maps its libraries after that, some of them late."""

_LINGER_NS = 60_000_000_000
"""How long probes stay after the last process that used them: the next one is covered from its first call."""

_GAINED = {Kind.TLS: "reads TLS in", Kind.STREAMS: "asks the runtime of"}
_LACKING = {Kind.TLS: "what {} encrypts is not seen", Kind.STREAMS: "the runtime of {} is not asked"}
"""What probes do for a file, and what is missing without them."""

_REFUSED = "TLS and what runtimes say are not seen in every process"

_LOOKS_AT_ONCE = 16
"""Processes that are looked at in one go, so that a storm of them does not hold up the records."""


_Id = tuple[FileId, str]
"""A library, by its name, in a file."""


class Probes(Protocol):
    """Probes that are set (`autotrace.kernel.uprobes.Uprobes`)."""

    def status(self) -> os.stat_result: ...

    def is_written(self) -> bool: ...

    def close(self) -> None: ...


@dataclass(slots=True)
class _Attached:
    """`probes` is None if they could not be set, `places` are theirs; `unused_since` is 0 while there are users."""

    probes: Probes | None
    places: tuple[Probe, ...]
    path: str
    kind: Kind
    old_connections: bool
    users: set[int] = field(default_factory=set)
    unused_since: int = 0


class LibraryProbes:
    """Sets the probes of each file once, however many processes map it, and takes them away when none does.

    `know` is called with the id of a process before what its runtime tells is read: the kernel side must know where
    the runtime keeps it. `set_probes` sets those of a Use and raises AutotraceError if it cannot. `log` is told,
    and `note` counts, under the stage "tls" or "streams". Times are monotonic nanoseconds.
    """

    def __init__(
        self,
        finder: LibraryFinder,
        know: Callable[[int], object],
        set_probes: Callable[[Use], Probes],
        log: Callable[[str], object],
        note: Callable[[str, str], object],
    ) -> None:
        self._finder = finder
        self._know = know
        self._set_probes = set_probes
        self._log = log
        self._note = note
        self._attached: dict[_Id, _Attached] = {}
        self._used: dict[int, set[_Id]] = {}
        self._looks: dict[int, list[int]] = {}
        self._gone: set[int] = set()
        self._without_tls: set[int] = set()
        self._refused = False
        self._with_old_connections: frozenset[int] = frozenset()

    def watched(self, pid: int, now: int) -> None:
        """`pid` is watched from now on, or runs another program from now on."""
        self._leave(pid, now)
        self._looks[pid] = [now, *(now + delay for delay in _LOOK_AGAIN_NS)]

    def forked(self, pid: int, parent: int, now: int) -> None:
        """`parent` made the process `pid`, which has the same files mapped."""
        self._leave(pid, now)
        for id in self._used.get(parent, ()):
            self._join(pid, id)
        if parent in self._looks:
            self._looks[pid] = list(self._looks[parent])

    def exited(self, pid: int, now: int) -> None:
        """`pid` is gone."""
        self._looks.pop(pid, None)
        if pid in self._used:
            self._gone.add(pid)
        self._leave(pid, now)

    def speaks_tls(self, pid: int) -> None:
        """`pid` uses TLS: whatever library does it is mapped now. Told again now and then."""
        self._look(pid)
        if pid in self._without_tls or any(
            self._attached[id].kind is Kind.TLS for id in self._used.get(pid, ())
        ):
            return
        self._without_tls.add(pid)
        self._note("tls", "process_without_known_library")

    def have_old_connections(self, pids: frozenset[int], now: int) -> None:
        """These processes, and no others, have HTTP/2 connections that are older than the agent."""
        before = self._with_old_connections
        if pids == before:
            return
        self._with_old_connections = pids
        for pid in pids - before:
            self._look(pid)
        for pid in before - pids:
            for id in [id for id in self._used.get(pid, ()) if self._attached[id].old_connections]:
                self._used[pid].discard(id)
                self._drop_user(id, pid, now)

    def work(self, now: int) -> None:
        """Do what is due at `now`."""
        due = [pid for pid, times in self._looks.items() if times[0] <= now][:_LOOKS_AT_ONCE]
        for pid in due:
            times = self._looks.pop(pid)
            if self._look(pid) and (later := [time for time in times if time > now]):
                self._looks[pid] = later
        for id, attached in list(self._attached.items()):
            if attached.probes is not None and attached.probes.is_written():
                self._look_again(attached.users, now)
                self._take_away(id)
            elif attached.unused_since and now - attached.unused_since > _LINGER_NS:
                self._take_away(id)

    def _look_again(self, pids: set[int], now: int) -> None:
        for pid in pids:
            self._looks[pid] = [now + delay for delay in _LOOK_AGAIN_NS]

    def take_gone(self) -> set[int]:
        """Processes that had TLS sessions and are gone, since this was last asked."""
        gone, self._gone = self._gone, set()
        return gone

    def close(self) -> None:
        """Take all probes away."""
        for id in list(self._attached):
            self._take_away(id)

    def _look(self, pid: int) -> bool:
        """Set the probes in what `pid` has mapped now; False if it is gone."""
        try:
            uses = self._finder.find(pid)
        except PermissionError as error:
            if not self._refused:
                self._log(
                    f"{_REFUSED}: {error.filename} may not be read; give the agent CAP_CHECKPOINT_RESTORE"
                )
            self._refused = True
            return False
        except OSError:
            return False
        for use in uses:
            if use.library.old_connections and pid not in self._with_old_connections:
                continue
            if use.library.kind is Kind.STREAMS:
                self._know(pid)
            id = self._known_as(use)
            if id not in self._attached and not self._attach(pid, id, use):
                return False
            self._join(pid, id)
        return True

    def _known_as(self, use: Use) -> _Id:
        """By what the library in this file is known here.

        One that was written over has its functions elsewhere now: probes that stand at the old places go.
        """
        wanted = (use.file, use.library.name)
        if wanted in self._attached:
            return wanted
        for id, attached in list(self._attached.items()):
            if id[1] != wanted[1] or attached.probes is None:
                continue
            if not FileId.of(attached.probes.status()).is_same_file(use.file):
                continue
            if attached.places == use.probes:
                return id
            self._take_away(id)
        return wanted

    def _attach(self, pid: int, id: _Id, use: Use) -> bool:
        """Set the probes of a file; False if `pid`, by which it is reached, is gone."""
        kind, name = use.library.kind, use.library.display
        attached = self._attached[id] = _Attached(
            None, use.probes, use.path, kind, use.library.old_connections
        )
        if not use.probes:
            self._log(f"{use.path} is not probed: it does not export {', '.join(use.missing)}")
            return True
        try:
            attached.probes = self._set_probes(use)
        except AutotraceError as error:
            if self._is_gone(pid):
                del self._attached[id]
                return False
            self._log(f"{_LACKING[kind].format(use.path)}: {error}")
            self._note(kind.value, "library_not_probed")
            return True
        self._log(f"{_GAINED[kind]} {use.path} ({name})")
        return True

    def _is_gone(self, pid: int) -> bool:
        try:
            self._finder.find(pid)
        except (FileNotFoundError, ProcessLookupError):
            return True
        except OSError:
            pass  # it is there, and cannot be looked at now: too few descriptors, for example
        return False

    def _join(self, pid: int, id: _Id) -> None:
        attached = self._attached.get(id)
        if attached is None:
            return
        attached.users.add(pid)
        attached.unused_since = 0
        self._used.setdefault(pid, set()).add(id)

    def _leave(self, pid: int, now: int) -> None:
        self._without_tls.discard(pid)
        for id in self._used.pop(pid, ()):
            self._drop_user(id, pid, now)

    def _drop_user(self, id: _Id, pid: int, now: int) -> None:
        attached = self._attached.get(id)
        if attached is None:
            return
        attached.users.discard(pid)
        if not attached.users:
            attached.unused_since = now

    def _take_away(self, id: _Id) -> None:
        attached = self._attached.pop(id)
        for pid in attached.users:
            self._used[pid].discard(id)
        if attached.probes is not None:
            attached.probes.close()
