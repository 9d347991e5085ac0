"""TLS in real programs: nginx that ends it, curl, Node with its own OpenSSL inside."""

from __future__ import annotations

import shlex
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from harness import SERVICES, Traced, free_ports, listening, log_entries, nginx_config, shell, wait_for
from test_tls_openssl import finished
from tls import LIBRARIES, WAIT, Tls, build_go, check_joined, only_copies, reads, run_client


@pytest.fixture
def tls(tmp_path: Path) -> Iterator[Tls]:
    made = Tls(tmp_path / "tls")
    yield made
    shutil.rmtree(made.libraries)


@pytest.mark.parametrize(("client", "connections"), [("threads", 20), ("asyncio", 200)])
def test_nginx_ends_tls(tmp_path: Path, tls: Tls, client: str, connections: int) -> None:
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
        f"{client} {connections} 5 {tmp_path}/go {tmp_path}/go",
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
    urls = " ".join(f"https://localhost:{port}/curl/$i/{n}" for n in (1, 20000))
    ask = f"curl -s --http1.1 --cacert {tls.folder}/cert.pem {urls} >{tmp_path}/out"
    client = f"{WAIT} for i in 1 2 3 4 5; do {tls.openssl()} {ask} || exit; done"
    result = run_client(tmp_path, [tls_server(tmp_path, tls, port)], client, [port])
    served = log_entries(tmp_path / "server.log")
    assert len(served) == 10
    check_joined(result, served)
    assert {s.service for s in result.client()} == {"curl"}


def test_curl_with_many_connections(tmp_path: Path, tls: Tls) -> None:
    """On one thread (curl's multi interface): 200 new connections at once, then 300 requests on 50 kept ones."""
    (port,) = free_ports(1)
    files = [tmp_path / f"curl-{number}" for number in (1, 2)]
    for number, file in enumerate(files):
        urls = (f"https://localhost:{port}/{number}/{i}/{i % 5 * 9000}" for i in range(300))
        file.write_text("".join(f'url = "{url}"\noutput = "{tmp_path}/out"\n' for url in urls))
    curl = f"{tls.openssl()} curl -s --http1.1 --cacert {tls.folder}/cert.pem -Z 2>{tmp_path}/progress"
    client = (
        f"{WAIT} {curl} --parallel-immediate --parallel-max 200 -K {files[0]} && "
        f"{curl} --parallel-max 50 -K {files[1]}"
    )
    result = run_client(tmp_path, [tls_server(tmp_path, tls, port, "asyncio")], client, [port])
    served = log_entries(tmp_path / "server.log")
    assert len(served) == 600
    check_joined(result, served)
    assert {s.service for s in result.client()} == {"curl"}


def test_a_bio_of_the_program_s_own(tmp_path: Path, tls: Tls) -> None:
    """The server moves the ciphertext of its sessions by code of its own, out of OpenSSL's calls."""
    (port,) = free_ports(1)
    run = f"{tls.openssl()} {sys.executable} {SERVICES}"
    log = tmp_path / "client.log"
    command = shell(
        f"{run}/tls_custom_bio.py {port} {tls.folder} {tmp_path}/server.log",
        f"{run}/tls_client.py {port} {tls.folder} {log} asyncio 200 5 {tmp_path}/go {tmp_path}/go",
    )
    with Traced(tmp_path / "agent", command, only_copies(tmp_path)) as agent:
        wait_for(lambda: listening(port), "the server")
        reads(agent, "libssl.so.3")
        (tmp_path / "go").touch()
        wait_for(lambda: finished(log), "the client")
        result = agent.finish()
    served = log_entries(tmp_path / "server.log")
    assert len(served) == 200 * 5
    check_joined(result, served)


def tls_server(tmp_path: Path, tls: Tls, port: int, kind: str = "threads") -> str:
    server = f"{SERVICES}/tls_server.py {port} {tls.folder} {tmp_path}/server.log {kind}"
    return f"{tls.openssl()} {sys.executable} {server}"


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
    program = tls.libraries / "https_go"
    build_go(program, *(["-ldflags=-s -w", "-buildmode=pie"] if kind != "plain" else []))
    pass_on(tmp_path, tls, "asyncio", str(program), 100)


def test_go_makes_the_handshake_with_its_first_write(tmp_path: Path, tls: Tls) -> None:
    """The request is told before its bytes leave, so the server's end, which is told later, finds it."""
    (port,) = free_ports(1)
    program = tls.libraries / "lazy_tls_go"
    build_go(program)
    client = f"{program} {port} {tls.folder} 20 GO"
    result = run_client(tmp_path, [tls_server(tmp_path, tls, port)], client, [port], program.name)
    served = log_entries(tmp_path / "server.log")
    assert len(served) == 40
    check_joined(result, served)


@pytest.mark.skipif(not shutil.which("wget"), reason="wget is not installed")
def test_wget(tmp_path: Path, tls: Tls) -> None:
    """wget uses GnuTLS, the server OpenSSL: both ends of each exchange are joined, on a connection that is kept."""
    (port,) = free_ports(1)
    openssl = tls.openssl()
    tls.copy(LIBRARIES / "libgnutls.so.30")
    # It keeps the library mapped, so that the agent has found it before the clients begin.
    holder = "import ctypes, time; ctypes.CDLL('libgnutls.so.30'); time.sleep(600)"
    services = [
        tls_server(tmp_path, tls, port),
        f"{openssl} {sys.executable} -c {shlex.quote(holder)}",
    ]
    urls = " ".join(f"https://localhost:{port}/wget/$i/{n}" for n in (1, 20000))
    ask = f"wget -q --no-hsts --ca-certificate={tls.folder}/cert.pem -O {tmp_path}/out {urls}"
    client = f"{WAIT} for i in 1 2 3 4 5; do {openssl} {ask} || exit; done"
    result = run_client(tmp_path, services, client, [port], "libgnutls.so.30")
    served = log_entries(tmp_path / "server.log")
    assert len(served) == 10
    check_joined(result, served)
    assert {s.service for s in result.client()} == {"wget"}
