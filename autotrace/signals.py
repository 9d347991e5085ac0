"""Signals taken in a thread of their own, so that it is known who sent them and nothing is interrupted."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterable
from types import TracebackType

_SI_KERNEL = 0x80
"""`si_code` of a signal that the kernel itself sent, such as a terminal's Ctrl-C (sigaction(2))."""


class SignalListener:
    """Calls `handle(number, from_kernel)` for each signal that arrives, in its own thread.

    A terminal sends Ctrl-C to its whole foreground process group; `from_kernel` is true then. It is false for
    a signal that a process sent to this one alone (kill(2)).

    A context manager. Enter it before any other thread is started: threads inherit what is blocked, and one
    that does not block a signal would take it. Signals that this process was told to ignore (nohup) stay
    ignored.
    """

    def __init__(self, signals: Iterable[signal.Signals], handle: Callable[[int, bool], None]) -> None:
        self._signals = {each for each in signals if signal.getsignal(each) is not signal.SIG_IGN}
        self._handle = handle
        self._stopping = False
        self._thread = threading.Thread(target=self._listen, name="signals", daemon=True)
        self._blocked_before: set[int] = set()

    def __enter__(self) -> SignalListener:
        self._blocked_before = signal.pthread_sigmask(signal.SIG_BLOCK, self._signals | {signal.SIGURG})
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stopping = True
        if self._thread.ident is not None and self._thread.is_alive():
            signal.pthread_kill(self._thread.ident, signal.SIGURG)
        self._thread.join()
        signal.pthread_sigmask(signal.SIG_SETMASK, self._blocked_before)

    def _listen(self) -> None:
        while True:
            taken = signal.sigwaitinfo(self._signals | {signal.SIGURG})
            if taken.si_signo != signal.SIGURG:
                self._handle(taken.si_signo, taken.si_code == _SI_KERNEL)
            elif self._stopping:
                return
