"""New keys on a connection that goes on (TLS 1.2): nothing of it is lost, nothing is told twice."""

from __future__ import annotations

import sys
from pathlib import Path

from harness import SERVICES, Traced, free_ports, log_entries, shell, wait_for
from test_tls_openssl import finished
from tls import Tls, check_joined, only_copies, reads


def test_renegotiation_by_either_side(tmp_path: Path) -> None:
    tls = Tls(tmp_path / "tls")
    (port,) = free_ports(1)
    run = f"{tls.openssl()} {sys.executable} {SERVICES}/tls_renegotiation.py"
    command = shell(
        f"{run} server {port} {tls.folder} {tmp_path}/server.log",
        f"{run} client {port} {tls.folder} {tmp_path}/client.log {tmp_path}/go 10",
    )
    with Traced(tmp_path / "agent", command, only_copies(tmp_path)) as agent:
        reads(agent, "libssl.so.3")
        (tmp_path / "go").touch()
        wait_for(lambda: finished(tmp_path / "client.log"), "the client")
        result = agent.finish()
    served = log_entries(tmp_path / "server.log")
    assert len(served) == 60
    check_joined(result, served)
    for span in result.spans:
        assert span.attributes["http.response.body.size"] == 20_000
