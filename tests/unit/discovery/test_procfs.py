"""What is read from /proc is what the process is."""

import os
import socket
import sys
from pathlib import Path
from typing import Any

import pytest

from autotrace.discovery.procfs import Procfs


def test_this_process() -> None:
    procfs, pid = Procfs(), os.getpid()
    assert pid in procfs.pids()
    assert procfs.stat(pid).parent == os.getppid()
    assert procfs.executable(pid) == os.path.realpath(sys.executable)
    assert procfs.cmdline(pid)[0].endswith(Path(sys.executable).name)
    assert procfs.environ(pid)["PATH"]
    assert procfs.directory(pid) == str(Path.cwd())
    assert any("libc.so" in path for path in procfs.mapped_files(pid))
    assert (procfs.boot_time() or 0) > 0


def test_listening_sockets(tmp_path: Path) -> None:
    procfs, pid = Procfs(), os.getpid()
    families = ((socket.AF_INET, "127.0.0.1"), (socket.AF_INET6, "::1"))
    for family, address in families:
        with socket.socket(family) as server:
            server.bind((address, 0))
            assert server.getsockname()[1] not in procfs.tcp_listeners(pid).values()
            server.listen()
            ports = {procfs.tcp_listeners(pid).get(inode) for inode in procfs.sockets(pid)}
            assert server.getsockname()[1] in ports
    path = str(tmp_path / "s")
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(path)
        server.listen()
        assert path in {procfs.unix_listeners(pid).get(inode) for inode in procfs.sockets(pid)}


def test_names_with_parentheses_and_spaces(proc: Any) -> None:
    proc.add(7, comm="a) S 99 (b")
    stat = proc.procfs.stat(7)
    assert (stat.comm, stat.state, stat.parent, stat.start_ticks) == ("a) S 99 (b", "S", 1, 500)


def test_gone_and_kernel_threads(proc: Any) -> None:
    proc.add(8, executable="")
    proc.add(9, executable="/usr/bin/old (deleted)")
    assert proc.procfs.executable(8) == ""
    assert proc.procfs.executable(9) == "/usr/bin/old"
    with pytest.raises(FileNotFoundError):
        proc.procfs.executable(10)
    (proc.root / "8" / "stat").write_text("8 (cut")
    with pytest.raises(ProcessLookupError):
        proc.procfs.stat(8)
