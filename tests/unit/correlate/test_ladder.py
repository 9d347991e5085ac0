"""The ladder, rung by rung: which parent, which evidence, and when none is claimed."""

from __future__ import annotations

import itertools
from collections import Counter

import pytest

from autotrace.correlate import Correlator
from autotrace.model import (
    Confidence,
    Connection,
    Context,
    Direction,
    Exchange,
    Link,
    LinkMethod,
    Process,
    Role,
)

T, S = 0x4BF92F3577B34DA6A3CE929D0E0E4736, 0x00F067AA0BA902B7
TRACEPARENT = {"traceparent": f"00-{T:032x}-{S:016x}-01"}
AF_UNIX, AF_INET = 1, 2


class Host:
    """Makes exchanges as pairing would, and gives them to a correlator."""

    def __init__(self) -> None:
        self.notes: Counter[str] = Counter()
        self.rungs: dict[int, set[str]] = {}
        self.ids = itertools.count(1)
        self.clock = itertools.count(1)
        self.correlator = Correlator(self.process, self.note, b"host")

    def process(self, pid: int) -> Process | None:
        return Process(pid, "", {}, rungs=frozenset(self.rungs[pid])) if pid in self.rungs else None

    def note(self, stage: str, what: str) -> None:
        self.notes[what] += 1

    def connection(self, pid: int = 1, opened_at: Context | None = None, port: int = 0) -> Connection:
        id = next(self.ids)
        local = ("127.0.0.1", port or 1000 + id)
        from_start = opened_at is not None
        return Connection(id, pid, AF_INET, 0, 0, 1, *local, "127.0.0.1", 80, from_start, opened_at)

    def at(self, tid: int, cause: Connection | None = None, pid: int = 1) -> Context:
        return Context(next(self.clock), pid, tid, 0, 1, cause.id if cause else 0)

    def exchange(
        self,
        role: Role,
        connection: Connection,
        at: Context,
        headers: dict[str, str] | None = None,
        position: int | None = None,
        first: bool = False,
        method: str = "GET",
    ) -> Exchange:
        where = next(self.clock) if position is None else position
        return Exchange(
            connection, role, at, where, method, "/", "1.1", headers or {}, at.ts, first_on_connection=first
        )

    def incoming(
        self, tid: int = 1, pid: int = 1, headers: dict[str, str] | None = None, on: Connection | None = None
    ) -> Exchange:
        connection = on or self.connection(pid)
        exchange = self.exchange(Role.SERVER, connection, self.at(tid, pid=pid), headers)
        self.correlator.started(exchange)
        return exchange

    def outgoing(
        self,
        tid: int = 1,
        pid: int = 1,
        headers: dict[str, str] | None = None,
        cause: Connection | None = None,
        on: Connection | None = None,
        first: bool = False,
    ) -> Exchange:
        connection = on or self.connection(pid)
        exchange = self.exchange(Role.CLIENT, connection, self.at(tid, cause, pid), headers, first=first)
        self.correlator.started(exchange)
        return exchange

    def received(self, call: Exchange, pid: int = 2) -> Exchange:
        """The other end of a call, in another process."""
        ours = call.connection
        theirs = Connection(
            next(self.ids),
            pid,
            ours.family,
            ours.peer_socket,
            ours.socket,
            ours.netns,
            ours.remote_address,
            ours.remote_port,
            ours.local_address,
            ours.local_port,
            ours.from_start,
            None,
        )
        at = self.at(50, pid=pid)
        exchange = self.exchange(Role.SERVER, theirs, at, call.request_headers, call.position)
        self.correlator.started(exchange)
        return exchange

    def end(self, exchange: Exchange, tid: int = 0, error: str = "") -> None:
        exchange.end_ns = next(self.clock)
        exchange.error = error
        if not error:
            exchange.status = 200
            exchange.response_at = self.at(tid or exchange.at.tid)
        self.correlator.ended(exchange)


@pytest.fixture
def host() -> Host:
    host = Host()
    host.rungs = {1: {"thread"}, 2: {"thread"}}
    return host


def link(exchange: Exchange) -> Link:
    assert exchange.link is not None
    return exchange.link


def assert_child(child: Exchange, parent: Exchange, method: LinkMethod, confidence: Confidence) -> None:
    below, above = link(child), link(parent)
    assert below.parent is parent
    assert (below.method, below.confidence) == (method, confidence)
    assert (below.trace_id, below.parent_span_id) == (above.trace_id, above.span_id)
    assert below.span_id not in (0, above.span_id)
    assert below.evidence


def assert_root(exchange: Exchange, candidates: int) -> None:
    found = link(exchange)
    assert (found.method, found.confidence) == (LinkMethod.NONE, Confidence.NONE)
    assert (found.parent, found.parent_span_id, found.candidates) == (None, 0, candidates)
    assert found.trace_id
    assert found.span_id


# --- header ---


def test_an_incoming_header_is_joined(host: Host) -> None:
    headers = {"traceparent": f"00-{T:032x}-{S:016x}-00", "tracestate": "a=1"}
    found = link(host.incoming(headers=headers))
    assert (found.method, found.confidence) == (LinkMethod.HEADER, Confidence.EXACT)
    assert (found.trace_id, found.parent_span_id, found.parent) == (T, S, None)
    assert (found.sampled, found.trace_state) == (False, "a=1")


def test_a_header_that_came_in_and_goes_out_is_forwarded(host: Host) -> None:
    front = host.incoming(headers=TRACEPARENT)
    host.incoming()
    call = host.outgoing(headers=TRACEPARENT)
    assert_child(call, front, LinkMethod.HEADER, Confidence.EXACT)
    assert not link(call).suppressed


def test_who_receives_a_forwarded_header_is_the_child_of_the_call_that_brought_it(host: Host) -> None:
    host.incoming(headers=TRACEPARENT)
    call = host.outgoing(headers=TRACEPARENT)
    back = host.received(call)
    assert_child(back, call, LinkMethod.WIRE, Confidence.EXACT)
    assert link(back).trace_id == T
    further = host.outgoing(tid=50, pid=2, headers=TRACEPARENT)
    assert_child(further, back, LinkMethod.HEADER, Confidence.EXACT)


def test_a_header_made_by_the_process_suppresses_its_span_and_is_joined_by_the_server(host: Host) -> None:
    host.incoming()
    call = host.outgoing(headers=TRACEPARENT)
    made = link(call)
    assert (made.suppressed, made.method, made.parent) == (True, LinkMethod.HEADER, None)
    assert (made.trace_id, made.span_id) == (T, S)
    back = host.received(call)
    assert (link(back).method, link(back).confidence) == (LinkMethod.HEADER, Confidence.EXACT)
    assert (link(back).trace_id, link(back).parent_span_id) == (T, S)
    assert not link(back).suppressed


def test_a_process_that_calls_itself_does_not_forward_its_own_header(host: Host) -> None:
    call = host.outgoing(headers=TRACEPARENT)
    host.received(call, pid=1)
    again = host.outgoing(headers=TRACEPARENT)
    assert link(again).suppressed


def test_a_header_of_a_request_that_is_over_is_not_forwarded(host: Host) -> None:
    front = host.incoming(headers=TRACEPARENT)
    host.end(front)
    assert link(host.outgoing(headers=TRACEPARENT)).suppressed


def test_a_header_that_came_in_twice_leaves_the_choice_to_the_thread(host: Host) -> None:
    host.incoming(tid=1, headers=TRACEPARENT)
    second = host.incoming(tid=2, headers=TRACEPARENT)
    host.incoming(tid=3)
    assert_child(host.outgoing(tid=2, headers=TRACEPARENT), second, LinkMethod.THREAD, Confidence.CONDITIONAL)
    for tid in (3, 4):  # the thread's request has another header, or there is none
        found = link(host.outgoing(tid=tid, headers=TRACEPARENT))
        assert (found.method, found.trace_id, found.parent_span_id) == (LinkMethod.HEADER, T, S)
        assert (found.parent, found.candidates, found.suppressed) == (None, 2, False)


def test_the_sampling_decision_and_trace_state_are_inherited(host: Host) -> None:
    host.incoming(headers={"traceparent": f"00-{T:032x}-{S:016x}-00", "tracestate": "a=1"})
    back = host.received(host.outgoing())
    assert (link(back).sampled, link(back).trace_state) == (False, "a=1")


# --- wire ---


def test_both_ends_of_a_connection_are_joined(host: Host) -> None:
    call = host.outgoing()
    assert_root(call, 0)
    back = host.received(call)
    assert_child(back, call, LinkMethod.WIRE, Confidence.EXACT)
    assert link(back).evidence == f"same TCP sequence number {call.position} on both ends"


def tls_ends(call_from_start: bool, served_from_start: bool) -> tuple[Connection, Connection]:
    near, far = ("127.0.0.1", 5000), ("127.0.0.1", 443)
    return (
        Connection(8, 1, AF_INET, 0, 0, 1, *near, *far, call_from_start, None, True),
        Connection(9, 2, AF_INET, 0, 0, 1, *far, *near, served_from_start, None, True),
    )


@pytest.mark.parametrize(("near", "far"), [(True, True), (True, False), (False, True), (False, False)])
def test_both_ends_of_a_tls_connection_of_any_age_are_joined(host: Host, near: bool, far: bool) -> None:
    ours, theirs = tls_ends(near, far)
    # Each end counts the plaintext from where it saw it first.
    ours.turn_begins(Direction.TX, 0, 1000, 0)
    theirs.turn_begins(Direction.RX, 0 if near and far else 77, 1000, 1200)
    call = host.exchange(Role.CLIENT, ours, host.at(1), position=0)
    host.correlator.started(call)
    back = host.exchange(Role.SERVER, theirs, host.at(2, pid=2), position=0 if near and far else 77)
    host.correlator.started(back)
    assert_child(back, call, LinkMethod.WIRE, Confidence.EXACT)
    assert link(back).evidence == (
        "same byte 0 of the plaintext on both ends"
        if near and far
        else "the only request sent between TCP sequence numbers 1000 and 1200"
    )
    assert not host.notes


def test_plaintext_that_both_ends_counted_is_joined_by_nothing_else(host: Host) -> None:
    ours, theirs = tls_ends(True, True)
    ours.turn_begins(Direction.TX, 0, 1000, 0)
    theirs.turn_begins(Direction.RX, 77, 1000, 1200)
    host.correlator.started(host.exchange(Role.CLIENT, ours, host.at(1), position=0))
    back = host.exchange(Role.SERVER, theirs, host.at(2, pid=2), position=77)
    host.correlator.started(back)
    assert_root(back, 0)


def test_an_older_tls_connection_whose_position_is_not_known_is_counted(host: Host) -> None:
    ours, theirs = tls_ends(False, False)
    host.correlator.started(host.exchange(Role.CLIENT, ours, host.at(1), position=0))
    back = host.exchange(Role.SERVER, theirs, host.at(2, pid=2), position=0)
    host.correlator.started(back)
    assert_root(back, 0)
    assert "is not known" in link(back).evidence
    assert host.notes == {"wire_position_unknown": 2}


def test_both_ends_of_a_unix_connection_are_joined(host: Host) -> None:
    ours = Connection(9, 1, AF_UNIX, 0xA, 0xB, 1, "", 0, "/run/app.sock", 0, True, None)
    call = host.exchange(Role.CLIENT, ours, host.at(1), position=0)
    host.correlator.started(call)
    assert_child(host.received(call), call, LinkMethod.WIRE, Confidence.EXACT)


def test_loopback_addresses_of_another_network_namespace_are_another_host(host: Host) -> None:
    call = host.outgoing()
    call.connection.netns = 2
    assert_root(host.received(call), 0)


def test_a_second_receiver_of_the_same_bytes_is_not_joined(host: Host) -> None:
    call = host.outgoing()
    host.received(call)
    assert_root(host.received(call), 1)
    assert host.notes == {"wire_conflict": 1}


def test_an_incoming_request_from_elsewhere_is_a_root(host: Host) -> None:
    assert_root(host.incoming(), 0)


def test_a_connection_that_failed_cannot_be_joined(host: Host) -> None:
    failed = host.exchange(Role.CLIENT, host.connection(port=7), host.at(1), method="", position=0)
    host.correlator.started(failed)
    assert_root(host.received(failed), 0)


# --- thread ---


def test_the_only_open_request_on_a_thread_is_the_parent(host: Host) -> None:
    first, second = host.incoming(tid=1), host.incoming(tid=2)
    assert_child(host.outgoing(tid=2), second, LinkMethod.THREAD, Confidence.CONDITIONAL)
    assert_child(host.outgoing(tid=1), first, LinkMethod.THREAD, Confidence.CONDITIONAL)
    assert_root(host.outgoing(tid=3), 2)
    host.end(second)
    assert_root(host.outgoing(tid=2), 1)


def test_two_open_requests_on_a_thread_are_not_told_apart(host: Host) -> None:
    host.incoming()
    host.incoming()
    call = host.outgoing()
    assert_root(call, 2)
    assert link(call).evidence == "2 open requests on thread 1"


def test_threads_of_other_processes_do_not_count(host: Host) -> None:
    host.incoming(tid=1, pid=1)
    assert_root(host.outgoing(tid=1, pid=2), 0)


@pytest.mark.parametrize("rungs", [None, {"dispatch"}, set()])
def test_the_thread_rung_must_be_allowed(host: Host, rungs: set[str] | None) -> None:
    host.rungs = {} if rungs is None else {1: rungs}
    host.incoming()
    assert_root(host.outgoing(), 1)


def test_a_process_that_answers_on_another_thread_loses_the_thread_rung(host: Host) -> None:
    host.end(host.incoming(tid=1), tid=2)
    host.incoming(tid=1)
    call = host.outgoing(tid=1)
    assert_root(call, 1)
    assert "thread 1 was answered on thread 2" in link(call).evidence


def test_what_a_thread_of_io_uring_sends_is_no_thread_s_own(host: Host) -> None:
    host.incoming(tid=1)
    call = host.outgoing(tid=0)
    assert_root(call, 1)
    assert link(call).evidence == "sent by a thread of io_uring"


def test_a_process_whose_requests_io_uring_reads_loses_the_thread_rung(host: Host) -> None:
    host.incoming(tid=0)
    other = host.incoming(tid=1)
    for tid in (0, 1):
        call = host.outgoing(tid=tid)
        assert_root(call, 2)
        assert "read by a thread of io_uring" in link(call).evidence
    host.end(other)
    assert_root(host.outgoing(tid=0), 1)


def test_a_request_that_timed_out_is_open_until_its_connection_moves_on(host: Host) -> None:
    slow = host.incoming()
    host.end(slow, error="timeout")
    host.incoming()
    assert_root(host.outgoing(), 2)
    last = host.incoming(tid=2, on=slow.connection)
    assert_child(host.outgoing(tid=2), last, LinkMethod.THREAD, Confidence.CONDITIONAL)
    assert link(host.outgoing(tid=1)).method is LinkMethod.THREAD


def test_a_closed_connection_closes_its_requests(host: Host) -> None:
    slow = host.incoming()
    host.end(slow, error="timeout")
    host.correlator.connection_closed(slow.connection)
    assert_root(host.outgoing(), 0)


def test_an_exited_process_is_forgotten(host: Host) -> None:
    exchange = host.incoming()
    host.correlator.process_exited(1)
    host.end(exchange)
    host.correlator.connection_closed(exchange.connection)
    assert_root(host.outgoing(), 0)


def test_a_thread_that_has_just_read_another_ones_answer_contradicts_its_only_request(host: Host) -> None:
    before = host.outgoing()
    host.incoming()
    call = host.outgoing(cause=before.connection)
    assert_root(call, 1)
    assert link(call).evidence.startswith("contradiction")


def test_an_unknown_connection_contradicts_only_in_an_event_loop(host: Host) -> None:
    database = host.connection()
    only = host.incoming()
    assert_child(host.outgoing(cause=database), only, LinkMethod.THREAD, Confidence.CONDITIONAL)
    host.rungs = {1: {"thread", "dispatch"}}
    assert_root(host.outgoing(cause=database), 1)


def test_a_failed_connect_belongs_to_the_request_on_its_thread(host: Host) -> None:
    parent = host.incoming()
    failed = host.exchange(Role.CLIENT, host.connection(), host.at(1), method="", position=0)
    host.correlator.started(failed)
    assert_child(failed, parent, LinkMethod.THREAD, Confidence.CONDITIONAL)


# --- dispatch ---


@pytest.fixture
def loop(host: Host) -> Host:
    host.rungs = {1: {"thread", "dispatch"}}
    return host


def test_a_write_right_after_a_read_belongs_to_what_was_read(loop: Host) -> None:
    first, second = loop.incoming(), loop.incoming()
    call = loop.outgoing(cause=first.connection)
    assert_child(call, first, LinkMethod.DISPATCH, Confidence.CONDITIONAL)
    assert (
        link(call).evidence
        == f"read of connection {first.connection.id} and this write in one run of the loop"
    )
    assert_child(loop.outgoing(cause=second.connection), second, LinkMethod.DISPATCH, Confidence.CONDITIONAL)
    assert_root(loop.outgoing(), 2)


def test_the_first_request_of_a_new_connection_belongs_to_its_connect_alone(loop: Host) -> None:
    first, second = loop.incoming(), loop.incoming()
    up = loop.connection(opened_at=loop.at(1, first.connection))
    call = loop.outgoing(on=up, first=True, cause=second.connection)
    assert_child(call, first, LinkMethod.DISPATCH, Confidence.CONDITIONAL)
    assert "this connect" in link(call).evidence
    again = loop.outgoing(on=up, cause=second.connection)
    assert_child(again, second, LinkMethod.DISPATCH, Confidence.CONDITIONAL)
    unexplained = loop.connection(opened_at=loop.at(1))
    assert_root(loop.outgoing(on=unexplained, first=True, cause=second.connection), 2)


def test_a_call_after_an_answer_continues_the_request_of_that_answer(loop: Host) -> None:
    first, _ = loop.incoming(), loop.incoming()
    call = loop.outgoing(cause=first.connection)
    loop.end(call)
    loop.correlator.connection_closed(call.connection)
    then = loop.outgoing(cause=call.connection)
    assert_child(then, first, LinkMethod.DISPATCH, Confidence.CONDITIONAL)
    loop.end(first)
    loop.incoming()
    assert_root(loop.outgoing(cause=call.connection), 2)


def test_a_connection_with_pipelined_requests_names_none_of_them(loop: Host) -> None:
    first = loop.incoming()
    loop.incoming(on=first.connection)
    assert_root(loop.outgoing(cause=first.connection), 2)


def test_dispatch_must_be_allowed(host: Host) -> None:
    first, _ = host.incoming(), host.incoming()
    assert_root(host.outgoing(cause=first.connection), 2)


def test_one_open_request_in_a_loop_agrees_with_what_was_read(loop: Host) -> None:
    only = loop.incoming()
    call = loop.outgoing(cause=only.connection)
    assert_child(call, only, LinkMethod.THREAD, Confidence.CONDITIONAL)


def test_one_open_request_in_a_loop_is_not_claimed_for_a_call_that_may_be_older_than_the_agent(
    loop: Host,
) -> None:
    loop.incoming()
    assert_root(loop.outgoing(), 1)


class TestGoroutines:
    """Process 1 is Go's: `task` is what its runtime said of the exchange."""

    @pytest.fixture
    def go(self, host: Host) -> Host:
        host.rungs[1] = {"goroutine"}
        return host

    @staticmethod
    def served(host: Host, task: int, own: bool = True, stream: int = 1) -> Exchange:
        connection = host.connection()
        exchange = host.exchange(Role.SERVER, connection, host.at(1))
        exchange.stream = stream
        exchange.own_task = own
        host.correlator.started(exchange)
        host.correlator.served_by(exchange, task)
        return exchange

    @staticmethod
    def called(host: Host, task: int, parent: int = 0, stream: int = 1) -> Exchange:
        exchange = host.exchange(Role.CLIENT, host.connection(), host.at(1))
        exchange.stream, exchange.task, exchange.parent_task = stream, task, parent
        host.correlator.started(exchange)
        return exchange

    def test_the_goroutine_that_serves_the_request_makes_the_call(self, go: Host) -> None:
        first, second = self.served(go, 10), self.served(go, 11)
        assert_child(self.called(go, 11), second, LinkMethod.GOROUTINE, Confidence.EXACT)
        assert_child(self.called(go, 10, stream=0), first, LinkMethod.GOROUTINE, Confidence.EXACT)

    def test_descendants_of_any_depth_that_were_seen(self, go: Host) -> None:
        served = self.served(go, 10)
        self.served(go, 11)
        assert_child(self.called(go, 20, 10), served, LinkMethod.GOROUTINE, Confidence.EXACT)
        assert_child(self.called(go, 30, 20), served, LinkMethod.GOROUTINE, Confidence.EXACT)
        assert_child(self.called(go, 40, 30), served, LinkMethod.GOROUTINE, Confidence.EXACT)
        assert link(self.called(go, 60, 50)).parent is None

    def test_what_a_goroutine_of_several_requests_started_may_be_an_earlier_ones(self, go: Host) -> None:
        served = self.served(go, 10, own=False, stream=0)
        assert_child(self.called(go, 10), served, LinkMethod.GOROUTINE, Confidence.CONDITIONAL)
        call = self.called(go, 20, 10)
        assert link(call).parent is None
        assert "other requests" in link(call).evidence

    def test_a_goroutine_whose_request_is_over(self, go: Host) -> None:
        served, other = self.served(go, 10), self.served(go, 11)
        go.end(served)
        assert link(self.called(go, 10)).parent is None
        assert link(self.called(go, 20, 10)).parent is None
        go.correlator.served_by(served, 10)
        assert link(self.called(go, 10)).parent is None
        assert_child(self.called(go, 11), other, LinkMethod.GOROUTINE, Confidence.EXACT)

    def test_a_goroutine_that_has_begun_with_its_next_request(self, go: Host) -> None:
        """The answer to the one before waits to be sent."""
        first, second = self.served(go, 10, own=False), self.served(go, 10, own=False)
        assert_child(self.called(go, 10), second, LinkMethod.GOROUTINE, Confidence.EXACT)
        go.end(first)
        assert_child(self.called(go, 10), second, LinkMethod.GOROUTINE, Confidence.EXACT)

    def test_a_goroutine_that_has_read_two_requests(self, go: Host) -> None:
        for _ in range(2):
            exchange = go.exchange(Role.SERVER, go.connection(), go.at(1))
            exchange.task = 10
            go.correlator.started(exchange)
        call = self.called(go, 10)
        assert (link(call).parent, link(call).candidates) == (None, 2)
        assert "serves 2 open requests" in link(call).evidence

    def test_ancestors_that_go_round_in_a_circle(self, go: Host) -> None:
        self.served(go, 10)
        self.called(go, 20, 30)
        self.called(go, 30, 20)
        assert link(self.called(go, 20, 30)).parent is None

    def test_a_runtime_without_the_rung(self, host: Host) -> None:
        self.served(host, 10)
        assert link(self.called(host, 10)).method is LinkMethod.NONE
