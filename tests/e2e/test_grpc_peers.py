"""gRPC by programs of other makers, each as a server and as a client: grpc-js, grpc-java on Netty, tonic.

50 calls at once on one connection, of all forms and with all ends: their own logs equal the spans one for one.
"""

from __future__ import annotations

from pathlib import Path

import pytest
from grpc_peers import PYTHON, build_go, run_calls
from peer_builds import build_peer
from rpc_spans import check_calls, check_sizes, logged

CALLS, AT_ONCE = 270, 50
KINDS = "unary server client both fail halfway slow cancel both"
"""9 of them, so that each meets every status."""


def command(side: str, directory: Path) -> str:
    if side == "grpcio":
        return PYTHON
    return build_go(directory) if side == "go" else build_peer(side)


@pytest.mark.timeout(600)
@pytest.mark.parametrize(
    ("client", "server"),
    [
        ("js", "js"), ("grpcio", "js"), ("js", "go"),
        ("java", "java"), ("go", "java"), ("java", "grpcio"),
        ("tonic", "tonic"), ("go", "tonic"), ("tonic", "grpcio"),
    ],
)  # fmt: skip
def test_calls_between_makers(tmp_path: Path, client: str, server: str) -> None:
    result = run_calls(
        tmp_path,
        f"{command(server, tmp_path)} server",
        f"{command(client, tmp_path)} client",
        kinds=KINDS,
        calls=CALLS,
        at_once=AT_ONCE,
    )
    logs = tmp_path / "server.log", tmp_path / "client.log"
    assert sum(logged(logs[1]).values()) == CALLS
    check_calls(result, *logs)
    check_sizes(result)
