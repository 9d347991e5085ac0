"""Calls on connections that calls share: whether the thread that wrote one is the one that made it.

The library that writes such a connection has locks and helper threads of its own. What it does with them shows
in who reads the answers.
"""

from __future__ import annotations

from autotrace.model import Context, Exchange

SURE_AFTER_READS = 4
"""After so many reads of answers, all by threads without a request of their own, it is believed to be the way of
the library."""


UNANSWERED_NS = 10_000_000_000
"""How long the handler of a request that was given up is believed to work on."""

_CONTEXTS_MAX = 4096
"""Contexts of a process that are remembered for having answered a request, and as many for having made a call."""


class StreamAnswers:
    """Which thread answers the requests that come to one process on shared connections."""

    def __init__(self) -> None:
        self._tid = 0
        self._count = 0
        self._many = False
        self._given_up_ns = -UNANSWERED_NS
        self._contexts: dict[int, None] = {}  # that have answered, oldest first
        self._shared = False

    def ended(self, request: Exchange) -> None:
        """A request was answered, or will not be. Threads without a task write what others left."""
        at = request.response_at
        if at is None:
            self._given_up_ns = request.end_ns
        elif at.task:
            self._many = self._many or self._tid not in (0, at.tid)
            self._tid = at.tid
            self._count += 1
            if at.lineage:
                self._shared = self._shared or at.lineage[0] in self._contexts
                _remember(self._contexts, at.lineage[0])

    def are_all_by(self, at: Context) -> bool:
        """Tell if the thread at work here has answered all."""
        return self._count >= SURE_AFTER_READS and not self._many and at.tid == self._tid

    def none_given_up(self, at: Context) -> bool:
        """Tell if no request was given up lately."""
        return at.ts >= self._given_up_ns + UNANSWERED_NS

    def own_context(self, request: Exchange) -> int:
        """The context that is at work for this request only, as far as is known: it was made when the request had
        come, it answered it, and contexts answer no others in this process. 0 if there is none."""
        at = request.response_at
        if at is None or not at.lineage or request.rpc is None:
            return 0
        if self._shared or at.lineage[0] < request.start_ns:
            return 0
        return at.lineage[0]


def _remember(contexts: dict[int, None], context: int) -> None:
    contexts[context] = None
    if len(contexts) > _CONTEXTS_MAX:
        del contexts[next(iter(contexts))]


class StreamCalls:
    """What one process asked on shared connections, and who read the answers and the requests that came."""

    def __init__(self) -> None:
        self._open: dict[int, set[Exchange]] = {}  # by the thread that wrote them
        self._answered: set[int] = set()  # connections that have brought an answer
        self._contexts: dict[int, None] = {}  # that have written a call, oldest first
        self._reads = 0  # by threads that have no work of their own
        self._last_read = 0
        self._tasks_are_known = False
        self._helps = ""  # evidence that threads with requests of their own write for others

    def sent(self, call: Exchange) -> None:
        """A call was written."""
        self._open.setdefault(call.at.tid, set()).add(call)
        if call.at.lineage:
            _remember(self._contexts, call.at.lineage[0])

    def saw(self, at: Context) -> None:
        """A thread did something. Reads by threads without a task count only once tasks are known."""
        if at.task and not self._tasks_are_known:
            self._tasks_are_known = True
            self._reads = 0

    def read(self, at: Context, serves: bool) -> None:
        """An answer or a request on a shared connection was read. `serves`: the reader has a request of its own. It
        has work of its own too if it runs a task."""
        if not serves and not at.task:
            self._reads += at.ts != self._last_read
            self._last_read = at.ts
        elif not self._helps:
            self._helps = f"thread {at.tid} reads multiplexed connections, and has work of its own"

    def ended(self, call: Exchange) -> None:
        """A call was answered, or will not be."""
        open_calls = self._open.get(call.at.tid)
        if open_calls is not None:
            open_calls.discard(call)
            if not open_calls:
                del self._open[call.at.tid]
        if call.response_at is not None:
            self._answered.add(call.connection.id)

    def connection_closed(self, connection_id: int) -> None:
        """A connection is gone."""
        self._answered.discard(connection_id)

    def against_thread(self, call: Exchange) -> str:
        """What speaks against the thread that wrote a call having made it; empty if nothing does."""
        if why := self.against_helpers():
            return why
        if call.together:
            return "several calls began in one write to a multiplexed connection"
        if any(not other.response_start_ns for other in self._open.get(call.at.tid, ())):
            return "another call that this thread wrote waits for its answer"
        return ""

    def against_context(self, call: Exchange) -> str:
        """What speaks against the context that an event loop's call was written in being the one that made it."""
        if why := self.against_helpers():
            return why
        if call.together:
            return "several calls began in one write to a multiplexed connection"
        if self.has_written(call.at):
            return "this context wrote another call, too"
        return ""

    def has_written(self, at: Context) -> bool:
        """Tell if a call was written in this context before. grpcio makes one for each."""
        return bool(at.lineage) and at.lineage[0] in self._contexts

    def against_helpers(self) -> str:
        """What speaks against it that threads write for themselves, and helper threads for the rest.

        A library whose callers wait in its own poll reads there for all of them, and writes for all (gRPC's C
        core before EventEngine). Where others read, a caller comes to write for others in one case: something
        was left for it while it wrote its own.
        """
        if self._helps:
            return self._helps
        if self._reads < SURE_AFTER_READS:
            return "who reads multiplexed connections is not known yet"
        return ""

    def may_have_waited(self, call: Exchange, parent: Exchange) -> bool:
        """Tell if a call may be older than `parent`: its connection was not ready yet when that came."""
        if call.connection.id in self._answered:
            return False
        opened_at = call.connection.opened_at
        return opened_at is None or opened_at.ts < parent.start_ns
