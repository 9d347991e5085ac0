"""What this machine's kernel allows, found by doing it: never deduced from a version number."""

from __future__ import annotations

import platform
import resource
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

from autotrace import abi
from autotrace.errors import AutotraceError
from autotrace.kernel.libbpf import Libbpf
from autotrace.kernel.object import Object
from autotrace.kernel.source import FLAVOURS, library_spec, spec

_UPROBES = Path("/sys/bus/event_source/devices/uprobe")
_VMLINUX_BTF = Path("/sys/kernel/btf/vmlinux")
_CAP_SYS_PTRACE, _CAP_DAC_READ_SEARCH, _CAP_PERFMON, _CAP_BPF, _CAP_SYS_ADMIN = 19, 2, 38, 39, 21
_CAP_CHECKPOINT_RESTORE = 40


class Feature(NamedTuple):
    """One thing that autotrace uses. `needed`: it cannot run without. `advice` says what to do if not `ok`."""

    name: str
    ok: bool
    detail: str
    needed: bool
    advice: str


def probe() -> list[Feature]:
    """Try everything that a run does, with no process watched, and undo it."""
    found = [_machine(), _privileges(), _libbpf(), _btf()]
    if all(feature.ok for feature in found if feature.needed):
        found += _programs()
    return found


def _machine() -> Feature:
    machine = platform.machine()
    return Feature(
        "machine",
        machine == "x86_64",
        f"Linux {platform.release()} on {machine}",
        True,
        "autotrace runs on x86_64 for now",
    )


def _privileges() -> Feature:
    have = _effective_capabilities()
    if have & (1 << _CAP_SYS_ADMIN):
        return Feature("privileges", True, "CAP_SYS_ADMIN", True, "")
    missing = [
        name
        for name, number in (
            ("CAP_BPF", _CAP_BPF),
            ("CAP_PERFMON", _CAP_PERFMON),
            ("CAP_SYS_PTRACE", _CAP_SYS_PTRACE),
            ("CAP_DAC_READ_SEARCH", _CAP_DAC_READ_SEARCH),
            ("CAP_CHECKPOINT_RESTORE", _CAP_CHECKPOINT_RESTORE),
        )
        if not have & (1 << number)
    ]
    fatal = {"CAP_BPF", "CAP_PERFMON"} & set(missing)
    detail = "missing " + ", ".join(missing) if missing else "CAP_BPF, CAP_PERFMON and what /proc needs"
    return Feature("privileges", not fatal, detail, True, "run as root, or grant the missing capabilities")


def _effective_capabilities() -> int:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("CapEff:"):
            return int(line.split()[1], 16)
    return 0


def _libbpf() -> Feature:
    advice = "install libbpf 1.0 or newer (package libbpf1 on Debian and Ubuntu)"
    try:
        Libbpf()
    except (AutotraceError, AttributeError) as error:
        return Feature("libbpf", False, str(error), True, advice)
    return Feature("libbpf", True, "libbpf.so.1", True, advice)


def _btf() -> Feature:
    there = _VMLINUX_BTF.exists()
    return Feature(
        "kernel type information (BTF)",
        there,
        f"{_VMLINUX_BTF} is {'there' if there else 'missing'}",
        True,
        "use a kernel built with CONFIG_DEBUG_INFO_BTF: every current distribution's is",
    )


_KERNEL_ADVICE = "the kernel is older than 5.10, or locked down: see the message"


def _programs() -> Iterator[Feature]:
    working = ""
    for flavour in FLAVOURS:
        reason = _why_not(flavour)
        working = working or ("" if reason else flavour)
        used = ": used unless --hooks names another" if working == flavour else ""
        detail = reason or f"loads and attaches{used}"
        yield Feature(f"socket hooks: {flavour}", not reason, detail, False, _FLAVOUR_ADVICE[flavour])
    if not working:
        yield Feature("socket hooks", False, "no flavour works", True, _KERNEL_ADVICE)
        return
    with Object(spec(working)) as loaded:
        yield _tried("ring buffer", "mapped", loaded.open_ring)
        yield _tried("sweep (BPF iterator)", "works", loaded.sweep)
        yield _tried("commands (test run)", "work", lambda: loaded.control(abi.Command.STOP, 0, 0))
        for name, (programs, advice) in _PROBED.items():
            yield _probed(name, programs, advice, loaded)
    yield _memory_lock()
    seen = working != "tracepoint"
    detail = f"is {'seen' if seen else 'not seen'} by {working} hooks"
    yield Feature("io_uring", seen, detail, False, "programs that use it for sockets are traced incompletely")


_FLAVOUR_ADVICE = {
    "fentry": "needs BPF trampolines (Linux 5.5) and no lockdown of them; kprobe does the same for more",
    "kprobe": "needs CONFIG_KPROBES; tracepoint does the same but for io_uring",
    "tracepoint": _KERNEL_ADVICE,
}


def _why_not(flavour: str) -> str:
    try:
        with Object(spec(flavour)) as loaded:
            loaded.attach()
    except (AutotraceError, OSError) as error:
        return str(error)
    return ""


def _tried(name: str, good: str, action: Callable[[], object]) -> Feature:
    try:
        action()
    except (AutotraceError, OSError) as error:
        return Feature(name, False, str(error), True, _KERNEL_ADVICE)
    return Feature(name, True, good, True, _KERNEL_ADVICE)


_PROBED = {
    "TLS libraries": (
        ("openssl", "gnutls", "go_tls"),
        "what TLS libraries encrypt is only counted; everything else works",
    ),
    "Go services": (
        ("go_grpc", "go_http"),
        "requests of Go services and the calls they cause are in different traces; everything else works",
    ),
}


def _probed(name: str, programs: tuple[str, ...], advice: str, hooks: Object) -> Feature:
    """Load the programs of probes, without setting one: that would touch other processes."""
    if not _UPROBES.exists():
        return Feature(name, False, "this kernel has no uprobes (CONFIG_UPROBES)", False, advice)
    for each in programs:
        try:
            Object(library_spec(each, {}), hooks).close()
        except (AutotraceError, OSError) as error:
            return Feature(name, False, f"{each}: {str(error).splitlines()[0]}", False, advice)
    return Feature(name, True, "the programs of their probes load", False, advice)


def _memory_lock() -> Feature:
    soft, _hard = resource.getrlimit(resource.RLIMIT_MEMLOCK)
    unlimited = soft == resource.RLIM_INFINITY
    detail = "unlimited" if unlimited else f"{soft // 1024} KiB, which only kernels before 5.11 mind"
    return Feature("locked memory", True, detail, False, "raise the limit with `ulimit -l unlimited`")
