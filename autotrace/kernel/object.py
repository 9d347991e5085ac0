"""A BPF object: an inert Spec, and the loaded Object that owns every file descriptor made from it."""

from __future__ import annotations

import ctypes
import errno
import os
import resource
import struct
import sys
from collections.abc import Iterator
from ctypes import c_size_t, c_uint32, c_void_p
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

from elftools.elf.elffile import ELFFile
from elftools.elf.sections import SymbolTableSection

from autotrace import abi
from autotrace.errors import AutotraceError
from autotrace.kernel.abigen import digest
from autotrace.kernel.functions import KernelFunctions
from autotrace.kernel.hooks import TRACEPOINTS, existing, open_event, stop_counting
from autotrace.kernel.libbpf import (
    IterAttachOpts,
    IterLinkInfo,
    Libbpf,
    TestRunOpts,
    errno_name,
)
from autotrace.kernel.ring import Ring
from symbols.btf import Btf
from symbols.errors import SymbolsError

_BPF_EXIST = 2  # linux/bpf.h
_SWEEP = "sweep"
_FOLLOWED = "followed"
_CONTROL = "control"
_LATE_CALLS = "late_call_exits"
_IN_LATE_CALL = "in_late_call"
_UPROBE = "uprobe"
_SEND_ENDS = "tcp_send_ends"
_SEND_ENDS_AGAIN = "tcp_send_ends_again"
_NOT_FROM_START = frozenset({_CONTROL, _FOLLOWED, _IN_LATE_CALL, _LATE_CALLS, _SEND_ENDS_AGAIN, _SWEEP})
SHARED_MAPS = (
    "conns",
    "counters",
    "events",
    "go_tls_calls",
    "http2_conns",
    "maybe_watched",
    "next_id",
    "python_contexts",
    "scratches",
    "threads",
    "tls_callers",
    "tls_sessions",
    "walks",
    "watched",
)
"""The maps of bpf/include/maps.h: programs of several objects work on them."""

_REQUIRED_FUNCTIONS = frozenset({"tcp_sendmsg", "tcp_recvmsg"})
_HAS_NONBLOCK = "recvmsg_has_nonblock"
_PARAMETERS_WITH_NONBLOCK = 6

UPROBE_MULTI = 48
"""BPF_TRACE_UPROBE_MULTI of enum bpf_attach_type."""

PARANOID = Path("/proc/sys/kernel/perf_event_paranoid")
"""How far perf events are restricted."""

_PARANOID_MOST = 2

_PID_TGID = struct.Struct("=II")
_CONNECTION_ID = struct.Struct("=Q")
_COUNTERS = tuple(
    (counter.name.lower(), struct.pack("=I", counter.value))
    for counter in abi.Counter
    if counter is not abi.Counter.COUNTERS
)
"""The name and the key of each."""

PROG_INFO_SIZE = 216
RECURSION_MISSES = 208
"""struct bpf_prog_info (linux/bpf.h) up to its member recursion_misses, and where that is."""


@dataclass(frozen=True, slots=True)
class Spec:
    """What to load. Nothing happens until `Object(spec)`.

    `constants` are the `const volatile` globals of 32 bits by name; `map_sizes` is the number of entries of a
    map (bytes for a ring buffer) by name.
    """

    path: Path
    constants: dict[str, int]
    map_sizes: dict[str, int]


class Object:
    """The loaded programs and maps of a Spec. Close it (or leave its `with`) and nothing of it is left.

    Everything it owns is a file descriptor of this process, so a killed agent leaves nothing behind either.
    With `maps_of` it works on the maps of another Object, by name, and outlives it if need be.
    Raises AutotraceError if the object is not from this version of autotrace, or the kernel refuses it.
    """

    def __init__(self, spec: Spec, maps_of: Object | None = None) -> None:
        self._bpf = Libbpf()
        self._links: list[int] = []
        self._late_links: list[int] = []
        self._ring: Ring | None = None
        self._sweep_link: int | None = None
        self._left_out: set[str] = set()
        self._send_ends_link = 0
        self._program_fds: list[int] = []
        offsets = _checked_constants(spec)
        self._object = self._bpf.bpf_object__open_file(os.fsencode(spec.path), None)
        if not self._object:
            raise AutotraceError(
                f"{spec.path.name} could not be opened as a BPF object: {self._bpf.last_words()}"
            )
        try:
            self._configure(spec, offsets)
            if maps_of is not None:
                self._share_maps(maps_of)
            result = self._bpf.bpf_object__load(self._object)
            if result:
                reason = self._too_little_memory(result) or _load_failure(spec.path, result)
                raise _failure(reason, self._bpf.last_words())
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Object:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _configure(self, spec: Spec, offsets: dict[str, int]) -> None:
        size = c_size_t()
        rodata = self._bpf.bpf_map__initial_value(self._map(".rodata"), ctypes.byref(size))
        for name, value in spec.constants.items():
            c_uint32.from_address(rodata + offsets[name]).value = value
        for name in self.programs():
            # Kernels that do not know it pass over it.
            if self._section(name) == _UPROBE:
                self._bpf.bpf_program__set_expected_attach_type(self._program(name), UPROBE_MULTI)
        self._fit_to_kernel(rodata + offsets[_HAS_NONBLOCK] if _HAS_NONBLOCK in offsets else 0)
        for name, entries in spec.map_sizes.items():
            result = self._bpf.bpf_map__set_max_entries(self._map(name), entries)
            if result:
                raise AutotraceError(f"map {name} cannot have {entries} entries: {errno_name(result)}")

    def _share_maps(self, other: Object) -> None:
        """Use the other's maps of the same name instead of making new ones."""
        for name in SHARED_MAPS:
            result = self._bpf.bpf_map__reuse_fd(self._map(name), other.map_fd(name))
            if result:
                raise AutotraceError(f"map {name} could not be shared: {errno_name(result)}")

    def _fit_to_kernel(self, has_nonblock: int) -> None:
        """Leave out the programs whose kernel function does not exist here, and tell the others about theirs.

        `has_nonblock` is the address of the constant of that name, 0 if the object has none.
        """
        hooked = {name: target for name in self.programs() if (target := self._hooked_function(name))}
        if not hooked:
            return
        functions = KernelFunctions(self._bpf)
        try:
            for name, function in hooked.items():
                if functions.parameters(function) is not None:
                    continue
                if function in _REQUIRED_FUNCTIONS:
                    raise AutotraceError(
                        f"this kernel has no function {function} to hook: use --hooks tracepoint"
                    )
                self._left_out.add(name)
                self._bpf.bpf_program__set_autoload(self._program(name), False)
            if has_nonblock:
                parameters = functions.parameters("tcp_recvmsg")
                c_uint32.from_address(has_nonblock).value = parameters == _PARAMETERS_WITH_NONBLOCK
        finally:
            functions.close()

    def _too_little_memory(self, result: int) -> str:
        """Why the programs were not loaded, if the limit of locked memory is the reason; else ""."""
        limit, _ = resource.getrlimit(resource.RLIMIT_MEMLOCK)
        if abs(result) != errno.EPERM or limit == resource.RLIM_INFINITY:
            return ""
        functions = KernelFunctions(self._bpf)
        try:
            # Linux 5.11 charges the cgroup instead (97306be45fbe, "switch to memcg-based memory accounting"); this
            # helper came with it, and libbpf goes by it too.
            if functions.has_helper("ktime_get_coarse_ns"):
                return ""
        finally:
            functions.close()
        return (
            f"the kernel counts BPF maps as locked memory, of which {limit // 1024} KiB are allowed: run "
            "`ulimit -l unlimited` first, or set LimitMEMLOCK=infinity in the systemd unit"
        )

    def _hooked_function(self, program: str) -> str:
        kind, _, function = self._section(program).partition("/")
        return function if kind in ("fentry", "fexit", "kprobe", "kretprobe") else ""

    def _section(self, program: str) -> str:
        section: bytes = self._bpf.bpf_program__section_name(self._program(program))  # type: ignore[assignment]
        return section.decode()

    def _map(self, name: str) -> int:
        found = self._bpf.bpf_object__find_map_by_name(self._object, name.encode())
        if not found:
            raise AutotraceError(
                f"the BPF object has no map {name}: it is not from this version, run `make bpf`"
            )
        return found

    def map_fd(self, name: str) -> int:
        """The file descriptor of a map; it stays the Object's."""
        return self._bpf.bpf_map__fd(self._map(name))

    def programs(self) -> dict[str, int]:
        """Program name to file descriptor (the Object's)."""
        found: dict[str, int] = {}
        program = self._bpf.bpf_object__next_program(self._object, None)
        while program:
            name: bytes = self._bpf.bpf_program__name(program)  # type: ignore[assignment]
            found[name.decode()] = self._bpf.bpf_program__fd(program)
            program = self._bpf.bpf_object__next_program(self._object, program)
        return found

    def program_fd(self, name: str) -> int:
        """The file descriptor of a program; it stays the Object's."""
        return self._bpf.bpf_program__fd(self._program(name))

    def attach(self) -> None:
        """Attach every program but those that user space runs itself, and that for late calls. On a failure all are
        detached again."""
        try:
            for name in self.programs():
                if name in _NOT_FROM_START or name in self._left_out:
                    continue
                if name in TRACEPOINTS:
                    for tracepoint in existing(TRACEPOINTS[name]):
                        self._links.append(self._attach_to_call(name, tracepoint))
                elif name == _SEND_ENDS and self._program(_SEND_ENDS_AGAIN):
                    self._send_ends_link = self._attach(name)
                else:
                    self._links.append(self._attach(name))
        except BaseException:
            self.detach()
            raise

    def _attach(self, name: str) -> int:
        return self._checked_link(name, self._bpf.bpf_program__attach(self._program(name)))

    @property
    def sees_send_ends(self) -> bool:
        """Whether a program that can be done without runs at the end of each of TCP's sends."""
        return bool(self._send_ends_link)

    def attach_send_ends(self) -> None:
        """Attach a program that is like it, once it was detached. Raises AutotraceError."""
        self._send_ends_link = self._attach(_SEND_ENDS_AGAIN)

    def detach_send_ends(self) -> None:
        """Detach it."""
        if self._send_ends_link:
            self._bpf.bpf_link__destroy(self._send_ends_link)
            self._send_ends_link = 0

    def attach_late_calls(self) -> None:
        """Attach the program for the calls of `in_late_calls`."""
        for tracepoint in existing(TRACEPOINTS[_LATE_CALLS]):
            self._late_links.append(self._attach_to_call(_LATE_CALLS, tracepoint))

    def detach_late_calls(self) -> None:
        """Detach it again; the kernel waits for five grace periods."""
        while self._late_links:
            self._bpf.bpf_link__destroy(self._late_links.pop())

    def attach_uprobe(self, name: str, path: str, offset: int, *, at_return: bool) -> int:
        """Run a program when any process executes the function at `offset` (of the file, not of memory) of the
        file that `path` names now, or when it returns. Returns a handle for `destroy`.

        Raises AutotraceError if the kernel refuses.
        """
        link = self._bpf.bpf_program__attach_uprobe(
            self._program(name), at_return, -1, os.fsencode(path), offset
        )
        if not link:
            raise self.probe_refused(path, ctypes.get_errno())
        return link

    def probe_refused(self, path: str, code: int) -> AutotraceError:
        """The error that says that the kernel set no probe in the file, with the errno `code`."""
        return _failure(
            f"a probe could not be set in {path}: {errno_name(code)}; "
            "see `autotrace doctor` for what this kernel allows",
            self._bpf.last_words(),
        )

    def destroy(self, link: int) -> None:
        """Take a probe of `attach_uprobe` away."""
        self._bpf.bpf_link__destroy(link)

    def _attach_to_call(self, name: str, tracepoint: str) -> int:
        what = f"{name} on {tracepoint}"
        try:
            event = open_event(tracepoint)
        except OSError as error:
            raise self._not_attached(what, error.errno or 0) from error
        link = self._bpf.bpf_program__attach_perf_event(self._program(name), event)
        if not link:
            os.close(event)
        self._checked_link(what, link)
        # From here on the event is the link's.
        stop_counting(event)
        return link

    def _checked_link(self, what: str, link: int) -> int:
        if not link:
            raise self._not_attached(what, ctypes.get_errno())
        return link

    def _not_attached(self, what: str, code: int) -> AutotraceError:
        reason = f"{errno_name(code)}{_paranoid(code)}"
        return _failure(f"program {what} could not be attached: {reason}", self._bpf.last_words())

    def _program(self, name: str) -> int:
        return self._bpf.bpf_object__find_program_by_name(self._object, name.encode())

    def detach(self) -> None:
        """Detach every program. Maps and what stands in the ring stay readable.

        The kernel waits for a grace period at each tracepoint, one after the other: this takes a second.
        """
        self.detach_late_calls()
        self.detach_send_ends()
        while self._links:
            self._bpf.bpf_link__destroy(self._links.pop())

    def close(self) -> None:
        """Detach and free everything. May be called again."""
        self.detach()
        if self._ring is not None:
            self._ring.close()
            self._ring = None
        if self._sweep_link is not None:
            self._bpf.bpf_link__destroy(self._sweep_link)
            self._sweep_link = None
        if self._object:
            self._bpf.bpf_object__close(self._object)
            self._object = 0

    # --- the ring -------------------------------------------------------------------------------------------

    def open_ring(self) -> Ring:
        """The map `events`, to be read. It is closed with this object. Raises AutotraceError."""
        try:
            self._ring = Ring(self.map_fd("events"), self.max_entries("events"))
        except OSError as error:
            reason = errno_name(error.errno or 0)
            raise AutotraceError(f"the ring buffer could not be mapped: {reason}") from error
        return self._ring

    # --- maps and commands ----------------------------------------------------------------------------------

    def max_entries(self, map_name: str) -> int:
        """How many entries a map has room for."""
        return self._bpf.bpf_map__max_entries(self._map(map_name))

    def update(self, map_name: str, key: bytes, value: bytes) -> None:
        """Set one entry. Raises AutotraceError if there is no room."""
        result = self._bpf.bpf_map_update_elem(self.map_fd(map_name), key, value, 0)
        if result:
            raise AutotraceError(f"an entry of map {map_name} could not be set: {errno_name(result)}")

    def replace(self, map_name: str, key: bytes, value: bytes) -> None:
        """Set the value of an entry; nothing if there is none."""
        self._bpf.bpf_map_update_elem(self.map_fd(map_name), key, value, _BPF_EXIST)

    def delete(self, map_name: str, key: bytes) -> None:
        """Delete one entry; it may be gone already."""
        self._bpf.bpf_map_delete_elem(self.map_fd(map_name), key)

    def keys(self, map_name: str, size: int) -> Iterator[bytes]:
        """The keys of a hash map, each `size` bytes. Keys that come or go meanwhile may be missed."""
        fd = self.map_fd(map_name)
        key = ctypes.create_string_buffer(size)
        result = self._bpf.bpf_map_get_next_key(fd, None, key)
        while result == 0:
            yield key.raw
            result = self._bpf.bpf_map_get_next_key(fd, key.raw, key)

    def counters(self) -> dict[str, int]:
        """The kernel side's counters (enum at_counter), summed over the CPUs, names in lower case."""
        cpus = self._bpf.libbpf_num_possible_cpus()
        values = (ctypes.c_uint64 * cpus)()
        fd = self.map_fd("counters")
        found: dict[str, int] = {}
        for name, key in _COUNTERS:
            if self._bpf.bpf_map_lookup_elem(fd, key, values) == 0:
                found[name] = sum(values)
        return found

    def missed_runs(self) -> int:
        """How often a program did not run although its hook was passed: the kernel runs no program twice at a time
        on one CPU (prog->active; a program of fentry can be preempted, by a thread that comes to the same hook).

        0 on kernels that do not count it (before Linux 5.12, 9ed9e9ba2337 "bpf: Count the number of times recursion
        was prevented").
        """
        if not self._program_fds:
            self._program_fds = [fd for fd in self.programs().values() if fd >= 0]
        missed = 0
        for fd in self._program_fds:
            # All zero: what stands in it says which arrays are wanted, too.
            info, size = ctypes.create_string_buffer(PROG_INFO_SIZE), c_uint32(PROG_INFO_SIZE)
            if self._bpf.bpf_obj_get_info_by_fd(fd, info, ctypes.byref(size)) == 0:
                missed += int.from_bytes(info.raw[RECURSION_MISSES:], sys.byteorder)
        return missed

    def sweep(self) -> None:
        """Run the sweep: quiet connections report how far they have come. Raises AutotraceError."""
        if self._sweep_link is None:
            self._sweep_link = self._over_connections(_SWEEP)
        self._iterate(self._sweep_link)

    def followed(self) -> set[int]:
        """The ids of all connections in the map `conns`. Raises AutotraceError."""
        link = self._over_connections(_FOLLOWED)
        try:
            return {id for (id,) in _CONNECTION_ID.iter_unpack(self._iterate(link))}
        finally:
            self._bpf.bpf_link__destroy(link)

    def _over_connections(self, name: str) -> int:
        info = IterLinkInfo(map_fd=self.map_fd("conns"))
        options = IterAttachOpts(
            ctypes.sizeof(IterAttachOpts), ctypes.pointer(info), ctypes.sizeof(IterLinkInfo)
        )
        return self._make_iterator(name, ctypes.byref(options))

    def in_late_calls(self) -> set[tuple[int, int]]:
        """The threads, as (tid, pid), that are in a receiving call and that no hook has seen yet: it may have begun
        before `attach`. Threads of processes that are not watched are never seen. Empty for tracepoints, which see
        these calls anyway. Raises AutotraceError."""
        if not self._program(_IN_LATE_CALL):
            return set()
        link = self._make_iterator(_IN_LATE_CALL, None)
        try:
            return set(_PID_TGID.iter_unpack(self._iterate(link)))
        finally:
            self._bpf.bpf_link__destroy(link)

    def _make_iterator(self, name: str, options: object) -> int:
        link = self._bpf.bpf_program__attach_iter(self._program(name), options)
        if not link:
            raise AutotraceError(
                f"the BPF iterator {name} could not be made: {errno_name(ctypes.get_errno())}; "
                "it needs Linux 5.9"
            )
        return link

    def _iterate(self, link: int) -> bytes:
        """Run an iterator once; what it wrote. Raises AutotraceError."""
        fd = self._bpf.bpf_iter_create(self._bpf.bpf_link__fd(link))
        if fd < 0:
            raise AutotraceError(f"a BPF iterator could not be run: {errno_name(fd)}")
        with os.fdopen(fd, "rb", buffering=0) as file:
            return file.readall()

    def control(self, command: abi.Command, sock: int, conn: int) -> None:
        """Run the program `control` for one connection; one that is gone meanwhile is left alone. Raises
        AutotraceError if the kernel does not run it."""
        program = self._program(_CONTROL)
        arguments = (ctypes.c_uint64 * 3)(command.value, sock, conn)
        options = TestRunOpts(sz=ctypes.sizeof(TestRunOpts))
        options.ctx_in = ctypes.cast(arguments, c_void_p)
        options.ctx_size_in = ctypes.sizeof(arguments)
        result = self._bpf.bpf_prog_test_run_opts(self._bpf.bpf_program__fd(program), ctypes.byref(options))
        if result:
            raise AutotraceError(f"the kernel did not run a command: {errno_name(result)}")


def _checked_constants(spec: Spec) -> dict[str, int]:
    """Offsets of the constants in .rodata. Raises AutotraceError if the object's types are not abi.py's."""
    advice = "build it again with `make bpf`, or install one version of autotrace"
    try:
        found = digest(Btf.from_elf(spec.path))
    except (OSError, ValueError, SymbolsError) as error:
        raise AutotraceError(f"the BPF object {spec.path.name} cannot be read ({error}): {advice}") from error
    if found != abi.DIGEST:
        raise AutotraceError(
            f"the BPF object {spec.path.name} and autotrace/abi.py are of different versions "
            f"({found}, {abi.DIGEST}): {advice}"
        )
    with spec.path.open("rb") as file:
        table = ELFFile(file).get_section_by_name(".symtab")
        if not isinstance(table, SymbolTableSection):
            raise AutotraceError(f"the BPF object {spec.path.name} has no symbols: {advice}")
        offsets = {symbol.name: int(symbol["st_value"]) for symbol in table.iter_symbols()}
    missing = sorted(set(spec.constants) - set(offsets))
    if missing:
        raise AutotraceError(
            f"the BPF object {spec.path.name} has no constant {', '.join(missing)}: {advice}"
        )
    return offsets


def _failure(sentence: str, words: str) -> AutotraceError:
    """The error with the last of what libbpf said as a note."""
    error = AutotraceError(sentence)
    if words:
        error.add_note("\n".join(words.splitlines()[-12:]))
    return error


def _paranoid(code: int) -> str:
    """Debian's and Ubuntu's kernels know levels above 2, on which perf_event_open is refused to all without
    CAP_SYS_ADMIN, also to those with CAP_PERFMON."""
    try:
        restricted = int(PARANOID.read_text())
    except (OSError, ValueError):  # a container may hide it
        return ""
    if code != errno.EACCES or restricted <= _PARANOID_MOST:
        return ""
    return "; run `sysctl kernel.perf_event_paranoid=2`, or grant CAP_SYS_ADMIN"


def _load_failure(path: Path, result: int) -> str:
    code = errno_name(result)
    if abs(result) in (1, 13) and os.geteuid() != 0:
        return f"the kernel refused the BPF programs: {code}; run as root, or with CAP_BPF and CAP_PERFMON"
    return f"the kernel refused {path.name}: {code}"
