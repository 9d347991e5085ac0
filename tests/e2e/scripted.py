"""Conversations word by word: what services/script.py is told to say, and how that is run."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path

from harness import SERVICES, Result, SpanRecord, Traced, free_ports, log_entries, shell, wait_for
from kernel_state import loaded

Step = tuple[str, str, str | list[str] | float]


def client(text: str) -> Step:
    return ("client", "say", text)


def server(text: str) -> Step:
    return ("server", "say", text)


def in_pieces(who: str, *pieces: str) -> Step:
    """One write of several pieces of memory."""
    return (who, "say", list(pieces))


def get(path: str, fields: str = "") -> str:
    return f"GET {path} HTTP/1.1\r\nHost: script\r\n{fields}\r\n"


def post(path: str, size: int, fields: str = "") -> str:
    return f"POST {path} HTTP/1.1\r\nHost: script\r\n{fields}Content-Length: {size}\r\n\r\n"


def ok(size: int, status: str = "200 OK") -> str:
    return f"HTTP/1.1 {status}\r\nContent-Length: {size}\r\n\r\n" + "y" * size


def play(
    directory: Path,
    steps: list[Step],
    unix: bool = False,
    meanwhile: Callable[[int], object] | None = None,
    dropped: dict[str, int] | None = None,
    options: tuple[str, ...] = (),
) -> Result:
    """Hold a conversation under an agent. `meanwhile` gets the agent's pid while both sides are still there;
    `dropped` is what the ledger must say was dropped, by reason; `options` are the agent's."""
    script, log = directory / "script.json", directory / "script.log"
    hold = directory / "hold"
    script.write_text(json.dumps(steps))
    where = directory / "socket" if unix else free_ports(1)[0]
    command = f"({sys.executable} {SERVICES}/script.py {where} {script} {log} && touch {hold}; exec sleep 60)"
    with Traced(directory / "agent", shell(command), options) as agent:
        if meanwhile is not None:
            wait_for(lambda: loaded(agent.process.pid), "the programs to be loaded")
            meanwhile(agent.process.pid)
        wait_for(hold.exists, "the end of the conversation")
        result = agent.finish(0.4)
    result.check_ledger()
    assert result.dropped == (dropped or {}), result.said
    heard = {entry["who"]: entry["heard"] for entry in log_entries(log)}
    closed = {who for who, what, _ in steps if what == "close"}
    for who, other in (("client", "server"), ("server", "client")):
        said = sum(len("".join(text)) for by, what, text in steps if by == other and what == "say")  # type: ignore[arg-type]
        assert heard[who] >= said or closed, heard
    return result


def both(result: Result) -> tuple[list[SpanRecord], list[SpanRecord]]:
    """The server's and the client's spans, in order of time; each server span must hang below its client's."""
    servers = sorted(result.server(), key=lambda s: s.start)
    clients = sorted(result.client(), key=lambda s: s.start)
    by_id = {span.span_id: span for span in result.spans}
    for span in servers:
        assert (span.link, by_id[span.parent_id].path) == ("wire", span.path), span
    return servers, clients


def told(span: SpanRecord) -> tuple[str, int, int, int]:
    """Path, status and the sizes of both contents (-1: not known)."""
    sizes = [int(span.attributes.get(f"http.{way}.body.size", -1)) for way in ("request", "response")]
    return span.path, span.status, sizes[0], sizes[1]
