"""Processes that the tests start, and a /proc made of files."""

import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from autotrace.discovery.procfs import Procfs

Start = Callable[..., subprocess.Popen[bytes]]


@pytest.fixture
def start() -> Iterator[Start]:
    """Start a program with its output in a pipe; it is ended with the test."""
    started = []

    def run(*command: str, **options: object) -> subprocess.Popen[bytes]:
        process = subprocess.Popen(command, stdout=subprocess.PIPE, **options)  # type: ignore[call-overload]
        started.append(process)
        return process

    yield run
    for process in started:
        process.kill()
        process.wait()
        process.stdout.close()


class FakeProc:
    """Builds a procfs tree in a directory."""

    def __init__(self, root: Path) -> None:
        self.root = root
        (root / "stat").write_text("cpu 1 2\nbtime 1700000000\n")
        self.procfs = Procfs(root)

    def add(
        self,
        pid: int,
        executable: str = "/usr/bin/program",
        *,
        parent: int = 1,
        comm: str = "program",
        arguments: tuple[str, ...] = ("program",),
        environment: dict[str, str] | None = None,
        cgroup: str = "0::/\n",
        state: str = "S",
        maps: str = "",
    ) -> Path:
        folder = self.root / str(pid)
        (folder / "fd").mkdir(parents=True)
        (folder / "ns").mkdir()
        (folder / "net").mkdir()
        rest = " ".join(["0"] * 17)
        (folder / "stat").write_text(f"{pid} ({comm}) {state} {parent} {rest} 500 0 0\n")
        (folder / "cmdline").write_text("".join(f"{argument}\0" for argument in arguments))
        (folder / "environ").write_text("".join(f"{k}={v}\0" for k, v in (environment or {}).items()))
        (folder / "cgroup").write_text(cgroup)
        (folder / "maps").write_text(maps)
        (folder / "mountinfo").write_text("")
        (folder / "cwd").symlink_to("/srv/shop")
        (folder / "ns/net").symlink_to("net:[1]")
        if executable:
            (folder / "exe").symlink_to(executable)
        return folder


@pytest.fixture
def proc(tmp_path: Path) -> FakeProc:
    """An empty procfs."""
    root = tmp_path / "proc"
    root.mkdir()
    return FakeProc(root)
