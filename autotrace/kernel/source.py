"""The source of events: the loaded programs, what they watch, and the records they make."""

from __future__ import annotations

import struct
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from autotrace import abi
from autotrace.errors import AutotraceError
from autotrace.kernel.libbpf import give_back_memory
from autotrace.kernel.object import Object, Spec
from autotrace.kernel.send_ends import SendEnds
from autotrace.kernel.uprobes import Uprobes
from autotrace.model import NOT_GO, Connection, Probe, Process

_OBJECTS = Path(__file__).resolve().parent.parent / "bpf"
"""The compiled programs; `make bpf` builds them, a wheel carries them."""

FLAVOURS = ("fentry", "kprobe", "tracepoint")
"""The flavours of the socket hooks, cheapest first. All give the same events, but for io_uring, which tracepoints
do not see."""

WAKEUP_BYTES = 64 << 10
"""Unread bytes in the ring that wake the agent before its time. Fewer: more wake-ups for the same records. More: it
works in longer stretches, which a program that shares its CPU feels."""

Answer = TypeVar("Answer")

_KPROBES = Path("/sys/bus/event_source/devices/kprobe")

_PID = struct.Struct("=I")
_SESSION = struct.Struct("=QII")


def spec(
    flavour: str,
    head_size: int = 4096,
    ring_size: int = 8 << 20,
    max_connections: int = 65536,
    report_execs: bool = False,
) -> Spec:
    """What to load, with sizes in bytes.

    Raises AutotraceError if the programs are not built, or this kernel cannot have the flavour at all.
    """
    if flavour == "kprobe" and not _KPROBES.exists():
        raise AutotraceError("this kernel has no kprobes: it is built without CONFIG_KPROBES")
    return Spec(
        _built(flavour),
        {"head_size": head_size, "wakeup_bytes": WAKEUP_BYTES, "report_execs": int(report_execs)},
        {"events": ring_size, "conns": max_connections},
    )


def library_spec(programs: str, constants: dict[str, int]) -> Spec:
    """What to load for a library: `programs` is the name of the object that has its programs.

    `constants` are those of the socket hooks, whose maps it works on. Raises AutotraceError if it is not built.
    """
    return Spec(_built(programs), constants, {})


def _built(name: str) -> Path:
    path = _OBJECTS / f"{name}.bpf.o"
    if not path.exists():
        raise AutotraceError(f"the BPF programs are not built ({path.name} is missing): run `make bpf`")
    return path


def attach(hooks: str, make_spec: Callable[[str], Spec]) -> Source:
    """The source with the best flavour that really attaches, or with the one that `hooks` names.

    Raises AutotraceError if none does, with each one's reason.
    """
    reasons: list[str] = []
    notes: list[str] = []
    for flavour in FLAVOURS if hooks == "auto" else (hooks,):
        try:
            source = Source(flavour, make_spec(flavour))
        except AutotraceError as error:
            reasons.append(f"{flavour}: {error}")
            notes += getattr(error, "__notes__", ())
            continue
        give_back_memory()
        return source
    which = "no socket hooks work here" if hooks == "auto" else "these socket hooks do not work here"
    failure = AutotraceError(
        f"{which}: {'; '.join(reasons)}; `autotrace doctor` says what this kernel allows"
    )
    for note in notes:
        failure.add_note(note)
    raise failure


class Source:
    """The programs, loaded and attached. Raises AutotraceError if the kernel refuses something;
    nothing is left attached then."""

    def __init__(self, flavour: str, what: Spec) -> None:
        self.flavour = flavour
        self._what = what
        self._libraries: dict[str, Object] = {}
        self._failed_commands = 0
        self._object = Object(what)
        try:
            self._ring = self._object.open_ring()
            self._object.attach()
            self._send_ends = SendEnds(self._object)
            self._in_late_calls = self._object.in_late_calls()
            if self._in_late_calls:
                self._object.attach_late_calls()
        except BaseException:
            self._object.close()
            raise

    def watch(self, pid: int) -> None:
        """Watch a process from now on, and every child it makes."""
        slot = pid % self._object.max_entries("maybe_watched")
        self._object.update("maybe_watched", _PID.pack(slot), b"\1")
        self._object.update("watched", _PID.pack(pid), abi.WATCHED.pack(0, *NOT_GO, 0, 0))

    def unwatch(self, pid: int) -> None:
        """Watch a process no more; it may not be watched at all."""
        self._object.delete("watched", _PID.pack(pid))

    def describe(self, process: Process) -> None:
        """Tell the kernel side how to tell the tasks of a process that it watches; of one that is gone, nothing."""
        if process.go != NOT_GO or process.python_offsets is not None:
            value = abi.WATCHED.pack(0, *process.go, *(process.python_offsets or (0, 0)))
            self._object.replace("watched", _PID.pack(process.pid), value)

    def release_late_calls(self) -> None:
        """Detach what is there for receives that were in progress when the hooks were attached, once no watched
        thread is in one any more. To be called every second or so."""
        if not self._in_late_calls:
            return
        in_late_calls = self._asked(self._object.in_late_calls)
        if in_late_calls is None:
            return
        watched = self.watched()
        still = self._in_late_calls & in_late_calls
        self._in_late_calls = {thread for thread in still if thread[1] in watched}
        if not self._in_late_calls:
            self._object.detach_late_calls()

    def follow_unread_memory(self, counters: dict[str, int]) -> None:
        """Look at the ends of TCP's sends while that is of use (see SendEnds). To be called every second or so,
        with what `counters` gave."""
        self._asked(lambda: self._send_ends.follow(counters))

    def watched(self) -> set[int]:
        """The processes that are watched now."""
        return {_PID.unpack(key)[0] for key in self._object.keys("watched", _PID.size)}

    def probe_library(self, programs: str, path: str, probes: list[Probe]) -> Uprobes:
        """Set probes in a library: `programs` is the name of the object that holds their programs, `path` the
        library's file. Raises AutotraceError; nothing is left set then."""
        loaded = self._libraries.get(programs)
        if loaded is None:
            what = library_spec(programs, self._what.constants)
            loaded = self._libraries[programs] = Object(what, self._object)
            give_back_memory()
        return Uprobes(loaded, path, probes)

    def forget_sessions(self, pids: set[int]) -> None:
        """Free what the kernel side holds for the TLS sessions of processes that are gone."""
        for key in list(self._object.keys("tls_sessions", _SESSION.size)):
            if _SESSION.unpack(key)[1] in pids:
                self._object.delete("tls_sessions", key)

    def stop_capture(self, connection: Connection) -> None:
        """Capture no more bytes of a connection."""
        self._command(abi.Command.STOP, connection)

    def forget(self, connection: Connection) -> None:
        """Free what the kernel side holds for a connection whose process is gone."""
        self._command(abi.Command.FORGET, connection)

    def open_connections(self) -> set[int] | None:
        """The ids of the connections that the kernel side follows; None if it cannot be asked now."""
        return self._asked(self._object.followed)

    def wait(self, seconds: float) -> None:
        """Wait until WAKEUP_BYTES have gathered, or for so long."""
        self._ring.wait(seconds, WAKEUP_BYTES)

    def take(self, most: int | None = None) -> list[bytes]:
        """The records that have gathered; with `most`, those in the next `most` bytes of the ring."""
        return self._ring.take(most)

    def unread(self) -> int:
        """How many bytes wait in the ring."""
        return self._ring.unread()

    def sweep(self) -> None:
        """Make quiet connections report how far they have come, into the ring."""
        self._asked(self._object.sweep)

    def counters(self) -> dict[str, int]:
        """The kernel side's counters (enum at_counter), `missed_runs` (see Object.missed_runs), and
        `failed_commands`: how often the kernel did not do or tell what it was asked for here."""
        return {
            **self._object.counters(),
            "missed_runs": self._object.missed_runs(),
            "failed_commands": self._failed_commands,
        }

    def _command(self, command: abi.Command, connection: Connection) -> None:
        self._asked(lambda: self._object.control(command, connection.socket, connection.id))

    def _asked(self, what: Callable[[], Answer]) -> Answer | None:
        """The kernel's answer, None if it gives none: the agent goes on without."""
        try:
            return what()
        except AutotraceError:
            self._failed_commands += 1
            return None

    def drain(self) -> list[bytes]:
        """Watch nothing any more; what is still in the ring.

        Detaching is left to `close`: it takes a second, in which half of the hooks would still report.
        """
        for pid in self.watched():
            self._object.delete("watched", _PID.pack(pid))
        self.sweep()
        return self.take()

    def close(self) -> None:
        """Detach and free everything."""
        for loaded in self._libraries.values():
            loaded.close()
        self._object.close()
