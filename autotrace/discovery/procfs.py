"""Reading /proc: metadata of processes, never their memory."""

# These run for every process of a host, and os is several times faster than pathlib.
# ruff: noqa: PTH110, PTH115, PTH116, PTH123, PTH208

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from typing import NamedTuple

_TCP_LISTEN = "0A"
_UNIX_ACCEPTING = 0x10000


class Stat(NamedTuple):
    """From /proc/PID/stat: `start_ticks` are clock ticks since boot."""

    comm: str
    state: str
    parent: int
    start_ticks: int


class Procfs:
    """A mounted procfs. Every method raises OSError: FileNotFoundError or ProcessLookupError if the process
    is gone, PermissionError if it may not be read."""

    def __init__(self, root: str | os.PathLike[str] = "/proc") -> None:
        self.root = os.fspath(root)

    def pids(self) -> list[int]:
        """Ids of all processes (thread groups)."""
        return [int(name) for name in os.listdir(self.root) if name.isdigit()]

    def path(self, pid: int, name: str) -> str:
        """Path of a file of a process."""
        return f"{self.root}/{pid}/{name}"

    def read(self, pid: int, name: str) -> bytes:
        """Content of a file of a process."""
        try:
            with open(self.path(pid, name), "rb", buffering=0) as file:
                return file.readall()
        except OSError as error:
            # What hangs on resources that an exiting process has given up already, its mounts for one.
            if error.errno == errno.EINVAL:
                raise ProcessLookupError(f"{self.path(pid, name)}: the process is exiting") from error
            raise

    def text(self, pid: int, name: str) -> str:
        """Content of a file of a process, as text."""
        return self.read(pid, name).decode("utf-8", "replace")

    def stat(self, pid: int) -> Stat:
        """Parent, name and start of a process."""
        data = self.text(pid, "stat")
        # The name stands in parentheses and can hold any character, parentheses and spaces included.
        opening, closing = data.find("("), data.rfind(")")
        fields = data[closing + 2 :].split()
        if opening < 0 or len(fields) < 20:
            raise ProcessLookupError(f"{self.path(pid, 'stat')} is cut short")
        return Stat(data[opening + 1 : closing], fields[0], int(fields[1]), int(fields[19]))

    def executable(self, pid: int) -> str:
        """Path of the program, as the process sees it; "" for a kernel thread."""
        try:
            path = os.readlink(self.path(pid, "exe"))
        except FileNotFoundError:
            if os.path.exists(self.path(pid, "stat")):
                return ""
            raise
        return path.removesuffix(" (deleted)")

    def program_id(self, pid: int) -> tuple[int, int, int]:
        """Device, inode and time of change of the program's file."""
        status = os.stat(self.path(pid, "exe"))
        return status.st_dev, status.st_ino, status.st_mtime_ns

    def directory(self, pid: int) -> str:
        """Working directory of a process."""
        return os.readlink(self.path(pid, "cwd"))

    def cmdline(self, pid: int) -> list[str]:
        """Arguments; a process that wrote a title over them gives the title as the only one."""
        text = self.text(pid, "cmdline").rstrip("\0")
        return text.split("\0") if text else []

    def environ(self, pid: int) -> dict[str, str]:
        """Environment at the start of the program."""
        pairs = (item.partition("=") for item in self.text(pid, "environ").split("\0"))
        return {name: value for name, equals, value in pairs if equals}

    def mapped_files(self, pid: int) -> set[str]:
        """Paths of the files mapped into the process."""
        paths = set()
        for line in self.text(pid, "maps").splitlines():
            slash = line.find("/")
            if slash >= 0:
                paths.add(line[slash:].removesuffix(" (deleted)"))
        return paths

    def descriptors(self, pid: int) -> list[str]:
        """What the open file descriptors of a process refer to: `socket:[1234]`, a path and so on."""
        folder = self.path(pid, "fd")
        links = []
        for name in os.listdir(folder):
            try:
                links.append(os.readlink(f"{folder}/{name}"))
            except FileNotFoundError:
                continue  # closed meanwhile
        return links

    def sockets(self, pid: int) -> set[int]:
        """Inodes of the sockets that a process holds."""
        return {
            int(link[8:-1])
            for link in self.descriptors(pid)
            if link.startswith("socket:[") and link[8:-1].isdigit()
        }

    def network_namespace(self, pid: int) -> str:
        """Name of the network namespace a process is in."""
        return os.readlink(self.path(pid, "ns/net"))

    def tcp_listeners(self, pid: int) -> dict[int, int]:
        """Socket inode -> port, of everything that listens in the network namespace of a process."""
        found = {}
        for name in ("net/tcp", "net/tcp6"):
            for fields in self._socket_rows(pid, name):
                if len(fields) > 9 and fields[3] == _TCP_LISTEN:
                    found[int(fields[9])] = int(fields[1].rpartition(":")[2], 16)
        return found

    def unix_listeners(self, pid: int) -> dict[int, str]:
        """Socket inode -> path, of the Unix sockets that listen in the network namespace of a process."""
        found = {}
        for fields in self._socket_rows(pid, "net/unix"):
            if len(fields) > 7 and int(fields[3], 16) & _UNIX_ACCEPTING:
                found[int(fields[6])] = fields[7]
        return found

    def _socket_rows(self, pid: int, name: str) -> Iterator[list[str]]:
        try:
            lines = self.text(pid, name).splitlines()
        except FileNotFoundError:
            return  # a kernel without IPv6
        for line in lines[1:]:
            yield line.split()

    def boot_time(self) -> int | None:
        """Seconds since the Unix epoch at which the system started; None if /proc/stat does not say."""
        try:
            with open(f"{self.root}/stat", encoding="ascii") as file:
                for line in file:
                    if line.startswith("btime "):
                        return int(line.split()[1])
        except OSError:
            return None
        return None
