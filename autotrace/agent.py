"""The agent: it wires the kernel's events through the pipeline to the exporters, and nothing else.

Read this file first. Every stage stands in a module of its own and knows none of the others; the types that go
from one to the next are in `autotrace.model`.
"""

from __future__ import annotations

import os
import resource
import time
from collections.abc import Callable
from pathlib import Path
from threading import Event as Flag
from typing import Any

from autotrace.config import Config
from autotrace.discovery.libraries import LibraryFinder, Use, cache_dir
from autotrace.discovery.processes import Describer, from_dict, to_dict
from autotrace.discovery.procfs import Procfs
from autotrace.discovery.selection import Selection
from autotrace.discovery.table import ProcessTable
from autotrace.errors import AutotraceError
from autotrace.exporters import Exporters
from autotrace.kernel.decode import DecodeError, decode
from autotrace.kernel.source import Source, attach, spec
from autotrace.kernel.uprobes import Uprobes
from autotrace.ledger import Ledger
from autotrace.library_probes import LibraryProbes
from autotrace.metrics import RedMetrics
from autotrace.model import (
    Chunk,
    Connection,
    Event,
    Process,
    ProcessExited,
    ProcessSeen,
    ProcessSpeaksTls,
    ProcessStarted,
)
from autotrace.pipeline import Pipeline
from autotrace.probes import Manifests, libraries
from autotrace.protocols.http1_redact import Http1Redactor
from autotrace.protocols.http2_redact import Http2Redactor
from autotrace.recording import Kind, Recorder, damaged, read
from autotrace.redaction import Redaction

_WAIT_SECONDS = 0.05
_SWEEP_NS = 400_000_000
_LATE_SWEEP_NS = 2_000_000_000
"""While the ring has more than a batch, a sweep waits for so long: what it tells would stand behind all that. It
walks all buckets of the connections' map, in which time nobody else has the CPU."""
_TICK_NS = 1_000_000_000
_BATCH_BYTES = 64 << 10
"""Of the ring, that are handled before the clock is looked at."""
_PIECE_BYTES = 4 << 10
"""Of the ring, that are copied at once. Nobody else gets the CPU meanwhile, and 64 KiB take half a millisecond of a
slow one."""
_NICE = 5
"""What shares a CPU with the agent gets three times its share (sched(7)): the watched services come first."""
_NS = 1_000_000_000
_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
_RECORD = Kind.RECORD  # as a global: a look-up in an enumeration costs three times as much
_PROCESS_EVENTS = (ProcessStarted, ProcessExited, ProcessSeen, ProcessSpeaksTls)


class Agent:
    """Watches processes and emits their spans and metrics.

    `start` attaches (and raises AutotraceError if it cannot), `run` works until `stop` is called from anywhere,
    `close` detaches, flushes and prints the ledger.
    """

    def __init__(self, config: Config, log: Callable[[str], None]) -> None:
        self._config = config
        self._log = log
        self._stopping = Flag()
        self._ledger = Ledger()
        self._metrics = RedMetrics(self._ledger, max_series_per_service=config.series_limit)
        self._selection = Selection(
            pids=frozenset(config.pids),
            exe_globs=config.exe_globs,
            ports=frozenset(config.ports),
            everything=config.everything,
        )
        self._describer = Describer(Manifests.load(), dict(config.service_names))
        self._processes = ProcessTable(self._describe)
        self._source: Source | None = None
        self._libraries: LibraryProbes | None = None
        self._exporters: Exporters | None = None
        self._recorder: Recorder | None = None
        self._redaction = Redaction(Http1Redactor, Http2Redactor)
        self._pipeline: Pipeline | None = None
        self._flavour = ""
        self._lost_closes = 0
        self._told_not_watched = False
        self._watched: list[Process] = []
        self._connections = 0

    def start(self) -> None:
        """Load and attach the programs, open the exporters, watch what is selected. Raises AutotraceError."""
        config = self._config
        wall_offset_ns = time.time_ns() - time.monotonic_ns()
        host = _BOOT_ID.read_text().strip()
        if config.record_path is not None:
            self._recorder = Recorder(config.record_path, wall_offset_ns, host)
        _allow_open_files()
        report_execs = bool(config.exe_globs or config.everything)
        self._source = source = attach(
            config.hooks,
            lambda flavour: spec(
                flavour, config.head_size, config.ring_size, config.max_connections, report_execs
            ),
        )
        self._flavour = source.flavour
        self._log(f"attached by {source.flavour}")
        patterns = {libraries.Kind.TLS: config.tls, libraries.Kind.STREAMS: config.runtime_probes}
        known = [library for library in libraries.load() if patterns[library.kind] != "off"]
        if known:
            finder = LibraryFinder(known, Procfs(), patterns, cache_dir(config.cache_dir))
            self._libraries = LibraryProbes(
                finder, self._processes.get, self._set_probes, self._log, self._ledger.note
            )
        # Of this thread and those that it starts; not of a command that is held since before.
        os.setpriority(os.PRIO_PROCESS, 0, max(_NICE, os.getpriority(os.PRIO_PROCESS, 0)))
        # After the probes: what they import and open takes as long as all that is before it.
        self._exporters = Exporters(config, self._ledger, self._metrics)
        self._pipeline = _pipeline(
            config,
            self._ledger,
            self._metrics,
            self._processes,
            self._exporters,
            wall_offset_ns,
            host,
            stop_capture=source.stop_capture,
            forget=source.forget,
        )
        self._select()
        if self._exporters.metrics_url:
            self._log(f"metrics on {self._exporters.metrics_url}")

    def watch(self, pid: int) -> None:
        """Watch one more process, and the children it makes from now on. Raises AutotraceError."""
        if self._source is None:
            raise AutotraceError("the agent has not started: nothing can be watched yet")
        self._source.watch(pid)
        if self._libraries is not None:
            self._libraries.watched(pid, time.monotonic_ns())

    def stop(self) -> None:
        """Make `run` return soon. May be called from any thread, any number of times."""
        self._stopping.set()

    def run(self) -> None:
        """Work until `stop` is called."""
        assert self._source is not None
        assert self._pipeline is not None
        next_sweep = next_tick = 0
        while not self._stopping.is_set():
            self._source.wait(_WAIT_SECONDS)
            self._work_off(_BATCH_BYTES)
            now = time.monotonic_ns()
            if self._libraries is not None:
                self._libraries.have_old_connections(self._pipeline.processes_with_old_frames, now)
                self._libraries.work(now)
            if now >= next_sweep and (
                self._source.unread() < _BATCH_BYTES or now >= next_sweep + _LATE_SWEEP_NS
            ):
                self._source.sweep()
                next_sweep = now + _SWEEP_NS
            if now >= next_tick:
                self._tick(now)
                self._check_recorder()
                next_tick = now + _TICK_NS

    def close(self) -> None:
        """Detach everything, handle what is left in the ring, flush the exporters, print the ledger."""
        self._stopping.set()
        if self._source is not None and self._pipeline is not None:
            self._handle(self._source.drain())
            self._tick(time.monotonic_ns())
            self._pipeline.finish(time.monotonic_ns())
        if self._libraries is not None:
            self._libraries.close()
            self._libraries = None
        if self._source is not None:
            self._source.close()
            self._source = None
        if self._exporters is not None:
            self._exporters.close()
        if self._recorder is not None:
            self._recorder.close()
            if self._recorder.failed:
                self._log(self._recorder.failed)
        if self._pipeline is not None:
            self._pipeline = None
            for line in self._ledger.render().splitlines():
                self._log(line)

    def status(self) -> dict[str, Any]:
        """What `autotrace status` shows: as of the last tick, for it is asked from another thread."""
        return {
            "hooks": self._flavour,
            "connections": self._connections,
            "ledger": self._ledger.snapshot(),
            "processes": [
                {
                    "pid": process.pid,
                    "service": process.service,
                    "runtime": process.runtime,
                    "executable": process.executable,
                }
                for process in self._watched
            ],
        }

    def _work_off(self, most: int) -> None:
        """Handle what has gathered in the ring, about `most` bytes of it."""
        assert self._source is not None
        for _ in range(most // _PIECE_BYTES):
            records = self._source.take(_PIECE_BYTES)
            if not records:
                return
            self._handle(records)

    def _handle(self, records: list[bytes]) -> None:
        assert self._pipeline is not None
        # Recorded after the processes that it made us describe: a replay needs them first.
        record = self._record if self._recorder is not None else None
        self._pipeline.records(records, self._event, record, os.sched_yield)

    def _record(self, record: bytes, event: Event) -> None:
        if self._recorder is not None:
            self._recorder.record(self._redaction.redact(record, event))

    def _handle_what_waits(self) -> None:
        assert self._source is not None
        self._handle(self._source.take())

    def _event(self, event: Event) -> None:
        if not isinstance(event, _PROCESS_EVENTS):
            return
        _follow(self._processes, event)
        if isinstance(event, ProcessSeen) and self._selection.wants(event.pid):
            self._watch_found(event.pid)
        elif self._libraries is not None:
            _follow_libraries(self._libraries, event)

    def _set_probes(self, use: Use) -> Uprobes:
        assert self._source is not None
        return self._source.probe_library(use.library.programs, use.opened, list(use.probes))

    def _describe(self, pid: int) -> Process | None:
        process = self._describer.describe(pid)
        if process is None:
            return None
        if self._recorder is not None:
            self._recorder.process(to_dict(process))
        if self._source is not None:
            self._source.describe(process)
        return process

    def _select(self) -> None:
        """Watch what the rules select now; those already watched stay as they are."""
        assert self._source is not None
        watched = self._source.watched()
        for pid in self._selection.initial():
            if pid not in watched and self._watch_found(pid):
                self._processes.get(pid)

    def _watch_found(self, pid: int) -> bool:
        """Watch a process that was found by a rule; False if it has ended meanwhile, or there is no room for it."""
        assert self._source is not None
        try:
            self.watch(pid)
        except AutotraceError as error:
            if not self._told_not_watched:
                self._log(f"process {pid} is not watched, and maybe others: {error}")
            self._told_not_watched = True
            self._ledger.note("discovery", "not_watched")
            return False
        if self._selection.runs(pid):
            return True
        # The kernel side saw its end before it was told of it.
        self._source.unwatch(pid)
        return False

    def _tick(self, now: int) -> None:
        assert self._source is not None
        assert self._pipeline is not None
        counters = self._source.counters()
        self._ledger.kernel(counters)
        if counters["lost_close"] > self._lost_closes:
            followed = self._source.open_connections()
            if followed is not None:
                self._lost_closes = counters["lost_close"]
                self._pipeline.keep_only(followed, now, self._handle_what_waits)
        self._pipeline.tick(now)
        if self._recorder is not None:
            self._recorder.counters(counters)
            self._recorder.tick(now)
        self._processes.expire(now)
        if self._libraries is not None and (gone := self._libraries.take_gone()):
            self._source.forget_sessions(gone)
        self._source.release_late_calls()
        self._source.follow_unread_memory(counters)
        self._watched = [self._processes.get(pid) for pid in sorted(self._source.watched())]
        self._connections = self._pipeline.connections
        if self._config.ports and not self._stopping.is_set():
            self._select()

    def _check_recorder(self) -> None:
        """A recording that failed is over, and so is an agent that has nothing else to do."""
        if self._recorder is None or not self._recorder.failed:
            return
        failed = self._recorder.failed
        self._recorder.close()
        self._recorder = None
        if not self._exporters:
            raise AutotraceError(failed)
        self._log(failed)


def replay(config: Config, path: Path, log: Callable[[str], None]) -> dict[str, Any]:
    """Make the spans of a recording again; returns the ledger. Raises AutotraceError."""
    entries = read(path)
    meta = next(entries).json()
    ledger = Ledger()
    metrics = RedMetrics(ledger, max_series_per_service=config.series_limit)
    processes = ProcessTable(lambda _pid: None)
    exporters = Exporters(config, ledger, metrics)
    try:
        pipeline = _pipeline(
            config,
            ledger,
            metrics,
            processes,
            exporters,
            int(meta["wall_offset_ns"]),
            str(meta["host"]),
            stop_capture=lambda _connection: None,
            forget=lambda _connection: None,
        )
        now = 0
        for entry in entries:
            if entry.kind is _RECORD:
                try:
                    event = decode(entry.payload)
                except DecodeError:
                    ledger.note("kernel", "record_not_understood")
                    continue
                if type(event) is not Chunk:
                    _follow(processes, event)
                pipeline.event(event)
                continue
            try:
                if entry.kind is Kind.PROCESS:
                    processes.add(from_dict(entry.json()))
                elif entry.kind is Kind.COUNTERS:
                    ledger.kernel(entry.counters())
                elif entry.kind is Kind.TICK:
                    now = entry.tick()
            except ValueError as error:
                raise damaged(path, error) from error
            if entry.kind is Kind.TICK:
                pipeline.tick(now)
                processes.expire(now)
        pipeline.finish(now)
    finally:
        exporters.close()
    return ledger.snapshot()


def _follow_libraries(libraries: LibraryProbes, event: Event) -> None:
    if isinstance(event, ProcessStarted):
        if event.parent:
            libraries.forked(event.pid, event.parent, event.ts)
        else:
            libraries.watched(event.pid, event.ts)
    elif isinstance(event, ProcessExited):
        libraries.exited(event.pid, event.ts)
    elif isinstance(event, ProcessSpeaksTls):
        libraries.speaks_tls(event.pid)


def _allow_open_files() -> None:
    """As many as may be without asking: a probe is one or two (before Linux 6.6), a program or a map is one."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


def _follow(processes: ProcessTable, event: Event) -> None:
    if isinstance(event, ProcessStarted):
        if event.parent:
            processes.started(event.pid, event.parent)
        else:
            processes.executed(event.pid, event.comm)
    elif isinstance(event, ProcessExited):
        processes.exited(event.pid, event.ts)


def _pipeline(
    config: Config,
    ledger: Ledger,
    metrics: RedMetrics,
    processes: ProcessTable,
    exporters: Exporters,
    wall_offset_ns: int,
    host: str,
    *,
    stop_capture: Callable[[Connection], object],
    forget: Callable[[Connection], object],
) -> Pipeline:
    return Pipeline(
        process_of=processes.get,
        emit=exporters.emit if exporters.take_spans else None,
        stop_capture=stop_capture,
        forget=forget,
        ledger=ledger,
        metrics=metrics,
        host=host.encode(),
        wall_offset_ns=wall_offset_ns,
        exchange_timeout_ns=int(config.exchange_timeout * _NS),
        route_limit=config.route_limit,
    )
