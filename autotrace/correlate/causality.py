"""Which open incoming request of a process an outgoing one belongs to, told by what its threads did.

An answer is given only where the way the runtime works leaves one possibility. See docs/links.md.
"""

from __future__ import annotations

from typing import NamedTuple

from autotrace.correlate.streams import StreamAnswers, StreamCalls
from autotrace.model import Confidence, Context, Exchange, LinkMethod, Process

_GENERATIONS_MAX = 64
"""How far a task's ancestors are looked for."""

_ANCESTRY_MAX = 16_384
"""Tasks of a process whose parents are remembered."""

_NEVER = 1 << 63

TraceKey = tuple[int, int]
"""Trace id and span id of a trace header."""


_READ_FOR_ANY = "the only open request on the thread came on a multiplexed connection, for any thread"
_CONTRADICTION = "contradiction: another connection was read just before"


class Finding(NamedTuple):
    """`parent` is None where no rung answers; `evidence` then says why not."""

    parent: Exchange | None
    method: LinkMethod
    evidence: str
    confidence: Confidence = Confidence.CONDITIONAL


class _Thread:
    """The open requests that one thread has read. `own`: how many of them did not come on shared connections.
    `answered_in`: the run of the last answer that it gave since it has any, -1 if it gave none."""

    __slots__ = ("answered_in", "own", "requests")

    def __init__(self) -> None:
        self.requests: set[Exchange] = set()
        self.own = 0
        self.answered_in = -1


class OpenRequests:
    """The incoming requests of one process that are not answered yet, and what it asked others meanwhile."""

    def __init__(self) -> None:
        self.open: dict[Exchange, None] = {}  # oldest first
        self._threads: dict[int, _Thread] = {}  # those with open requests
        self._streams_open = 0  # of `open`, those on shared connections
        self._by_connection: dict[int, list[Exchange]] = {}
        self._by_trace_key: dict[TraceKey, list[Exchange]] = {}
        self._trace_keys: dict[Exchange, TraceKey] = {}
        self._calls: dict[int, Exchange] = {}  # by connection: the last request sent on it
        self._closed_calls: dict[Exchange, list[int]] = {}  # by parent: connections that are gone
        self._stream_calls = StreamCalls()
        self._moved = ""  # evidence against the thread rung
        self._streams_moved = ""  # the same, from requests on shared connections
        self._answers = StreamAnswers()
        self._by_task: dict[int, set[Exchange]] = {}
        self._parent_tasks: dict[int, int] = {}  # by task, oldest first

    def began(self, exchange: Exchange, trace_key: TraceKey | None) -> None:
        """An incoming request was read; `trace_key` is what its trace header says, if others made it."""
        if exchange.stream:
            self._stream_calls.read(exchange.at, self._serves(exchange.at.tid))
        connection_id = exchange.connection.id
        on_connection = self._by_connection.get(connection_id)
        if on_connection is None:
            on_connection = self._by_connection[connection_id] = []
        elif on_connection:
            # A request that was given up is open until its connection moves on.
            for earlier in [earlier for earlier in on_connection if earlier.end_ns]:
                self._close(earlier)
        on_connection.append(exchange)
        self.open[exchange] = None
        tid = exchange.at.tid
        thread = self._threads.get(tid)
        if thread is None:
            thread = self._threads[tid] = _Thread()
        thread.requests.add(exchange)
        if exchange.stream:
            self._streams_open += 1
        else:
            thread.own += 1
        if not tid and not self._moved:
            self._moved = "a request was read by a thread of io_uring"
        if exchange.task:
            self._by_task.setdefault(exchange.task, set()).add(exchange)
        if trace_key is not None:
            self._trace_keys[exchange] = trace_key
            self._by_trace_key.setdefault(trace_key, []).append(exchange)

    def served_by(self, exchange: Exchange, task: int) -> None:
        """The runtime says which task serves an open incoming request from now on. A task serves one after the
        other: it has done with what it served before, even if the answer is still to be sent."""
        if exchange not in self.open:
            return
        self._leave_task(exchange)
        for earlier in self._by_task.pop(task, ()):
            earlier.task = 0
        exchange.task = task
        if task:
            self._by_task[task] = {exchange}

    def ended(self, exchange: Exchange) -> None:
        """An incoming request was answered, or will not be. One that timed out may still be worked on."""
        if exchange.error == "timeout":
            return
        answered = exchange.response_at
        if exchange.stream:
            self._answers.ended(exchange)
        if answered is not None:
            self._stream_calls.saw(answered)
            if answered.tid != exchange.at.tid:
                self._note_move(exchange, answered.tid)
        if exchange in self.open:
            self._close(exchange)
            thread = self._threads.get(answered.tid) if answered is not None else None
            if answered is not None and thread is not None:
                thread.answered_in = answered.run

    def _note_move(self, exchange: Exchange, tid: int) -> None:
        evidence = f"a request read on thread {exchange.at.tid} was answered on thread {tid}"
        if exchange.stream:
            self._streams_moved = self._streams_moved or evidence
        else:
            self._moved = self._moved or evidence

    def called(self, exchange: Exchange) -> None:
        """An outgoing request was sent and has its link. Which call of several the next read of a multiplexed
        connection answers is not known."""
        if exchange.stream:
            self._stream_calls.sent(exchange)
        else:
            self._calls[exchange.connection.id] = exchange
        if exchange.task and exchange.parent_task:
            # A task's parent never changes; the entry is put last again.
            self._parent_tasks.pop(exchange.task, None)
            self._parent_tasks[exchange.task] = exchange.parent_task
            if len(self._parent_tasks) > _ANCESTRY_MAX:
                del self._parent_tasks[next(iter(self._parent_tasks))]

    def call_ended(self, exchange: Exchange) -> None:
        """An outgoing request was answered, or will not be."""
        if not exchange.stream:
            return
        self._stream_calls.ended(exchange)
        answered = exchange.response_at
        if answered is not None:
            self._stream_calls.read(answered, self._serves(answered.tid))

    def connection_closed(self, connection_id: int) -> None:
        """A connection is gone. While a call's parent is open, the call's answer can still cause others."""
        for exchange in list(self._by_connection.get(connection_id, ())):
            self._close(exchange)
        self._by_connection.pop(connection_id, None)
        self._stream_calls.connection_closed(connection_id)
        call = self._calls.get(connection_id)
        if call is None:
            return
        parent = self._open_parent(call)
        if parent is None:
            del self._calls[connection_id]
        else:
            self._closed_calls.setdefault(parent, []).append(connection_id)

    def may_show_late(self, call: Exchange, process: Process | None) -> bool:
        """Tell if the parent of an outgoing request, which no rung gave, may show when its task answers."""
        if not call.at.task or not call.at.tid or process is None or "answer" not in process.rungs:
            return False
        if not self._streams_open:
            return False
        if self.descends(call):
            return not self._stream_calls.against_context(call)
        return not call.stream or not self._stream_calls.against_thread(call)

    def only_open(self, call: Exchange) -> Exchange | None:
        """The one open request, if it came on a shared connection and the call was sent by the thread that answers
        all of these: an event loop's."""
        if len(self.open) != 1 or not self._answers.are_all_by(call.at):
            return None
        if not self._answers.none_given_up(call.at):
            return None
        (request,) = self.open
        return request if request.stream else None

    def descends(self, call: Exchange) -> bool:
        """Tell if the contexts that an outgoing request descends from tell whose it is: it was written by an event
        loop that answers requests. Of gRPC only: grpcio writes each call and each answer in its own context."""
        return call.rpc is not None and bool(call.at.lineage) and self._answers.are_all_by(call.at)

    def shares_context(self, call: Exchange) -> bool:
        """Tell if its context wrote another call before."""
        return self._stream_calls.has_written(call.at)

    def own_context(self, request: Exchange) -> int:
        """The context that worked for a request that was answered, and for no other; 0 if it is not known."""
        return self._answers.own_context(request)

    def oldest_open(self) -> int:
        """When the oldest open request on a shared connection came; a time that never comes if none is open."""
        return next((request.start_ns for request in self.open if request.stream), _NEVER)

    def against_answers(self) -> str:
        """What speaks against an answer on a shared connection being written by the thread whose it is."""
        return self._stream_calls.against_helpers()

    def _serves(self, tid: int) -> bool:
        thread = self._threads.get(tid)
        return thread is not None and thread.own > 0

    def _read_by(self, tid: int) -> set[Exchange]:
        thread = self._threads.get(tid)
        return thread.requests if thread is not None else set()

    def carrying(self, trace_key: TraceKey) -> list[Exchange]:
        """The open requests that came with this trace header."""
        return self._by_trace_key.get(trace_key, [])

    def find_parent(self, call: Exchange, process: Process | None) -> Finding:
        """Find the request that an outgoing one belongs to, by the rungs `goroutine`, `thread` and `dispatch`.

        On a connection that was seen being made, the first request belongs to whoever made the connection: it
        is sent when the connection is ready, in a run of the loop that may have begun with anything.
        """
        self._stream_calls.saw(call.at)
        rungs = process.rungs if process else frozenset()
        if call.cause is not None and "stream-dispatch" in rungs:
            evidence = f"begun when the event loop was handed stream {call.cause.stream}"
            return Finding(call.cause, LinkMethod.DISPATCH, evidence)
        if not self.open:
            return Finding(None, LinkMethod.NONE, "no open request in the process")
        why = ""
        if call.task and "goroutine" in rungs:
            by_task = self._by_ancestry(call)
            if by_task.parent is not None:
                return by_task
            why = by_task.evidence
        moved = self._moved
        if not moved and "stream-thread" not in rungs:
            moved = self._streams_moved
        if call.stream and not why:
            return self._find_parent_of_stream(call, rungs, moved)
        first = call.first_on_connection
        context = call.connection.opened_at if first else call.at
        dispatches = "dispatch" in rungs
        known, cause = self._cause(context)
        if "thread" not in rungs:
            why = why or "no rung for this runtime"
        elif moved:
            why = moved
        elif not call.at.tid:
            why = "sent by a thread of io_uring"
        else:
            on_thread = self._read_by(call.at.tid)
            if len(on_thread) == 1:
                (parent,) = on_thread
                if parent.stream and "stream-loop" not in rungs:
                    return Finding(None, LinkMethod.NONE, _READ_FOR_ANY)
                if self._contradicts(call, context, known, cause, parent, dispatches):
                    return Finding(None, LinkMethod.NONE, _CONTRADICTION)
                return Finding(parent, LinkMethod.THREAD, f"only open request on thread {call.at.tid}")
            why = f"{len(on_thread)} open requests on thread {call.at.tid}"
        if not dispatches:
            return Finding(None, LinkMethod.NONE, why)
        if cause is None or context is None:
            return Finding(None, LinkMethod.NONE, f"{why}, none read just before")
        done = "connect" if first or not call.method else "write"
        return Finding(
            cause,
            LinkMethod.DISPATCH,
            f"read of connection {context.cause} and this {done} in one run of the loop",
        )

    def _by_ancestry(self, call: Exchange) -> Finding:
        """The request that the call's task serves, or the nearest of its ancestors that serves any.

        What a task has started belongs to the request that it serves now only if it serves no others: what an
        earlier one started may still be at work.
        """
        task, above = call.task, call.parent_task
        for generation in range(_GENERATIONS_MAX):
            serves = self._by_task.get(task)
            if serves is not None:
                (parent, *others) = serves
                if others:
                    return Finding(
                        None, LinkMethod.NONE, f"goroutine {task} serves {len(serves)} open requests"
                    )
                if generation and not parent.own_task:
                    why = (
                        f"goroutine {task} has served other requests, too: any of them may have started this"
                    )
                    return Finding(None, LinkMethod.NONE, why)
                sure = Confidence.EXACT if parent.own_task or parent.stream else Confidence.CONDITIONAL
                who = f"goroutine {call.task} serves it"
                if generation:
                    who = f"goroutine {task} serves it, and goroutine {call.task} descends from that"
                return Finding(parent, LinkMethod.GOROUTINE, who, sure)
            if not above:
                break
            task, above = above, self._parent_tasks.get(above, 0)
        return Finding(
            None, LinkMethod.NONE, f"goroutine {call.task} is not known to work for an open request"
        )

    def _leave_task(self, exchange: Exchange) -> None:
        serves = self._by_task.get(exchange.task)
        if serves is not None:
            serves.discard(exchange)
            if not serves:
                del self._by_task[exchange.task]

    def _find_parent_of_stream(self, call: Exchange, rungs: frozenset[str], moved: str) -> Finding:
        """The same for a call on a connection that calls share."""
        on_thread = self._read_by(call.at.tid)
        loop = "stream-loop" in rungs
        if not loop and "stream-thread" not in rungs:
            why = "sent on a multiplexed connection, by whichever thread writes to it"
        elif moved:
            why = moved
        elif len(on_thread) != 1:
            why = f"{len(on_thread)} open requests on thread {call.at.tid}"
        else:
            (parent,) = on_thread
            if loop:
                why = self._against_loop(call, parent)
            else:
                why = _READ_FOR_ANY if parent.stream else self._stream_calls.against_thread(call)
            if not why:
                return Finding(parent, LinkMethod.THREAD, f"only open request on thread {call.at.tid}")
        return Finding(None, LinkMethod.NONE, why)

    def _against_loop(self, call: Exchange, parent: Exchange) -> str:
        """What speaks against `parent`, the only open request of an event loop. The loop collects what it sends
        on a shared connection until it has done all else, or until the connection is made."""
        thread = self._threads.get(call.at.tid)
        if thread is not None and thread.answered_in == call.at.run:
            return "another request was answered in this run of the loop"
        if self._stream_calls.may_have_waited(call, parent):
            return "the connection was not ready when the open request came"
        known, cause = self._cause(call.at)
        return _CONTRADICTION if self._contradicts(call, call.at, known, cause, parent, False) else ""

    def _cause(self, context: Context | None) -> tuple[bool, Exchange | None]:
        """Tell if the connection whose read came just before is known, and the open request it is about: its
        own if it has just one, or for a call's answer the one the call was made for."""
        if context is None or not context.cause:
            return False, None
        incoming = self._by_connection.get(context.cause)
        if incoming is not None:
            return True, incoming[0] if len(incoming) == 1 and not incoming[0].stream else None
        call = self._calls.get(context.cause)
        # Another thread may have taken the connection from a common pool since.
        if call is None or call.at.tid != context.tid:
            return False, None
        return True, self._open_parent(call)

    def _open_parent(self, call: Exchange) -> Exchange | None:
        parent = call.link.parent if call.link else None
        return parent if parent is not None and parent in self.open else None

    @staticmethod
    def _contradicts(
        call: Exchange,
        context: Context | None,
        known: bool,
        cause: Exchange | None,
        parent: Exchange,
        dispatches: bool,
    ) -> bool:
        """Tell if what the thread did just before speaks against `parent`, the only open request on it.

        In a run-to-completion loop an unknown connection speaks against it too (a request that is over, or
        one from before the agent began), and so does no cause on a connection older than the agent.
        """
        if context is None or context.tid != call.at.tid:
            return False
        if parent.stream and context.cause == parent.connection.id:
            return False
        if known:
            return cause is not parent
        return dispatches and (context.cause != 0 or not call.connection.from_start)

    def _close(self, exchange: Exchange) -> None:
        tid = exchange.at.tid
        self.open.pop(exchange, None)
        self._by_connection[exchange.connection.id].remove(exchange)
        thread = self._threads[tid]
        thread.requests.discard(exchange)
        if exchange.stream:
            self._streams_open -= 1
        else:
            thread.own -= 1
        if not thread.requests:
            del self._threads[tid]
        if exchange.task:
            self._leave_task(exchange)
        if self._trace_keys:
            self._close_trace_key(exchange)
        if self._closed_calls:
            for connection_id in self._closed_calls.pop(exchange, ()):
                self._calls.pop(connection_id, None)

    def _close_trace_key(self, exchange: Exchange) -> None:
        trace_key = self._trace_keys.pop(exchange, None)
        if trace_key is not None:
            carrying = self._by_trace_key[trace_key]
            carrying.remove(exchange)
            if not carrying:
                del self._by_trace_key[trace_key]
