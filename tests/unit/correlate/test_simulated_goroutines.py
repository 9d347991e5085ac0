"""Parents found for Go programs whose true parents are known: servers of gRPC and of HTTP/1 whose handlers
call others, alone and by goroutines that they start, some of which live on.

What the kernel side would tell of them, in random interleavings, goes through the real pairing, claims and
correlator.
"""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Iterator
from random import Random

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from autotrace.claims import Claims
from autotrace.correlate import Correlator
from autotrace.model import (
    Connection,
    Context,
    Direction,
    Exchange,
    ExchangeStarted,
    LinkMethod,
    MessageEnd,
    PairingEvent,
    Process,
    Request,
    Response,
    Role,
    StreamClaim,
    StreamEnd,
    StreamRequest,
    StreamResponse,
)
from autotrace.pairing import Pairing
from autotrace.stream_pairing import StreamPairing

RX, TX = Direction.RX, Direction.TX
GO = 100
SLOW = settings(max_examples=50, deadline=None, suppress_health_check=list(HealthCheck))


class World:
    """The stages, a clock, goroutine ids, and the truth."""

    def __init__(self, random: Random) -> None:
        self.random = random
        process = Process(GO, "/go", {}, rungs=frozenset({"goroutine"}))
        self.notes: Counter[tuple[str, str]] = Counter()
        self.correlator = Correlator({GO: process}.get, self.note, b"host")
        self.pairing = Pairing(lambda: None, lambda reason: None, self.note)
        self.streams = StreamPairing(lambda: None, lambda reason: None, self.note)
        self.claims = Claims(self.streams.find, self.note)
        self.clock = itertools.count(1)
        self.numbers = itertools.count(1)
        self.truth: list[tuple[Exchange, Exchange, bool]] = []
        self.unsent: list[tuple[Connection, int, int, Exchange, bool]] = []
        """Calls whose claims are made and whose frames the writing goroutine still holds."""
        self.later: list[tuple[int, int, Exchange]] = []
        self.ups = [(self.connection(), self.goroutine()) for _ in range(3)]

    def note(self, stage: str, what: str) -> None:
        self.notes[stage, what] += 1

    def goroutine(self) -> int:
        return next(self.numbers)

    def connection(self) -> Connection:
        number = next(self.numbers)
        return Connection(number, GO, 2, 0, 0, 1, "10.0.0.1", 80, "10.0.0.9", number, True, None)

    def at(self, task: int) -> Context:
        return Context(next(self.clock), GO, self.random.randint(1, 4), task, 0, 0)

    def apply(self, events: list[PairingEvent]) -> Exchange | None:
        begun = None
        for event in events:
            if isinstance(event, ExchangeStarted):
                begun = event.exchange
                self.claims.started(begun)
                self.correlator.started(begun)
            else:
                self.correlator.ended(event.exchange)
        return begun

    def claim(self, claim: StreamClaim) -> None:
        exchange = self.claims.claimed(claim)
        if exchange is not None and exchange.role is Role.SERVER:
            self.correlator.served_by(exchange, claim.task)

    def call(self, task: int, parent: int, served: Exchange, certain: bool) -> None:
        """A goroutine makes a call for the request `served`."""
        connection, writer = self.random.choice(self.ups)
        stream = 2 * next(self.numbers) + 1
        self.claim(StreamClaim(next(self.clock), 0, GO, writer, task, parent, stream, TX, "/a/B", True))
        self.unsent.append((connection, writer, stream, served, certain))

    def flush(self) -> None:
        for connection, writer, stream, served, certain in self.unsent:
            at = self.at(writer)
            request = StreamRequest(TX, stream, at.ts, at, "POST", "/a/B", {}, None)
            call = self.apply(self.streams.messages(connection, [request]))
            assert call is not None
            # Its claim was made before; the request may have been answered since.
            self.truth.append((call, served, certain and not served.end_ns))
        self.unsent.clear()

    def check(self) -> Counter[str]:
        found: Counter[str] = Counter()
        for call, served, certain in self.truth:
            assert call.link is not None
            assert call.link.parent in (None, served), (call, served)
            assert (call.link.method is LinkMethod.GOROUTINE) is (call.link.parent is served)
            assert not certain or call.link.parent is served, call.link
            found[call.link.method.value] += 1
        assert not self.notes
        return found


def grpc_server(world: World, workers: list[int]) -> Iterator[None]:
    """One connection with some streams at once, each with a goroutine of its own, or one of `workers`."""
    down, reader = world.connection(), world.goroutine()
    handlers: list[Iterator[None]] = []
    while True:
        yield
        if len(handlers) < 5 and (not workers or len(handlers) < len(workers)):
            handlers.append(serve_stream(world, down, reader, workers))
        one = world.random.choice(handlers)
        if next(one, "over") == "over":
            handlers.remove(one)


def serve_stream(world: World, down: Connection, reader: int, workers: list[int]) -> Iterator[None]:
    at, stream = world.at(reader), 2 * next(world.numbers) + 1
    request = StreamRequest(RX, stream, at.ts, at, "POST", "/shop.Cart/Add", {}, None)
    served = world.apply(world.streams.messages(down, [request, StreamEnd(RX, stream, at.ts, 0)]))
    assert served is not None
    yield
    handler, parent = (workers.pop(0), 1) if workers else (world.goroutine(), reader)
    own = parent == reader
    claim = StreamClaim(next(world.clock), 0, GO, reader, handler, parent, stream, RX, "/a/B", True, own)
    world.claim(claim)
    yield from handle(world, handler, served, own)
    if not own:
        workers.append(handler)
    at = world.at(reader)
    answer = [StreamResponse(TX, stream, at, 200, {}), StreamEnd(TX, stream, at.ts, 0)]
    world.flush()
    world.apply(world.streams.messages(down, answer))


def http_server(world: World) -> Iterator[None]:
    """One connection of net/http: one goroutine for all of its requests."""
    down, handler = world.connection(), world.goroutine()
    world.claim(StreamClaim(next(world.clock), 0, GO, handler, handler, 1, 0, RX, "", own_task=True))
    for number in itertools.count():
        yield
        # The first byte of a later request is read by another goroutine.
        first = world.at(world.goroutine() if number else handler)
        request = Request(RX, first.ts, first, "GET", "/", "1.1", {}, False, handler)
        served = world.apply(world.pairing.messages(down, [request, MessageEnd(RX, first.ts, 0, True)]))
        assert served is not None
        yield
        yield from handle(world, handler, served, own=number == 0)
        at = world.at(handler)
        answer = [Response(TX, at.ts, at, 200, "1.1", {}), MessageEnd(TX, at.ts, 0, True)]
        world.flush()
        world.apply(world.pairing.messages(down, answer))


def handle(world: World, task: int, served: Exchange, own: bool) -> Iterator[None]:
    for _ in range(world.random.randint(0, 4)):
        yield
        kind = world.random.choice(("direct", "child", "grandchild", "late", "pool"))
        if kind == "direct":
            world.call(task, 1, served, certain=True)
        elif kind == "pool":
            world.call(999_999, 1, served, certain=False)
        elif kind == "late":
            world.later.append((world.goroutine(), task, served))
        else:
            child = world.goroutine()
            world.call(child, task, served, certain=own)
            if kind == "grandchild":
                world.flush()
                world.call(world.goroutine(), child, served, certain=own)
        if world.random.random() < 0.5:
            world.flush()


def run(world: World, programs: list[Iterator[None]], steps: int) -> Counter[str]:
    """Goroutines that live on call at any time, whatever has become of their request."""
    for _ in range(steps):
        next(world.random.choice(programs))
        if world.later and world.random.random() < 0.1:
            late, starter, served = world.later.pop(world.random.randrange(len(world.later)))
            world.call(late, starter, served, certain=False)
    world.flush()
    return world.check()


@SLOW
@given(st.builds(Random, st.integers(0, 2**32)), st.integers(1, 8))
def test_a_goroutine_for_each_stream(random: Random, connections: int) -> None:
    world = World(random)
    found = run(world, [grpc_server(world, []) for _ in range(connections)], 600)
    assert found["goroutine"] > found["none"]


@SLOW
@given(st.builds(Random, st.integers(0, 2**32)), st.integers(1, 8))
def test_goroutines_that_serve_one_stream_after_the_other(random: Random, connections: int) -> None:
    world = World(random)
    pools = [[world.goroutine() for _ in range(3)] for _ in range(connections)]
    run(world, [grpc_server(world, pool) for pool in pools], 600)


@SLOW
@given(st.builds(Random, st.integers(0, 2**32)), st.integers(1, 8))
def test_a_goroutine_for_each_connection_of_http(random: Random, connections: int) -> None:
    world = World(random)
    run(world, [http_server(world) for _ in range(connections)], 600)
