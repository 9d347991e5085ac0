"""What others count and sample on the same machine goes on beside the agent."""

from __future__ import annotations

import ctypes
import os
import platform
import select
import struct
import sys
from pathlib import Path

from harness import SERVICES, Traced, free_ports, running, wait_for
from kernel_state import loaded

from autotrace.kernel.hooks import TRACEFS

CALLS = 10
PERF_EVENT_OPEN = {"x86_64": 298, "aarch64": 241}
TRACEPOINTS = ("sys_exit_epoll_wait", "sys_enter_write", "sys_exit_write", "sys_exit_read")


def counter(tracepoint: str) -> int:
    """A perf event that counts this thread's passes, as those of `perf stat` do (perf_event_open(2))."""
    number = int((TRACEFS / "events" / "syscalls" / tracepoint / "id").read_text())
    attributes = struct.pack("=IIQ48x", 2, 64, number)
    event = ctypes.CDLL(None).syscall(PERF_EVENT_OPEN[platform.machine()], attributes, 0, -1, -1, 0)
    assert event >= 0
    return int(event)


def test_perf_counts_system_calls_that_the_agent_looks_at_too(tmp_path: Path) -> None:
    (port,) = free_ports(1)
    service = [sys.executable, str(SERVICES / "backend.py"), str(port), str(tmp_path / "log")]
    with (
        running(service, port) as server,
        Traced(tmp_path / "agent", [], ("--pid", str(server.pid))) as agent,
        select.epoll() as epoll,
    ):
        wait_for(lambda: loaded(agent.process.pid), "the agent to watch the server")
        events = list(map(counter, TRACEPOINTS))
        reading, writing = os.pipe()
        for _ in range(CALLS):
            epoll.poll(0)
            os.write(writing, b"x")
            os.read(reading, 1)
        counted = [int.from_bytes(os.read(event, 8), sys.byteorder) for event in events]
        for descriptor in (*events, reading, writing):
            os.close(descriptor)
        agent.finish()
    # Reading the counters is reading, too.
    assert counted == [CALLS, CALLS, CALLS, CALLS + len(TRACEPOINTS) - 1]
