"""The system calls that are looked at, and on which side of them.

A send is captured on entry and counted on return, a receive is captured on return: that is what call_enters and
call_exits do, which only the tracepoint flavour of the socket hooks has. The others look at the receives that were
in progress when they were attached, and only as long as there are any. Calls that move no bytes are looked at by
every flavour. The numbers of the calls stand in bpf/socket/receive_calls.h and side_calls.h.
"""

from __future__ import annotations

import ctypes
import os
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


def _mount_tracefs() -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.mount(b"tracefs", str(TRACEFS).encode(), b"tracefs", 0, None) and not TRACEFS.is_mount():
        reason = os.strerror(ctypes.get_errno())
        raise AutotraceError(
            f"tracefs could not be mounted ({reason}): run `mount -t tracefs tracefs {TRACEFS}` as root"
        )
