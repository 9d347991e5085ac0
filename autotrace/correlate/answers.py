"""Calls whose parent shows late: when the task that made them answers its request.

A pool of threads that serve requests of a shared connection (grpcio's server) is handed them by a helper thread, so
nothing tells which request a thread works for until it answers. Until then a call has no parent, and the spans
at and below it must wait. On asyncio grpcio makes a task for each request and one for each call, and each runs in
a copy of the contextvars.Context that it was made in: where these copies are known, a call belongs to the request
that is answered in a context from which the call's descends. Where they are not, but only one request is open, its
answer shows that the loop's thread worked for it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TypeVar

from autotrace.model import Confidence, Context, Exchange, Link, LinkMethod

_Key = TypeVar("_Key")

WAIT_NS = 10_000_000_000
"""How long a call waits for its parent's answer."""

WAITING_MAX = 4096
"""How many calls wait at most; the oldest is given up for one more."""


class UndecidedCalls:
    """Calls that wait, by the thread that made them. All of one thread are of one task, for a thread that has
    turned to another one does not come back to it. An event loop's thread does: its calls wait for the only request
    that was open when they were made."""

    def __init__(self, note: Callable[[str, str], object]) -> None:
        self.ever = False
        """A call has waited."""
        self._note = note
        self._by_thread: dict[int, list[Exchange]] = {}
        self._only: dict[Exchange, Exchange] = {}  # by call, that request
        self._for: dict[Exchange, list[Exchange]] = {}  # the other way round
        self._descending: dict[int, dict[Exchange, None]] = {}  # in no other but the next; by process
        self._by_context: dict[
            tuple[int, int], list[Exchange]
        ] = {}  # by process and context in their lineage
        self._oldest_first: dict[Exchange, None] = {}
        self._decided: list[Exchange] = []

    def wait(self, call: Exchange, only: Exchange | None) -> None:
        """A call has a task and no parent yet: what is below it must wait. `only`: the one open request, if the
        thread is an event loop's."""
        link = call.link
        if link is None:
            return
        tid = call.at.tid
        self._turned_to(call.at.task, tid)
        self._by_thread.setdefault(tid, []).append(call)
        if only is not None:
            self._only[call] = only
            self._for.setdefault(only, []).append(call)
        self._wait(call, link)

    def wait_for_context(self, call: Exchange) -> None:
        """The same for a call of an event loop whose lineage is known: it waits for an answer out of that."""
        link = call.link
        if link is None:
            return
        pid = call.connection.pid
        self._descending.setdefault(pid, {})[call] = None
        for context in call.at.lineage:
            self._by_context.setdefault((pid, context), []).append(call)
        self._wait(call, link)

    def doubt_context(self, at: Context) -> None:
        """A context has written another call: one of them may not be its own."""
        calls = self._by_context.get((at.pid, at.lineage[0]), ())
        self.give_up(
            [call for call in calls if call.at.lineage[0] == at.lineage[0]],
            "its context wrote another call, too",
        )

    def _wait(self, call: Exchange, link: Link) -> None:
        self._oldest_first[call] = None
        link.undecided = self.ever = True
        if len(self._oldest_first) > WAITING_MAX:
            self._note("correlate", "undecided_evicted")
            self.give_up([next(iter(self._oldest_first))], "too many calls wait for their parent's answer")

    def answered(self, parent: Exchange, against: str, context: int = 0) -> None:
        """A request was answered, or will not be: the calls that its task made are below it, and those of an event
        loop that waited for it or descend from `context`, its own, if nothing speaks against it."""
        at = parent.response_at
        calls: list[Exchange] = []
        if at is not None:
            self._turned_to(at.task, at.tid)
            for call in self._by_thread.get(at.tid, ()):
                if call.at.task == at.task or self._only.get(call) is parent:
                    calls.append(call)
            calls += self._by_context.get((at.pid, context), ())
        if not against and parent.answered_together:
            against = "several requests were answered in one write"
        if not against and any(_waited(call, parent.response_start_ns) for call in calls):
            against = "its task answered a request while a call of it waited"
        if against:
            self.give_up(calls, against)
        for call in () if against else calls:
            if parent.start_ns <= call.start_ns:
                _adopt(call, parent, at)
                self._decide(call)
            else:
                self.give_up([call], "the request that its task answered came later")
        self.give_up(self._for.get(parent, ()), "the only open request was not answered on its thread")

    def only_since(self, pid: int, ts: int) -> None:
        """No request of a process that came before `ts` is still to be answered."""
        late = []
        for call in self._descending.get(pid, ()):
            if call.start_ns >= ts:
                break
            late.append(call)
        self.give_up(late, "no request was answered in a context from which its own descends")

    def _turned_to(self, task: int, tid: int) -> None:
        """A thread is at this task now: it has left every other for good."""
        left = [
            call for call in self._by_thread.get(tid, ()) if call.at.task != task and call not in self._only
        ]
        self.give_up(left, "its task never answered a request")

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
        self._decided.append(call)
        pid = call.connection.pid
        descending = self._descending.get(pid)
        if descending is not None and call in descending:
            del descending[call]
            if not descending:
                del self._descending[pid]
            for context in call.at.lineage:
                _remove(self._by_context, (pid, context), call)
            return
        only = self._only.pop(call, None)
        if only is not None:
            _remove(self._for, only, call)
        _remove(self._by_thread, call.at.tid, call)


def _remove(table: dict[_Key, list[Exchange]], key: _Key, call: Exchange) -> None:
    table[key].remove(call)
    if not table[key]:
        del table[key]


def _waited(call: Exchange, ts: int) -> bool:
    """Tell if a call was made and not answered at that time."""
    answered = call.response_start_ns or call.end_ns
    return call.start_ns < ts and not 0 < answered <= ts


def _adopt(call: Exchange, parent: Exchange, at: Context | None) -> None:
    link, above = call.link, parent.link
    if link is None or above is None or at is None:
        return
    link.method = LinkMethod.ANSWER
    link.confidence = Confidence.CONDITIONAL
    if at.task != call.at.task and at.lineage and at.lineage[0] in call.at.lineage:
        link.evidence = (
            f"its context on thread {call.at.tid} descends from the one that answered this request"
        )
    elif at.task == call.at.task:
        link.evidence = f"its task on thread {call.at.tid} answered this request next"
    else:
        link.evidence = f"only open request when thread {call.at.tid}, which answers all of them, sent it"
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
