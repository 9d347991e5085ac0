"""The rules select the right processes, on real ones and on a /proc made of files."""

import os
import shutil
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from autotrace.discovery.selection import Selection

LISTEN = (
    "import socket, sys\n"
    "s = socket.socket(socket.AF_INET6 if ':' in sys.argv[1] else socket.AF_INET)\n"
    "s.bind((sys.argv[1], 0)); s.listen()\n"
    "print(s.getsockname()[1], flush=True); sys.stdin.read()\n"
)


def test_no_rule_selects_nothing() -> None:
    assert Selection().initial() == []
    assert not Selection().wants(os.getppid())


def test_a_pid_and_its_descendants(start: Any) -> None:
    running = start("sh", "-c", "sleep 60 & echo $!; wait")
    child = int(running.stdout.readline())
    assert Selection(pids=frozenset({running.pid})).initial() == sorted([running.pid, child])
    assert Selection(pids=frozenset({running.pid}), children=False).initial() == [running.pid]
    os.kill(child, 9)


def test_a_pid_that_does_not_exist(start: Any) -> None:
    running = start("true")
    running.wait()
    assert Selection(pids=frozenset({running.pid})).initial() == []


def test_the_agent_is_never_selected() -> None:
    for selection in (
        Selection(pids=frozenset({os.getpid()}), children=False),
        Selection(everything=True),
        Selection(exe_globs=("*",)),
        Selection(pids=frozenset({os.getppid()})),  # whose child we are
    ):
        assert os.getpid() not in selection.initial()
        assert not selection.wants(os.getpid())


def test_executables(start: Any, tmp_path: Path) -> None:
    program = tmp_path / "my-service"
    shutil.copy(shutil.which("cat") or "/bin/cat", program)
    running = start(str(program), stdin=subprocess.PIPE)
    other = start("cat", stdin=subprocess.PIPE)
    for process in (running, other):  # an answer proves that the program is executed
        process.stdin.write(b"\n")
        process.stdin.flush()
        process.stdout.readline()
    for glob in ("my-service", "my-*", f"{tmp_path}/*"):
        selection = Selection(exe_globs=("nothing", glob))
        assert selection.initial() == [running.pid]
        assert selection.wants(running.pid)
        assert not selection.wants(other.pid)
    both = Selection(exe_globs=("my-*",), pids=frozenset({other.pid}))
    assert both.initial() == sorted([running.pid, other.pid])
    assert both.wants(other.pid)
    everything = Selection(everything=True)
    assert {running.pid, other.pid} <= set(everything.initial())
    assert everything.wants(other.pid)
    for process in (running, other):
        process.stdin.close()


@pytest.mark.parametrize("address", ["127.0.0.1", "::1"])
def test_ports(start: Any, address: str) -> None:
    running = start(sys.executable, "-c", LISTEN, address, stdin=subprocess.PIPE)
    port = int(running.stdout.readline())
    assert Selection(ports=frozenset({port})).initial() == [running.pid]
    with socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET) as client:
        client.connect((address, port))  # the one who connects does not listen
        assert Selection(ports=frozenset({client.getsockname()[1]})).initial() == []
    running.stdin.close()


def test_all_workers_that_share_a_socket_are_selected(start: Any) -> None:
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen()
        worker = start("sleep", "60", pass_fds=[server.fileno()])
        selection = Selection(ports=frozenset({server.getsockname()[1]}), children=False)
        assert selection.initial() == [worker.pid]  # and not this process, which holds it too


def test_a_port_in_another_network_namespace(start: Any) -> None:
    unshare = shutil.which("unshare")
    if (
        unshare is None
        or subprocess.run([unshare, "-n", "true"], capture_output=True, check=False).returncode
    ):
        pytest.skip("network namespaces cannot be made here")
    running = start(unshare, "-n", sys.executable, "-c", LISTEN, "0.0.0.0", stdin=subprocess.PIPE)
    port = int(running.stdout.readline())
    assert running.pid in Selection(ports=frozenset({port})).initial()
    running.stdin.close()


def test_a_tree_several_levels_deep_and_kernel_threads(proc: Any) -> None:
    proc.add(2, "", parent=0, comm="kthreadd")
    proc.add(3, "", parent=2, comm="kworker")
    for pid, parent in ((10, 1), (11, 10), (12, 11), (20, 1)):
        proc.add(pid, "/opt/app" if pid == 10 else "/usr/bin/other", parent=parent)
    assert Selection(exe_globs=("app",), procfs=proc.procfs).initial() == [10, 11, 12]
    assert Selection(exe_globs=("app",), procfs=proc.procfs, own_pid=11).initial() == [10, 12]
    assert Selection(everything=True, procfs=proc.procfs).initial() == [10, 11, 12, 20]
    assert not Selection(everything=True, procfs=proc.procfs).wants(3)
    assert not Selection(everything=True, procfs=proc.procfs).wants(99)
