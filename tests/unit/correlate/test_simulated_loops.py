"""Parents found for event loops of Python behind shared connections, whose true parents are known.

The model is what was measured of grpcio on asyncio: helper threads read everything; the loop's thread writes calls
and answers, or a helper does; a call has a task of its own. Claiming a wrong parent is never allowed.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from random import Random

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from shared_connections import HELPER, Program, link, why_not

from autotrace.correlate.streams import SURE_AFTER_READS, UNANSWERED_NS
from autotrace.model import Confidence, Exchange, LinkMethod

SEEDED = st.builds(Random, st.integers(0, 2**32))
SLOW = settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))
LOOP, OTHER_LOOP = 1, 2


class Loop:
    """Up to `at_once` requests are served by tasks of one thread, a share of `helped` is written by a helper, and a
    share of `cancelled` is given up by the client while its task works on."""

    def __init__(self, random: Random, at_once: int, helped: float, cancelled: float) -> None:
        self.random = random
        self.helped = helped
        self.cancelled = cancelled
        self.program = Program("thread", "stream-thread", "answer")
        self.server = self.program.connection()
        self.truth: list[tuple[Exchange, Exchange]] = []
        self.tasks = 0
        self.steps = [self.serve() for _ in range(at_once)]

    def loop(self, steps: int) -> None:
        for _ in range(steps):
            next(self.random.choice(self.steps))

    def writer(self) -> tuple[int, int]:
        self.tasks += 1
        return (HELPER, 0) if self.random.random() < self.helped else (LOOP, self.tasks << 16)

    def serve(self) -> Iterator[None]:
        program = self.program
        while True:
            yield
            request = program.incoming(HELPER, self.server)
            given_up = self.random.random() < self.cancelled
            for _ in range(self.random.randint(0, 3)):
                yield
                tid, task = self.writer()
                call = program.call(tid, task=task)
                self.truth.append((call, request))
                yield
                program.end(call, HELPER)
                if given_up and not request.end_ns:
                    request.end_ns = next(program.clock)
                    program.correlator.ended(request)
            yield
            tid, task = self.writer()
            if not request.end_ns:
                program.end(request, tid, task=task)

    def check(self) -> float:
        for call, request in self.truth:
            assert link(call).parent in (None, request), link(call)
        return sum(link(call).parent is not None for call, _ in self.truth) / max(1, len(self.truth))


@SLOW
@given(SEEDED, st.sampled_from((1, 2, 10)), st.sampled_from((0.0, 0.3)), st.sampled_from((0.0, 0.01, 0.3)))
def test_a_loop_has_no_false_parents(random: Random, at_once: int, helped: float, cancelled: float) -> None:
    loop = Loop(random, at_once, helped, cancelled)
    loop.loop(1500)
    found = loop.check()
    if (at_once, helped, cancelled) == (1, 0.0, 0.0):
        assert found > 0.9
    assert len(loop.truth) > 50


@pytest.fixture
def program() -> Program:
    program = Program("thread", "stream-thread", "answer")
    server = program.connection()
    program.end(program.call(LOOP, task=1), HELPER)
    for _ in range(SURE_AFTER_READS):
        program.end(program.incoming(HELPER, server), LOOP, task=2)
    return program


def test_calls_belong_to_the_only_open_request(program: Program) -> None:
    request = program.incoming(HELPER, program.shared)
    calls = []
    for task in (11, 12):
        calls.append(program.call(LOOP, task=task))
        assert link(calls[-1]).undecided
        program.end(calls[-1], HELPER)
    program.end(request, LOOP, task=10)
    for call in calls:
        found = link(call)
        assert (found.parent, found.method) == (request, LinkMethod.ANSWER)
        assert found.confidence is Confidence.CONDITIONAL
        assert "only open request" in found.evidence


def test_calls_at_once_may_be_written_for_each_other(program: Program) -> None:
    request = program.incoming(HELPER, program.shared)
    first, second = program.call(LOOP, task=11), program.call(LOOP, task=12)
    for call in (first, second):
        program.end(call, HELPER)
    program.end(request, LOOP, task=10)
    assert link(first).parent is request
    assert "0 open requests on thread" in why_not(second)


def test_an_answer_by_another_thread_says_nothing(program: Program) -> None:
    request = program.incoming(HELPER, program.shared)
    call = program.call(LOOP, task=11)
    program.end(call, HELPER)
    program.end(request, HELPER)
    assert "not answered on its thread" in why_not(call)


def test_two_loops_are_not_told_apart(program: Program) -> None:
    program.end(program.incoming(HELPER, program.shared), OTHER_LOOP, task=3)
    request = program.incoming(HELPER, program.shared)
    call = program.call(LOOP, task=11)
    program.end(call, HELPER)
    program.end(request, LOOP, task=10)
    assert "never answered" in why_not(call)


def test_a_request_that_was_given_up_may_still_be_worked_on(program: Program) -> None:
    given_up = program.incoming(HELPER, program.shared)
    given_up.end_ns = next(program.clock)
    program.correlator.ended(given_up)

    def found() -> bool:
        request = program.incoming(HELPER, program.shared)
        call = program.call(LOOP, task=11)
        program.end(call, HELPER)
        program.end(request, LOOP, task=10)
        return link(call).parent is request

    assert not found()
    program.clock = itertools.count(given_up.end_ns + UNANSWERED_NS)
    assert found()
