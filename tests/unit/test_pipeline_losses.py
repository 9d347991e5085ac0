"""Whatever records are lost, the books balance, and no request is given another one's response.

A small model of the kernel side (bpf/http/turns.h) turns calls into records; a ring that is full at random
moments loses some of them. Every message carries its number in all that it says.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import chain, repeat
from urllib.parse import urlsplit

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from autotrace.ledger import Ledger
from autotrace.metrics import RedMetrics
from autotrace.model import (
    Chunk,
    Connection,
    ConnectionClosed,
    ConnectionOpened,
    Context,
    Direction,
    Event,
    Process,
    Progress,
    Role,
    Span,
)
from autotrace.pipeline import Pipeline

RX, TX = Direction.RX, Direction.TX
HEAD_SIZE = 160
FIRST = (1000, 2000)
PADDING = st.integers(0, 60)
Call = tuple[Direction, bytes]


def path(number: int) -> str:
    return f"/n/{number}/end"


def ask(number: int, padding: int) -> bytes:
    body = b"x" * (number * 11)
    method = "POST" if body else "GET"
    pad = "p" * padding
    return (
        f"{method} {path(number)} HTTP/1.1\r\nContent-Length: {len(body)}\r\nX: {pad}\r\n\r\n".encode() + body
    )


def answer(number: int, padding: int) -> bytes:
    body = b"y" * (number * 7)
    pad = "p" * padding
    return f"HTTP/1.1 {200 + number} S\r\nContent-Length: {len(body)}\r\nX: {pad}\r\n\r\n".encode() + body


class KernelSide:
    """One connection as the kernel side sees it. `ring` takes a record, or says that there is no room."""

    def __init__(self, id: int, server: bool, ring: Callable[[Event], bool], clock: Iterator[int]) -> None:
        self.id, self.ring, self.clock = id, ring, clock
        self.ends = list(FIRST)
        self.last_ts = [0, 0]
        self.tails = [b"", b""]
        self.dirty = [False, False]
        self.turn = self.turn_start = 0
        self.speaker: Direction | None = None
        self.announced = self.told = False
        self.ports = (80, 4000 + id) if server else (4000 + id, 80)

    def description(self, now: int) -> ConnectionOpened:
        local, remote = self.ports
        return ConnectionOpened(
            now, self.id, 10, 2, self.id, 0, 1, "10.0.0.1", local, "10.0.0.2", remote, True, None,
            *self.reach(RX)[:2], *self.reach(TX)[:2],
        )  # fmt: skip

    def moves(self, direction: Direction, data: bytes) -> None:
        now = next(self.clock)
        position = self.ends[direction]
        if self.speaker is not direction:
            self.turn += 1
            self.speaker, self.turn_start, self.told = direction, position, False
        elif position >= self.turn_start + HEAD_SIZE and data[:3].isupper():
            self.turn_start = position  # a pipelined message
        length = min(len(data), max(self.turn_start + HEAD_SIZE - position, 0))
        if length:
            self.announced = self.announced or self.ring(self.description(now))
            self.told = self.send(direction, position, data[:length], now) or self.told
        self.ends[direction] += len(data)
        self.last_ts[direction] = now
        self.dirty[direction] = length < len(data)
        self.tails[direction] = data[-8:] if self.dirty[direction] else b""

    def send(self, direction: Direction, position: int, data: bytes, now: int) -> bool:
        other = (0, 0, b"") if self.told else self.reach(direction.other)
        at = Context(now, 10, 11, 0, 0, 0)
        record = Chunk(self.id, direction, self.turn, position, data, at, *other)
        return self.announced and self.ring(record)

    def reach(self, direction: Direction) -> tuple[int, int, bytes]:
        return self.ends[direction], self.last_ts[direction], self.tails[direction]

    def sweep(self) -> None:
        for direction in (RX, TX):
            if self.announced and self.dirty[direction]:
                record = Progress(next(self.clock), self.id, direction, *self.reach(direction))
                self.dirty[direction] = not self.ring(record)

    def close(self) -> None:
        now = next(self.clock)
        if self.announced:
            ends = (*self.reach(RX), *self.reach(TX))
            self.ring(ConnectionClosed(now, self.id, 0, True, *ends, self.description(now)))


@st.composite
def conversations(draw: st.DrawFn, first: int, split: bool, pipelined: bool, steps: str = "") -> list[Call]:
    """The calls of one end, requests coming in. If they are `split`, heads come in pieces; if `pipelined`,
    requests before the one before them is answered, and while it is being answered. They begin with `steps`,
    whole messages."""
    calls: list[Call] = []
    waiting: list[int] = []
    sending: list[bytes] = []
    number = first
    more = draw(st.lists(st.sampled_from("aarrp"), min_size=1, max_size=16))
    for place, step in enumerate([*steps, *more]):
        whole = place < len(steps)
        if step == "a" and number < first + 8 and (pipelined or not (waiting or sending)):
            parts = [ask(number, 0)] if whole else draw(cut(ask(number, draw(PADDING)), not split))
            calls += [(RX, part) for part in parts]
            waiting.append(number)
            number += 1
        elif step == "r":
            calls += [(TX, part) for part in sending]
            sending = []
            if waiting and whole:
                calls.append((TX, answer(waiting.pop(0), 0)))
            elif waiting:
                sending = draw(cut(answer(waiting.pop(0), draw(PADDING)), not split))
        elif sending:
            calls.append((TX, sending.pop(0)))
    calls += [(TX, part) for part in sending]
    return calls


@st.composite
def cut(draw: st.DrawFn, message: bytes, whole_head: bool) -> list[bytes]:
    """A message in the calls that move it."""
    least = message.index(b"\r\n\r\n") + 4 if whole_head else 1
    places = sorted(set(draw(st.lists(st.integers(least, len(message) - 1), max_size=3))))
    return [message[start:end] for start, end in zip([0, *places], [*places, len(message)], strict=True)]


class Run:
    """All connections of a test, driven call by call through one ring."""

    def __init__(self, role: Role, room: Iterator[bool]) -> None:
        self.role = role
        self.room = room
        self.given_up: set[int] = set()
        self.clock = iter(range(1_000_000, 1 << 62, 10))
        self.spans: list[Span] = []
        self.ledger = Ledger()
        process = Process(10, "p", {"service.name": "s"})
        self.pipeline = Pipeline(
            process_of=lambda _pid: process,
            emit=self.spans.append,
            stop_capture=self.stopped,
            forget=self.stopped,
            ledger=self.ledger,
            metrics=RedMetrics(self.ledger),
            host=b"h",
            wall_offset_ns=0,
            exchange_timeout_ns=10**18,
            route_limit=10,
        )

    def stopped(self, connection: Connection) -> None:
        """Nothing more of it is wanted: the kernel side sends no more."""
        self.given_up.add(connection.id)

    def ring(self, event: Event) -> bool:
        """Take a record if there is room."""
        if not next(self.room):
            return False
        self.pipeline.event(event)
        assert self.ledger.balance(self.pipeline._pairing.in_flight) == 0
        return True

    def drive(self, calls: dict[int, list[Call]], order: list[int]) -> None:
        """Make the calls of all connections; `order` says, by connection, whose turn it is (0: a sweep)."""
        server = self.role is Role.SERVER
        sides = {id: KernelSide(id, server, self.ring, self.clock) for id in calls}
        left = {id: list(of_one) for id, of_one in calls.items()}
        for id in [*order, *(id for id, of_one in left.items() for _ in of_one)]:
            if id == 0:
                for side in sides.values():
                    side.sweep()
            elif left.get(id):
                direction, data = left[id].pop(0)
                if id not in self.given_up:
                    sides[id].moves(direction if server else direction.other, data)
        for side in sides.values():
            side.close()
        self.pipeline.keep_only(set(), next(self.clock))
        assert self.pipeline.connections == 0
        self.pipeline.finish(next(self.clock))
        assert self.ledger.balance() == 0

    def check_pairs(self) -> set[str]:
        """Each span says one number, wherever it says one, and no number is said twice. The paths."""
        found: set[str] = set()
        for span in self.spans:
            said = str(span.attributes.get("url.path") or urlsplit(str(span.attributes["url.full"])).path)
            status = span.attributes.get("http.response.status_code")
            if status is not None:
                # Of a head that was cut short, the path may be too.
                assert path(int(str(status)) - 200).startswith(said), span
            if not said.endswith("/end"):
                continue
            assert said not in found, span
            found.add(said)
            number = int(said.split("/")[2])
            for size, each in (("http.request.body.size", 11), ("http.response.body.size", 7)):
                assert span.is_error or span.attributes.get(size, each * number) == each * number, span
        return found


@st.composite
def traffic(
    draw: st.DrawFn, split: bool = False, pipelined: bool = False, steps: str = ""
) -> tuple[dict[int, list[Call]], list[int]]:
    calls = {
        id: draw(conversations(20 * id, split, pipelined, steps))
        for id in range(1, draw(st.integers(1, 3)) + 1)
    }
    beginning = [id for id in calls for _ in steps]
    return calls, beginning + draw(st.lists(st.integers(0, 3), max_size=60))


def asked(calls: list[Call]) -> set[str]:
    lines = b"".join(data for direction, data in calls if direction is RX).split(b"\r\n")
    return {line.split()[1].decode() for line in lines if b"/n/" in line}


@given(traffic(), st.sampled_from(Role))
@settings(max_examples=150, deadline=None)
def test_if_nothing_is_lost_every_exchange_is_told(
    what: tuple[dict[int, list[Call]], list[int]], role: Role
) -> None:
    run = Run(role, repeat(True))
    run.drive(*what)
    assert run.check_pairs() == set().union(*map(asked, what[0].values()))
    assert not run.given_up


@given(traffic(split=True, pipelined=True), st.sampled_from(Role))
@settings(max_examples=300, deadline=None)
def test_pipelined_requests_are_all_seen_and_get_their_own_responses_or_none(
    what: tuple[dict[int, list[Call]], list[int]], role: Role
) -> None:
    """An answer's start line can be cut in two by the end of what is captured; then it is not known whose it is."""
    run = Run(role, repeat(True))
    run.drive(*what)
    assert run.check_pairs() <= set().union(*map(asked, what[0].values()))
    assert run.ledger.snapshot()["exchanges"]["seen"] == sum(len(asked(calls)) for calls in what[0].values())


@given(traffic(split=True), st.sampled_from(Role), st.lists(st.booleans(), max_size=200))
@settings(max_examples=600, deadline=None)
def test_whatever_records_are_lost_no_request_is_given_another_ones_response(
    what: tuple[dict[int, list[Call]], list[int]], role: Role, room: list[bool]
) -> None:
    run = Run(role, chain(room, repeat(True)))
    run.drive(*what)
    run.check_pairs()


@given(st.lists(st.booleans(), max_size=8), st.sampled_from(Role))
def test_after_losses_one_exchange_is_enough_to_go_on(room: list[bool], role: Role) -> None:
    numbers = range(20, 30)
    run = Run(role, chain(room, repeat(True)))
    run.drive(
        {1: [call for number in numbers for call in ((RX, ask(number, 0)), (TX, answer(number, 0)))]}, []
    )
    told = {span.attributes.get("http.response.status_code") for span in run.spans}
    assert run.check_pairs() >= {path(number) for number in numbers[5:]}
    assert told >= {200 + number for number in numbers[5:]}


def halves(call: Call, at: int) -> list[Call]:
    direction, data = call
    return [(direction, data[:at]), (direction, data[at:])]


A = {number: (RX, ask(number, 0)) for number in range(20, 26)}
R = {number: (TX, answer(number, 0)) for number in range(20, 26)}


@pytest.mark.parametrize(
    ("calls", "room", "answered"),
    [
        ([*halves(A[20], 12), R[20], A[21], R[21], A[22], R[22]], "++--", [22]),
        ([A[20], A[21], R[20], R[21]], "-", []),
        ([A[20], A[21], R[20], R[21]], "+-", []),
        ([*A.values(), R[20], R[21]], "+++++++-", []),
        ([A[20], R[20], A[21], A[22], A[23], R[21], A[24], R[22]], "+++-", [20]),
        ([A[20], A[21], A[22], A[23], R[20], R[21], A[24], R[22]], "++++++-", [20]),
        ([*halves(A[20], 4), R[20], A[21], R[21]], "+-", [21]),
    ],
    ids=[
        "the second half of a head, and the answer",
        "the description and the first of two requests",
        "the first of two requests",
        "the first of six answers",
        "a request, and the next is sent at once",
        "an answer, and then there is another request",
        "the first half of the first head",
    ],
)
def test_what_is_answered_if_this_is_lost(calls: list[Call], room: str, answered: list[int]) -> None:
    run = Run(Role.SERVER, chain((letter == "+" for letter in room), repeat(True)))
    run.drive({1: calls}, [])
    run.check_pairs()
    assert not run.given_up
    statuses = [span.attributes.get("http.response.status_code") for span in run.spans]
    assert [status for status in statuses if status] == [200 + number for number in answered]


PIPELINED = "aarr"
"""Two requests, then both answers: from this it is known that a client pipelines."""


@given(
    traffic(split=True, pipelined=True, steps=PIPELINED),
    st.sampled_from(Role),
    st.lists(st.booleans(), max_size=200),
)
@settings(max_examples=600, deadline=None)
def test_nor_if_requests_are_pipelined_once_that_was_seen(
    what: tuple[dict[int, list[Call]], list[int]], role: Role, room: list[bool]
) -> None:
    descriptions_and_heads = len(what[0]) * (1 + len(PIPELINED))
    run = Run(role, chain([True] * descriptions_and_heads, room, repeat(True)))
    run.drive(*what)
    run.check_pairs()
