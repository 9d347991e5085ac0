"""TLS through the tunnel of a proxy (CONNECT): one connection carries an exchange with the proxy, then TLS."""

from __future__ import annotations

import sys
from pathlib import Path

from harness import SERVICES, Result, Traced, free_ports, listening, log_entries, shell, wait_for
from tls import Tls, only_copies, reads

TUNNELS = 10


def through(tmp_path: Path, scheme: str) -> tuple[Result, int, int]:
    """curl asks a server by HTTPS, twice through each tunnel of a proxy of that scheme; and both ports."""
    tls = Tls(tmp_path / "tls")
    proxy, back = free_ports(2)
    run = f"{tls.openssl()} {sys.executable} {SERVICES}"
    certificate = f"--cacert {tls.folder}/cert.pem --proxy-cacert {tls.folder}/cert.pem"
    urls = " ".join(f"https://localhost:{back}/through/$i/{n}" for n in (1, 20000))
    ask = f"curl -s --http1.1 {certificate} -x {scheme}://localhost:{proxy} {urls} >{tmp_path}/out"
    command = shell(
        f"{run}/connect_proxy.py {proxy} {tls.folder if scheme == 'https' else ''}",
        f"{run}/tls_server.py {back} {tls.folder} {tmp_path}/server.log threads",
        f"{{ until [ -e {tmp_path}/go ]; do sleep 0.05; done; for i in $(seq {TUNNELS}); do "
        f"{tls.openssl()} {ask}; done; touch {tmp_path}/done; }}",
    )
    with Traced(tmp_path / "agent", command, only_copies(tmp_path)) as agent:
        wait_for(lambda: listening(proxy) and listening(back), "the proxy and the server")
        reads(agent, "libssl.so.3")
        (tmp_path / "go").touch()
        wait_for((tmp_path / "done").exists, "curl")
        result = agent.finish()
    result.check_ledger()
    served = log_entries(tmp_path / "server.log")
    assert len(served) == 2 * TUNNELS
    assert sorted((s.path, s.attributes["client.port"]) for s in result.server("tls_server")) == sorted(
        (entry["path"], entry["peer"]) for entry in served
    )
    connects = [s for s in result.spans if s.attributes["http.request.method"] == "CONNECT"]
    assert sorted((s.kind, s.service, s.status) for s in connects) == (
        [("client", "curl", 200)] * TUNNELS + [("server", "connect_proxy", 200)] * TUNNELS
    )
    for span in connects:
        if span.kind == "server":
            parent = result.parent_of(span)
            assert (span.link, parent and parent.kind) == ("wire", "client")
    # The proxy passes on what it cannot read.
    assert {s.service for s in result.client()} == {"curl"}
    assert {s.service for s in result.server()} == {"connect_proxy", "tls_server"}
    return result, proxy, back


def test_through_a_proxy(tmp_path: Path) -> None:
    """The client's exchange with the server is told, on the only connection that it has: that to the proxy."""
    result, proxy, back = through(tmp_path, "http")
    asked = [s for s in result.client("curl") if s.attributes["http.request.method"] == "GET"]
    assert sorted(s.path for s in asked) == sorted(s.path for s in result.server("tls_server"))
    for span in asked:
        assert span.attributes["url.full"] == f"https://localhost:{back}{span.path}"
        assert span.attributes["network.peer.port"] == proxy


def test_through_a_proxy_that_speaks_tls(tmp_path: Path) -> None:
    """TLS in TLS: of the client, the session next to the socket is told, which is that with the proxy."""
    result, proxy, _ = through(tmp_path, "https")
    assert {s.attributes["network.peer.port"] for s in result.client()} == {proxy}
    assert {s.attributes["http.request.method"] for s in result.client()} == {"CONNECT"}
