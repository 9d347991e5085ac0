"""The system calls that the tracepoint flavour of the socket hooks looks at, and on which side of them.

A send is captured on entry and counted on return; a receive is captured on return. The numbers of the same calls
stand in bpf/socket/tracepoint.bpf.c.
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
    "call_exits": tuple(
        f"sys_exit_{call}"
        for call in (*_SENDS, *_RECEIVES, *_WAITS, "connect", "accept", "accept4", "getsockopt")
    ),
}
"""Program -> tracepoints of the category `syscalls`. One that a kernel or an architecture lacks is left out."""

TRACEFS = Path("/sys/kernel/tracing")
"""Where the kernel's documentation, systemd and this module mount tracefs."""


def existing(tracepoints: tuple[str, ...]) -> list[str]:
    """Those of the tracepoints that this kernel has.

    Mounts tracefs if nobody did. Raises AutotraceError if that is not allowed, or there are none.
    """
    events = TRACEFS / "events" / "syscalls"
    if not events.exists():
        _mount_tracefs()
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
