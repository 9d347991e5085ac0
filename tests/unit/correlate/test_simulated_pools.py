"""Parents found for pools of threads behind shared connections, whose true parents are known.

The model is what was measured of grpcio: helper threads read everything; a thread of the pool serves one request at
a time, which may have waited in a queue; it writes its calls and its answer itself, or a helper does. In the older
library, threads that wait read, and write for each other. Claiming a wrong parent is never allowed.
"""

from __future__ import annotations

from collections.abc import Iterator
from random import Random

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from shared_connections import HELPER, Program, link

from autotrace.model import Exchange, LinkMethod

SEEDED = st.builds(Random, st.integers(0, 2**32))
SLOW = settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))
SERVING = 800


class Pool:
    """`threads` serve requests by gRPC. Contexts that are over leave their addresses to new ones at once."""

    def __init__(self, random: Random, threads: int, helped: float, older: bool) -> None:
        self.random = random
        self.helped = helped
        self.older = older
        self.program = Program("thread", "stream-thread", "answer")
        self.server = self.program.connection()
        self.truth: list[tuple[Exchange, Exchange]] = []
        self.queue: list[tuple[Exchange, int]] = []
        self.free = [7]
        self.addresses = 7
        self.entered = dict.fromkeys(range(1, threads + 1), 0)
        self.waiting: dict[int, int] = {}  # threads of the pool that wait for a call, with their tasks
        self.steps = [self.serve(tid) for tid in self.entered]

    def loop(self, steps: int) -> None:
        for _ in range(steps):
            if self.random.random() < 0.3:
                self.arrive()
            next(self.random.choice(self.steps))

    def arrive(self) -> None:
        tid, task = (SERVING, 3 << 16) if self.older else (HELPER, 0)
        request = self.program.incoming(tid, self.server, task=task)
        if self.free:
            address = self.free.pop()
        else:
            self.addresses += 1
            address = self.addresses
        self.queue.append((request, address))

    def writer(self, tid: int, task: int) -> tuple[int, int]:
        """Who writes what this thread says."""
        if self.random.random() >= self.helped:
            return tid, task
        others = [each for each in self.waiting.items() if each[0] != tid]
        return self.random.choice(others) if self.older and others else (HELPER, 0)

    def serve(self, tid: int) -> Iterator[None]:
        random, program = self.random, self.program
        while True:
            yield
            if not self.queue:
                continue
            request, address = self.queue.pop(0)
            self.entered[tid] += 1
            task = address << 16 | self.entered[tid]
            for _ in range(random.randint(0, 3)):
                yield
                yield from self.call(tid, task, request)
            yield
            answers, its_task = self.writer(tid, task)
            program.end(request, answers, task=its_task)
            if random.random() < 0.3:
                yield
            self.entered[tid] += 1
            self.free.append(address)

    def call(self, tid: int, task: int, request: Exchange) -> Iterator[None]:
        program = self.program
        if self.random.random() < 0.4:
            call = program.get(tid, task=task)
            self.truth.append((call, request))
            yield
            program.end(call, tid, task=task)
            return
        writes, its_task = self.writer(tid, task)
        call = program.call(writes, task=its_task)
        self.truth.append((call, request))
        self.waiting[tid] = task
        yield
        reader, its_task = self.random.choice(list(self.waiting.items())) if self.older else (HELPER, 0)
        program.begin_answer(call, reader, task=its_task)
        program.end(call, reader)
        del self.waiting[tid]

    def check(self) -> float:
        for call, request in self.truth:
            assert link(call).parent in (None, request), link(call)
            if link(call).parent is not None:
                assert link(call).method is LinkMethod.ANSWER
        return sum(link(call).parent is not None for call, _ in self.truth) / max(1, len(self.truth))


@SLOW
@given(SEEDED, st.sampled_from((1, 3, 16)), st.sampled_from((0.0, 0.2, 0.6)))
def test_a_pool_has_no_false_parents(random: Random, threads: int, helped: float) -> None:
    pool = Pool(random, threads, helped, older=False)
    pool.loop(1500)
    found = pool.check()
    if not helped:
        assert found > 0.5
    assert len(pool.truth) > 50


@SLOW
@given(SEEDED, st.sampled_from((3, 16)), st.sampled_from((0.1, 0.6)))
def test_threads_that_write_for_each_other_get_no_parents(
    random: Random, threads: int, helped: float
) -> None:
    pool = Pool(random, threads, helped, older=True)
    pool.loop(1500)
    assert pool.check() == 0


class Fronts:
    """A thread for each HTTP/1 connection; all call by one shared connection."""

    def __init__(self, random: Random, threads: int, helped: float) -> None:
        self.random = random
        self.helped = helped
        self.program = Program("thread", "stream-thread", "answer")
        self.truth: list[tuple[Exchange, Exchange]] = []
        self.steps = [self.serve(tid) for tid in range(1, threads + 1)]

    def loop(self, steps: int) -> None:
        for _ in range(steps):
            next(self.random.choice(self.steps))

    def serve(self, tid: int) -> Iterator[None]:
        random, program = self.random, self.program
        while True:
            yield
            request = program.incoming(tid)
            for _ in range(random.randint(0, 3)):
                yield
                call = program.call(HELPER if random.random() < self.helped else tid)
                self.truth.append((call, request))
                yield
                program.end(call, HELPER)
            yield
            program.end(request, tid)


@SLOW
@given(SEEDED, st.sampled_from((1, 4, 16)), st.sampled_from((0.0, 0.3)))
def test_threads_that_serve_http_have_their_calls_found(random: Random, threads: int, helped: float) -> None:
    fronts = Fronts(random, threads, helped)
    fronts.loop(1500)
    for call, request in fronts.truth:
        assert link(call).parent in (None, request)
    found = sum(link(call).parent is not None for call, _ in fronts.truth)
    assert found >= (1 - helped) * len(fronts.truth) * 0.8
