"""Calls whose parent shows late: when the task that made them answers its request.

A pool of threads that serve requests of a shared connection (grpcio's server) is handed them by a helper thread, so
nothing tells which request a thread works for until it answers. Until then a call has no parent, and the spans
at and below it must wait.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from autotrace.model import Confidence, Exchange, LinkMethod

WAIT_NS = 10_000_000_000
"""How long a call waits for its parent's answer."""

WAITING_MAX = 4096
"""How many calls wait at most; the oldest is given up for one more."""


class UndecidedCalls:
    """Calls that wait, by the thread that made them. All of one thread are of one task: a thread that has turned to
    another one does not come back to it."""

    def __init__(self, note: Callable[[str, str], object]) -> None:
        self.ever = False
        """A call has waited."""
        self._note = note
        self._by_thread: dict[int, list[Exchange]] = {}
        self._oldest_first: dict[Exchange, None] = {}
        self._decided: list[Exchange] = []

    def wait(self, call: Exchange) -> None:
        """A call has a task and no parent yet: what is below it must wait."""
        link = call.link
        if link is None:
            return
        tid = call.at.tid
        calls = self._by_thread.get(tid, [])
        if calls and calls[0].at.task != call.at.task:
            self.give_up(calls, "its task never answered a request")
        self._by_thread.setdefault(tid, []).append(call)
        self._oldest_first[call] = None
        link.undecided = self.ever = True
        if len(self._oldest_first) > WAITING_MAX:
            self._note("correlate", "undecided_evicted")
            self.give_up([next(iter(self._oldest_first))], "too many calls wait for their parent's answer")

    def answered(self, parent: Exchange, against: str) -> None:
        """A task answered `parent`: the calls that it made are below that, if nothing speaks against it."""
        at = parent.response_at
        calls = self._by_thread.get(at.tid) if at is not None else None
        if at is None or not calls:
            return
        if at.task != calls[0].at.task:
            self.give_up(calls, "its task never answered a request")
            return
        if not against and parent.answered_together:
            against = "several requests were answered in one write"
        if not against and any(_waited(call, parent.response_start_ns) for call in calls):
            against = "its task answered a request while a call of it waited"
        if against:
            self.give_up(calls, against)
            return
        for call in list(calls):
            if parent.start_ns <= call.start_ns:
                _adopt(call, parent)
                self._decide(call)
            else:
                self.give_up([call], "the request that its task answered came later")

    def expire(self, now: int) -> None:
        """Give up what has waited too long."""
        late = []
        for call in self._oldest_first:
            if call.start_ns > now - WAIT_NS:
                break
            late.append(call)
            self._note("correlate", "undecided_expired")
        self.give_up(late, "its task answered no request in time")

    def process_exited(self, pid: int) -> None:
        """A process is gone; `pid` 0: all of them."""
        gone = [call for call in self._oldest_first if pid in (0, call.connection.pid)]
        self.give_up(gone, "its task never answered a request")

    def give_up(self, calls: Iterable[Exchange], why: str) -> None:
        """These calls stay roots."""
        for call in list(calls):
            if call.link is not None:
                call.link.evidence = why
            self._decide(call)

    def take_decided(self) -> list[Exchange]:
        """The calls that wait no more, since this was asked last."""
        decided, self._decided = self._decided, []
        return decided

    def _decide(self, call: Exchange) -> None:
        if call.link is not None:
            call.link.undecided = False
        del self._oldest_first[call]
        calls = self._by_thread[call.at.tid]
        calls.remove(call)
        if not calls:
            del self._by_thread[call.at.tid]
        self._decided.append(call)


def _waited(call: Exchange, ts: int) -> bool:
    """Tell if a call was made and not answered at that time."""
    answered = call.response_start_ns or call.end_ns
    return call.start_ns < ts and not 0 < answered <= ts


def _adopt(call: Exchange, parent: Exchange) -> None:
    link, above = call.link, parent.link
    if link is None or above is None:
        return
    link.method = LinkMethod.ANSWER
    link.confidence = Confidence.CONDITIONAL
    link.evidence = f"its task on thread {call.at.tid} answered this request next"
    link.parent = parent
    link.parent_span_id = above.span_id
    link.candidates = 0


def undecided_above(exchange: Exchange) -> Exchange | None:
    """The call at or above an exchange that waits for its parent, None if there is none: then its place is
    final, and its link has the right trace."""
    chain = []
    above: Exchange | None = exchange
    while above is not None and above.link is not None:
        link = above.link
        if link.undecided:
            return above
        chain.append(link)
        above = link.parent
    root = chain[-1] if chain else None
    for link in chain:
        if root is not None and link.trace_id != root.trace_id:
            link.trace_id = root.trace_id
            link.sampled = root.sampled
            link.trace_state = root.trace_state
    return None
