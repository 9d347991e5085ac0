"""What is not HTTP/1 makes no exchange, and costs no events: it is left alone after a first look."""

from __future__ import annotations

import re
import socket
import sys
from pathlib import Path

import pytest
from harness import SERVICES, Traced, free_ports

MPTCP = 262
"""IPPROTO_MPTCP of linux/in.h."""


def test_other_protocols_are_left_alone(tmp_path: Path) -> None:
    (port,) = free_ports(1)
    log = tmp_path / "log"
    command = [sys.executable, str(SERVICES / "talk.py"), str(port), str(log)]
    with Traced(tmp_path / "agent", command) as agent:
        assert agent.process.wait(60) == 0
        result = agent.finish(0)
    result.check_ledger()
    protocols = log.read_text().split()
    assert len(protocols) == 11
    assert result.spans == []
    sent = re.search(r"kernel: sent (\d+)", result.said)
    assert sent, result.said
    # Each connection's description, first bytes and end on both sides, and the processes.
    assert int(sent[1]) < 12 * len(protocols), result.said


def _has_mptcp() -> bool:
    try:
        socket.socket(proto=MPTCP).close()
    except OSError:
        return False
    return True


@pytest.mark.skipif(not _has_mptcp(), reason="needs a kernel with MPTCP")
def test_mptcp_is_left_alone(tmp_path: Path) -> None:
    """Its stream has no struct tcp_sock, whose numbers would be taken for positions."""
    program = f"""
import os, socket
server = socket.socket(proto={MPTCP})
server.bind(("127.0.0.1", 0))
server.listen()
if os.fork():
    connection = server.accept()[0]
    for _ in range(5):
        connection.recv(9999)
        connection.send(b"HTTP/1.1 200 OK\\r\\nContent-Length: 2\\r\\n\\r\\nok")
    os.wait()
else:
    connection = socket.socket(proto={MPTCP})
    connection.connect(server.getsockname())
    for _ in range(5):
        connection.send(b"GET /mptcp HTTP/1.1\\r\\nHost: x\\r\\n\\r\\n")
        connection.recv(9999)
"""
    with Traced(tmp_path / "agent", [sys.executable, "-c", program]) as agent:
        assert agent.process.wait(60) == 0
        result = agent.finish(0)
    result.check_ledger()
    assert result.spans == []
    assert "seen 0 = " in result.said
