"""The programs that are measured: nginx, wrk and the agent. Each ends with its `with` block."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NamedTuple
from urllib.request import urlopen

_BODY_SIZE = 1024
_CONNECTIONS = 8
_PATIENCE = 20.0
"""Seconds that anything here may take to start or to end."""

_WRK_REPORT = """
done = function(summary, latency, requests)
  local errors = summary.errors
  io.write(string.format("RESULT %d %d %d %d %d\\n", summary.requests, summary.duration,
    latency:percentile(50), latency:percentile(99),
    errors.connect + errors.read + errors.write + errors.status + errors.timeout))
end
"""
_RESULT = re.compile(r"^RESULT (\d+) (\d+) (\d+) (\d+) (\d+)$", re.MULTILINE)
_LEDGER = re.compile(r"exchanges: seen (\d+) = emitted (\d+) \+ dropped (\d+)")
_ATTACHED = b"attached by"
_WATCHING = b"metrics on"


_BPF_PROG_TYPE_KPROBE = 2
"""BPF_PROG_TYPE_KPROBE of enum bpf_prog_type (include/uapi/linux/bpf.h); uprobes have it too."""


class BenchError(Exception):
    """Something could not be measured. The text says what, and what to do."""


class Load(NamedTuple):
    """What wrk measured: requests a second, and latency in microseconds."""

    requests: int
    rps: float
    p50_us: int
    p99_us: int


class Books(NamedTuple):
    """The agent's account of exchanges."""

    seen: int
    emitted: int
    dropped: int


class Nginx:
    """An nginx of one worker on a port of its own. `locations` is what its server block does."""

    def __init__(self, directory: Path, locations: str) -> None:
        directory.mkdir(parents=True)
        self.port = free_port()
        self._process = subprocess.Popen(["nginx", "-c", str(self._configuration(directory, locations))])
        self.pid = self._process.pid
        try:
            _wait_until(f"nginx to listen on port {self.port}", lambda: _listens(self.port))
            self.worker = _only_child(self.pid)
        except BaseException:
            _end(self._process)
            raise

    def __enter__(self) -> Nginx:
        return self

    def __exit__(self, *_: object) -> None:
        _end(self._process)

    def requests(self) -> int:
        """How many requests it has had, this question too (ngx_http_stub_status_module)."""
        numbers = _get(self.port, "/status").splitlines()[2].split()
        return int(numbers[2])

    def worker_cpu_seconds(self) -> float:
        """CPU time of the worker, which has one thread (/proc/PID/schedstat: nanoseconds)."""
        return int(Path(f"/proc/{self.worker}/schedstat").read_text().split()[0]) * 1e-9

    def _configuration(self, directory: Path, locations: str) -> Path:
        temporary = "".join(
            f"{kind}_temp_path {directory}/{kind}; "
            for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
        )
        path = directory / "nginx.conf"
        path.write_text(
            f"""daemon off; worker_processes 1; user root; pid {directory}/nginx.pid;
error_log {directory}/error.log warn;
events {{ worker_connections 1024; }}
http {{
  access_log off; keepalive_requests 100000000; client_max_body_size 0;
  {temporary}
  server {{ listen 127.0.0.1:{self.port}; {locations} }}
}}
"""
        )
        return path


def file_server(directory: Path) -> Nginx:
    """An nginx that serves /file.txt, 1 kB."""
    files = directory / "html"
    files.mkdir(parents=True)
    (files / "file.txt").write_text("x" * _BODY_SIZE)
    return Nginx(directory / "nginx", f"location / {{ root {files}; }} location /status {{ stub_status; }}")


def otlp_sink(directory: Path) -> Nginx:
    """An OTLP/HTTP receiver that looks at nothing: an empty answer means that everything was accepted."""
    return Nginx(directory / "sink", "location / { default_type application/x-protobuf; return 200; }")


class Agent:
    """`autotrace run`. It watches when this returns; `started` is how many seconds it took to attach."""

    def __init__(self, directory: Path, options: list[str]) -> None:
        self._metrics_port = free_port()
        command = [
            sys.executable, "-m", "autotrace.cli", "run", "--console", "off", "--log-level", "info",
            "--runtime-dir", str(directory / "run"), "--cache-dir", str(directory / "cache"),
            "--metrics-port", str(self._metrics_port),
            "--tls", "off", *options,
        ]  # fmt: skip
        began = time.monotonic()
        self._process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            env=_environment(),
        )
        self.pid = self._process.pid
        self._said = b""
        try:
            self.wait_for(_ATTACHED)
            self.started = time.monotonic() - began
            self.wait_for(_WATCHING)
        except BaseException:
            _end(self._process)
            raise

    def __enter__(self) -> Agent:
        return self

    def __exit__(self, *_: object) -> None:
        if self._process.poll() is None:
            self.stop()

    def stop(self) -> Books:
        """End the agent; its account. Raises BenchError if it gave none."""
        self._process.send_signal(signal.SIGTERM)
        try:
            _, said = self._process.communicate(timeout=_PATIENCE)
        except subprocess.TimeoutExpired:
            _end(self._process)
            raise BenchError(
                f"The agent did not end within {_PATIENCE:g} seconds: a fault of its own."
            ) from None
        self._said += said
        found = _LEDGER.search(self._said.decode(errors="replace"))
        if found is None:
            raise BenchError(f"The agent printed no account of exchanges; it said:\n{self._said.decode()}")
        return Books(*map(int, found.groups()))

    def cpu_seconds(self) -> float:
        """CPU time of the threads it has."""
        return cpu_seconds(self.pid)

    def resident_mb(self) -> float:
        """Resident memory in MB (10^6 bytes)."""
        pages = int(Path(f"/proc/{self.pid}/statm").read_text().split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE") / 1e6

    def emitted(self) -> int:
        """How many exchanges it has emitted so far, as its /metrics tells."""
        text = _get(self._metrics_port, "/metrics")
        found = re.search(r"^autotrace_exchanges_emitted_total (\S+)$", text, re.MULTILINE)
        if found is None:
            raise BenchError("The agent's /metrics has no autotrace_exchanges_emitted_total: was it renamed?")
        return int(float(found[1]))

    def bpf_statistics(self) -> tuple[int, int]:
        """Runs, and nanoseconds in them, of all the BPF programs that it holds (kernel BPF statistics)."""
        programs = self._programs().values()
        runs = sum(int(fields["run_cnt"]) for fields in programs)
        return runs, sum(int(fields["run_time_ns"]) for fields in programs)

    def probe_hits(self) -> int:
        """Runs of all programs that have the kind of a kprobe (kernel BPF statistics)."""
        return sum(
            int(fields["run_cnt"])
            for fields in self._programs().values()
            if int(fields["prog_type"]) == _BPF_PROG_TYPE_KPROBE
        )

    def _programs(self) -> dict[str, dict[str, str]]:
        """What the kernel says of the programs that it holds, by id."""
        programs = {}
        for info in Path(f"/proc/{self.pid}/fdinfo").iterdir():
            with suppress(FileNotFoundError):  # closed meanwhile
                lines = info.read_text().splitlines()
                fields = dict(line.split(":", 1) for line in lines if ":" in line)
                if "run_cnt" in fields:
                    programs[fields["prog_id"]] = fields
        return programs

    def wait_for(self, message: bytes) -> None:
        """Wait until it has said this. Raises BenchError if it ends before."""
        stream = self._process.stderr
        assert stream is not None
        while message not in self._said:
            line = stream.readline()
            if not line:
                raise BenchError(
                    f"The agent did not start: {self._said.decode(errors='replace').strip() or 'no message'}"
                )
            self._said += line


def wrk(directory: Path, port: int, seconds: int, scheme: str = "http") -> Load:
    """Load on a server over 8 keep-alive connections, as fast as it goes. Raises BenchError if a request fails."""
    script = directory / "report.lua"
    script.write_text(_WRK_REPORT)
    url = f"{scheme}://127.0.0.1:{port}/file.txt"
    arguments = ["wrk", "-t1", f"-c{_CONNECTIONS}", f"-d{seconds}", "-s", str(script), url]
    done = subprocess.run(arguments, capture_output=True, text=True, timeout=seconds + _PATIENCE, check=False)
    found = _RESULT.search(done.stdout)
    if found is None:
        raise BenchError(f"wrk gave no result: {done.stdout}{done.stderr}")
    requests, microseconds, p50, p99, errors = map(int, found.groups())
    if errors:
        raise BenchError(f"{errors} of {requests} requests failed under wrk")
    return Load(requests, requests / microseconds * 1e6, p50, p99)


@contextmanager
def running(command: list[str], port: int, environment: dict[str, str]) -> Iterator[int]:
    """A program of which there is nothing to say but that it listens on `port`; its pid."""
    process = subprocess.Popen(command, env=environment)
    try:
        _wait_until(f"{command[0]} to listen on port {port}", lambda: _listens(port))
        yield process.pid
    finally:
        _end(process)


def _environment() -> dict[str, str]:
    """This environment without what would make a Python program start slowly, or differently."""
    return {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "OTEL_"))}


def cpu_seconds(pid: int) -> float:
    """CPU time of the threads that a process has (/proc/PID/task/TID/schedstat: nanoseconds)."""
    threads = Path(f"/proc/{pid}/task").iterdir()
    return sum(int((thread / "schedstat").read_text().split()[0]) for thread in threads) * 1e-9


def free_port() -> int:
    """A port that nothing listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def _get(port: int, path: str) -> str:
    with urlopen(f"http://127.0.0.1:{port}{path}", timeout=_PATIENCE) as answer:
        text: str = answer.read().decode()
        return text


def _only_child(pid: int) -> int:
    children = Path(f"/proc/{pid}/task/{pid}/children")
    _wait_until(f"process {pid} to start its worker", lambda: bool(children.read_text().strip()))
    (child,) = map(int, children.read_text().split())
    return child


def _wait_until(what: str, condition: Callable[[], bool]) -> None:
    end = time.monotonic() + _PATIENCE
    while not condition():
        if time.monotonic() > end:
            raise BenchError(f"Waited {_PATIENCE:g} seconds in vain for {what}.")
        time.sleep(0.01)


def _end(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    try:
        process.wait(_PATIENCE)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
