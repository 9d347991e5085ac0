"""The machine changes under a running agent: CPUs, cgroups and modules go and come. Traffic stays traced."""

from __future__ import annotations

import os
import platform
import re
import secrets
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
from harness import SERVICES, Result, Traced, drive, free_ports, log_entries, running, wait_for

from tests.vm.guest import SHARE
from tests.vm.kernels import BUILD

CPU1 = Path("/sys/devices/system/cpu/cpu1/online")
in_guest = pytest.mark.skipif(not Path(SHARE).exists(), reason="only a guest may be treated like this")


def _online(wanted: bool) -> None:
    CPU1.write_text(str(int(wanted)))


@contextmanager
def _backend(tmp_path: Path, port: int, number: int = 0) -> Iterator[subprocess.Popen[bytes]]:
    command = [sys.executable, str(SERVICES / "backend.py"), str(port), str(tmp_path / f"log{number}")]
    with running(command, port) as server:
        yield server


@contextmanager
def _only_on(cpu: int, *pids: int) -> Iterator[None]:
    """These processes and this thread run on one CPU."""
    before = os.sched_getaffinity(0)
    for pid in pids:
        for task in Path(f"/proc/{pid}/task").iterdir():
            with suppress(ProcessLookupError):  # it has ended meanwhile
                os.sched_setaffinity(int(task.name), {cpu})
    os.sched_setaffinity(0, {cpu})
    yield
    os.sched_setaffinity(0, before)


def _check(result: Result, *logs: Path) -> None:
    result.check_ledger()
    assert not result.dropped, result.said
    served = sorted(entry["path"] for log in logs for entry in log_entries(log))
    assert sorted(span.path for span in result.server("backend")) == served
    assert not [span for span in result.spans if span.status != 200]


@in_guest
@pytest.mark.skipif(not CPU1.exists(), reason="needs a second CPU that can be taken away")
def test_a_cpu_comes_and_goes(tmp_path: Path) -> None:
    """One CPU is off when the agent starts, comes, does all the work, goes under load, and comes again."""
    (port,) = free_ports(1)
    _online(False)
    try:
        with (
            _backend(tmp_path, port) as server,
            Traced(tmp_path / "agent", [], ("--port", str(port))) as agent,
        ):
            wait_for(lambda: server.pid in agent.watched(), "the server to be watched", 300)
            drive(port, [f"/one/{i}" for i in range(40)], 4)
            _online(True)
            with _only_on(1, server.pid):
                drive(port, [f"/come/{i}" for i in range(40)], 4)
            for turn in range(3):
                load = subprocess.Popen(
                    [
                        sys.executable,
                        str(SERVICES / "calls.py"),
                        "kept",
                        "127.0.0.1",
                        str(port),
                        f"/g{turn}/",
                        "100",
                    ]
                )
                _online(False)
                drive(port, [f"/gone/{turn}/{i}" for i in range(20)], 4)
                _online(True)
                assert load.wait(300) == 0
            result = agent.finish()
    finally:
        _online(True)
    _check(result, tmp_path / "log0")
    assert len(result.spans) == 40 + 40 + 3 * (100 + 20)


def _cgroup_root() -> Path:
    for line in Path("/proc/self/mounts").read_text().splitlines():
        _, where, kind, options, *_ = line.split()
        if kind == "cgroup2" and "rw" in options.split(","):
            return Path(where)
    pytest.skip("no cgroup2 is mounted")


def test_a_cgroup_goes(tmp_path: Path) -> None:
    """A container ends and its cgroup is removed; a process leaves its cgroup, and that is removed."""
    root = _cgroup_root()
    container = secrets.token_hex(32)
    first, second = (root / f"docker-{container}.scope", root / f"autotrace-{container[:8]}.scope")
    (port,) = free_ports(1)
    try:
        first.mkdir()
        second.mkdir()
        with Traced(tmp_path / "agent", [], ("--port", str(port))) as agent:
            with _backend(tmp_path, port, 0) as server:
                (first / "cgroup.procs").write_text(str(server.pid))
                wait_for(lambda: server.pid in agent.watched(), "the first server to be watched")
                drive(port, [f"/first/{i}" for i in range(20)], 4)
                # It logs a request after it has answered.
                wait_for(lambda: len(log_entries(tmp_path / "log0")) == 20, "the first server's log")
            first.rmdir()
            with _backend(tmp_path, port, 1) as server:
                (second / "cgroup.procs").write_text(str(server.pid))
                wait_for(lambda: server.pid in agent.watched(), "the second server to be watched")
                drive(port, [f"/second/{i}" for i in range(20)], 4)
                (root / "cgroup.procs").write_text(str(server.pid))
                second.rmdir()
                drive(port, [f"/moved/{i}" for i in range(20)], 4)
                result = agent.finish()
    finally:
        for left in (first, second):
            if left.exists():
                left.rmdir()
    _check(result, tmp_path / "log0", tmp_path / "log1")
    assert len(result.spans) == 60


def test_no_hook_is_in_a_module() -> None:
    """What is hooked is in the kernel itself, so no module that goes can take a hook with it."""
    hooked = set()
    for source in (Path(__file__).parents[2] / "bpf" / "socket").glob("*.bpf.c"):
        for line in source.read_text().splitlines():
            if line.startswith(('SEC("fentry/', 'SEC("fexit/', 'SEC("kprobe/', 'SEC("kretprobe/')):
                hooked.add(line.split("/")[1].partition('"')[0])
    assert {"tcp_sendmsg", "unix_stream_recvmsg"} <= hooked
    found = {}
    for line in Path("/proc/kallsyms").read_text().splitlines():
        _, _, name, *module = line.split()
        if name in hooked:
            found[name] = module
    assert {"tcp_sendmsg", "unix_stream_recvmsg"} <= set(found)
    assert not any(found.values()), found


@in_guest
def test_modules_go_and_come(tmp_path: Path) -> None:
    """Modules of the network and of sockets are removed and loaded again under a running agent."""
    (folder,) = (
        each
        for each in (BUILD / "kernels").iterdir()
        if platform.release() in (each / "kernel.json").read_text()
    )
    names = [name for name in ("unix_diag", "tcp_diag", "veth") if (folder / f"{name}.ko").exists()]
    if not names or not shutil.which("busybox"):
        pytest.skip("this kernel has none of these modules, or there is no busybox")
    (port,) = free_ports(1)
    with _backend(tmp_path, port) as server, Traced(tmp_path / "agent", [], ("--port", str(port))) as agent:
        wait_for(lambda: server.pid in agent.watched(), "the server to be watched")
        for name in names:
            drive(port, [f"/before/{name}/{i}" for i in range(10)], 4)
            subprocess.run(["busybox", "rmmod", name], check=True)
            drive(port, [f"/without/{name}/{i}" for i in range(10)], 4)
            subprocess.run(["busybox", "insmod", folder / f"{name}.ko"], check=True)
        result = agent.finish()
    _check(result, tmp_path / "log0")
    assert len(result.spans) == 20 * len(names)


@in_guest
def test_a_fully_preemptible_kernel(tmp_path: Path) -> None:
    """A program of fentry that is preempted keeps others from running it: what is missed then is counted."""
    debug = Path("/sys/kernel/debug")
    if not any(debug.iterdir()):
        subprocess.run(["mount", "-t", "debugfs", "debugfs", debug], check=True)
    preempt = debug / "sched" / "preempt"
    if not preempt.exists():
        pytest.skip("this kernel's way of preemption cannot be changed")
    before = preempt.read_text().partition("(")[2].partition(")")[0]
    (port,) = free_ports(1)
    preempt.write_text("full")
    try:
        with (
            _backend(tmp_path, port) as server,
            Traced(tmp_path / "agent", [], ("--port", str(port))) as agent,
        ):
            wait_for(lambda: server.pid in agent.watched(), "the server to be watched")
            drive(port, [f"/id/{i}" for i in range(1000)], 16)
            result = agent.finish()
    finally:
        preempt.write_text(before)
    result.check_ledger()
    found = re.search(r"missed_runs (\d+)", result.said)
    missed = int(found[1]) if found else 0
    assert len(log_entries(tmp_path / "log0")) == 1000
    assert 1000 - missed <= result.ledger["seen"] <= 1000
