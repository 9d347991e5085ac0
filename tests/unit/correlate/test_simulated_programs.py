"""Parents found for programs whose true parents are known: an event-loop proxy, and one thread per request.

The programs run on a small model of what the kernel reports (`Thread`), in random interleavings. What they say
goes through the real pairing and the real correlator. Claiming a wrong parent is never allowed.
"""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Generator, Iterator
from random import Random

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from autotrace.correlate import Correlator
from autotrace.model import (
    Connection,
    Context,
    Direction,
    Exchange,
    ExchangeStarted,
    LinkMethod,
    Message,
    MessageEnd,
    PairingEvent,
    Process,
    Request,
    Response,
)
from autotrace.pairing import Pairing

RX, TX = Direction.RX, Direction.TX
PROXY, BACKEND = 100, 200
SEEDED = st.builds(Random, st.integers(0, 2**32))
SLOW = settings(max_examples=50, deadline=None, suppress_health_check=list(HealthCheck))


class World:
    """Pairing, the correlator, a clock, and the truth."""

    def __init__(self, rungs: set[str]) -> None:
        processes = {
            PROXY: Process(PROXY, "/proxy", {}, rungs=frozenset(rungs)),
            BACKEND: Process(BACKEND, "/backend", {}),
        }
        self.notes: Counter[tuple[str, str]] = Counter()
        self.correlator = Correlator(processes.get, self.note, b"host")
        self.pairing = Pairing(lambda: None, lambda reason: None, self.note)
        self.clock = itertools.count(1)
        self.ids = itertools.count(1)
        self.ports = itertools.count(1024)
        self.truth: list[tuple[Exchange, Exchange | None]] = []
        self.joined: list[tuple[Exchange, Exchange]] = []

    def note(self, stage: str, what: str) -> None:
        self.notes[stage, what] += 1

    def feed(self, connection: Connection, *messages: Message) -> Exchange | None:
        """Give messages to the stages; the exchange that they start."""
        return self.apply(self.pairing.messages(connection, messages))

    def apply(self, events: list[PairingEvent]) -> Exchange | None:
        begun = None
        for event in events:
            if isinstance(event, ExchangeStarted):
                begun = event.exchange
                self.correlator.started(begun)
            else:
                self.correlator.ended(event.exchange)
        return begun

    def close(self, connection: Connection) -> None:
        self.apply(self.pairing.connection_closed(connection, next(self.clock), 0))
        self.correlator.connection_closed(connection)

    def accept(self) -> Connection:
        """A connection to the program from another host."""
        remote = ("10.0.0.9", next(self.ports))
        return Connection(next(self.ids), PROXY, 2, 0, 0, 1, "10.0.0.1", 80, *remote, True, None)

    def connect(self, opened_at: Context | None, from_start: bool = True) -> Connection:
        """A connection of the program to a backend on this host."""
        local = ("127.0.0.1", next(self.ports))
        return Connection(next(self.ids), PROXY, 2, 0, 0, 1, *local, "127.0.0.1", 8080, from_start, opened_at)

    def call(self, connection: Connection, at: Context, parent: Exchange | None) -> Exchange:
        """The program writes a request, which belongs to `parent`; the backend reads it."""
        position = at.ts * 1000
        call = self.feed(
            connection, Request(TX, position, at, "GET", "/", "1.1", {}), MessageEnd(TX, at.ts, 0, True)
        )
        assert call is not None
        self.truth.append((call, parent))
        local = (connection.remote_address, connection.remote_port)
        remote = (connection.local_address, connection.local_port)
        other = Connection(next(self.ids), BACKEND, 2, 0, 0, 1, *local, *remote, True, None)
        read = Context(next(self.clock), BACKEND, BACKEND, 0, 1, 0)
        received = self.feed(other, Request(RX, position, read, "GET", "/", "1.1", {}))
        assert received is not None
        self.joined.append((received, call))
        self.close(other)
        return call

    def read_request(self, connection: Connection, at: Context) -> Exchange:
        begun = self.feed(
            connection, Request(RX, at.ts, at, "GET", "/", "1.1", {}), MessageEnd(RX, at.ts, 0, True)
        )
        assert begun is not None
        return begun

    def respond(self, connection: Connection, way: Direction, at: Context) -> None:
        self.feed(connection, Response(way, at.ts, at, 200, "1.1", {}), MessageEnd(way, at.ts, 0, True))

    def check(self) -> float:
        """No false parent, every wire join right; the share of calls whose parent was found."""
        for call, parent in self.truth:
            assert call.link is not None
            assert call.link.parent in (None, parent), call.link
            assert (call.link.method is LinkMethod.NONE) is (call.link.parent is None)
        for received, call in self.joined:
            assert received.link is not None
            assert call.link is not None
            assert received.link.parent is call
            assert received.link.method is LinkMethod.WIRE
            assert received.link.trace_id == call.link.trace_id
        assert not self.notes
        theirs = [(call, parent) for call, parent in self.truth if parent is not None]
        found = sum(call.link is not None and call.link.parent is parent for call, parent in theirs)
        return found / max(1, len(theirs))


class Thread:
    """What the kernel knows of a thread, as `Context` describes it."""

    def __init__(self, world: World, tid: int) -> None:
        self.world = world
        self.tid = tid
        self.run = 0
        self.cause = 0

    def wait(self) -> None:
        self.run += 1
        self.cause = 0

    def read(self, connection_id: int) -> Context:
        context = Context(next(self.world.clock), PROXY, self.tid, 0, self.run, 0)
        self.cause = connection_id
        return context

    def act(self) -> Context:
        """A connect, or the first write of a turn: what the last read caused."""
        cause, self.cause = self.cause, 0
        return Context(next(self.world.clock), PROXY, self.tid, 0, self.run, cause)


class Proxy:
    """A proxy with one run-to-completion event loop, like an nginx worker: what can be done is done at once,
    the rest in a later run. Requests are served from memory, proxied, or proxied after a subrequest."""

    def __init__(
        self, world: World, random: Random, concurrency: int, keep_alive: bool, aborts: bool
    ) -> None:
        self.world = world
        self.random = random
        self.keep_alive = keep_alive
        self.aborts = aborts
        self.thread = Thread(world, PROXY)
        self.idle = [world.connect(None, from_start=False) for _ in range(4)] if keep_alive else []
        self.requests = [self.serve(world.accept()) for _ in range(concurrency)]

    def loop(self, runs: int) -> None:
        for _ in range(runs):
            self.thread.wait()
            ready = self.random.sample(self.requests, self.random.randint(1, min(8, len(self.requests))))
            for request in ready:
                next(request)

    def serve(self, down: Connection) -> Iterator[None]:
        """One client: each `yield` is the end of what can be done without waiting for its next event."""
        world, thread, random = self.world, self.thread, self.random
        while True:
            yield
            if random.random() < 0.2:
                thread.read(down.id)  # half a head: the rest comes in a later run
                yield
            exchange = world.read_request(down, thread.read(down.id))
            kind = random.choice(("memory", "proxy", "proxy", "subrequest", "body"))
            if kind == "memory":
                world.respond(down, TX, thread.act())
                continue
            if kind == "body":
                for _ in range(random.randint(1, 3)):
                    yield
                    thread.read(down.id)
            up = yield from self.send(exchange, down)
            yield
            world.respond(up, RX, thread.read(up.id))
            if kind == "subrequest":
                self.release(up)
                up = yield from self.send(exchange, down)
                yield
                world.respond(up, RX, thread.read(up.id))
            if not exchange.end_ns:
                world.respond(down, TX, thread.act())
            self.release(up)
            if exchange.error:
                down = world.accept()

    def send(self, parent: Exchange, down: Connection) -> Generator[None, None, Connection]:
        if self.idle:
            up = self.idle.pop(self.random.randrange(len(self.idle)))
            self.world.call(up, self.thread.act(), parent)
            return up
        up = self.world.connect(self.thread.act())
        yield
        if self.aborts and self.random.random() < 0.3 and not parent.end_ns:
            self.thread.read(down.id)  # end of file: the client is gone, the upstream is asked all the same
            self.world.close(down)
            yield
        self.world.call(up, self.thread.act(), parent)
        return up

    def release(self, up: Connection) -> None:
        if self.keep_alive and self.random.random() < 0.9:
            self.idle.append(up)
        else:
            self.world.close(up)


@SLOW
@given(SEEDED, st.sampled_from((1, 8, 32)), st.booleans())
def test_an_event_loop_proxy_has_every_parent_found(
    random: Random, concurrency: int, keep_alive: bool
) -> None:
    world = World({"thread", "dispatch"})
    Proxy(world, random, concurrency, keep_alive, aborts=False).loop(250)
    assert len(world.truth) > 50
    assert world.check() == 1.0


@SLOW
@given(SEEDED, st.sampled_from((1, 2, 8, 32)), st.booleans())
def test_an_event_loop_proxy_whose_clients_go_away_has_no_false_parent(
    random: Random, concurrency: int, keep_alive: bool
) -> None:
    world = World({"thread", "dispatch"})
    Proxy(world, random, concurrency, keep_alive, aborts=True).loop(250)
    world.check()


@SLOW
@given(SEEDED)
def test_an_event_loop_without_the_dispatch_rung_has_only_single_requests_linked(random: Random) -> None:
    world = World({"thread"})
    Proxy(world, random, 8, True, aborts=False).loop(250)
    world.check()
    for call, _ in world.truth:
        assert call.link is not None
        assert call.link.method is LinkMethod.THREAD or call.link.candidates > 0


class ThreadPool:
    """Each thread serves one request at a time; upstream connections come from a common pool. One more thread
    calls others on its own account."""

    def __init__(self, world: World, random: Random, threads: int) -> None:
        self.world = world
        self.random = random
        self.pool: list[Connection] = []
        self.steps = [self.serve(Thread(world, 1000 + n)) for n in range(threads)]
        self.steps.append(self.poll(Thread(world, 999)))

    def loop(self, steps: int) -> None:
        for _ in range(steps):
            next(self.random.choice(self.steps))

    def serve(self, thread: Thread) -> Iterator[None]:
        world, random = self.world, self.random
        down = world.accept()
        while True:
            yield
            if random.random() < 0.5:
                thread.wait()
            exchange = world.read_request(down, thread.read(down.id))
            for _ in range(random.randint(0, 3)):
                yield
                if random.random() < 0.3:
                    thread.read(7_000_000 + thread.tid)  # a database: its protocol is not one of ours
                yield from self.call(thread, exchange)
            yield
            world.respond(down, TX, thread.act())
            if random.random() < 0.2:
                world.close(down)
                down = world.accept()

    def poll(self, thread: Thread) -> Iterator[None]:
        while True:
            yield from self.call(thread, None)

    def call(self, thread: Thread, parent: Exchange | None) -> Iterator[None]:
        if self.pool and self.random.random() < 0.7:
            up = self.pool.pop()
        else:
            up = self.world.connect(thread.act())
            yield
        self.world.call(up, thread.act(), parent)
        yield
        if self.random.random() < 0.5:
            thread.wait()
        self.world.respond(up, RX, thread.read(up.id))
        self.pool.append(up)


@SLOW
@given(SEEDED, st.sampled_from((1, 4, 16)))
def test_a_thread_for_each_request_has_every_parent_found(random: Random, threads: int) -> None:
    world = World({"thread"})
    ThreadPool(world, random, threads).loop(1500)
    assert len(world.truth) > 50
    assert world.check() == 1.0
