"""A bounded queue and a worker thread before each exporter: a slow or dead backend never blocks the agent."""

from __future__ import annotations

import logging
import random
from collections import deque
from collections.abc import Callable
from enum import Enum
from threading import Condition, Thread
from time import monotonic
from typing import NamedTuple, Protocol

from autotrace.ledger import Account
from autotrace.model import Span

logger = logging.getLogger(__name__)

QUEUE_FULL = "queue_full"
BACKEND_UNREACHABLE = "backend_unreachable"
BACKEND_REJECTED = "backend_rejected"
SHUTDOWN_DEADLINE = "shutdown_deadline"
AFTER_SHUTDOWN = "after_shutdown"
EXPORTER_FAILED = "exporter_failed"

_JITTER = 0.2
_ABORT_GRACE_SECONDS = 1.0


class Outcome(Enum):
    """What became of a batch."""

    SENT = "sent"
    RETRY = "retry"
    """Not taken now; the same batch may be taken later."""
    DROPPED = "dropped"
    """Will never be taken."""


class Result(NamedTuple):
    """The outcome of one export.

    `reason` is the ledger's reason for what was dropped, `problem` one sentence for the user. `rejected` is
    how many spans of a batch that was `SENT` were refused. `retry_after` is the wait in seconds the backend
    asked for, 0 if it did not.
    """

    outcome: Outcome
    reason: str = ""
    problem: str = ""
    rejected: int = 0
    retry_after: float = 0.0


class SpanExporter(Protocol):
    """Sends spans somewhere. `export` is called by one thread only."""

    def export(self, spans: list[Span]) -> Result:
        """Send one batch."""

    def idle(self) -> None:
        """Called about every `max_delay` seconds while there is nothing to send."""

    def shutdown(self) -> None:
        """Free everything. May be called from another thread to break off an export that hangs."""


class SpanQueue:
    """Feeds one exporter from a worker thread. `put` never blocks on the exporter.

    Spans wait until there are `batch_size` of them or the first has waited `max_delay` seconds. A batch that
    cannot be sent now is tried again with exponential back-off and jitter until the queue is shut down; what
    does not fit into `capacity` meanwhile is dropped, newest first. Every span ends in `account` as sent or
    as dropped for a reason. A failure is logged once when it begins and once when it is over.
    """

    def __init__(
        self,
        exporter: SpanExporter,
        account: Account,
        *,
        name: str,
        capacity: int = 20_000,
        batch_size: int = 512,
        max_delay: float = 1.0,
        retry_initial: float = 0.5,
        retry_max: float = 15.0,
    ) -> None:
        self._name = name
        self._exporter = exporter
        self._account = account
        self._capacity = capacity
        self._batch_size = min(batch_size, capacity)
        self._max_delay = max_delay
        self._retry_initial = retry_initial
        self._retry_max = retry_max
        self._spans: deque[Span] = deque()
        self._in_hand = 0
        self._changed = Condition()
        self._deadline: float | None = None
        self._abandoned = False
        self._failing_since_dropped: int | None = None
        self._last_reason = ""
        self._thread = Thread(target=self._run, name=f"export-{name}", daemon=True)
        self._thread.start()

    def put(self, span: Span) -> None:
        """Take a span, or count it as dropped if there is no room."""
        self._account.accept()
        with self._changed:
            waiting = len(self._spans)
            if self._deadline is None and waiting + self._in_hand < self._capacity:
                self._spans.append(span)
                # The worker sleeps for a first span or for a full batch; nothing between concerns it.
                if waiting == 0 or waiting + 1 == self._batch_size:
                    self._changed.notify()
                return
            reason = QUEUE_FULL if self._deadline is None else AFTER_SHUTDOWN
        self._account.drop(reason)

    def shutdown(self, timeout: float = 5.0) -> None:
        """Send what is queued, for at most `timeout` seconds; the rest is dropped and counted."""
        with self._changed:
            if self._deadline is not None:
                return
            self._deadline = monotonic() + timeout
            self._changed.notify()
        self._thread.join(timeout)
        self._exporter.shutdown()
        self._thread.join(_ABORT_GRACE_SECONDS)
        with self._changed:
            self._abandoned = True
            left = len(self._spans) + self._in_hand
            self._spans.clear()
            self._in_hand = 0
        if left:
            self._account.drop(self._last_reason or SHUTDOWN_DEADLINE, left)

    def _run(self) -> None:
        while True:
            batch = self._next_batch()
            if batch is None:
                return
            if not batch:
                self._guarded(self._exporter.idle)
            elif not self._deliver(batch):
                return

    def _next_batch(self) -> list[Span] | None:
        """Wait for a batch. An empty one means that nothing came, None that the queue is shut down."""
        with self._changed:
            if not self._spans and self._deadline is None:
                self._changed.wait(self._max_delay)
            if self._spans and self._deadline is None:
                self._changed.wait_for(self._is_full_or_closing, self._max_delay)
            if self._deadline is not None and (not self._spans or monotonic() >= self._deadline):
                return None
            count = min(self._batch_size, len(self._spans))
            self._in_hand = count
            return [self._spans.popleft() for _ in range(count)]

    def _is_full_or_closing(self) -> bool:
        return len(self._spans) >= self._batch_size or self._deadline is not None

    def _deliver(self, batch: list[Span]) -> bool:
        """Send a batch. False if the queue was shut down before it could be sent."""
        delay = self._retry_initial
        while True:
            result = self._guarded(lambda: self._exporter.export(batch))
            if result.outcome is not Outcome.RETRY:
                break
            self._failed(result)
            pause = max(delay * random.uniform(1 - _JITTER, 1 + _JITTER), result.retry_after)
            delay = min(delay * 2, self._retry_max)
            if not self._wait_to_retry(pause):
                # shutdown() counts what is in hand together with what is still queued.
                return False
        with self._changed:
            if self._abandoned:
                return False
            self._in_hand = 0
        if result.outcome is Outcome.DROPPED:
            self._account.drop(result.reason, len(batch))
            self._failed(result)
            return True
        self._account.send(len(batch) - result.rejected)
        if result.rejected:
            self._account.drop(result.reason, result.rejected)
            self._failed(result)
        else:
            self._recovered()
        return True

    def _wait_to_retry(self, pause: float) -> bool:
        """Sleep before another attempt. False if the shutdown deadline leaves no time for one.

        A shutdown that begins during the pause cuts it short: one more attempt is worth making at once.
        """
        with self._changed:
            if self._deadline is None:
                self._changed.wait_for(lambda: self._deadline is not None, pause)
                return True
            if monotonic() + pause >= self._deadline:
                return False
            self._changed.wait(pause)
            return not self._abandoned

    def _guarded(self, call: Callable[[], Result | None]) -> Result:
        """An exporter's own fault costs its batch, never the worker."""
        try:
            return call() or Result(Outcome.SENT)
        except Exception as error:
            return Result(Outcome.DROPPED, EXPORTER_FAILED, f"an exporter failed: {error!r}")

    def _failed(self, result: Result) -> None:
        self._last_reason = result.reason
        if self._failing_since_dropped is None:
            self._failing_since_dropped = sum(self._account.dropped.values())
            logger.warning("%s", result.problem)

    def _recovered(self) -> None:
        self._last_reason = ""
        if self._failing_since_dropped is not None:
            lost = sum(self._account.dropped.values()) - self._failing_since_dropped
            self._failing_since_dropped = None
            logger.warning("export to %s works again; %d spans were dropped meanwhile", self._name, lost)
