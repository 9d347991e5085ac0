"""gRPC between all pairs of clients and servers: many calls of all kinds at once on one connection, each with its
own status and sizes on both sides."""

from __future__ import annotations

from pathlib import Path

import pytest
from grpc_peers import CALLS, PYTHON, build_go, run_calls
from rpc_spans import check_calls, check_sizes, logged


def command(side: str, role: str, directory: Path) -> str:
    if side == "go":
        return f"{build_go(directory)} {role}"
    return f"{PYTHON} {'aio-' if side == 'grpcio-aio' else ''}{role}"


@pytest.mark.parametrize(
    ("client", "server"),
    [
        pytest.param("grpcio", "grpcio", marks=pytest.mark.core),
        ("grpcio", "grpcio-aio"),
        ("grpcio-aio", "grpcio"),
        ("grpcio-aio", "grpcio-aio"),
        ("go", "go"),
        ("go", "grpcio"),
        ("grpcio", "go"),
    ],
)
def test_all_kinds_of_calls_at_once(tmp_path: Path, client: str, server: str) -> None:
    result = run_calls(tmp_path, command(server, "server", tmp_path), command(client, "client", tmp_path))
    logs = tmp_path / "server.log", tmp_path / "client.log"
    assert sum(logged(logs[1]).values()) == CALLS
    check_calls(result, *logs)
    check_sizes(result)
