"""Probes in user space programs: set in one file, for every process that maps it."""

from __future__ import annotations

import ctypes
import errno
import fcntl
import os
import platform
import signal
from concurrent.futures import ThreadPoolExecutor

from autotrace.kernel.object import UPROBE_MULTI, Object
from autotrace.model import Probe

_BPF_SYSCALL = {"x86_64": 321, "aarch64": 280}
_BPF_LINK_CREATE = 28
_MULTI_RETURN = 1
_CLOSED_AT_ONCE = 32


class _LinkCreate(ctypes.Structure):
    """The part of union bpf_attr for BPF_LINK_CREATE with `uprobe_multi` (include/uapi/linux/bpf.h)."""

    _fields_ = (
        ("prog_fd", ctypes.c_uint32),
        ("target_fd", ctypes.c_uint32),
        ("attach_type", ctypes.c_uint32),
        ("flags", ctypes.c_uint32),
        ("path", ctypes.c_char_p),
        ("offsets", ctypes.c_void_p),
        ("ref_ctr_offsets", ctypes.c_void_p),
        ("cookies", ctypes.c_void_p),
        ("cnt", ctypes.c_uint32),
        ("multi_flags", ctypes.c_uint32),
        ("pid", ctypes.c_uint32),
        ("pad", ctypes.c_uint32),
    )


class Uprobes:
    """The probes in one file, set. Close it and they are gone.

    They are set in the order given, those of one program together: what stands at the returns of a function comes
    before what stands at its entry, for a call that has begun must not be seen only half. Nothing that is watched
    may still call the functions when they are taken away.

    From Linux 6.6 on a program and all its places are one link; before, each probe is a perf event.

    Whoever opens the file for writing is held back by the kernel until the probes are gone (a lease, fcntl(2)): in
    what is written they would stand anywhere. `is_written` tells of it, and must be asked often. Where there can be
    no lease it tells of it when it has happened.

    Raises AutotraceError if the kernel refuses one; none is left then.
    """

    def __init__(self, programs: Object, path: str, probes: list[Probe]) -> None:
        self._programs = programs
        self._links: list[int] = []
        self._multi_links: list[int] = []
        try:
            self._file = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        except OSError as error:
            raise programs.probe_refused(path, error.errno or 0) from error
        self._leased = _lease(self._file)
        self._written = _written(self._file)
        places: dict[tuple[str, bool], list[int]] = {}
        for probe in probes:
            places.setdefault((probe.program, probe.at_return), []).append(probe.offset)
        try:
            for (program, at_return), offsets in places.items():
                self._set(program, path, offsets, at_return)
        except BaseException:
            self.close()
            raise

    def _set(self, program: str, path: str, offsets: list[int], at_return: bool) -> None:
        try:
            self._multi_links.append(_link(self._programs.program_fd(program), path, offsets, at_return))
        except OSError as error:
            if error.errno != errno.EINVAL:  # what an older kernel says
                raise self._programs.probe_refused(path, error.errno or 0) from error
            for offset in offsets:
                link = self._programs.attach_uprobe(program, path, offset, at_return=at_return)
                self._links.append(link)

    def status(self) -> os.stat_result:
        """The file as it is now, wherever it stands."""
        return os.fstat(self._file)

    def is_written(self) -> bool:
        """Tell if someone writes to the file, has done so, or waits to do so until the probes are gone."""
        if self._leased and fcntl.fcntl(self._file, fcntl.F_GETLEASE) != fcntl.F_RDLCK:
            return True
        return _written(self._file) != self._written

    def close(self) -> None:
        """Take the probes away. May be called again.

        The kernel waits for a grace period, some 0.1 s, at each link. It can do that for many at a time, but not
        for perf events.
        """
        if self._multi_links:
            with ThreadPoolExecutor(_CLOSED_AT_ONCE) as pool:
                list(pool.map(os.close, self._multi_links))
            self._multi_links.clear()
        while self._links:
            self._programs.destroy(self._links.pop())
        if self._file >= 0:
            os.close(self._file)
            self._file = -1


def _lease(file: int) -> bool:
    """Make whoever opens a file for writing wait for us; False if that cannot be had."""
    try:
        fcntl.fcntl(file, fcntl.F_SETSIG, signal.SIGCHLD)  # nobody heeds it; the usual one would end us
        fcntl.fcntl(file, fcntl.F_SETLEASE, fcntl.F_RDLCK)
    except OSError:
        return False
    return True


def _written(file: int) -> tuple[int, int]:
    """What changes when a file is written to."""
    status = os.fstat(file)
    return status.st_size, status.st_mtime_ns


def _link(program: int, path: str, offsets: list[int], at_return: bool) -> int:
    """Run a program at all these places of a file; the descriptor of what makes it so. Raises OSError.

    It came with Linux 6.6 (89ae89f53d20, "bpf: Add multi uprobe link"), and with a later libbpf than Debian 12 has.
    """
    places = (ctypes.c_uint64 * len(offsets))(*offsets)
    attributes = _LinkCreate(
        prog_fd=program,
        attach_type=UPROBE_MULTI,
        path=os.fsencode(path),
        offsets=ctypes.addressof(places),
        cnt=len(offsets),
        multi_flags=_MULTI_RETURN if at_return else 0,
    )
    system_call = ctypes.CDLL(None, use_errno=True).syscall
    number = _BPF_SYSCALL[platform.machine()]
    link: int = system_call(number, _BPF_LINK_CREATE, ctypes.byref(attributes), ctypes.sizeof(attributes))
    if link < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()), path)
    return link
