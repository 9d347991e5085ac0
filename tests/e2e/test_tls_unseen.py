"""TLS of libraries that no probe fits: nothing is attached, the connections are counted, and `explain` says why."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import grpc
import pytest
from harness import SERVICES, Result, Traced, cli, free_ports, listening, shell, wait_for
from test_tls_files import ask
from tls import Tls, only_copies


@pytest.fixture
def tls(tmp_path: Path) -> Tls:
    return Tls(tmp_path / "tls")


def check(result: Result, connections: int) -> None:
    result.check_ledger()
    assert result.spans == []
    assert "reads TLS in" not in result.said
    assert "process_without_known_library 1" in result.said
    assert f"tls_conns {connections}" in result.said


def explained(agent: Traced) -> str:
    """What is said of TLS in the processes that are watched."""
    lines = [line for pid in agent.watched() for line in cli("explain", str(pid)).stdout.splitlines()]
    return " ".join(" ".join(lines).split())


def test_boringssl_in_grpcio(tmp_path: Path, tls: Tls) -> None:
    (port,) = free_ports(1)
    command = shell(f"{sys.executable} {SERVICES}/tls_grpcio.py {port} {tls.folder}")
    certificate = grpc.ssl_channel_credentials((tls.folder / "cert.pem").read_bytes())
    with Traced(tmp_path / "agent", command, ("--tls", "*cygrpc*")) as agent:
        wait_for(lambda: listening(port), "the server")
        for _ in range(3):
            with grpc.secure_channel(f"localhost:{port}", certificate) as channel:
                assert channel.unary_unary("/a/b")(b"hello") == b"hello"
        said = explained(agent)
        result = agent.finish()
    check(result, 3)
    assert "grpcio, which has BoringSSL inside without symbols, is mapped" in said


@pytest.mark.skipif(not shutil.which("javac"), reason="needs javac, to build a server on JSSE")
def test_jsse(tmp_path: Path, tls: Tls) -> None:
    (port,) = free_ports(1)
    keys = tmp_path / "keys.p12"
    pair = ["-in", str(tls.folder / "cert.pem"), "-inkey", str(tls.folder / "key.pem")]
    subprocess.run(
        ["openssl", "pkcs12", "-export", *pair, "-out", str(keys), "-passout", "pass:secret"], check=True
    )
    subprocess.run(["javac", "-d", str(tmp_path), str(SERVICES / "https_java" / "Https.java")], check=True)
    command = shell(f"java -cp {tmp_path} Https {port} {keys}")
    with Traced(tmp_path / "agent", command, only_copies(tmp_path)) as agent:
        wait_for(lambda: listening(port), "the server")
        for _ in range(3):
            ask(tls, port, "/1", "/2")
        said = explained(agent)
        result = agent.finish()
    check(result, 3)
    assert "JSSE is part of the program and no probe fits it" in said
