"""The tracepoints of system calls that this kernel has."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable

import pytest

from autotrace.errors import AutotraceError
from autotrace.kernel.hooks import TRACEPOINTS, existing

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to read tracefs")

EXISTING = """
from autotrace.errors import AutotraceError
from autotrace.kernel.hooks import existing
try:
    print(existing(("sys_enter_write",)))
except AutotraceError as error:
    print(error)
"""


@as_root
def test_one_that_the_kernel_lacks_is_left_out() -> None:
    assert existing(("sys_enter_write", "sys_enter_no_such_call", "sys_exit_read")) == [
        "sys_enter_write",
        "sys_exit_read",
    ]


@as_root
def test_every_program_has_some() -> None:
    for program, tracepoints in TRACEPOINTS.items():
        assert len(set(tracepoints)) == len(tracepoints)
        assert existing(tracepoints), program


@as_root
def test_none_at_all_is_an_error() -> None:
    with pytest.raises(AutotraceError, match=r"no system call tracepoints .*CONFIG_FTRACE_SYSCALLS"):
        existing(("sys_enter_no_such_call",))


@as_root
def test_without_the_right_to_read_it_says_so(
    run_without_rights: Callable[..., subprocess.CompletedProcess[str]],
) -> None:
    done = run_without_rights(EXISTING)
    assert done.stderr == ""
    assert done.stdout.strip().endswith("may not be read: run as root, or with CAP_DAC_READ_SEARCH")
