"""Signals come from real senders: kill, and a real terminal (see commands/test_session.py for that one)."""

from __future__ import annotations

import os
import queue
import signal

from autotrace.signals import SignalListener

SIGNALS = (signal.SIGUSR1, signal.SIGUSR2)


def test_signals_arrive_with_who_sent_them() -> None:
    taken: queue.Queue[tuple[int, bool]] = queue.Queue()
    with SignalListener(SIGNALS, lambda number, from_kernel: taken.put((number, from_kernel))):
        os.kill(os.getpid(), signal.SIGUSR1)
        assert taken.get(timeout=60) == (signal.SIGUSR1, False)
        os.kill(os.getpid(), signal.SIGUSR2)
        assert taken.get(timeout=60) == (signal.SIGUSR2, False)


def test_the_kernels_own_signals_are_told_apart() -> None:
    taken: queue.Queue[tuple[int, bool]] = queue.Queue()
    with SignalListener([signal.SIGALRM], lambda number, from_kernel: taken.put((number, from_kernel))):
        signal.setitimer(signal.ITIMER_REAL, 0.001)
        assert taken.get(timeout=60) == (signal.SIGALRM, True)


def test_what_was_blocked_before_is_put_back() -> None:
    before = signal.pthread_sigmask(signal.SIG_BLOCK, [])
    with SignalListener(SIGNALS, lambda number, from_kernel: None):
        assert set(SIGNALS) <= signal.pthread_sigmask(signal.SIG_BLOCK, [])
    assert signal.pthread_sigmask(signal.SIG_BLOCK, []) == before


def test_an_ignored_signal_stays_ignored() -> None:
    taken: queue.Queue[int] = queue.Queue()
    before = signal.signal(signal.SIGUSR1, signal.SIG_IGN)
    try:
        with SignalListener(SIGNALS, lambda number, from_kernel: taken.put(number)):
            os.kill(os.getpid(), signal.SIGUSR1)
            os.kill(os.getpid(), signal.SIGUSR2)
            assert taken.get(timeout=60) == signal.SIGUSR2
    finally:
        signal.signal(signal.SIGUSR1, before)
    assert taken.empty()
