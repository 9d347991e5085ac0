"""TLS through the tunnel of a proxy (CONNECT): one connection carries an exchange with the proxy, then TLS.

Where the proxy is spoken to by TLS, this is TLS in TLS.
"""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import pytest
from harness import SERVICES, Result, SpanRecord, free_ports, log_entries
from tls import WAIT, Tls, build_go, run_client


def check_connects(result: Result, client: str, proxy: str, tunnels: int) -> None:
    """Each tunnel was asked for once, which both ends tell."""
    connects = [s for s in result.spans if s.attributes["http.request.method"] == "CONNECT"]
    assert sorted((s.kind, s.service, s.status) for s in connects) == (
        [("client", client, 200)] * tunnels + [("server", proxy, 200)] * tunnels
    )
    for span in connects:
        if span.kind == "server":
            parent = result.parent_of(span)
            assert (span.link, parent and parent.kind) == ("wire", "client")


def asked(result: Result) -> list[SpanRecord]:
    return [s for s in result.client() if s.attributes["http.request.method"] == "GET"]


def check_tunnels(
    tmp_path: Path, tls: Tls, client: str, tunnels: int, proxy: str, scheme: str, *libraries: str
) -> None:
    """`client` asks a server twice through each of its tunnels; all that is told of it must be true.

    `PROXY` and `PORT` in `client` stand for the ports of a proxy of the kind `proxy` and of the server.
    """
    front, back = free_ports(2)
    python = f"{tls.openssl()} {sys.executable} {SERVICES}"
    services = [
        f"{python}/connect_proxy.py {front} {proxy} {tls.folder if scheme == 'https' else ''}",
        f"{python}/tls_server.py {back} {tls.folder} {tmp_path}/server.log threads",
    ]
    client = client.replace("PROXY", str(front)).replace("PORT", str(back))
    result = run_client(tmp_path, services, client, [front, back], *libraries)
    served = log_entries(tmp_path / "server.log")
    assert len(served) == 2 * tunnels
    assert sorted((s.path, s.attributes["client.port"]) for s in result.server("tls_server")) == sorted(
        (entry["path"], entry["peer"]) for entry in served
    )
    (service,) = {s.service for s in result.client()}  # the proxy passes on what it cannot read
    assert {s.service for s in result.server()} == {"connect_proxy", "tls_server"}
    check_connects(result, service, "connect_proxy", tunnels)
    assert sorted(s.path for s in asked(result)) == sorted(entry["path"] for entry in served)
    for span in asked(result):
        assert span.attributes["url.full"] == f"https://localhost:{back}{span.path}"
        assert span.attributes["network.peer.port"] == front  # the only connection that it has


def python_client(tls: Tls, kind: str, tunnels: int) -> str:
    script = f"{SERVICES}/tunnel_client.py PROXY PORT {tls.folder} {kind} {tunnels}"
    return f"{WAIT} {tls.openssl()} {sys.executable} {script}"


@pytest.mark.parametrize("scheme", ["http", "https"])
@pytest.mark.parametrize("proxy", ["threads", "asyncio"])
def test_curl(tmp_path: Path, proxy: str, scheme: str) -> None:
    """A call for the inner layer of TLS makes calls for the outer one: curl's own code stands between both."""
    tls = Tls(tmp_path / "tls")
    certificate = f"--cacert {tls.folder}/cert.pem --proxy-cacert {tls.folder}/cert.pem"
    urls = " ".join(f"https://localhost:PORT/through/$i/{n}" for n in (1, 20000))
    ask = f"curl -s --http1.1 {certificate} -x {scheme}://localhost:PROXY {urls} >{tmp_path}/out"
    client = f"{WAIT} for i in $(seq 10); do {tls.openssl()} {ask} || exit; done"
    check_tunnels(tmp_path, tls, client, 10, proxy, scheme)


@pytest.mark.parametrize(("kind", "tunnels"), [("urllib3", 10), ("asyncio", 100)])
@pytest.mark.parametrize("proxy", ["threads", "asyncio"])
def test_python(tmp_path: Path, kind: str, tunnels: int, proxy: str) -> None:
    """The records go from layer to layer through memory; with asyncio those of all tunnels on one thread."""
    tls = Tls(tmp_path / "tls")
    check_tunnels(tmp_path, tls, python_client(tls, kind, tunnels), tunnels, proxy, "https")


@pytest.mark.skipif(not shutil.which("node"), reason="node is not installed")
def test_node(tmp_path: Path) -> None:
    tls = Tls(tmp_path / "tls")
    node = tls.copy(Path(shutil.which("node") or "").resolve())
    client = f"{node} {SERVICES}/tunnel_node.js PROXY PORT {tls.folder} 50 GO"
    check_tunnels(tmp_path, tls, client, 50, "asyncio", "https", node.name)


def test_go(tmp_path: Path) -> None:
    tls = Tls(tmp_path / "tls")
    program = tls.libraries / "tunnel_go"
    build_go(program)
    client = f"{program} PROXY PORT {tls.folder} 50 GO"
    check_tunnels(tmp_path, tls, client, 50, "asyncio", "https", program.name)


@pytest.mark.parametrize(("kind", "tunnels"), [("urllib3", 10), ("asyncio", 100)])
def test_both_layers_end_at_the_proxy(tmp_path: Path, kind: str, tunnels: int) -> None:
    """Then the inner exchange has both its ends on one connection: they are joined, so both are right."""
    tls = Tls(tmp_path / "tls")
    (port,) = free_ports(1)
    service = f"{SERVICES}/intercepting_proxy.py {port} {tls.folder} {tmp_path}/proxy.log"
    client = python_client(tls, kind, tunnels).replace("PROXY", str(port)).replace("PORT", "1")
    result = run_client(tmp_path, [f"{tls.openssl()} {sys.executable} {service}"], client, [port])
    served = log_entries(tmp_path / "proxy.log")
    assert len(served) == 2 * tunnels
    check_connects(result, "tunnel_client", "intercepting_proxy", tunnels)
    inner = [s for s in result.server() if s.attributes["http.request.method"] == "GET"]
    assert sorted((s.path, s.attributes["client.port"]) for s in inner) == sorted(
        (entry["path"], entry["peer"]) for entry in served
    )
    assert sorted(s.path for s in asked(result)) == sorted(entry["path"] for entry in served)
    for span in inner:
        parent = result.parent_of(span)
        assert (span.link, parent and parent.path) == ("wire", span.path)
