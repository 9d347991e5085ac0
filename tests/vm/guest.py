"""A virtual machine under QEMU that runs commands on another kernel.

The guest's root is this machine's own root file system, read-only over 9p with a layer in memory on top: every
tool is there at its usual path, nothing the guest writes comes back, and no image is built. Only the share
(`Guest.share`, at SHARE in the guest) is writable on both sides. The guest has a loopback device and no network
card. KVM is not needed: QEMU's own translator runs the guest, 10 to 20 times slower than this machine.
"""

from __future__ import annotations

import os
import select
import shlex
import shutil
import stat
import subprocess
import sys
import sysconfig
import tarfile
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from types import TracebackType
from typing import NamedTuple

from tests.vm.kernels import BUILD, Kernel

QEMU = "qemu-system-x86_64"
BUSYBOX = "busybox"
SHARE = "/run/guest"
"""Where the guest sees the share."""

CHECKOUT = Path(__file__).parents[2]
COPIES = "copies.tar"
COPIED = (".py", ".pyc", ".bpf.o")
NOT_COPIED = (
    "pip",
    "setuptools",
    "mypy",
    "mypyc",
    "grimp",
    "hypothesis",
    "test",
    "idlelib",
    "lib2to3",
    "unit",
    "vm",
)
"""The files that are copied to the guest's memory, and the directories that are not. Over 9p, an agent that starts
asks this machine 1,000 to 3,000 times; that costs more than the rest of its imports."""

BOOT_SECONDS = 180

MEMORY = 3072
"""Of a guest, in MiB. What it does not use, it does not take."""

SYSTEM_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

FIRST_PROGRAM = f"""#!/bin/busybox sh
# Loads what the root file system needs, puts it together, and hands over to it.
export PATH=/bin
/bin/busybox --install -s /bin
fail() {{ echo "guest: $1"; sleep 1; poweroff -f; }}
mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t devtmpfs devtmpfs /dev
for module in $(cat /modules/order); do insmod /modules/$module || fail "$module cannot be loaded"; done
mount -t 9p -o trans=virtio,version=9p2000.L,ro,cache=loose,msize=512000 root /lower || fail "no root"
mount -t 9p -o trans=virtio,version=9p2000.L,cache=none,msize=512000 share /share || fail "no share"
mount -t tmpfs -o size=75% changes /changes && mkdir /changes/upper /changes/work /changes/copies
dd if=/share/{COPIES} bs=512k | tar -x -C /changes/copies || fail "no copies"
layers=lowerdir=/changes/copies:/lower,upperdir=/changes/upper,workdir=/changes/work
mount -t overlay -o $layers overlay /new || fail "no overlay"
mount -t proc proc /new/proc
mount -t sysfs sysfs /new/sys
mount -t devtmpfs devtmpfs /new/dev
mkdir -p /new/dev/pts /new/dev/shm
mount -t devpts devpts /new/dev/pts
mount -t tmpfs tmpfs /new/dev/shm
mount -t tmpfs tmpfs /new/run
mount -t bpf bpf /new/sys/fs/bpf
mount -t tracefs tracefs /new/sys/kernel/tracing
mount -t cgroup2 cgroup2 /new/sys/fs/cgroup
mkdir {"/new" + SHARE}
mount -o move /share {"/new" + SHARE}
ip link set lo up
hostname guest
umount /proc /sys
exec switch_root /new /bin/bash {SHARE}/serve
fail "the root file system has no bash"
"""

SERVE = """# Runs the commands whose numbers come through the port, in turn; the guest ends with the port.
ulimit -n 65536
cd /
for port in /sys/class/virtio-ports/*/; do
	if [ "$(cat "$port/name")" = commands ]; then exec 3<>"/dev/$(basename "$port")"; fi
done
echo ready >&3
while read -r number <&3; do
	bash "$SHARE/$number.sh" >"$SHARE/$number.out" 2>&1 </dev/null 3<&-
	echo "$number $?" >&3
done
busybox poweroff -f
"""


class GuestError(Exception):
    """The guest did not boot, ended by itself, or did not answer in time. The text has the end of its console."""


class Completed(NamedTuple):
    """How a command in a guest ended."""

    code: int
    output: str
    """What it wrote to standard output and standard error."""


class Guest:
    """A running guest, from `with` to the end of its block. Raises GuestError if it does not boot.

    `memory` is in MiB, `name` names the log. With `icount` the guest counts instructions instead of time: one
    virtual CPU, each instruction takes 2 virtual ns, and rates and latencies repeat whatever this machine does
    meanwhile.
    """

    def __init__(
        self, kernel: Kernel, memory: int = MEMORY, cpus: int = 2, icount: bool = False, name: str = ""
    ) -> None:
        self._kernel = kernel
        self._machine = ["-m", f"{memory}M"]
        if icount:
            # Idle, it sleeps: with sleep=off its clock would race while it waits for a file of this machine, and
            # every timeout in the guest would be over at once.
            self._machine += ["-smp", "1", "-accel", "tcg,thread=single", "-icount", "shift=1"]
        else:
            self._machine += ["-smp", str(cpus), "-accel", "tcg,thread=multi"]
        self.share = Path()
        """The directory on this machine that the guest sees as SHARE, while the guest runs."""
        self.log = BUILD / "logs" / f"{name or kernel.version}.log"
        """The guest's console."""
        self._process: subprocess.Popen[bytes] | None = None
        self._commands = 0
        self._boot_log = 0

    def __enter__(self) -> Guest:
        self.log.parent.mkdir(parents=True, exist_ok=True)
        self.log.unlink(missing_ok=True)
        self.share = Path(tempfile.mkdtemp(prefix="share-", dir=BUILD))
        try:
            (self.share / "serve").write_text(f"export PATH={SYSTEM_PATH}\nSHARE={SHARE}\n{SERVE}")
            _pack_copies(self.share / COPIES)
            initramfs = self.share / "initramfs"
            initramfs.write_bytes(_initramfs(self._kernel))
            # The guest must not outlive this process, however that ends.
            command = ["setpriv", "--pdeathsig", "KILL", QEMU, *self._machine, *self._devices(initramfs)]
            self._process = subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
            )
            if self._answer(BOOT_SECONDS, "boot") != "ready":
                raise self._error("said something unexpected while booting")
            initramfs.unlink()
            (self.share / COPIES).unlink()
            self._boot_log = self.log.stat().st_size
        except BaseException:
            self._end()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._end()

    def run(
        self,
        command: str,
        timeout: float = 600,
        env: Mapping[str, str] | None = None,
        follow: Callable[[str], object] | None = None,
    ) -> Completed:
        """Run a bash command in the guest as root, in `/`; `follow` gets each line of its output as it comes.

        Raises GuestError when it takes more than `timeout` seconds of this machine's time; the guest is of no
        more use then.
        """
        self._commands += 1
        number = str(self._commands)
        variables = {"PATH": f"{os.environ.get('PATH', '')}:{SYSTEM_PATH}", "HOME": "/root", **(env or {})}
        exports = "".join(f"export {name}={shlex.quote(value)}\n" for name, value in variables.items())
        (self.share / f"{number}.sh").write_text(f"{exports}{command}\n")
        output = self.share / f"{number}.out"
        process = self._running()
        assert process.stdin is not None
        process.stdin.write(f"{number}\n".encode())
        process.stdin.flush()
        answer = self._answer(timeout, f"answer to {command!r}", _Lines(output, follow) if follow else None)
        answered, _, code = answer.partition(" ")
        if answered != number:
            raise self._error(f"said {answer!r} when it should end {command!r}")
        return Completed(int(code), output.read_text(errors="replace"))

    def console(self) -> str:
        """What the guest's kernel has said since it booted; if it has not, the last lines so far."""
        content = self.log.read_bytes()[self._boot_log :] if self.log.exists() else b""
        lines = content.decode(errors="replace").splitlines()
        return "\n".join(lines[-60:]) or "(nothing)"

    def _devices(self, initramfs: Path) -> list[str]:
        # mitigations=off: they cost much under translation and protect nobody here. no_timer_check: on a busy
        # machine 5.10 panics for want of ticks ("IO-APIC + timer doesn't work").
        arguments = (
            "console=ttyS0 panic=-1 tsc=reliable clocksource=tsc no_timer_check nowatchdog mitigations=off "
            "cgroup_no_v1=all"
        )
        return [
            "-nodefaults", "-no-user-config", "-no-reboot", "-display", "none", "-nic", "none",
            "-cpu", "max,la57=off", "-rtc", "base=utc",
            "-kernel", str(self._kernel.image), "-initrd", str(initramfs), "-append", arguments,
            "-serial", f"file:{self.log}",
            "-virtfs", "local,path=/,mount_tag=root,security_model=passthrough,readonly=on,multidevs=remap",
            "-virtfs", f"local,path={self.share},mount_tag=share,security_model=none,multidevs=remap",
            "-device", "virtio-serial", "-chardev", "stdio,id=commands,signal=off",
            "-device", "virtserialport,chardev=commands,name=commands",
        ]  # fmt: skip

    def _running(self) -> subprocess.Popen[bytes]:
        if self._process is None:
            raise GuestError("the guest is not running; enter it with a `with` statement")
        return self._process

    def _answer(self, seconds: float, what: str, lines: _Lines | None = None) -> str:
        """The guest's next line; meanwhile hand on `lines`, or print that the guest is still booting."""
        process = self._running()
        assert process.stdout is not None
        port = process.stdout.fileno()
        start = time.monotonic()
        line = b""
        reminder = 20.0
        while not line.endswith(b"\n"):
            ready, _, _ = select.select([port], [], [], 0.5)
            if lines:
                lines.hand_on()
            if ready:
                got = os.read(port, 1)
                if not got:
                    raise self._error(f"ended where it should {what}: {line.decode(errors='replace')}")
                line += got
            elif (passed := time.monotonic() - start) > seconds:
                raise self._error(f"did not {what} within {seconds:.0f} s")
            elif what == "boot" and passed > reminder:
                print(
                    f"    the guest with {self._kernel.version} is booting since {passed:.0f} s", flush=True
                )
                reminder += 20
        if lines:
            lines.hand_on()
        return line.decode().strip()

    def _error(self, what: str) -> GuestError:
        return GuestError(
            f"the guest with {self._kernel.version} {what}; its kernel said ({self.log}):\n{self.console()}"
        )

    def _end(self) -> None:
        if process := self._process:
            process.kill()
            process.wait()
            for pipe in (process.stdin, process.stdout):
                assert pipe is not None
                pipe.close()
            self._process = None
        shutil.rmtree(self.share, ignore_errors=True)


class _Lines:
    """Gives each line that comes to a file to `take`, without its end."""

    def __init__(self, file: Path, take: Callable[[str], object]) -> None:
        self._file = file
        self._take = take
        self._start = 0

    def hand_on(self) -> None:
        if not self._file.exists():
            return
        with self._file.open("rb") as opened:
            opened.seek(self._start)
            whole, newline, _ = opened.read().rpartition(b"\n")
        self._start += len(whole) + len(newline)
        for line in whole.splitlines():
            self._take(line.decode(errors="replace"))


# --- what the guest has in its memory -----------------------------------------------------------------------


def _pack_copies(archive: Path) -> None:
    """Pack what an agent and the tests may import into a tar archive."""
    roots = [*(CHECKOUT / name for name in ("autotrace", "symbols", "tests")), Path(sys.prefix, "lib")]
    roots.append(Path(sysconfig.get_path("stdlib")))
    with tarfile.open(archive, "w") as packed:
        for root in roots:
            for directory, below, files in os.walk(root):
                below[:] = [name for name in below if name not in NOT_COPIED]
                for file in files:
                    if file.endswith(COPIED) or (file.endswith(".so") and root == CHECKOUT / "autotrace"):
                        packed.add(Path(directory, file), recursive=False)


# --- the first file system ----------------------------------------------------------------------------------


def _initramfs(kernel: Kernel) -> bytes:
    """busybox, the modules and FIRST_PROGRAM, as the kernel's `newc` archive
    (Documentation/driver-api/early-userspace/buffer-format.rst)."""
    busybox = shutil.which(BUSYBOX)
    if not busybox:
        raise GuestError("busybox is not installed; install the package busybox-static")
    directory, program, data = stat.S_IFDIR | 0o755, stat.S_IFREG | 0o755, stat.S_IFREG | 0o644
    names = ("bin", "proc", "sys", "dev", "modules", "lower", "changes", "share", "new")
    entries = [(name, directory, b"") for name in names]
    entries.append(("init", program, FIRST_PROGRAM.encode()))
    entries.append(("bin/busybox", program, Path(busybox).read_bytes()))
    entries.append(("modules/order", data, " ".join(m.name for m in kernel.modules).encode()))
    entries += [(f"modules/{module.name}", data, module.read_bytes()) for module in kernel.modules]
    return b"".join(_newc(i + 1, *entry) for i, entry in enumerate(entries)) + _newc(0, "TRAILER!!!", 0, b"")


def _newc(inode: int, name: str, mode: int, content: bytes) -> bytes:
    """One member: thirteen fields of 8 hexadecimal digits, the name, the content, both filled up to 4 bytes."""
    encoded = name.encode() + b"\0"
    fields = (inode, mode, 0, 0, 1, 0, len(content), 0, 0, 0, 0, len(encoded), 0)
    head = b"070701" + b"".join(b"%08X" % field for field in fields) + encoded
    return head + b"\0" * (-len(head) % 4) + content + b"\0" * (-len(content) % 4)
