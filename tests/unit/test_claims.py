"""A runtime's word on a request finds its exchange, before or after its bytes, and waits in bounded memory."""

from __future__ import annotations

import itertools
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from autotrace.claims import Claims
from autotrace.model import Connection, Context, Direction, Exchange, Role, Rpc, StreamClaim

RX, TX = Direction.RX, Direction.TX
PID = 7
READER, WRITER = 40, 50
PATH = "/shop.Cart/Add"


class World:
    def __init__(self, capacity: int = 100) -> None:
        self.notes: Counter[str] = Counter()
        self.open: dict[tuple[int, int], Exchange] = {}
        self.claims = Claims(lambda conn, stream: self.open.get((conn, stream)), self.note, capacity)
        self.ids = itertools.count(1)

    def note(self, stage: str, what: str) -> None:
        assert stage == "claims"
        self.notes[what] += 1

    def connection(self) -> Connection:
        return Connection(next(self.ids), PID, 2, 0, 0, 1, "10.0.0.1", 1, "10.0.0.2", 80, True, None)

    def begin(
        self, connection: Connection, stream: int, role: Role, task: int, partial: bool = False
    ) -> Exchange:
        at = Context(1, PID, PID, task, 0, 0)
        method, target = ("_OTHER", "") if partial else ("POST", PATH)
        exchange = Exchange(
            connection, role, at, 0, method, target, "2", {}, 1, stream=stream, partial=partial
        )
        connection.requests += 1
        exchange.first_on_connection = connection.requests == 1
        if stream:
            self.open[connection.id, stream] = exchange
        self.claims.started(exchange)
        return exchange

    def claim(
        self, stream: int, direction: Direction, task: int, *, carrier: int = 0, conn: int = 0, path: str = "",
        parent: int = 0, grpc: bool = True, ts: int = 2,
    ) -> Exchange | None:  # fmt: skip
        return self.claims.claimed(
            StreamClaim(ts, conn, PID, carrier, task, parent, stream, direction, path, grpc)
        )


def test_a_call_that_is_claimed_before_its_bytes_come() -> None:
    world = World()
    assert world.claim(1, TX, 60, carrier=WRITER, parent=59) is None
    call = world.begin(world.connection(), 1, Role.CLIENT, WRITER)
    assert (call.task, call.parent_task) == (60, 59)
    assert not world.notes


def test_a_request_that_is_claimed_after_its_bytes_came() -> None:
    world = World()
    one, other = world.connection(), world.connection()
    served = world.begin(one, 3, Role.SERVER, READER)
    world.begin(other, 3, Role.SERVER, READER + 1)
    assert world.claim(3, RX, 60, carrier=READER, path=PATH) is served
    assert world.claim(3, RX, 61, conn=other.id) is world.open[other.id, 3]


@pytest.mark.parametrize("early", [True, False])
def test_a_name_that_could_not_be_decoded(early: bool) -> None:
    world = World()
    connection = world.connection()
    if early:
        world.claim(5, RX, 60, carrier=READER, path=PATH)
    exchange = world.begin(connection, 5, Role.SERVER, READER, partial=True)
    if not early:
        world.claim(5, RX, 60, carrier=READER, path=PATH)
    assert (exchange.method, exchange.target, exchange.rpc) == ("POST", PATH, Rpc("grpc", "shop.Cart/Add"))


def test_a_path_that_does_not_tell_what_it_is_of() -> None:
    world = World()
    connection = world.connection()
    served = world.begin(connection, 5, Role.SERVER, 0, partial=True)
    world.claim(5, RX, 0, conn=connection.id, path=PATH, grpc=False)
    assert (served.method, served.target, served.rpc) == ("_OTHER", PATH, None)
    # The answer tells that.
    world.claim(5, RX, 0, conn=connection.id)
    assert (served.method, served.target, served.rpc) == ("POST", PATH, Rpc("grpc", "shop.Cart/Add"))


@pytest.mark.parametrize(("method", "headers"), [("GET", {}), ("_OTHER", {"content-type": "text/plain"})])
def test_what_was_decoded_says_that_it_is_no_call(method: str, headers: dict[str, str]) -> None:
    """A server that knows gRPC only claims that of all it is asked."""
    world = World()
    connection = world.connection()
    served = world.begin(connection, 5, Role.SERVER, 0, partial=True)
    served.method, served.request_headers = method, headers
    world.claim(5, RX, 0, conn=connection.id, path=PATH)
    assert (served.method, served.target, served.rpc) == (method, PATH, None)


def test_a_path_of_what_is_known_to_be_a_call() -> None:
    world = World()
    connection = world.connection()
    served = world.begin(connection, 5, Role.SERVER, 0, partial=True)
    served.rpc = Rpc("grpc", "")
    world.claim(5, RX, 0, conn=connection.id, path=PATH + "?secret=1", grpc=False)
    assert served.rpc == Rpc("grpc", "shop.Cart/Add")


def test_a_name_that_was_decoded_stays() -> None:
    world = World()
    exchange = world.begin(world.connection(), 5, Role.SERVER, READER)
    world.claim(5, RX, 60, carrier=READER, path="/another/One")
    assert (exchange.target, exchange.rpc) == (PATH, None)


def test_the_next_request_of_a_carrier_without_streams() -> None:
    world = World()
    connection = world.connection()
    world.claim(0, TX, 60, carrier=WRITER, grpc=False)
    assert world.begin(connection, 0, Role.SERVER, WRITER).task == 0
    assert world.begin(connection, 0, Role.CLIENT, WRITER).task == 60
    assert world.begin(connection, 0, Role.CLIENT, WRITER).task == 0


def test_a_claim_on_a_call_without_a_stream_that_went_by_unseen() -> None:
    """Its bytes were lost, and so was the claim on the call that comes next."""
    world = World()
    connection = world.connection()
    world.claim(0, TX, 60, carrier=WRITER, grpc=False, ts=10)
    connection.heard_at = 11
    assert world.begin(connection, 0, Role.CLIENT, WRITER).task == 0
    assert world.notes == {"request_never_came": 1}
    world.claim(0, TX, 61, carrier=WRITER, grpc=False, ts=12)
    assert world.begin(connection, 0, Role.CLIENT, WRITER).task == 61


def test_a_goroutine_made_for_a_connection_whose_first_request_went_by_unseen() -> None:
    """What that request has started may still run: the goroutine does not serve the next one alone."""
    world = World()
    connection = world.connection()
    connection.requests = 1
    world.claim(0, RX, 60, carrier=READER, grpc=False)
    assert world.begin(connection, 0, Role.SERVER, READER).task == 0
    world.claim(0, RX, 61, carrier=READER + 1, grpc=False)
    assert world.begin(world.connection(), 0, Role.SERVER, READER + 1).task == 61


def test_a_process_that_runs_another_program_counts_its_tasks_from_1_again() -> None:
    world = World()
    old = world.connection()
    call = world.begin(old, 1, Role.CLIENT, WRITER)
    world.claim(3, TX, 60, carrier=WRITER)
    world.claims.process_exited(PID)
    world.claim(1, TX, 61, carrier=WRITER)
    assert call.task == 0
    new = world.connection()
    assert world.begin(new, 1, Role.CLIENT, WRITER).task == 61
    assert world.begin(new, 3, Role.CLIENT, WRITER).task == 0


def test_a_claim_that_comes_too_late_for_the_link_is_counted() -> None:
    world = World()
    call = world.begin(world.connection(), 1, Role.CLIENT, WRITER, partial=True)
    assert world.claim(1, TX, 60, carrier=WRITER, path=PATH) is call
    assert call.target == PATH
    assert world.notes == {"came_after_its_request": 1}


def test_a_carrier_of_a_connection_that_is_gone() -> None:
    world = World()
    connection = world.connection()
    world.begin(connection, 1, Role.CLIENT, WRITER)
    world.claims.connection_closed(connection.id)
    world.claim(3, TX, 60, carrier=WRITER)
    assert world.begin(world.connection(), 3, Role.CLIENT, WRITER).task == 60


def test_what_was_read_by_the_task_that_started_the_reader() -> None:
    world = World()
    first = world.begin(world.connection(), 1, Role.SERVER, READER)
    claim = StreamClaim(2, 0, PID, READER + 1, 60, 0, 1, RX, PATH, carrier_parent=READER)
    assert world.claims.claimed(claim) is first
    assert world.claims.claimed(claim._replace(carrier_parent=READER + 2)) is None


def test_claims_of_requests_that_never_come() -> None:
    world = World(capacity=10)
    for stream in range(1, 31, 2):
        world.claim(stream, TX, 60, carrier=WRITER)
    assert world.notes == {"request_never_came": 5}
    world.claim(29, TX, 61, carrier=WRITER)
    assert world.notes == {"request_never_came": 6}
    connection = world.connection()
    assert world.begin(connection, 1, Role.CLIENT, WRITER).task == 0
    assert world.begin(connection, 29, Role.CLIENT, WRITER).task == 61
    world.claims.process_exited(PID)
    assert world.notes == {"request_never_came": 15}
    assert world.begin(connection, 27, Role.CLIENT, WRITER).task == 0


CALLED, SERVED = 900, 800  # connections


def caused(stream: int, by: int, pid: int = PID) -> StreamClaim:
    return StreamClaim(2, CALLED, pid, 0, 0, 0, stream, TX, "", cause=SERVED, cause_stream=by)


def requests(world: World, *streams: int) -> list[Exchange]:
    """Open requests on the connection SERVED."""
    connection = Connection(SERVED, PID, 2, 0, 0, 1, "10.0.0.1", 1, "10.0.0.2", 80, True, None)
    return [world.begin(connection, stream, Role.SERVER, 0) for stream in streams]


def called(world: World, stream: int) -> Exchange:
    connection = Connection(CALLED, PID, 2, 0, 0, 1, "10.0.0.1", 2, "10.0.0.2", 80, True, None)
    return world.begin(connection, stream, Role.CLIENT, 0)


def test_a_call_that_was_begun_because_of_a_request() -> None:
    world = World()
    first, second = requests(world, 1, 3)
    for call, request in ((1, 3), (3, 1), (5, 3)):
        assert world.claims.claimed(caused(call, request)) is None
    world.open.pop((SERVED, 3))  # It may be answered before the call's bytes are written.
    assert [called(world, stream).cause for stream in (1, 3, 5, 7)] == [second, first, second, None]
    assert not world.notes


def test_what_is_no_cause() -> None:
    world = World()
    requests(world, 3)
    answered = called(world, 9)
    world.open[SERVED, 5] = answered
    world.claims.claimed(caused(1, 1))  # a request that was answered, or not seen
    world.claims.claimed(caused(3, 5))  # the answer to a call
    world.claims.claimed(caused(5, 3, PID + 1))
    assert [called(world, stream).cause for stream in (1, 3, 5)] == [None] * 3


def test_a_cause_and_a_name_for_one_call() -> None:
    world = World()
    (request,) = requests(world, 3)
    world.claims.claimed(caused(1, 3))
    world.claim(1, TX, 0, conn=CALLED, path=PATH)
    connection = Connection(CALLED, PID, 2, 0, 0, 1, "10.0.0.1", 2, "10.0.0.2", 80, True, None)
    call = world.begin(connection, 1, Role.CLIENT, 0, partial=True)
    assert (call.cause, call.target) == (request, PATH)
    assert not world.notes


def test_causes_of_calls_that_never_come() -> None:
    world = World(capacity=2)
    (request,) = requests(world, 3)
    for stream in (1, 3, 5):
        world.claims.claimed(caused(stream, 3))
    assert world.notes == {"request_never_came": 1}
    assert [called(world, stream).cause for stream in (1, 3)] == [None, request]
    world.claims.process_exited(PID)
    assert world.notes == {"request_never_came": 2}
    assert called(world, 5).cause is None


STEPS = st.lists(
    st.tuples(
        st.sampled_from(["claim", "begin", "close"]), st.integers(0, 3), st.integers(0, 5), st.booleans()
    ),
    max_size=60,
)


@given(STEPS)
def test_no_exchange_gets_the_task_of_another(steps: list[tuple[str, int, int, bool]]) -> None:
    """A task's number says here which connection, stream and role it is about."""
    world = World(capacity=4)
    connections = [world.connection() for _ in range(4)]
    begun: list[Exchange] = []
    for what, number, stream, serves in steps:
        connection, direction = connections[number], RX if serves else TX
        carrier = 1000 + 2 * connection.id + serves
        task = carrier * 1000 + stream
        if what == "claim":
            world.claim(stream, direction, task, carrier=carrier)
        elif what == "begin":
            world.open.pop((connection.id, stream), None)
            begun.append(world.begin(connection, stream, Role.SERVER if serves else Role.CLIENT, carrier))
        else:
            world.claims.connection_closed(connection.id)
    for exchange in begun:
        carrier = 1000 + 2 * exchange.connection.id + (exchange.role is Role.SERVER)
        assert exchange.task in (0, carrier * 1000 + exchange.stream)
