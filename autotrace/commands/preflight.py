"""What can be refused before anything is started."""

from __future__ import annotations

from pathlib import Path

from autotrace.config import Config
from autotrace.errors import USAGE, AutotraceError

_CAP_SYS_ADMIN = 21
_CAP_PERFMON = 38
_CAP_BPF = 39


def require_selection(config: Config) -> None:
    """Refuse to run with nothing to watch, or with a pid that names no process. Raises AutotraceError."""
    if not config.selects:
        raise AutotraceError(
            "Nothing says what to watch; give --pid, --exe, --port, a program after `--`, "
            "or --all for every process of this host.",
            exit_code=USAGE,
        )
    if config.user and not config.command:
        raise AutotraceError("--user goes with a program to start; add one after `--`.", exit_code=USAGE)
    for pid in config.pids:
        require_process(pid)


def require_process(pid: int) -> None:
    try:
        status = Path(f"/proc/{pid}/status").read_text()
    except OSError:
        raise AutotraceError(
            f"No process has pid {pid}; it has ended, or the number is wrong (see ps)."
        ) from None
    group = next(int(line.split()[1]) for line in status.splitlines() if line.startswith("Tgid:"))
    if group != pid:
        raise AutotraceError(f"{pid} is a thread of process {group}; give --pid {group}.")


def require_privileges() -> None:
    """Refuse to run without the capabilities that loading and attaching need (capabilities(7)).

    Raises AutotraceError.
    """
    status = Path("/proc/self/status").read_text()
    effective = next(int(line.split()[1], 16) for line in status.splitlines() if line.startswith("CapEff:"))
    if effective >> _CAP_SYS_ADMIN & 1:
        return
    names = {"CAP_BPF": _CAP_BPF, "CAP_PERFMON": _CAP_PERFMON}
    missing = [name for name, number in names.items() if not effective >> number & 1]
    if missing:
        raise AutotraceError(
            f"Tracing needs {' and '.join(missing)}, which this user lacks; run it with sudo."
        )
