"""TLS in the kernel: the socket carries plaintext, and the library is told of it too. It is one exchange."""

from __future__ import annotations

import socket
import sys
from pathlib import Path

import pytest
from harness import SERVICES, Traced, free_ports, listening, log_entries, nginx_config, shell, wait_for
from test_tls_openssl import finished
from tls import Tls, only_copies, reads

TCP_ULP = 31


def kernel_tls() -> bool:
    """Tell if this kernel encrypts: CONFIG_TLS, as a module or built in."""
    with socket.create_server(("127.0.0.1", 0)) as listener, socket.socket() as client:
        client.connect(listener.getsockname())
        try:
            client.setsockopt(socket.IPPROTO_TCP, TCP_ULP, b"tls")
        except OSError:
            return False
        return True


def sessions_in_kernel() -> int:
    """How many directions the kernel has begun to encrypt or decrypt so far."""
    lines = [line.split() for line in Path("/proc/net/tls_stat").read_text().splitlines()]
    return sum(int(number) for name, number in lines if name in ("TlsTxSw", "TlsRxSw"))


@pytest.mark.skipif(not kernel_tls(), reason="needs a kernel with TLS (CONFIG_TLS): the 6.1 guest has it")
@pytest.mark.parametrize("protocol", ["TLSv1.2", "TLSv1.3"])
def test_nginx_with_kernel_tls(tmp_path: Path, protocol: str) -> None:
    """nginx sends a file by SSL_sendfile, which is counted, and all else by SSL_write, which is captured."""
    tls = Tls(tmp_path / "tls")
    port, plain = free_ports(2)
    files = tmp_path / "files"
    files.mkdir()
    (files / "page").write_bytes(b"x" * 30_000)
    config = nginx_config(
        tmp_path / "nginx",
        plain,
        f"""listen 127.0.0.1:{port} ssl; ssl_protocols {protocol}; sendfile on;
        ssl_ciphers ECDHE-ECDSA-AES128-GCM-SHA256; ssl_conf_command Options KTLS;
        ssl_certificate {tls.folder}/cert.pem; ssl_certificate_key {tls.folder}/key.pem;
        location / {{ root {files}; error_page 405 =200 /page; rewrite ^ /page break; }}""",
    )
    environment = tls.openssl()
    command = shell(
        f"{environment} nginx -c {config}",
        f"{environment} {sys.executable} {SERVICES}/tls_client.py {port} {tls.folder} {tmp_path}/client.log "
        f"threads 5 4 {tmp_path}/go {tmp_path}/go",
    )
    before = sessions_in_kernel()
    with Traced(tmp_path / "agent", command, only_copies(tmp_path)) as agent:
        wait_for(lambda: listening(port), "nginx")
        reads(agent, "libssl.so.3")
        (tmp_path / "go").touch()
        wait_for(lambda: finished(tmp_path / "client.log"), "the client", 180)
        result = agent.finish()
    result.check_ledger()
    assert sessions_in_kernel() > before, "nginx did not use the kernel's TLS"
    asked = sorted(entry["path"] for entry in log_entries(tmp_path / "client.log") if entry["path"])
    assert sorted(s.path for s in result.server("nginx")) == asked
    assert sorted(s.path for s in result.client()) == asked
    for span in result.server():
        assert (span.link, span.status) == ("wire", 200), span
        assert span.attributes["http.response.body.size"] == 30_000
