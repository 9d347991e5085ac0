"""The `answer` rung: calls of a pool's threads belong to the request that their task answers next."""

from __future__ import annotations

import pytest
from shared_connections import HELPER, Program, link, why_not

from autotrace.correlate import answers
from autotrace.correlate.streams import SURE_AFTER_READS
from autotrace.model import Confidence, Exchange, LinkMethod, Role

SECOND = 1_000_000_000


class Pool(Program):
    """A pool of threads with a gRPC server, whose connection is read by a helper thread."""

    def __init__(self) -> None:
        super().__init__("thread", "stream-thread", "answer")
        self.server = self.connection()
        self.end(self.call(5, task=1), HELPER)  # tasks are known from now on
        for _ in range(SURE_AFTER_READS):
            self.end(self.request(), HELPER)

    def request(self) -> Exchange:
        return self.incoming(HELPER, shared=self.server)

    def decided(self) -> list[Exchange]:
        return self.correlator.take_decided()


@pytest.fixture
def pool() -> Pool:
    pool = Pool()
    pool.decided()
    return pool


def assert_below(call: Exchange, request: Exchange) -> None:
    found, above = link(call), link(request)
    assert (found.method, found.confidence) == (LinkMethod.ANSWER, Confidence.CONDITIONAL)
    assert (found.parent, found.parent_span_id) == (request, above.span_id)
    assert not found.undecided
    assert (found.candidates, "answered this request" in found.evidence) == (0, True)


def test_calls_belong_to_the_request_that_their_task_answers(pool: Pool) -> None:
    first, second = pool.request(), pool.request()
    for_first, for_second = pool.call(1, task=11), pool.call(2, task=22)
    assert link(for_first).undecided
    pool.end(for_first, HELPER)
    page = pool.get(1, task=11)
    pool.end(page, 1, task=11)
    pool.end(for_second, HELPER)
    pool.end(second, 2, task=22)
    pool.end(first, 1, task=11)
    assert pool.decided() == [for_second, for_first, page]
    for call, request in ((for_first, first), (page, first), (for_second, second)):
        assert_below(call, request)
        assert pool.correlator.undecided_above(call) is None
        assert link(call).trace_id == link(request).trace_id
    assert pool.decided() == []


def test_what_is_below_a_call_waits_with_it_and_comes_into_its_trace(pool: Pool) -> None:
    request = pool.request()
    link(request).trace_state = "a=1"
    call = pool.call(1, task=11)
    theirs = pool.connection()
    theirs.local_port, theirs.remote_port = call.connection.remote_port, call.connection.local_port
    theirs.local_address, theirs.remote_address = (
        call.connection.remote_address,
        call.connection.local_address,
    )
    received = Exchange(theirs, Role.SERVER, pool.at(70), 0, "GET", "/", "2", {}, 0, stream=call.stream)
    pool.correlator.started(received)
    assert link(received).parent is call
    assert pool.correlator.undecided_above(received) is call
    pool.end(received, 70, task=7)
    pool.end(call, HELPER)
    pool.end(request, 1, task=11)
    assert pool.correlator.undecided_above(received) is None
    assert link(received).trace_id == link(request).trace_id
    assert (link(received).trace_state, link(received).parent_span_id) == ("a=1", link(call).span_id)


def test_an_answer_that_a_helper_wrote_says_nothing(pool: Pool) -> None:
    answered_by_helper, next_one = pool.request(), pool.request()
    call = pool.get(1, task=11)
    pool.end(call, 1, task=11)
    pool.end(answered_by_helper, HELPER)
    assert link(call).undecided
    pool.end(next_one, 1, task=13)  # the thread works for another request now, which had waited in a queue
    assert "never answered" in why_not(call)
    assert pool.decided() == [call]


def test_a_thread_that_turns_to_another_task_has_given_up_the_first(pool: Pool) -> None:
    pool.request()
    call = pool.get(1, task=11)
    other = pool.get(1, task=13)
    assert "never answered" in why_not(call)
    assert link(other).undecided


def test_a_request_that_came_after_the_call_is_not_its_parent(pool: Pool) -> None:
    pool.request()
    call = pool.get(1, task=11)
    pool.end(call, 1, task=11)
    pool.end(pool.request(), 1, task=11)
    assert "came later" in why_not(call)


def test_a_task_that_waits_for_a_call_writes_answers_of_others(pool: Pool) -> None:
    other, own = pool.request(), pool.request()
    call = pool.call(1, task=11)
    pool.end(other, 1, task=11)
    assert "while a call of it waited" in why_not(call)
    pool.end(own, 1, task=11)
    assert "while a call of it waited" in why_not(call)


def test_a_call_made_after_the_answer_began_waits_for_its_end(pool: Pool) -> None:
    streaming = pool.request()
    pool.begin_answer(streaming, 1, task=11)
    call = pool.call(1, task=11)
    pool.end(streaming, 1)
    assert_below(call, streaming)


def test_answers_written_together_are_not_told_apart(pool: Pool) -> None:
    request = pool.request()
    call = pool.get(1, task=11)
    pool.end(call, 1, task=11)
    pool.end(request, 1, task=11, together=True)
    assert "in one write" in why_not(call)


def test_a_library_whose_callers_read_for_each_other_is_not_believed(pool: Pool) -> None:
    request = pool.request()
    page, call = pool.get(1, task=11), pool.call(2, task=22)
    pool.end(page, 1, task=11)
    pool.end(call, 2, task=22)
    pool.end(request, 1, task=11)
    assert "thread 2 reads multiplexed" in why_not(page)
    pool.request()
    assert not link(pool.call(3, task=33)).undecided


@pytest.mark.parametrize(("rungs", "task", "shared"), [
    (("thread", "stream-thread"), 11, True),
    (("thread", "stream-thread", "answer"), 0, True),
    (("thread", "stream-thread", "answer"), 11, False),
])  # fmt: skip
def test_no_other_calls_wait(rungs: tuple[str, ...], task: int, shared: bool) -> None:
    program = Program(*rungs)
    program.incoming(HELPER, shared=program.connection() if shared else None)
    call = program.get(1, task=task)
    assert not link(call).undecided
    assert program.correlator.undecided_above(call) is None


def test_a_call_waits_only_so_long(pool: Pool) -> None:
    request = pool.request()
    call = pool.get(1, task=11)
    pool.correlator.expire(call.start_ns + answers.WAIT_NS - 1)
    assert link(call).undecided
    pool.correlator.expire(call.start_ns + answers.WAIT_NS)
    assert "in time" in why_not(call)
    assert pool.notes == {"undecided_expired": 1}
    pool.end(request, 1, task=11)
    assert link(call).parent is None


def test_only_so_many_calls_wait(pool: Pool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(answers, "WAITING_MAX", 2)
    pool.request()
    calls = [pool.get(tid, task=tid) for tid in (1, 2, 3)]
    assert [link(call).undecided for call in calls] == [False, True, True]
    assert pool.notes == {"undecided_evicted": 1}


@pytest.mark.parametrize("end", ["exit", "finish"])
def test_no_call_waits_for_a_process_or_an_agent_that_is_gone(pool: Pool, end: str) -> None:
    pool.request()
    call = pool.get(1, task=11)
    if end == "exit":
        pool.correlator.process_exited(2)
        assert link(call).undecided
        pool.correlator.process_exited(1)
    else:
        pool.correlator.finish()
    assert "never answered" in why_not(call)
    assert pool.decided() == [call]
