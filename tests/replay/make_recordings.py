"""Make the recordings and their golden spans anew, as root: `python tests/replay/make_recordings.py [NAME...]`.

It is needed after every change of bpf/include/abi.h, because a recording holds records of that form. Read the
difference of the golden files before it is committed: they are what the code makes of the recordings.
"""

from __future__ import annotations

import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "tests" / "e2e"), str(ROOT / "tests" / "replay")]

from go_chain import build_chain  # noqa: E402
from golden import NAMES, RECORDINGS, golden_text  # noqa: E402
from harness import SERVICES, Traced, drive, free_ports, listening, nginx_config, shell, wait_for  # noqa: E402

from autotrace.recording import Kind, Recorder, read  # noqa: E402

SIZE_MAX = 60_000
WALL_OFFSET_NS = 1_700_000_000_000_000_000
HOST = "golden"
RESOURCE_KEPT = ("service.name", "process.pid", "process.runtime.name", "process.executable.name")


class Run(NamedTuple):
    """Services, the ports that they listen on, and what makes them speak."""

    command: list[str]
    ports: list[int]
    load: Callable[[], object]
    options: tuple[str, ...] = ("--tls", "off", "--runtime-probes", "off")
    """Of the agent."""


def _nginx_proxy(directory: Path) -> Run:
    """nginx with new and kept connections to a threaded Python backend, all kinds of statuses."""
    front, back = free_ports(2)
    config = nginx_config(
        directory / "nginx",
        front,
        f"location / {{ proxy_pass http://127.0.0.1:{back}; }} location /status/ "
        '{ proxy_pass http://kept; proxy_http_version 1.1; proxy_set_header Connection ""; }',
        f"upstream kept {{ server 127.0.0.1:{back}; keepalive 8; }}",
    )
    command = shell(f"nginx -c {config}", f"{sys.executable} {SERVICES}/backend.py {back} {directory}/log 20")
    paths = [f"/status/{status}/{i}" for i, status in enumerate((200, 204, 404, 503, 200, 304))]
    paths += ["/id/1", "/id/2", "/size/30000/3", "/size/0/4"]
    return Run(command, [front, back], lambda: drive(front, paths, concurrency=3))


def _python_calls(directory: Path) -> Run:
    """A threaded Python front: calls in order to two services, refused, reset and unanswered calls."""
    front, first, faulty, nobody = free_ports(4)
    command = shell(
        f"{sys.executable} {SERVICES}/front_threads.py {front} {directory}/front.log",
        f"{sys.executable} {SERVICES}/backend.py {first} {directory}/first.log 10",
        f"{sys.executable} {SERVICES}/faulty.py {faulty}",
    )
    paths = [
        *(f"/to/{first},{first}/id/{i}" for i in range(4)),
        f"/to/{nobody}/any/5",
        *(f"/to/{faulty}/{how}/{i}" for i, how in enumerate(("reset", "truncated", "silent"), 6)),
    ]
    return Run(command, [front, first, faulty], lambda: drive(front, paths, concurrency=3))


def _grpc_calls(directory: Path) -> Run:
    """A client and a server of grpcio: calls of all forms and with all ends, 6 at once on one connection."""
    (port,) = free_ports(1)
    peer, go, done = f"{sys.executable} {SERVICES}/grpc_peer.py", directory / "go", directory / "done"
    kinds = "unary server client both fail halfway slow cancel both"
    command = shell(
        f"{peer} server {port} {directory}/server.log",
        f"(until [ -e {go} ]; do sleep 0.1; done; {peer} client {port} {directory}/client.log 18 6 {kinds}; "
        f"touch {done}; exec sleep 60)",
    )

    def load() -> None:
        go.touch()
        wait_for(done.exists, "the client")

    return Run(command, [port], load)


def _go_chain(directory: Path) -> Run:
    """Two services of gRPC-Go and net/http; the calls of the first have their parents by goroutines."""
    driver, front, back = build_chain(directory / "programs", "-ldflags=-s -w")
    rpc, web, next_rpc, next_web = ports = free_ports(4)
    command = shell(
        f"{back} serve {next_rpc} {next_web} {directory}/back.log {next_rpc} {next_web}",
        f"{front} serve {rpc} {web} {directory}/front.log {next_rpc} {next_web}",
    )

    def load() -> None:
        time.sleep(2)  # until the agent asks their runtimes
        kinds = ["direct", "child", "both", "worker", "web/direct", "web/child"]
        subprocess.run([driver, "drive", str(rpc), str(web), "18", "3", *kinds], check=True)

    options = ("--tls", "off", "--runtime-probes", f"{directory}/programs/*")
    return Run(command, ports, load, options)


def _record(name: str) -> None:
    """Run the services under the agent and keep what it recorded, without what tells of this machine."""
    with tempfile.TemporaryDirectory() as temporary:
        directory = Path(temporary)
        run = _MAKERS[name](directory)
        raw = directory / "raw.bin"
        with Traced(directory / "agent", run.command, ("--record", str(raw), *run.options)) as agent:
            wait_for(lambda: all(map(listening, run.ports)), "the services")
            run.load()
            agent.finish().check_ledger()
        cleaned = directory / "cleaned.bin"
        _clean(raw, cleaned)
        content = cleaned.read_bytes()
        for secret in (str(ROOT), temporary, socket.gethostname(), str(Path.home())):
            assert secret.encode() not in content, f"{name} holds {secret}"
        assert len(content) < SIZE_MAX, f"{name} has {len(content)} bytes"
        shutil.copy(cleaned, RECORDINGS / f"{name}.bin")
    (RECORDINGS / f"{name}.bin").chmod(0o644)
    (RECORDINGS / f"{name}.json").write_text(golden_text(name))


def _clean(raw: Path, cleaned: Path) -> None:
    recorder = Recorder(cleaned, WALL_OFFSET_NS, HOST)
    for entry in read(raw):
        if entry.kind is Kind.RECORD:
            recorder.record(entry.payload)
        elif entry.kind is Kind.TICK:
            recorder.tick(entry.tick())
        elif entry.kind is Kind.COUNTERS:
            recorder.counters(entry.json())
        elif entry.kind is Kind.PROCESS:
            process = entry.json()
            process["executable"] = Path(process["executable"]).name
            process["resource"] = {
                key: process["resource"][key] for key in RESOURCE_KEPT if key in process["resource"]
            }
            recorder.process(process)
    recorder.close()


_MAKERS = {
    "nginx_proxy": _nginx_proxy,
    "python_calls": _python_calls,
    "grpc_calls": _grpc_calls,
    "go_chain": _go_chain,
}


if __name__ == "__main__":
    RECORDINGS.mkdir(exist_ok=True)
    for each in sys.argv[1:] or NAMES:
        _record(each)
        print(f"made {each}", flush=True)
