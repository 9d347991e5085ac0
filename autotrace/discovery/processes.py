"""What a process is: its runtime, the links that are sound for it, and the resource it stands for."""

from __future__ import annotations

import os
import platform
from collections.abc import Mapping
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import PurePosixPath
from typing import NamedTuple, TypeVar
from urllib.parse import unquote

from autotrace import __version__
from autotrace.discovery import cgroups, cpython
from autotrace.discovery.naming import executable_matches, program_name
from autotrace.discovery.procfs import Procfs
from autotrace.model import NOT_GO, GoOffsets, Process
from autotrace.probes import Manifests, Match
from symbols.errors import SymbolsError
from symbols.go import BuildInfo, build_info
from symbols.go_grpc_offsets import GrpcStream, GrpcStreamOffsets
from symbols.go_offsets import GoidOffsets, RuntimeG

_T = TypeVar("_T")
_GONE = (FileNotFoundError, ProcessLookupError)
_MAX_PROGRAMS = 4096
"""Programs whose Go build information is remembered."""


class GoProgram(NamedTuple):
    """A Go program; `offsets` is None if it is not known where its runtime keeps goroutine ids, `grpc_stream` if it
    is not known where gRPC-Go keeps the method of a stream, or there is no gRPC-Go in it."""

    build: BuildInfo
    offsets: RuntimeG | None
    grpc_stream: GrpcStream | None = None


class Identity(NamedTuple):
    """A process, and how it was told what it is. `name_source` says where the service name comes from."""

    process: Process
    match: Match
    name_source: str
    go: GoProgram | None


class Describer:
    """Reads processes from /proc.

    Keeps what it learned about programs by device, inode and time of change, so that a second process of the
    same program costs no second look at its file. `service_names` maps a shell pattern for the executable to
    the name that the user set.
    """

    def __init__(
        self,
        manifests: Manifests,
        service_names: Mapping[str, str] | None = None,
        procfs: Procfs | None = None,
        host_name: str | None = None,
    ) -> None:
        self._manifests = manifests
        self._service_names = service_names or {}
        self._procfs = procfs or Procfs()
        self._host = host_name or platform.node()
        self._goid_offsets = GoidOffsets()
        self._grpc_streams = GrpcStreamOffsets()
        self._programs: dict[tuple[int, int, int], GoProgram | None] = {}
        self._boot_time = self._procfs.boot_time()
        self._ticks = os.sysconf("SC_CLK_TCK")
        self._own_unit = cgroups.service_unit(self._optional_text(os.getpid(), "cgroup"))

    def describe(self, pid: int) -> Process | None:
        """Describe a process; None if it is gone, or cannot be read for want of a descriptor. What may not be read
        is left out."""
        try:
            identity = self.identify(pid)
        except OSError:
            return None
        return identity.process if identity else None

    def identify(self, pid: int) -> Identity | None:
        """Describe a process and say why it is taken for what it is; None if it is gone. Raises OSError."""
        try:
            stat = self._procfs.stat(pid)
            if stat.state in "ZX":
                return None
            cgroup = self._optional_text(pid, "cgroup")
            environment = self._environment(pid)
            arguments = self._optional_arguments(pid)
            executable = self._executable(pid) or stat.comm
            go: GoProgram | None = None

            def is_go() -> bool:
                nonlocal go
                go = self._go_program(pid)
                return go is not None

            match = self._manifests.match(executable, lambda: self._mapped_files(pid), is_go)
            declared = _resource_attributes(environment.get("OTEL_RESOURCE_ATTRIBUTES", ""))
            name, name_source = self._service_name(
                pid, executable, match, arguments, environment, declared, cgroup
            )
            container = cgroups.container_id(cgroup)
            if not container and cgroups.is_root(cgroup):
                container = cgroups.container_id_from_mounts(self._optional_text(pid, "mountinfo"))
        except _GONE:
            return None
        manifest = match.manifest
        resource: dict[str, str | int] = {
            "service.instance.id": f"{self._host}:{pid}",
            "host.name": self._host,
            "os.type": "linux",
            "process.executable.name": PurePosixPath(executable).name,
            "process.executable.path": executable,
        }
        if self._boot_time is not None:
            started = self._boot_time + stat.start_ticks / self._ticks
            resource["process.creation.time"] = datetime.fromtimestamp(started, UTC).isoformat(
                timespec="milliseconds"
            )
        if manifest.process_runtime:
            resource["process.runtime.name"] = manifest.process_runtime
        if go is not None:
            resource["process.runtime.version"] = go.build.go_version
        if container:
            resource["container.id"] = container
        resource.update(declared)
        resource["service.name"] = name
        resource["process.pid"] = pid
        resource["telemetry.sdk.name"] = "autotrace"
        resource["telemetry.sdk.language"] = manifest.language
        resource["telemetry.sdk.version"] = __version__
        process = Process(
            pid=pid,
            executable=executable,
            resource=resource,
            runtime=manifest.name,
            rungs=frozenset(manifest.links),
            go=_go_offsets(go) if manifest.goid and go is not None else NOT_GO,
            python_offsets=cpython.offsets(executable) if manifest.name == "python" else None,
        )
        return Identity(process, match, name_source, go)

    def _service_name(
        self,
        pid: int,
        executable: str,
        match: Match,
        arguments: list[str],
        environment: dict[str, str],
        declared: dict[str, str],
        cgroup: str,
    ) -> tuple[str, str]:
        """The first of the sources that gives a name, and which one it was."""
        for pattern, name in self._service_names.items():
            if executable_matches(pattern, executable):
                return name, f"autotrace's setting for executables {pattern}"
        if environment.get("OTEL_SERVICE_NAME"):
            return environment["OTEL_SERVICE_NAME"], "OTEL_SERVICE_NAME of the process"
        if declared.get("service.name"):
            return declared["service.name"], "OTEL_RESOURCE_ATTRIBUTES of the process"
        unit = cgroups.service_unit(cgroup)
        # What the agent's own unit started (`autotrace run -- CMD`) is not named by that unit.
        if unit and unit != self._own_unit:
            return unit, "its systemd unit"
        interpreter = match.manifest.interpreter
        if interpreter is not None and match.by_name:
            name = program_name(interpreter, arguments, environment, self._directory(pid))
            return name or match.manifest.name, "its command line" if name else "its runtime"
        return PurePosixPath(executable).name, "its executable"

    def _go_program(self, pid: int) -> GoProgram | None:
        path = self._procfs.path(pid, "exe")
        try:
            key = self._procfs.program_id(pid)
        except OSError:
            return None  # a kernel thread, closed to us, or gone, which the next read will tell
        if key not in self._programs:
            if len(self._programs) >= _MAX_PROGRAMS:
                self._programs.clear()
            self._programs[key] = self._read_go_program(path)
        return self._programs[key]

    def _read_go_program(self, path: str) -> GoProgram | None:
        try:
            build = build_info(path)
        except (SymbolsError, OSError):
            return None
        if build is None:
            return None
        offsets = grpc_stream = None
        with suppress(SymbolsError, OSError):
            offsets = self._goid_offsets.find(path, build)
        with suppress(SymbolsError, OSError):
            grpc_stream = self._grpc_streams.find(path, build)
        return GoProgram(build, offsets, grpc_stream)

    def _executable(self, pid: int) -> str:
        try:
            return self._procfs.executable(pid)
        except PermissionError:
            return ""

    def _directory(self, pid: int) -> str:
        try:
            return self._procfs.directory(pid)
        except PermissionError:
            return "/"

    def _environment(self, pid: int) -> dict[str, str]:
        try:
            return self._procfs.environ(pid)
        except PermissionError:
            return {}

    def _mapped_files(self, pid: int) -> set[str]:
        try:
            return self._procfs.mapped_files(pid)
        except PermissionError:
            return set()

    def _optional_arguments(self, pid: int) -> list[str]:
        try:
            return self._procfs.cmdline(pid)
        except PermissionError:
            return []

    def _optional_text(self, pid: int, name: str) -> str:
        """A file that may be missing (no control groups) or closed to us."""
        try:
            return self._procfs.text(pid, name)
        except (PermissionError, FileNotFoundError):
            return ""


def _go_offsets(go: GoProgram) -> GoOffsets:
    if go.offsets is None:
        return NOT_GO
    stream = go.grpc_stream
    return GoOffsets(
        go.offsets.goid,
        go.offsets.parent_goid or 0,
        *(stream if stream is not None else ()),
    )


def _resource_attributes(text: str) -> dict[str, str]:
    """Decode OTEL_RESOURCE_ATTRIBUTES: `key=value` pairs with commas between, values percent-encoded.

    As the OpenTelemetry resource SDK asks, the whole value is discarded if any part of it is malformed.
    """
    attributes = {}
    for pair in text.split(","):
        key, equals, value = pair.partition("=")
        if not pair.strip():
            continue
        if not equals or not key.strip():
            return {}
        attributes[unquote(key.strip())] = unquote(value.strip())
    return attributes


def to_dict(process: Process) -> dict[str, object]:
    """Turn a process into what JSON can hold, for a recording."""
    return {
        "pid": process.pid,
        "executable": process.executable,
        "resource": process.resource,
        "runtime": process.runtime,
        "rungs": sorted(process.rungs),
        "exited_ts": process.exited_ts,
    }


def from_dict(values: Mapping[str, object]) -> Process:
    """Undo `to_dict`. Raises ValueError, naming the key, if something is missing or of the wrong type."""
    resource = _typed(values, "resource", dict)
    for key, value in resource.items():
        if not isinstance(key, str) or not isinstance(value, str | int):
            raise ValueError(f"a recorded process has a wrong resource attribute: {key!r}")
    rungs = _typed(values, "rungs", list)
    if not all(isinstance(rung, str) for rung in rungs):
        raise ValueError("a recorded process has wrong rungs")
    return Process(
        pid=_typed(values, "pid", int),
        executable=_typed(values, "executable", str),
        resource=resource,
        runtime=_typed(values, "runtime", str),
        rungs=frozenset(rungs),
        exited_ts=_typed(values, "exited_ts", int),
    )


def _typed(values: Mapping[str, object], key: str, kind: type[_T]) -> _T:
    value = values.get(key)
    if not isinstance(value, kind):
        raise ValueError(f"a recorded process has no {key}, or a wrong one")
    return value
