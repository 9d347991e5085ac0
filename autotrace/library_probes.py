"""Keeps probes set in the libraries that watched processes have mapped, and in no others."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol

from autotrace.discovery.libraries import FileId, LibraryFinder, Use
from autotrace.errors import AutotraceError

_LOOK_AGAIN_NS = (50_000_000, 250_000_000, 1_000_000_000, 3_000_000_000)
"""How long after the start of a program it is looked at again: it maps its libraries after that."""

_LINGER_NS = 60_000_000_000
"""How long probes stay after the last process that used them: the next one is covered from its first call."""

_LOOKS_AT_ONCE = 16
"""Processes that are looked at in one go, so that a storm of them does not hold up the records."""


class Probes(Protocol):
    """Probes that are set (`autotrace.kernel.uprobes.Uprobes`)."""

    def close(self) -> None: ...


@dataclass(slots=True)
class _Attached:
    """`probes` is None if they could not be set; `unused_since` is 0 while there are users."""

    probes: Probes | None
    path: str
    users: set[int] = field(default_factory=set)
    unused_since: int = 0


class LibraryProbes:
    """Sets the probes of each file once, however many processes map it, and takes them away when none does.

    `set_probes` sets those of a Use and raises AutotraceError if it cannot. `log` is told, and `note` counts,
    under the stage "tls". Times are monotonic nanoseconds.
    """

    def __init__(
        self,
        finder: LibraryFinder,
        set_probes: Callable[[Use], Probes],
        log: Callable[[str], object],
        note: Callable[[str, str], object],
    ) -> None:
        self._finder = finder
        self._set_probes = set_probes
        self._log = log
        self._note = note
        self._attached: dict[FileId, _Attached] = {}
        self._used: dict[int, set[FileId]] = {}
        self._looks: dict[int, list[int]] = {}
        self._gone: set[int] = set()

    def watched(self, pid: int, now: int) -> None:
        """`pid` is watched from now on, or runs another program from now on."""
        self._leave(pid, now)
        self._looks[pid] = [now, *(now + delay for delay in _LOOK_AGAIN_NS)]

    def forked(self, pid: int, parent: int, now: int) -> None:
        """`parent` made the process `pid`, which has the same files mapped."""
        self._leave(pid, now)
        for file in self._used.get(parent, ()):
            self._join(pid, file)
        if parent in self._looks:
            self._looks[pid] = list(self._looks[parent])

    def exited(self, pid: int, now: int) -> None:
        """`pid` is gone."""
        self._looks.pop(pid, None)
        if pid in self._used:
            self._gone.add(pid)
        self._leave(pid, now)

    def speaks_tls(self, pid: int) -> None:
        """`pid` uses TLS: whatever library does it is mapped now."""
        self._look(pid)
        if not self._used.get(pid):
            self._note("tls", "process_without_known_library")

    def work(self, now: int) -> None:
        """Do what is due at `now`."""
        due = [pid for pid, times in self._looks.items() if times[0] <= now][:_LOOKS_AT_ONCE]
        for pid in due:
            times = self._looks.pop(pid)
            if self._look(pid) and (later := [time for time in times if time > now]):
                self._looks[pid] = later
        for file, attached in list(self._attached.items()):
            if attached.unused_since and now - attached.unused_since > _LINGER_NS:
                self._take_away(file)

    def take_gone(self) -> set[int]:
        """Processes that had TLS sessions and are gone, since this was last asked."""
        gone, self._gone = self._gone, set()
        return gone

    def close(self) -> None:
        """Take all probes away."""
        for file in list(self._attached):
            self._take_away(file)

    def _look(self, pid: int) -> bool:
        """Set the probes in what `pid` has mapped now; False if it is gone."""
        try:
            uses = self._finder.find(pid)
        except OSError:
            return False
        for use in uses:
            if use.file not in self._attached and not self._attach(pid, use):
                return False
            self._join(pid, use.file)
        return True

    def _attach(self, pid: int, use: Use) -> bool:
        """Set the probes of a file; False if `pid`, by which it is reached, is gone."""
        attached = self._attached[use.file] = _Attached(None, use.path)
        if not use.probes:
            self._log(f"{use.path} is not probed: it does not export {', '.join(use.missing)}")
            return True
        try:
            attached.probes = self._set_probes(use)
        except AutotraceError as error:
            if self._is_gone(pid):
                del self._attached[use.file]
                return False
            self._log(f"what {use.path} encrypts is not seen: {error}")
            self._note("tls", "library_not_probed")
            return True
        self._log(f"reads TLS in {use.path} ({use.library.display})")
        return True

    def _is_gone(self, pid: int) -> bool:
        try:
            self._finder.find(pid)
        except OSError:
            return True
        return False

    def _join(self, pid: int, file: FileId) -> None:
        attached = self._attached.get(file)
        if attached is None:
            return
        attached.users.add(pid)
        attached.unused_since = 0
        self._used.setdefault(pid, set()).add(file)

    def _leave(self, pid: int, now: int) -> None:
        for file in self._used.pop(pid, ()):
            attached = self._attached.get(file)
            if attached is None:
                continue
            attached.users.discard(pid)
            if not attached.users:
                attached.unused_since = now

    def _take_away(self, file: FileId) -> None:
        attached = self._attached.pop(file)
        if attached.probes is not None:
            attached.probes.close()
