"""Every flavour of the socket hooks tells the same story of the same conversation, field by field."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

import pytest
from harness import SERVICES, Result, Traced, free_ports, shell, wait_for
from scripted import client, get, ok, post, server

from autotrace.kernel.decode import decode
from autotrace.kernel.source import FLAVOURS
from autotrace.model import Chunk, ConnectionClosed, ConnectionOpened, Context, Event, Progress
from autotrace.recording import Kind, read

STEPS = [
    client(get("/one")),
    server(ok(10)),
    client(post("/two", 300) + "x" * 300),
    server(ok(20_000)),
    client(get("/three") + get("/four")),
    server(ok(3) + ok(4)),
    client(post("/five", 5, "Expect: 100-continue\r\n")),
    server("HTTP/1.1 100 Continue\r\n\r\n"),
    client("hello"),
    server("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n"),
]


def _recorded(directory: Path, flavour: str) -> Result | None:
    """Hold the conversation over TCP and then over a Unix socket, under one agent: to load the programs anew takes
    a guest longer than all that is said. None if the flavour cannot be had here."""
    directory.mkdir()
    script, done = directory / "script.json", directory / "done"
    script.write_text(json.dumps(STEPS))
    held = " && ".join(
        f"{sys.executable} {SERVICES}/script.py {where} {script} {directory}/log"
        for where in (*free_ports(1), directory / "socket")
    )
    options = ("--hooks", flavour, "--record", str(directory / "events.bin"))
    with Traced(directory / "agent", shell(f"({held} && touch {done}; exec sleep 60)"), options) as agent:
        wait_for(
            lambda: done.exists() or agent.process.poll() is not None, "the end of the conversations", 300
        )
        result = agent.finish(0.4)
    return None if "do not work here" in result.said else result


class _Story:
    """The events of one run with what differs from run to run taken out: times, ids, ports, addresses."""

    def __init__(self, recording: Path) -> None:
        self.connections: dict[int, list[Any]] = {}
        self._threads: dict[int, int] = {}
        for entry in read(recording):
            if entry.kind is Kind.RECORD:
                self._event(decode(entry.payload))
        self.told = sorted(self.connections.values(), key=repr)

    def _event(self, event: Event) -> None:
        if isinstance(event, ConnectionOpened):
            story = self.connections.setdefault(event.conn, [])
            opened = event.opened_at is not None
            address = event.local_address.rpartition("/")[2]
            story.append(("opened", event.family, address, event.from_start, opened))
        elif isinstance(event, Chunk):
            self._chunk(self.connections[event.conn], event)
        elif isinstance(event, Progress):
            self._reach(self.connections[event.conn], event.direction, event.end)
        elif isinstance(event, ConnectionClosed) and event.conn in self.connections:
            story = self.connections[event.conn]
            self._reach(story, 0, event.rx_end)
            self._reach(story, 1, event.tx_end)
            story.append(("closed", event.error, event.established))

    def _chunk(self, story: list[Any], event: Chunk) -> None:
        last = story[-1]
        # Where the reads of a turn were cut is the scheduler's affair.
        if last[0] == "chunk" and last[1:3] == (event.turn, event.direction):
            story[-1] = (*last[:3], last[3] + event.data, last[4])
        else:
            story.append(("chunk", event.turn, event.direction, event.data, self._who(event.at)))

    def _who(self, at: Context) -> tuple[int, bool]:
        return self._threads.setdefault(at.tid, len(self._threads)), at.ts > 0

    def _reach(self, story: list[Any], direction: int, end: int) -> None:
        """How far a direction came in the end, from where it began."""
        story[:] = [item for item in story if item[:2] != ("reach", direction)]
        story.append(("reach", direction, end))


def _relative(story: list[Any]) -> list[Any]:
    """Positions as counted from the end: the first number of a connection is random."""
    said = {0: 0, 1: 0}
    for item in story:
        if item[0] == "chunk":
            said[item[2]] += len(item[3])
    return [item if item[0] != "reach" else ("reach", item[1]) for item in story] + [("captured", said)]


@pytest.mark.core
@pytest.mark.skipif(
    os.environ.get("AUTOTRACE_HOOKS", FLAVOURS[0]) != FLAVOURS[0],
    reason=f"compared once, in the run with {FLAVOURS[0]}",
)
def test_the_same_events(tmp_path: Path) -> None:
    stories = {}
    for flavour in FLAVOURS:
        result = _recorded(tmp_path / flavour, flavour)
        if result is None:
            continue
        result.check_ledger()
        assert not result.dropped, result.said
        assert len(result.server()) == len(result.client()) == 10
        story = _Story(tmp_path / flavour / "events.bin")
        assert len(story.told) == 4
        stories[flavour] = [_relative(each) for each in story.told]
    if len(stories) < 2:
        pytest.skip(f"one flavour has no other to be compared with: only {', '.join(stories)} works here")
    *others, last = stories
    for flavour in others:
        assert stories[flavour] == stories[last], flavour
