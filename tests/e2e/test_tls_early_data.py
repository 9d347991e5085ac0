"""Early data (0-RTT): a request in the first flight is one exchange, also if it had to be sent again."""

from __future__ import annotations

import sys
from pathlib import Path

from harness import SERVICES, Traced, free_ports, listening, log_entries, nginx_config, shell, wait_for
from test_tls_openssl import finished
from tls import Tls, check_joined, only_copies, reads

CONNECTIONS = 9


def test_early_data_taken_and_refused(tmp_path: Path) -> None:
    tls = Tls(tmp_path / "tls")
    (port,) = free_ports(1)
    run = f"{tls.openssl()} {sys.executable} {SERVICES}/tls_early_data.py"
    command = shell(
        f"{run} server {port} {tls.folder} {tmp_path}/server.log",
        f"{run} client {port} {tls.folder} {tmp_path}/client.log {tmp_path}/go {CONNECTIONS}",
    )
    # One client after the other: a look at the port would be a connection of its own.
    with Traced(tmp_path / "agent", command, only_copies(tmp_path)) as agent:
        reads(agent, "libssl.so.3")
        (tmp_path / "go").touch()
        wait_for(lambda: finished(tmp_path / "client.log"), "the client")
        result = agent.finish()
    served = log_entries(tmp_path / "server.log")
    asked = [entry for entry in log_entries(tmp_path / "client.log") if entry["path"]]
    assert len(served) == len(asked) == 2 * (CONNECTIONS + 1)
    assert sum(entry["early"] for entry in served) == CONNECTIONS - sum(entry["refused"] for entry in asked)
    assert any(entry["refused"] for entry in asked)
    check_joined(result, served)


def test_nginx_takes_early_data(tmp_path: Path) -> None:
    """nginx answers early data before the handshake is over."""
    tls = Tls(tmp_path / "tls")
    port, plain = free_ports(2)
    config = nginx_config(
        tmp_path / "nginx",
        plain,
        f"""listen 127.0.0.1:{port} ssl; ssl_protocols TLSv1.3; ssl_early_data on;
        ssl_certificate {tls.folder}/cert.pem; ssl_certificate_key {tls.folder}/key.pem;
        location / {{ add_header Early "$ssl_early_data"; return 200 "hello"; }}""",
    )
    environment = tls.openssl()
    command = shell(
        f"{environment} nginx -c {config}",
        f"{environment} {sys.executable} {SERVICES}/tls_early_data.py client {port} {tls.folder} "
        f"{tmp_path}/client.log {tmp_path}/go {CONNECTIONS}",
    )
    with Traced(tmp_path / "agent", command, only_copies(tmp_path)) as agent:
        wait_for(lambda: listening(port), "nginx")
        reads(agent, "libssl.so.3")
        (tmp_path / "go").touch()
        wait_for(lambda: finished(tmp_path / "client.log"), "the client")
        result = agent.finish()
    result.check_ledger()
    entries = [entry for entry in log_entries(tmp_path / "client.log") if entry["path"]]
    assert not any(entry["refused"] for entry in entries)
    asked = sorted(entry["path"] for entry in entries)
    assert sorted(s.path for s in result.server("nginx")) == asked
    assert sorted(s.path for s in result.client()) == asked
    for span in result.server():
        assert span.link == "wire", span
        parent = result.parent_of(span)
        assert parent is not None
        assert parent.path == span.path
