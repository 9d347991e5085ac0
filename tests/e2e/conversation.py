"""Conversations of services/speak.c: what is said, with which system calls, and how the spans must look."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from harness import SERVICES, Result, SpanRecord, Traced, free_ports

SERVICE = "speak"
BUILT = Path(__file__).parents[2] / "build" / "services"
"""Kept from run to run: a guest, whose compiler is slow, has what was built outside."""


def build(name: str) -> Path:
    """Compile a C service, unless that was done before."""
    source, program = SERVICES / f"{name}.c", BUILT / name
    if not program.exists() or program.stat().st_mtime < source.stat().st_mtime:
        BUILT.mkdir(parents=True, exist_ok=True)
        new = BUILT / f"{name}.{os.getpid()}"
        subprocess.run(["gcc", "-O1", "-Wall", "-Wextra", "-pthread", "-o", new, source], check=True)
        new.rename(program)
    return program


@dataclass
class Conversation:
    """One run of speak.c. `path` names it in its requests; `options` are its KEY=VALUE arguments."""

    path: str
    request_size: int = 30_000
    response_size: int = 50_000
    rounds: int = 2
    options: dict[str, Any] = field(default_factory=dict)
    request_fields: str = ""
    response: bytes = b""

    def command(self, program: Path, directory: Path) -> str:
        """The shell command that holds this conversation; its log gets one line if all went well."""
        name = self.path.strip("/").replace("/", "-")
        files = {"request": directory / f"{name}.request", "response": directory / f"{name}.response"}
        files["request"].write_bytes(
            f"POST {self.path} HTTP/1.1\r\nHost: speak\r\n{self.request_fields}"
            f"Content-Length: {self.request_size}\r\n\r\n".encode()
            + b"q" * self.request_size
        )
        head = f"HTTP/1.1 200 OK\r\nContent-Length: {self.response_size}\r\n\r\n".encode()
        files["response"].write_bytes(self.response or head + b"r" * self.response_size)
        options = {"address": free_ports(1)[0], "rounds": self.rounds, **files, **self.options}
        arguments = " ".join(shlex.quote(f"{key}={value}") for key, value in options.items())
        return f"timeout 60 {program} {arguments} >> {directory}/speak.log"


def hold(directory: Path, conversations: list[Conversation]) -> Result:
    """Hold the conversations one after the other in a traced shell, and check that each was held whole."""
    program = build(SERVICE)
    commands = [conversation.command(program, directory) for conversation in conversations]
    script = directory / "script.sh"
    script.write_text("\n".join(commands) + "\n")
    with Traced(directory / "agent", ["bash", str(script)]) as agent:
        agent.process.wait(120)
        result = agent.finish(0)
    held = [json.loads(line) for line in (directory / "speak.log").read_text().splitlines()]
    assert [(entry["rounds"], entry["status"]) for entry in held] == [(c.rounds, 0) for c in conversations]
    result.check_ledger()
    assert not result.dropped, result.said
    return result


def exchanges(result: Result, path: str) -> tuple[list[SpanRecord], list[SpanRecord]]:
    """The server's and the client's spans of a path, in order of time."""
    server = sorted((s for s in result.server(SERVICE) if s.path == path), key=lambda s: s.start)
    client = sorted((s for s in result.client(SERVICE) if s.path == path), key=lambda s: s.start)
    return server, client


def check(result: Result, conversation: Conversation) -> None:
    """One span on each side of every round, with the right sizes; the server's hangs below the client's."""
    server, client = exchanges(result, conversation.path)
    counts = (len(server), len(client))
    assert counts == (conversation.rounds, conversation.rounds), (conversation.path, counts, result.said)
    for below, above in zip(server, client, strict=True):
        assert (below.link, below.parent_id) == ("wire", above.span_id), below
        for span in (below, above):
            assert (span.status, span.error) == (200, False), span
            assert span.attributes["http.request.body.size"] == conversation.request_size, span
            assert span.attributes["http.response.body.size"] == conversation.response_size, span
        assert above.start <= below.start, (above, below)
