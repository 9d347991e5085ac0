"""Every end-to-end test needs root and eBPF, and fails if it leaves anything behind."""

from __future__ import annotations

import ctypes
import json
import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from harness import open_descriptors, wait_for


def _missing() -> str:
    if os.geteuid() != 0:
        return "needs root, to load BPF programs"
    if not Path("/sys/kernel/btf/vmlinux").exists():
        return "needs a kernel with BTF (/sys/kernel/btf/vmlinux)"
    if not shutil.which("bpftool"):
        return "needs bpftool, to see what is left behind"
    return ""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    here = Path(__file__).parent
    missing = _missing()
    for item in items:
        if here in item.path.parents:
            item.add_marker("kernel")
            if missing:
                item.add_marker(pytest.mark.skip(reason=missing))


def _bpf_objects() -> set[tuple[str, int]]:
    found = set()
    for kind in ("prog", "map", "link"):
        listed = subprocess.run(["bpftool", "-j", kind, "show"], capture_output=True, check=True).stdout
        found |= {(kind, entry["id"]) for entry in json.loads(listed or b"[]")}
    return found


def _held_by_others() -> set[tuple[str, int]]:
    """The objects that a process other than ours holds: another agent may run on this host."""
    held = set()
    for process in Path("/proc").glob("[0-9]*"):
        try:
            for info in (process / "fdinfo").iterdir():
                for line in info.read_text().splitlines():
                    name, _, number = line.partition(":")
                    if name in ("prog_id", "map_id", "link_id"):
                        held.add((name.removesuffix("_id"), int(number)))
        except OSError:
            continue
    return held


_PR_SET_CHILD_SUBREAPER = 36


def pytest_configure() -> None:
    """Make orphans of the tests' programs children of this process, so that none can hide.

    Without a test's word for it nothing is probed: other processes of the machine have it mapped too.
    """
    os.environ["AUTOTRACE_TLS"] = "off"
    os.environ["AUTOTRACE_RUNTIME_PROBES"] = "off"
    ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def _children() -> set[int]:
    tasks = Path("/proc/self/task")
    return {int(pid) for task in tasks.iterdir() for pid in (task / "children").read_text().split()}


def _left_running(before: set[int]) -> list[str]:
    """The programs of children that are still running; those that have ended are buried."""
    running = []
    for pid in _children() - before:
        if os.waitpid(pid, os.WNOHANG) == (0, 0):
            running.append(Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode())
    return running


@pytest.fixture(autouse=True)
def nothing_left_behind() -> Iterator[None]:
    """Fails if a BPF object, a process, a descriptor or a pinned file outlives the test."""
    objects, children = _bpf_objects(), _children()
    descriptors = sorted(open_descriptors())
    pinned = set(Path("/sys/fs/bpf").glob("*"))
    yield
    end = time.monotonic() + 5
    while left := _left_running(children):
        assert time.monotonic() < end, f"processes left behind: {left}"
        time.sleep(0.05)
    # The kernel frees them a little after their last descriptor is closed; where it has much to do, later.
    wait_for(
        lambda: not _bpf_objects() - objects - _held_by_others(), "BPF objects that were left behind", 30
    )
    assert len(sorted(open_descriptors())) <= len(descriptors), "file descriptors left behind"
    assert set(Path("/sys/fs/bpf").glob("*")) <= pinned, "files left in /sys/fs/bpf"
