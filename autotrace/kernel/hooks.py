"""The system calls that are looked at, and on which side of them.

A send is captured on entry and counted on return, a receive is captured on return: that is what call_enters and
call_exits do, which only the tracepoint flavour of the socket hooks has. The others look at the receives that were
in progress when they were attached, and only as long as there are any. Calls that move no bytes are looked at by
every flavour. The numbers of the calls stand in bpf/socket/receive_calls.h and side_calls.h.
"""

from __future__ import annotations

import ctypes
import fcntl
import os
import platform
import struct
from pathlib import Path

from autotrace.errors import AutotraceError

_SENDS = ("write", "writev", "sendto", "sendmsg", "sendmmsg", "sendfile64", "splice")
_RECEIVES = ("read", "readv", "recvfrom", "recvmsg", "recvmmsg")
_WAITS = ("epoll_wait", "epoll_pwait", "epoll_pwait2", "poll", "ppoll", "select", "pselect6")

TRACEPOINTS: dict[str, tuple[str, ...]] = {
    "call_enters": tuple(f"sys_enter_{call}" for call in (*_SENDS, "close")),
    "call_exits": tuple(f"sys_exit_{call}" for call in (*_SENDS, *_RECEIVES)),
    "late_call_exits": tuple(f"sys_exit_{call}" for call in _RECEIVES),
    "side_call_exits": tuple(
        f"sys_exit_{call}" for call in (*_WAITS, "connect", "accept", "accept4", "getsockopt")
    ),
}
"""Program -> tracepoints of the category `syscalls`. One that a kernel or an architecture lacks is left out."""

TRACEFS = Path("/sys/kernel/tracing")
"""Where the kernel's documentation, systemd and this module mount tracefs."""

_PERF_EVENT_OPEN = {"x86_64": 298, "aarch64": 241}
"""The system call's number by architecture; glibc has no function for it."""

_ATTRIBUTES = struct.Struct("=IIQ48x")
"""struct perf_event_attr (linux/perf_event.h), its first version: type, size, config."""

_TYPE_TRACEPOINT = 2
_CLOSE_ON_EXEC = 8
_DISABLE = 0x2401
"""PERF_TYPE_TRACEPOINT, PERF_FLAG_FD_CLOEXEC, PERF_EVENT_IOC_DISABLE."""


def existing(tracepoints: tuple[str, ...]) -> list[str]:
    """Those of the tracepoints that this kernel has.

    Mounts tracefs if nobody did. Raises AutotraceError if that or reading it is not allowed, or there are none.
    """
    events = TRACEFS / "events" / "syscalls"
    try:
        events.stat()
    except FileNotFoundError:
        _mount_tracefs()
    except PermissionError as error:
        raise AutotraceError(f"{events} may not be read: run as root, or with CAP_DAC_READ_SEARCH") from error
    found = [name for name in tracepoints if (events / name).exists()]
    if not found:
        raise AutotraceError(
            f"this kernel has no system call tracepoints ({events} has none): it needs CONFIG_FTRACE_SYSCALLS"
        )
    return found


def open_event(tracepoint: str) -> int:
    """A perf event of a tracepoint of the category `syscalls`, for a program to be attached to. Raises OSError."""
    number = int((TRACEFS / "events" / "syscalls" / tracepoint / "id").read_text())
    attributes = _ATTRIBUTES.pack(_TYPE_TRACEPOINT, _ATTRIBUTES.size, number)
    call = ctypes.CDLL(None, use_errno=True).syscall
    # Of one CPU, as it must be of one: the program runs on all of them.
    event: int = call(_PERF_EVENT_OPEN[platform.machine()], attributes, -1, 0, -1, _CLOSE_ON_EXEC)
    if event < 0:
        raise OSError(ctypes.get_errno(), "perf_event_open")
    return event


def stop_counting(event: int) -> None:
    """Let a perf event do nothing but run its program, which costs less. Attaching the program started it."""
    fcntl.ioctl(event, _DISABLE)


def _mount_tracefs() -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.mount(b"tracefs", str(TRACEFS).encode(), b"tracefs", 0, None) and not TRACEFS.is_mount():
        reason = os.strerror(ctypes.get_errno())
        raise AutotraceError(
            f"tracefs could not be mounted ({reason}): run `mount -t tracefs tracefs {TRACEFS}` as root"
        )
