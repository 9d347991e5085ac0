"""What reading TLS costs: probe hits for an exchange of each library, and nginx and Node under an HTTPS load.

The programs get copies of their libraries, and the agent probes nothing else: a probe in a library's file is hit by
every process that maps it.
"""

from __future__ import annotations

import http.client
import os
import shutil
import ssl
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from bench.figures import Figures
from bench.keepalive import bpf_statistics
from bench.programs import Agent, BenchError, Load, free_port, running, wrk

_SERVERS = Path(__file__).parent / "tls_servers"
_EXCHANGES = 300
_FIRST_EXCHANGES = 20
_WARM_UP_SECONDS = 1
_FOLDERS = (Path("/usr/lib/x86_64-linux-gnu"), Path("/usr/lib64"))
_OPENSSL = ("libssl.so.3", "libcrypto.so.3")
_GNUTLS = ("libgnutls.so.30",)
_PROBES = ("--hooks", "tracepoint")
"""With these hooks every program of the kind of a kprobe stands in a library."""


class Server(NamedTuple):
    """An HTTPS server: its process, its port, and what is said of its library when it is probed."""

    pid: int
    port: int
    library: str


def measure_hits(figures: Figures, directory: Path, say: Callable[[str], None]) -> None:
    """Probe hits for an exchange of a connection that is kept: they do not depend on the machine."""
    for name in ("nginx", "gnutls", "node", "go"):
        with _server(name, directory / f"hits-{name}") as server:
            if server is None:
                say(f"{name} is not here")
                continue
            hits = _hits(directory, server)
        figures.add(f"tls_hits_per_exchange_{name}", "hits", hits)
        say(f"{name}: {hits:.2f} probe hits an exchange")


def measure_load(
    figures: Figures, directory: Path, runs: int, seconds: int, say: Callable[[str], None]
) -> None:
    """Throughput and latency with the agent and without it, in pairs in alternating order."""
    for name in ("nginx", "node"):
        with _server(name, directory / f"load-{name}") as server:
            if server is None:
                say(f"{name} is not here")
                continue
            for run in range(runs):
                _pair(figures, f"{name}_tls", run, directory, server, seconds, say)


def _pair(
    figures: Figures,
    name: str,
    run: int,
    directory: Path,
    server: Server,
    seconds: int,
    say: Callable[[str], None],
) -> None:
    if run % 2:
        traced, share = _traced(directory, server, seconds)
        plain = _load(directory, server, seconds)[-1]
    else:
        plain = _load(directory, server, seconds)[-1]
        traced, share = _traced(directory, server, seconds)
    figures.add(f"{name}_rps_ratio", "ratio", traced.rps / plain.rps)
    figures.add(f"{name}_p50_ratio", "ratio", traced.p50_us / plain.p50_us)
    figures.add(f"{name}_p99_ratio", "ratio", traced.p99_us / plain.p99_us)
    figures.add(f"{name}_rps_without", "requests/s", plain.rps)
    figures.add(f"{name}_rps_with", "requests/s", traced.rps)
    figures.add(f"{name}_spans_emitted_share", "ratio", share)
    say(f"{name}, pair {run + 1}: {plain.rps:.0f} requests/s, {traced.rps:.0f} traced")


def _load(directory: Path, server: Server, seconds: int) -> list[Load]:
    """A short load that is not measured, and the load."""
    return [wrk(directory, server.port, each, "https") for each in (_WARM_UP_SECONDS, seconds)]


def _traced(directory: Path, server: Server, seconds: int) -> tuple[Load, float]:
    """The load with an agent, and which share of the requests became spans."""
    with _agent(directory, server) as agent:
        loads = _load(directory, server, seconds)
        books = agent.stop()
    # wrk does not count the requests that it gave up at its end.
    return loads[-1], min(1.0, books.emitted / sum(load.requests for load in loads))


def _hits(directory: Path, server: Server) -> float:
    context = ssl._create_unverified_context()
    with bpf_statistics(), _agent(directory, server, *_PROBES) as agent:
        connection = http.client.HTTPSConnection("127.0.0.1", server.port, context=context)
        _ask(connection, _FIRST_EXCHANGES)
        before = agent.probe_hits()
        _ask(connection, _EXCHANGES)
        hits = agent.probe_hits() - before
        connection.close()
    return hits / _EXCHANGES


def _ask(connection: http.client.HTTPSConnection, times: int) -> None:
    for _ in range(times):
        connection.request("GET", "/file.txt")
        response = connection.getresponse()
        if response.read() and response.status != http.HTTPStatus.OK:
            raise BenchError(f"The HTTPS server answered {response.status}")


@contextmanager
def _agent(directory: Path, server: Server, *options: str) -> Iterator[Agent]:
    with Agent(
        directory, ["--pid", str(server.pid), "--tls", f"{directory}/*", "--runtime-probes", "off", *options]
    ) as agent:
        agent.wait_for(f"/{server.library} (".encode())
        yield agent


# --- the servers --------------------------------------------------------------------------------------------


@contextmanager
def _server(name: str, directory: Path) -> Iterator[Server | None]:
    """The server of that name; None if this machine has not got it."""
    directory.mkdir(parents=True)
    command, library = {"nginx": _nginx, "gnutls": _gnutls, "node": _node, "go": _go}[name](directory)
    if not command:
        yield None
        return
    _make_certificate(directory)
    port = free_port()
    arguments = [each.replace("PORT", str(port)) for each in command]
    if name == "nginx":
        configuration = directory / "nginx.conf"
        configuration.write_text(configuration.read_text().replace("PORT", str(port)))
    environment = {**os.environ, "LD_LIBRARY_PATH": str(directory)}
    with running(arguments, port, environment) as pid:
        yield Server(pid, port, library)


def _make_certificate(directory: Path) -> None:
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes",
         "-keyout", str(directory / "key.pem"), "-out", str(directory / "cert.pem"), "-days", "2",
         "-subj", "/CN=localhost"],
        check=True, capture_output=True,
    )  # fmt: skip


def _nginx(directory: Path) -> tuple[list[str], str]:
    """One worker, a file of 1 kB, no access log; OpenSSL is shared."""
    if not _copied(_OPENSSL, directory):
        return [], ""
    (directory / "file.txt").write_text("x" * 1024)
    temporary = "".join(
        f"{kind}_temp_path {directory}/{kind}; "
        for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    (directory / "nginx.conf").write_text(
        f"""daemon off; worker_processes 1; user root; pid {directory}/nginx.pid;
error_log {directory}/error.log warn;
events {{ worker_connections 1024; }}
http {{
  access_log off; keepalive_requests 100000000;
  {temporary}
  server {{
    listen 127.0.0.1:PORT ssl; ssl_certificate {directory}/cert.pem; ssl_certificate_key {directory}/key.pem;
    location / {{ root {directory}; }}
  }}
}}
"""
    )
    return ["nginx", "-c", str(directory / "nginx.conf")], _OPENSSL[0]


def _gnutls(directory: Path) -> tuple[list[str], str]:
    """It reads and writes once for each exchange: what is counted is what these two calls cost."""
    if not _copied(_GNUTLS, directory):
        return [], ""
    return [sys.executable, str(_SERVERS / "gnutls.py"), "PORT", str(directory)], _GNUTLS[0]


def _copied(libraries: tuple[str, ...], directory: Path) -> bool:
    """Copy shared libraries of this machine into the folder; False if it has not got them all."""
    for folder in _FOLDERS:
        if all((folder / name).exists() for name in libraries):
            for name in libraries:
                shutil.copy(folder / name, directory)
            return True
    return False


def _node(directory: Path) -> tuple[list[str], str]:
    """OpenSSL is part of the program, and the program moves the ciphertext."""
    node = shutil.which("node")
    if node is None:
        return [], ""
    program = Path(shutil.copy(Path(node).resolve(), directory))
    return [str(program), str(_SERVERS / "server.js"), "PORT", str(directory)], program.name


def _go(directory: Path) -> tuple[list[str], str]:
    go = shutil.which("go") or shutil.which("go", path="/usr/local/go/bin")
    if go is None:
        return [], ""
    program = directory / "https_go"
    subprocess.run(
        [go, "build", "-o", str(program), "main.go"],
        cwd=_SERVERS / "go",
        env={**os.environ, "CGO_ENABLED": "0", "GO111MODULE": "off"},
        check=True,
    )
    return [str(program), "PORT", str(directory)], program.name
