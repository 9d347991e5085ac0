"""Which processes to watch."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass, field

from autotrace.discovery.naming import executable_matches
from autotrace.discovery.procfs import Procfs

_ENDED = frozenset("ZX")
"""States of a process that runs no more (proc_pid_stat(5))."""


@dataclass(frozen=True, slots=True)
class Selection:
    """The rules by which processes are selected. They combine: a process that any rule takes is selected.

    `exe_globs` are shell patterns for the executable (the whole path if they have a slash, else its base
    name). `ports` are TCP ports: a process that listens on one, in whatever network namespace, is selected.
    `everything` takes all programs, but no kernel thread. With `children`, the descendants of a selected
    process are selected too, if they run; children forked from now on are the kernel side's affair.

    The agent's own process is never selected.
    """

    pids: frozenset[int] = frozenset()
    exe_globs: tuple[str, ...] = ()
    ports: frozenset[int] = frozenset()
    everything: bool = False
    children: bool = True
    procfs: Procfs = field(default_factory=Procfs)
    own_pid: int = field(default_factory=os.getpid)

    def initial(self) -> list[int]:
        """Scan /proc for the selected processes, in ascending order. A pid that does not exist is left out.

        A process that begins to listen on a port later is found by calling this again.
        """
        running = set(self.procfs.pids())
        chosen = {pid for pid in self.pids if pid in running}
        if self.exe_globs or self.everything:
            chosen.update(pid for pid in running if self._executable_selected(pid))
        if self.ports:
            chosen.update(self._listening(running))
        chosen.discard(self.own_pid)
        if self.children and chosen:
            chosen.update(self._descendants(chosen, running))
        chosen.discard(self.own_pid)
        return sorted(chosen)

    def wants(self, pid: int) -> bool:
        """Tell whether a process that just executed a new program is selected by its pid or executable.

        Ports cannot be told yet: a program that just started listens on none.
        """
        if pid == self.own_pid:
            return False
        return pid in self.pids or self._executable_selected(pid)

    def runs(self, pid: int) -> bool:
        """Tell whether a process is there and has not ended: one that nobody has waited for yet has no exit before
        it any more."""
        try:
            return self.procfs.stat(pid).state not in _ENDED
        except OSError:
            return False

    def _executable_selected(self, pid: int) -> bool:
        if not self.everything and not self.exe_globs:
            return False
        try:
            executable = self.procfs.executable(pid)
        except OSError:
            return False
        if not executable:
            return False
        return self.everything or any(executable_matches(glob, executable) for glob in self.exe_globs)

    def _listening(self, running: set[int]) -> Iterator[int]:
        """Processes that hold a socket which listens on one of the ports."""
        wanted: set[int] = set()
        seen_namespaces = set()
        for pid in running:
            try:
                namespace = self.procfs.network_namespace(pid)
                if namespace not in seen_namespaces:
                    listeners = self.procfs.tcp_listeners(pid)
                    seen_namespaces.add(namespace)
                    wanted.update(inode for inode, port in listeners.items() if port in self.ports)
            except OSError:
                continue  # gone, or not ours to read
        if not wanted:
            return
        for pid in running:
            try:
                if not wanted.isdisjoint(self.procfs.sockets(pid)):
                    yield pid
            except OSError:
                continue

    def _descendants(self, roots: set[int], running: set[int]) -> set[int]:
        children: dict[int, list[int]] = {}
        for pid in running:
            try:
                stat = self.procfs.stat(pid)
            except OSError:
                continue
            if stat.state not in _ENDED:
                children.setdefault(stat.parent, []).append(pid)
        found: set[int] = set()
        pending = list(roots)
        while pending:
            for child in children.get(pending.pop(), ()):
                if child not in found:
                    found.add(child)
                    pending.append(child)
        return found
