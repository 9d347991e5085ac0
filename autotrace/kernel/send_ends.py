"""When the ends of TCP's sends are looked at, with fentry."""

from __future__ import annotations

from typing import Protocol

CALM = 1000
"""Records without memory that could not be read when a send began, after which no more of it is expected."""


class SendEndPrograms(Protocol):
    """What can attach and detach the program at the end of TCP's sends (`kernel/object.py`)."""

    @property
    def sees_send_ends(self) -> bool:
        """Whether it is attached."""

    def attach_send_ends(self) -> None:
        """Attach it. Raises AutotraceError."""

    def detach_send_ends(self) -> None:
        """Detach it."""


class SendEnds:
    """Detaches and attaches that program by what the kernel side counts.

    fentry counts a send when it begins; its end matters where memory could not be read by then, for it was never
    touched. What a program sends first may come from such memory. Once CALM records have come without, the ends
    are left alone, which saves a quarter of all runs. If there is such memory after all, what was sent from it
    until now is missing, and the ends are looked at for good. The other flavours need the end of each send:
    nothing is detached there.
    """

    def __init__(self, programs: SendEndPrograms) -> None:
        self._programs = programs
        self._faults = 0
        self._sent_then = 0
        self._left = False
        self._for_good = False

    def follow(self, counters: dict[str, int]) -> None:
        """To be called every second or so, with what the kernel side has counted. Raises AutotraceError if the
        program cannot be attached again; the next call tries once more."""
        faults, sent = counters["read_faults"], counters["sent"]
        if faults != self._faults:
            self._faults, self._sent_then = faults, sent
            self._for_good = self._left
        if not self._programs.sees_send_ends:
            if self._for_good:
                self._programs.attach_send_ends()
        elif not self._left and sent - self._sent_then >= CALM:
            self._left = True
            self._programs.detach_send_ends()
