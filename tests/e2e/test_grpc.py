"""gRPC between all pairs of clients and servers: many calls of all kinds at once on one connection, each with its
own status and sizes on both sides."""

from __future__ import annotations

from pathlib import Path

import pytest
from grpc_peers import AT_ONCE, CALLS, PYTHON, build_go, run_calls
from rpc_spans import check_calls, check_sizes, logged


def command(side: str, role: str, directory: Path) -> str:
    if side == "go":
        return f"{build_go(directory)} {role}"
    return f"{PYTHON} {'aio-' if side == 'grpcio-aio' else ''}{role}"


def run_and_check(directory: Path, client: str, server: str, calls: int, at_once: int) -> None:
    commands = command(server, "server", directory), command(client, "client", directory)
    result = run_calls(directory, *commands, calls=calls, at_once=at_once)
    logs = directory / "server.log", directory / "client.log"
    assert sum(logged(logs[1]).values()) == calls
    check_calls(result, *logs)
    check_sizes(result)


@pytest.mark.parametrize(
    ("client", "server"),
    [
        ("grpcio", "grpcio"),
        ("grpcio", "grpcio-aio"),
        ("grpcio-aio", "grpcio"),
        ("grpcio-aio", "grpcio-aio"),
        ("go", "go"),
        ("go", "grpcio"),
        ("grpcio", "go"),
    ],
)
def test_all_kinds_of_calls_at_once(tmp_path: Path, client: str, server: str) -> None:
    run_and_check(tmp_path, client, server, CALLS, AT_ONCE)


@pytest.mark.core
def test_all_kinds_of_calls(tmp_path: Path) -> None:
    """Few, for a slow machine: each of grpcio's waiting threads looks ten times a second whether its wait is over,
    and a hundred of them leave an emulated one with little time for anything else."""
    run_and_check(tmp_path, "grpcio", "grpcio", calls=42, at_once=12)
