"""HAProxy as a proxy, of plain requests and at the end of TLS: both ends of each exchange, and no false parent."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import pytest
from harness import SERVICES, Traced, drive, free_ports, listening, log_entries, shell, wait_for
from test_tls_openssl import finished
from tls import Tls, only_copies, reads

CONFIGURATION = """
global
    nbthread 1
    maxconn 2000
defaults
    mode http
    timeout client 60s
    timeout server 60s
    timeout connect 5s
frontend edge
    bind 127.0.0.1:{plain}
    bind 127.0.0.1:{secure} ssl crt {certificate}
    default_backend services
backend services
    http-reuse safe
    server one 127.0.0.1:{back}
"""


@pytest.mark.skipif(not shutil.which("haproxy"), reason="needs haproxy, the program that is traced")
@pytest.mark.parametrize(("kind", "connections"), [("plain", 1), ("plain", 20), ("tls", 200)])
def test_no_false_parent(tmp_path: Path, kind: str, connections: int) -> None:
    tls = Tls(tmp_path / "tls")
    plain, secure, back = free_ports(3)
    certificate, file, log = tmp_path / "both.pem", tmp_path / "haproxy.cfg", tmp_path / "client.log"
    certificate.write_text((tls.folder / "cert.pem").read_text() + (tls.folder / "key.pem").read_text())
    file.write_text(CONFIGURATION.format(plain=plain, secure=secure, back=back, certificate=certificate))
    command = shell(
        f"{tls.openssl()} haproxy -db -f {file}",
        f"{sys.executable} {SERVICES}/backend.py {back} {tmp_path}/back.log",
        f"{tls.openssl()} {sys.executable} {SERVICES}/tls_client.py {secure} {tls.folder} {log} asyncio "
        f"{connections} 5 {tmp_path}/go {tmp_path}/go",
    )
    with Traced(tmp_path / "agent", command, only_copies(tmp_path)) as agent:
        wait_for(lambda: listening(plain) and listening(back), "the services")
        reads(agent, "libssl.so.3")
        if kind == "tls":
            (tmp_path / "go").touch()
            wait_for(lambda: finished(log), "the client")
            paths = [entry["path"] for entry in log_entries(log) if entry["path"]]
        else:
            paths = [f"/c/{number}" for number in range(300)]
            drive(plain, paths, connections)
        result = agent.finish()
    result.check_ledger()
    sent, served = result.client("haproxy"), result.server("haproxy")
    assert sorted(s.path for s in sent) == sorted(s.path for s in served) == sorted(paths)
    spans = {span.span_id: span for span in result.spans}
    assert all(spans[s.parent_id].path == s.path for s in sent if s.parent_id)
    assert connections > 1 or all(s.parent_id for s in sent)
    for span in result.server("backend"):
        assert (span.link, spans[span.parent_id].path) == ("wire", span.path)
    if kind == "tls":
        assert all(spans[s.parent_id].path == s.path and s.link == "wire" for s in served)
