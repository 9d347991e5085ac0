"""Parents found for event loops of Python whose contexts are known, and whose true parents are known.

The model is what was measured of grpcio on asyncio: each request is served by a task in a context of its own, a
copy of the server's; each call has a task in a copy of the context that made it. Helpers write some calls and
answers. Claiming a wrong parent is never allowed.
"""

from __future__ import annotations

from collections.abc import Iterator
from random import Random

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from shared_connections import HELPER, Program, link, why_not

from autotrace.correlate.streams import SURE_AFTER_READS
from autotrace.model import Confidence, Exchange, LinkMethod

SEEDED = st.builds(Random, st.integers(0, 2**32))
SLOW = settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))
LOOP, OTHER_LOOP = 1, 2
KNOWN = 8
"""Generations that the kernel side tells."""

Lineage = tuple[int, ...]


class Loop:
    """Up to `at_once` requests are served by tasks of one thread. A share of `helped` is written by a helper, a
    share of `cancelled` is given up by the client while its task works on, a share of `foreign` of the calls is
    written in the context of another one."""

    def __init__(
        self, random: Random, at_once: int, helped: float, cancelled: float, foreign: float = 0
    ) -> None:
        self.random = random
        self.helped = helped
        self.cancelled = cancelled
        self.foreign = foreign
        self.program = Program("thread", "stream-thread", "answer")
        self.server = self.program.connection()
        self.main = self.copy(())
        self.truth: list[tuple[Exchange, Exchange]] = []
        self.wrote: list[Lineage] = []
        self.steps = [self.serve() for _ in range(at_once)]

    def copy(self, lineage: Lineage) -> Lineage:
        return (next(self.program.clock), *lineage)[:KNOWN]

    def loop(self, steps: int) -> None:
        for _ in range(steps):
            next(self.random.choice(self.steps))

    def writer(self, lineage: Lineage) -> tuple[int, int, Lineage]:
        if self.random.random() < self.helped:
            return HELPER, 0, ()
        return LOOP, next(self.program.clock) << 16, lineage

    def serve(self) -> Iterator[None]:
        program, random = self.program, self.random
        while True:
            yield
            request = program.incoming(HELPER, self.server)
            given_up = random.random() < self.cancelled
            yield
            own = self.copy(self.copy(self.main))
            for _ in range(random.randint(0, 3)):
                yield
                context = own
                for _ in range(random.choice((1, 1, 2, 5, 9))):
                    context = self.copy(context)
                # A context that wrote its own call comes to write another one's.
                if self.wrote and random.random() < self.foreign:
                    context = random.choice(self.wrote)
                tid, task, lineage = self.writer(context)
                call = program.call(tid, task=task, lineage=lineage)
                self.wrote = [*self.wrote[-3:], *([lineage] if lineage else [])]
                self.truth.append((call, request))
                yield
                program.end(call, HELPER)
                if given_up and not request.end_ns:
                    request.end_ns = next(program.clock)
                    program.correlator.ended(request)
            yield
            tid, task, lineage = self.writer(own)
            if not request.end_ns:
                program.end(request, tid, task=task, lineage=lineage)

    def check(self) -> float:
        for call, request in self.truth:
            assert link(call).parent in (None, request), link(call)
        return sum(link(call).parent is not None for call, _ in self.truth) / max(1, len(self.truth))


@SLOW
@given(
    SEEDED,
    st.sampled_from((1, 2, 10, 50)),
    st.sampled_from((0.0, 0.3)),
    st.sampled_from((0.0, 0.1)),
    st.sampled_from((0.0, 0.1)),
)
def test_a_loop_has_no_false_parents(
    random: Random, at_once: int, helped: float, cancelled: float, foreign: float
) -> None:
    loop = Loop(random, at_once, helped, cancelled, foreign)
    loop.loop(3000)
    found = loop.check()
    # One call of five is further down than the kernel side tells; what the last requests called is not decided yet.
    if (helped, cancelled, foreign) == (0.0, 0.0, 0.0):
        assert found > 0.6
    assert len(loop.truth) > 50


MAIN = (1,)


@pytest.fixture
def program() -> Program:
    program = Program("thread", "stream-thread", "answer")
    server = program.connection()
    program.end(program.call(LOOP, task=1), HELPER)
    for _ in range(SURE_AFTER_READS):
        request = program.incoming(HELPER, server)
        program.end(request, LOOP, task=2, lineage=copy(program, MAIN))
    return program


def copy(program: Program, lineage: Lineage) -> Lineage:
    return (next(program.clock), *lineage)


def call(program: Program, lineage: Lineage) -> Exchange:
    made = program.call(LOOP, task=lineage[0], lineage=lineage)
    program.end(made, HELPER)
    return made


def test_calls_belong_to_the_request_answered_in_the_context_they_descend_from(program: Program) -> None:
    requests = [program.incoming(HELPER, program.shared) for _ in range(3)]
    contexts = [copy(program, MAIN) for _ in requests]
    children = [call(program, copy(program, context)) for context in contexts]
    grandchildren = [call(program, copy(program, copy(program, context))) for context in contexts]
    assert all(link(each).undecided for each in children + grandchildren)
    for request, context in zip(requests, contexts, strict=True):
        program.end(request, LOOP, task=7, lineage=context)
    for calls in (children, grandchildren):
        assert [link(each).parent for each in calls] == requests
        for each in calls:
            found = link(each)
            assert (found.method, found.confidence) == (LinkMethod.ANSWER, Confidence.CONDITIONAL)
            assert "descends" in found.evidence


def test_a_context_older_than_the_request_may_work_for_others(program: Program) -> None:
    """A task for each connection: it writes the answers, and made the tasks that serve them."""
    connection = copy(program, MAIN)
    requests = [program.incoming(HELPER, program.shared) for _ in range(2)]
    calls = [call(program, copy(program, connection)) for _ in requests]
    for request in reversed(requests):
        program.end(request, LOOP, task=7, lineage=connection)
    assert all("no request was answered" in why_not(each) for each in calls)


def test_a_context_that_answers_twice_works_for_others(program: Program) -> None:
    requests = [program.incoming(HELPER, program.shared) for _ in range(2)]
    context = copy(program, MAIN)
    program.end(requests[0], LOOP, task=7, lineage=context)
    made = call(program, copy(program, context))
    program.end(requests[1], LOOP, task=7, lineage=context)
    assert "no request was answered" in why_not(made)
    later = program.incoming(HELPER, program.shared)
    own = copy(program, MAIN)
    made = call(program, copy(program, own))
    program.end(later, LOOP, task=7, lineage=own)
    assert "no request was answered" in why_not(made)


def test_a_context_that_writes_two_calls_writes_for_others(program: Program) -> None:
    request = program.incoming(HELPER, program.shared)
    own = copy(program, MAIN)
    context = copy(program, own)
    first, second, third = call(program, context), call(program, context), call(program, copy(program, own))
    program.end(request, LOOP, task=7, lineage=own)
    assert "another call" in why_not(first)
    assert link(second).method is LinkMethod.NONE
    assert link(third).parent is request


def test_a_call_waits_no_longer_than_the_requests_that_were_open(program: Program) -> None:
    request, other = (program.incoming(HELPER, program.shared) for _ in range(2))
    own = copy(program, MAIN)
    made = call(program, copy(program, own))
    program.end(request, HELPER)
    assert link(made).undecided
    program.incoming(HELPER, program.shared)
    program.end(other, LOOP, task=7, lineage=copy(program, MAIN))
    assert not link(made).undecided
    assert "no request was answered" in why_not(made)


def test_what_is_not_grpc_may_write_otherwise(program: Program) -> None:
    program.grpc = False
    program.incoming(HELPER, program.shared)
    request = program.incoming(HELPER, program.shared)
    own = copy(program, MAIN)
    made = call(program, copy(program, own))
    program.end(request, LOOP, task=7, lineage=own)
    assert link(made).method is LinkMethod.NONE


def test_two_loops_are_not_told_apart(program: Program) -> None:
    program.end(program.incoming(HELPER, program.shared), OTHER_LOOP, task=3, lineage=copy(program, MAIN))
    request = program.incoming(HELPER, program.shared)
    own = copy(program, MAIN)
    made = call(program, copy(program, own))
    program.end(request, LOOP, task=7, lineage=own)
    assert link(made).method is LinkMethod.NONE


def test_an_answer_with_others_in_one_write_says_nothing(program: Program) -> None:
    request = program.incoming(HELPER, program.shared)
    own = copy(program, MAIN)
    made = call(program, copy(program, own))
    program.end(request, LOOP, task=7, lineage=own, together=True)
    assert "one write" in why_not(made)


def test_a_process_that_is_gone_leaves_nothing_waiting(program: Program) -> None:
    program.incoming(HELPER, program.shared)
    made = call(program, copy(program, copy(program, MAIN)))
    program.correlator.process_exited(1)
    assert not link(made).undecided
    assert program.correlator.take_decided() == [made]
