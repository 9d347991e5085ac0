"""A server and a client of it under the agent, which sees both from their start."""

from __future__ import annotations

from pathlib import Path

from harness import Result, Traced, free_ports, listening, shell, wait_for


def run_pair(directory: Path, server: str, client: str, options: tuple[str, ...] = ()) -> Result:
    """Run two commands, given with {port} and {dir}: the client from when the server listens, to its end."""
    (port,) = free_ports(1)
    go, done = directory / "go", directory / "done"
    command = shell(
        server.format(port=port, dir=directory),
        f"(until [ -e {go} ]; do sleep 0.1; done; {client.format(port=port, dir=directory)}; touch {done}; "
        "exec sleep 60)",
    )
    with Traced(directory / "agent", command, options) as agent:
        wait_for(lambda: listening(port), "the server")
        go.touch()
        wait_for(done.exists, "the client")
        result = agent.finish()
    result.check_ledger()
    assert not result.dropped, result.said
    return result
