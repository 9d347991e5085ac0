"""Probes in user space programs: set in one file, for every process that maps it."""

from __future__ import annotations

from autotrace.kernel.object import Object
from autotrace.model import Probe


class Uprobes:
    """The probes in one file, set. Close it and they are gone.

    They are set in the order given and taken away in the other: what stands at the returns of a function comes
    before what stands at its entry, for a call that has begun must not be seen only half.

    Raises AutotraceError if the kernel refuses one; none is left then.
    """

    def __init__(self, programs: Object, path: str, probes: list[Probe]) -> None:
        self._programs = programs
        self._links: list[int] = []
        try:
            for probe in probes:
                link = programs.attach_uprobe(probe.program, path, probe.offset, at_return=probe.at_return)
                self._links.append(link)
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Take the probes away. May be called again."""
        while self._links:
            self._programs.destroy(self._links.pop())
