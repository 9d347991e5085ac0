"""Every flavour of the socket hooks tells the same story of the same conversation, field by field."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
from scripted import client, get, ok, play, post, server

from autotrace.errors import AutotraceError
from autotrace.kernel.decode import decode
from autotrace.kernel.source import FLAVOURS, attach, spec
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


@pytest.fixture(scope="module")
def able() -> list[str]:
    """The flavours that can be had here, if there are some to compare."""
    if os.environ.get("AUTOTRACE_HOOKS", FLAVOURS[0]) != FLAVOURS[0]:
        pytest.skip(f"compared once, in the run with {FLAVOURS[0]}")
    reasons = {flavour: _works(flavour) for flavour in FLAVOURS}
    found = [flavour for flavour, reason in reasons.items() if not reason]
    if len(found) < 2:
        pytest.skip(f"one flavour has no other to be compared with: {reasons}")
    return found


def _works(flavour: str) -> str:
    """Why a flavour cannot be had here; "" if it can."""
    try:
        attach(flavour, spec).close()
    except AutotraceError as error:
        return str(error)
    return ""


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
@pytest.mark.parametrize("unix", [False, True], ids=["tcp", "unix"])
def test_the_same_events(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, able: list[str], unix: bool
) -> None:
    stories = {}
    for flavour in able:
        directory = tmp_path / flavour
        directory.mkdir()
        recording = directory / "events.bin"
        monkeypatch.setenv("AUTOTRACE_HOOKS", flavour)
        monkeypatch.setenv("AUTOTRACE_RECORD", str(recording))
        result = play(directory, STEPS, unix=unix)
        assert len(result.server()) == len(result.client()) == 5
        stories[flavour] = [_relative(story) for story in _Story(recording).told]
    reference = stories[able[-1]]
    for flavour in able[:-1]:
        assert stories[flavour] == reference, flavour
