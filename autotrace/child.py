"""Start a program that can be watched from its first instruction (`autotrace run -- CMD`)."""

from __future__ import annotations

import contextlib
import errno
import os
import pwd
import signal
import sys
import threading
from collections.abc import Sequence
from typing import NoReturn

from autotrace.errors import USAGE, AutotraceError

NOT_EXECUTABLE = 126
NOT_FOUND = 127
"""Exit codes of a shell for a command that cannot be run (POSIX, Shell Command Language, 2.8.2)."""


class Child:
    """A forked process that waits, before it executes its command, until it is released.

    Fork it before this process has other threads: the child runs Python until its exec. It stays in this
    process's group and session, so a terminal treats both alike; it keeps ignored signals ignored (nohup). If
    this process dies before the release, the child ends without executing anything.
    """

    def __init__(self, pid: int, command: Sequence[str], gate: int, report: int) -> None:
        self.pid = pid
        self.exit_code: int | None = None
        """None until `wait` has seen the end."""
        self.released = False
        """Whether it executes its command."""
        self._command = command
        self._gate = gate
        self._report = report
        self._pidfd = os.pidfd_open(pid)
        self._waiting = threading.Lock()

    @classmethod
    def hold(cls, command: Sequence[str], user: str = "") -> Child:
        """Fork, and hold the child at its gate. `user` is the name of the user it shall run as.

        Raises AutotraceError if there is no such user, or it may not be taken on.
        """
        account = _account(user) if user else None
        gate_read, gate_write = os.pipe()
        report_read, report_write = os.pipe()
        sys.stdout.flush()
        sys.stderr.flush()
        pid = os.fork()
        if pid == 0:
            os.close(gate_write)
            os.close(report_read)
            _execute(command, account, gate_read, report_write)
        os.close(gate_read)
        os.close(report_write)
        return cls(pid, command, gate_write, report_read)

    def release(self) -> None:
        """Let the child execute its command.

        Raises AutotraceError if it cannot; the exit code is 127 for a command that is not there, else 126.
        """
        with contextlib.suppress(BrokenPipeError):  # it was killed while it waited: `wait` tells
            os.write(self._gate, b"\n")
        self._close_gate()
        with open(self._report, "rb", closefd=False) as report:
            number = report.read()
        if number:
            self.wait()
            raise _cannot_execute(self._command[0], int(number))
        self.released = True

    def send_signal(self, number: int) -> None:
        """Send a signal to the child. One that is gone, or became another user's (setuid), is left alone."""
        with contextlib.suppress(ProcessLookupError, PermissionError):
            signal.pidfd_send_signal(self._pidfd, number)

    def wait(self) -> int:
        """Wait for the child's end. Gives its exit code; 128 + n if signal n ended it, as a shell does.

        Any thread may call it, several at once too.
        """
        with self._waiting:
            if self.exit_code is None:
                _, status = os.waitpid(self.pid, 0)
                code = os.waitstatus_to_exitcode(status)
                self.exit_code = code if code >= 0 else 128 - code
            return self.exit_code

    def close(self) -> None:
        """Give back what is held. A child that was never released ends without executing anything."""
        if self._gate >= 0:
            self._close_gate()
            self.wait()
        os.close(self._report)
        os.close(self._pidfd)

    def _close_gate(self) -> None:
        os.close(self._gate)
        self._gate = -1


def _account(user: str) -> pwd.struct_passwd:
    try:
        account = pwd.getpwnam(user)
    except KeyError:
        raise AutotraceError(
            f"There is no user {user!r}; give --user the name of an account of this host.", exit_code=USAGE
        ) from None
    if os.geteuid() not in (0, account.pw_uid):
        raise AutotraceError(f"Only root can start a command as user {user!r}; run autotrace with sudo.")
    return account


def _execute(command: Sequence[str], account: pwd.struct_passwd | None, gate: int, report: int) -> NoReturn:
    """The child's side of the fork. Ends by exec, or by _exit with the error's number in `report`."""
    try:
        if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
            signal.signal(signal.SIGINT, signal.SIG_DFL)
        for ignored_by_python in (signal.SIGPIPE, signal.SIGXFSZ):
            signal.signal(ignored_by_python, signal.SIG_DFL)
        if os.read(gate, 1) == b"":
            os._exit(0)
        if account is not None:
            _become(account)
        os.execvp(command[0], list(command))
    except OSError as error:
        os.write(report, str(error.errno or errno.EIO).encode())
    except ValueError:  # a NUL in the command
        os.write(report, str(errno.EINVAL).encode())
    finally:
        os._exit(NOT_EXECUTABLE)


def _become(account: pwd.struct_passwd) -> None:
    if os.geteuid() == 0:
        os.setgroups(os.getgrouplist(account.pw_name, account.pw_gid))
        os.setgid(account.pw_gid)
        os.setuid(account.pw_uid)
    home = {"HOME": account.pw_dir, "USER": account.pw_name, "LOGNAME": account.pw_name}
    os.environ.update(home, SHELL=account.pw_shell)


def _cannot_execute(program: str, number: int) -> AutotraceError:
    if number in (errno.ENOENT, errno.ENOTDIR):
        return AutotraceError(
            f"Cannot start {program!r}: there is no such program; check its name and PATH.",
            exit_code=NOT_FOUND,
        )
    if number == errno.EACCES:
        reason = "it may not be executed; make it executable (chmod +x) or start it with its interpreter."
    elif number == errno.ENOEXEC:
        reason = "it is not a program for this machine; a script needs a first line such as #!/bin/sh."
    else:
        reason = f"{os.strerror(number)}; try to start it without autotrace."
    return AutotraceError(f"Cannot start {program!r}: {reason}", exit_code=NOT_EXECUTABLE)
