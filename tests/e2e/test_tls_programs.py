"""TLS in real programs: nginx that ends it, curl, Node with its own OpenSSL inside."""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from harness import SERVICES, Traced, free_ports, listening, log_entries, nginx_config, shell, wait_for
from test_tls_openssl import finished
from tls import LIBRARIES, Tls, check_joined, only_copies, reads


@pytest.fixture
def tls(tmp_path: Path) -> Iterator[Tls]:
    made = Tls(tmp_path / "tls")
    yield made
    shutil.rmtree(made.libraries)


@pytest.mark.parametrize("client", ["threads", "asyncio"])
def test_nginx_ends_tls(tmp_path: Path, tls: Tls, client: str) -> None:
    """Each request gives one server span and one client span in nginx, and one server span behind it."""
    edge, plain, back = free_ports(3)
    config = nginx_config(
        tmp_path / "nginx",
        plain,
        f"""listen 127.0.0.1:{edge} ssl backlog=1024;
        ssl_certificate {tls.folder}/cert.pem; ssl_certificate_key {tls.folder}/key.pem;
        location / {{ proxy_pass http://back; proxy_http_version 1.1; proxy_set_header Connection ""; }}""",
        f"upstream back {{ server 127.0.0.1:{back}; keepalive 8; }}",
    )
    environment = tls.openssl()
    command = shell(
        f"{environment} nginx -c {config}",
        f"{sys.executable} {SERVICES}/backend.py {back} {tmp_path}/back.log",
        f"{environment} {sys.executable} {SERVICES}/tls_client.py {edge} {tls.folder} {tmp_path}/client.log "
        f"{client} 20 5 {tmp_path}/go {tmp_path}/go",
    )
    with Traced(tmp_path / "agent", command, only_copies(tmp_path)) as agent:
        wait_for(lambda: listening(edge) and listening(back), "the services")
        reads(agent, "libssl.so.3")
        (tmp_path / "go").touch()
        wait_for(lambda: finished(tmp_path / "client.log"), "the client")
        result = agent.finish()
    result.check_ledger()
    asked = sorted(entry["path"] for entry in log_entries(tmp_path / "client.log") if entry["path"])
    assert sorted(s.path for s in result.server("nginx")) == asked
    assert sorted(s.path for s in result.client("nginx")) == asked
    assert sorted(s.path for s in result.server("backend")) == asked
    by_id = {span.span_id: span for span in result.spans}
    for span in result.server("backend"):
        call = by_id[span.parent_id]
        served = by_id[call.parent_id]
        sent = by_id[served.parent_id]
        assert (call.service, served.service, sent.service) == ("nginx", "nginx", "tls_client")
        assert call.path == served.path == sent.path == span.path
        schemes = [each.attributes.get("url.scheme") for each in (span, served)]
        assert schemes == ["http", "https"]


def test_curl(tmp_path: Path, tls: Tls) -> None:
    """curl moves the ciphertext by a BIO of its own; its connection is kept over the requests of one call."""
    (port,) = free_ports(1)
    environment = tls.openssl()
    urls = " ".join(f"https://localhost:{port}/curl/$i/{n}" for n in (1, 20000))
    server = f"{SERVICES}/tls_server.py {port} {tls.folder} {tmp_path}/server.log threads"
    command = shell(
        f"{environment} {sys.executable} {server}",
        f"{{ until [ -e {tmp_path}/go ]; do sleep 0.05; done; for i in 1 2 3 4 5; do {environment} curl -s "
        f"--http1.1 --cacert {tls.folder}/cert.pem {urls} >{tmp_path}/out.$i; done; touch {tmp_path}/done; }}",
    )
    with Traced(tmp_path / "agent", command, only_copies(tmp_path)) as agent:
        wait_for(lambda: listening(port), "the server")
        reads(agent, "libssl.so.3")
        (tmp_path / "go").touch()
        wait_for((tmp_path / "done").exists, "curl")
        result = agent.finish()
    served = log_entries(tmp_path / "server.log")
    assert len(served) == 10
    check_joined(result, served)
    assert {s.service for s in result.client()} == {"curl"}


def pass_on(tmp_path: Path, tls: Tls, client: str, program: str, connections: int) -> None:
    """Put a program that serves and calls by HTTPS between a client and a server in Python.

    All that the agent tells of it must be true by the programs' own logs.
    """
    front, back = free_ports(2)
    python = f"{tls.openssl()} {sys.executable} {SERVICES}"
    command = shell(
        f"{program} {front} {tls.folder} {tmp_path}/front.log {back}",
        f"{python}/tls_server.py {back} {tls.folder} {tmp_path}/server.log asyncio",
        f"{python}/tls_client.py {front} {tls.folder} {tmp_path}/client.log {client} "
        f"{connections} 4 {tmp_path}/go {tmp_path}/go",
    )
    with Traced(tmp_path / "agent", command, only_copies(tmp_path)) as agent:
        wait_for(lambda: listening(front) and listening(back), "the services")
        reads(agent, "libssl.so.3", Path(program.split()[0]).name)
        (tmp_path / "go").touch()
        wait_for(lambda: finished(tmp_path / "client.log"), "the client")
        result = agent.finish()
    result.check_ledger()
    asked = sorted(entry["path"] for entry in log_entries(tmp_path / "client.log") if entry["path"])
    passed_on = log_entries(tmp_path / "front.log")
    (service,) = {s.service for s in result.server()} - {"tls_server"}
    assert sorted((s.path, s.attributes["client.port"]) for s in result.server(service)) == sorted(
        (entry["path"], entry["peer"]) for entry in passed_on
    )
    assert sorted(s.path for s in result.client(service)) == asked
    assert sorted((s.path, s.attributes["client.port"]) for s in result.server("tls_server")) == sorted(
        (entry["path"], entry["port"]) for entry in passed_on
    )
    by_id = {span.span_id: span for span in result.spans}
    for span in result.server():
        assert span.link == "wire"
        assert by_id[span.parent_id].path == span.path
    for span in result.client(service):
        assert not span.parent_id or by_id[span.parent_id].path == span.path


@pytest.mark.skipif(not shutil.which("node"), reason="node is not installed")
@pytest.mark.parametrize(("client", "connections"), [("threads", 8), ("asyncio", 150)])
def test_node(tmp_path: Path, tls: Tls, client: str, connections: int) -> None:
    """Its OpenSSL is part of the program, and it moves the ciphertext itself."""
    node = tls.copy(Path(shutil.which("node") or "").resolve())
    pass_on(tmp_path, tls, client, f"{node} {SERVICES}/https_node.js", connections)


@pytest.mark.parametrize("kind", ["plain", "stripped and PIE"])
def test_go(tmp_path: Path, tls: Tls, kind: str) -> None:
    """Its goroutines move between threads, and return from a call on another one."""
    go = shutil.which("go") or "/usr/local/go/bin/go"
    options = ["-ldflags=-s -w", "-buildmode=pie"] if kind != "plain" else []
    program = tls.libraries / "https_go"
    subprocess.run(
        [go, "build", *options, "-o", str(program), "main.go"],
        cwd=SERVICES / "https_go",
        env={**os.environ, "CGO_ENABLED": "0", "GO111MODULE": "off"},
        check=True,
    )
    pass_on(tmp_path, tls, "asyncio", str(program), 100)


@pytest.mark.skipif(not shutil.which("wget"), reason="wget is not installed")
def test_wget(tmp_path: Path, tls: Tls) -> None:
    """wget uses GnuTLS, the server OpenSSL: both ends of each exchange are joined, on a connection that is kept."""
    (port,) = free_ports(1)
    openssl = tls.openssl()
    tls.copy(LIBRARIES / "libgnutls.so.30")
    urls = " ".join(f"https://localhost:{port}/wget/$i/{n}" for n in (1, 20000))
    server = f"{SERVICES}/tls_server.py {port} {tls.folder} {tmp_path}/server.log threads"
    holder = "import ctypes, time; ctypes.CDLL('libgnutls.so.30'); time.sleep(600)"
    command = shell(
        f"{openssl} {sys.executable} {server}",
        # The first one keeps the library mapped, so that the agent has found it before the others begin.
        f"{openssl} {sys.executable} -c {shlex.quote(holder)}",
        f"{{ until [ -e {tmp_path}/go ]; do sleep 0.05; done; for i in 1 2 3 4 5; do {openssl} wget -q "
        f"--no-hsts --ca-certificate={tls.folder}/cert.pem -O {tmp_path}/out.$i {urls}; done; "
        f"touch {tmp_path}/done; }}",
    )
    with Traced(tmp_path / "agent", command, only_copies(tmp_path)) as agent:
        wait_for(lambda: listening(port), "the server")
        reads(agent, "libssl.so.3", "libgnutls.so.30")
        (tmp_path / "go").touch()
        wait_for((tmp_path / "done").exists, "wget")
        result = agent.finish()
    served = log_entries(tmp_path / "server.log")
    assert len(served) == 10
    check_joined(result, served)
    assert {s.service for s in result.client()} == {"wget"}
