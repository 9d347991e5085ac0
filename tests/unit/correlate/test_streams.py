"""Calls on connections that calls share, and requests that came on one: when the `thread` rung holds."""

from __future__ import annotations

import pytest
from shared_connections import HELPER, Program, link, why_not

from autotrace.correlate.streams import SURE_AFTER_READS
from autotrace.model import LinkMethod


@pytest.fixture
def threads() -> Program:
    program = Program("thread", "stream-thread")
    program.warm_up()
    return program


@pytest.fixture
def loop() -> Program:
    program = Program("thread", "stream-loop")
    program.warm_up()
    return program


# --- stream-thread: threads serve, and write their calls themselves ---


def test_a_thread_s_only_request_has_the_call_that_the_thread_writes(threads: Program) -> None:
    first, second = threads.incoming(tid=1), threads.incoming(tid=2)
    call = threads.call(tid=2)
    assert (link(call).method, link(call).parent) == (LinkMethod.THREAD, second)
    assert link(threads.call(tid=1)).parent is first


@pytest.mark.parametrize("rungs", [(), ("thread",), ("thread", "dispatch")])
def test_other_runtimes_have_no_parents_for_calls_on_shared_connections(rungs: tuple[str, ...]) -> None:
    program = Program(*rungs)
    program.warm_up()
    program.incoming(tid=1)
    assert "whichever thread" in why_not(program.call(tid=1))


def test_what_a_helper_thread_writes_has_no_parent(threads: Program) -> None:
    threads.incoming(tid=1)
    assert "0 open requests on thread 900" in why_not(threads.call(HELPER))


def test_nothing_is_claimed_before_it_is_known_who_reads_the_answers() -> None:
    program = Program("thread", "stream-thread")
    request = program.incoming(tid=1)
    for _ in range(SURE_AFTER_READS):
        call = program.call(tid=1)
        assert "not known yet" in why_not(call)
        program.end(call, HELPER)
    assert link(program.call(tid=1)).parent is request


def test_answers_that_came_in_one_read_are_one_sign(threads: Program) -> None:
    program = Program("thread", "stream-thread")
    calls = [program.call(HELPER) for _ in range(SURE_AFTER_READS)]
    read = program.at(HELPER)
    for call in calls:
        call.response_at = read
        program.correlator.ended(call)
    program.incoming(tid=1)
    assert "not known yet" in why_not(program.call(tid=1))


def test_a_library_whose_callers_read_for_each_other_is_not_believed(threads: Program) -> None:
    threads.incoming(tid=1)
    other = threads.call(tid=2)
    threads.end(other, tid=1)
    assert "thread 1 reads multiplexed" in why_not(threads.call(tid=1))
    threads.end(other, HELPER)
    assert "thread 1 reads multiplexed" in why_not(threads.call(tid=1))


def test_a_thread_that_waits_for_an_answer_writes_for_others(threads: Program) -> None:
    request = threads.incoming(tid=1)
    own = threads.call(tid=1)
    assert "waits for its answer" in why_not(threads.call(tid=1))
    assert link(own).parent is request


def test_a_call_whose_answer_has_begun_is_no_obstacle(threads: Program) -> None:
    request = threads.incoming(tid=1)
    streaming = threads.call(tid=1)
    streaming.response_start_ns = next(threads.clock)
    assert link(threads.call(tid=1)).parent is request


def test_calls_that_begin_in_one_write_are_not_told_apart(threads: Program) -> None:
    threads.incoming(tid=1)
    assert "in one write" in why_not(threads.call(tid=1, together=True))


def test_a_thread_that_read_a_shared_connection_read_for_any(threads: Program) -> None:
    server = threads.connection()
    threads.incoming(tid=1, shared=server)
    for call in (threads.call(tid=1), threads.get(tid=1)):
        assert "for any thread" in why_not(call)


def test_requests_on_shared_connections_that_move_say_nothing_of_the_others(threads: Program) -> None:
    threads.end(threads.incoming(tid=HELPER, shared=threads.connection()), tid=5)
    request = threads.incoming(tid=1)
    assert link(threads.get(tid=1)).parent is request
    assert link(threads.call(tid=1)).parent is request
    threads.end(request, tid=3)
    threads.incoming(tid=1)
    assert "was answered on thread 3" in why_not(threads.call(tid=1))


# --- stream-loop: one thread does it all ---


def test_the_only_request_of_a_loop_has_its_calls(loop: Program) -> None:
    server = loop.connection()
    request = loop.incoming(tid=1, shared=server)
    assert link(loop.call(tid=1, cause=server)).parent is request
    assert link(loop.get(tid=1, cause=server)).parent is request
    assert link(loop.call(tid=1, together=True)).parent is request
    loop.end(request, tid=1)
    plain = loop.incoming(tid=1, run=2)
    assert link(loop.call(tid=1, run=2)).parent is plain


def test_two_requests_of_one_shared_connection_are_not_told_apart(loop: Program) -> None:
    server = loop.connection()
    loop.incoming(tid=1, shared=server)
    loop.incoming(tid=1, shared=server)
    for call in (loop.call(tid=1), loop.get(tid=1)):
        assert why_not(call) == "2 open requests on thread 1"


def test_a_read_of_another_connection_just_before_speaks_against_it(loop: Program) -> None:
    over = loop.connection()
    loop.end(loop.incoming(tid=1, shared=over), tid=1)
    loop.incoming(tid=1, shared=loop.connection())
    for call in (loop.call(tid=1, cause=over, run=2), loop.get(tid=1, cause=over)):
        assert why_not(call).startswith("contradiction")


def test_what_a_loop_sends_after_an_answer_may_be_for_that(loop: Program) -> None:
    answered = loop.incoming(tid=1)
    request = loop.incoming(tid=1)
    loop.end(answered, tid=1, run=7)
    assert "answered in this run" in why_not(loop.call(tid=1, run=7))
    assert link(loop.call(tid=1, run=8)).parent is request


def test_a_call_may_have_waited_for_its_connection(loop: Program) -> None:
    loop.shared = loop.connection()
    late = loop.incoming(tid=1)
    first = loop.call(tid=1)
    assert "not ready" in why_not(first)
    loop.end(first, tid=1)
    assert link(loop.call(tid=1)).parent is late
    loop.correlator.connection_closed(loop.shared)
    assert "not ready" in why_not(loop.call(tid=1))
    loop.shared = loop.connection()
    assert link(loop.call(tid=1)).parent is late


def test_a_loop_whose_requests_move_is_not_believed(loop: Program) -> None:
    loop.end(loop.incoming(tid=1, shared=loop.connection()), tid=2)
    loop.incoming(tid=1)
    assert "was answered on thread 2" in why_not(loop.call(tid=1))
    assert "was answered on thread 2" in why_not(loop.get(tid=1))


# --- stream-dispatch: the runtime says which request's arrival a call was begun in ---


@pytest.fixture
def dispatcher() -> Program:
    program = Program("thread", "stream-loop", "stream-dispatch")
    program.warm_up()
    return program


def test_a_call_that_was_begun_for_one_of_several_requests(dispatcher: Program) -> None:
    server = dispatcher.connection()
    first, second = (dispatcher.incoming(tid=1, shared=server) for _ in range(2))
    call = dispatcher.call(tid=1, begun_for=second)
    assert (link(call).method, link(call).parent) == (LinkMethod.DISPATCH, second)
    assert link(call).evidence == f"begun when the event loop was handed stream {second.stream}"
    assert link(dispatcher.call(tid=1, begun_for=first)).parent is first
    assert why_not(dispatcher.call(tid=1)) == "2 open requests on thread 1"


def test_a_request_that_is_answered_before_its_call_is_written(dispatcher: Program) -> None:
    server = dispatcher.connection()
    answered = dispatcher.incoming(tid=1, shared=server)
    dispatcher.end(answered, tid=1)
    assert link(dispatcher.call(tid=1, begun_for=answered)).parent is answered
    dispatcher.incoming(tid=1, shared=server)
    assert link(dispatcher.call(tid=1, begun_for=answered)).parent is answered


def test_only_a_runtime_that_handles_what_it_reads_at_once_is_believed(loop: Program) -> None:
    server = loop.connection()
    first, _ = (loop.incoming(tid=1, shared=server) for _ in range(2))
    assert why_not(loop.call(tid=1, begun_for=first)) == "2 open requests on thread 1"
