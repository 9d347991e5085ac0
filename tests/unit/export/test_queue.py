"""The queue never blocks its producer and accounts for every span."""

import logging
import threading
from collections.abc import Callable

import pytest

from autotrace.export.queue import Outcome, Result, SpanQueue
from autotrace.ledger import Account
from autotrace.model import Span

MakeSpan = Callable[..., Span]
Eventually = Callable[[Callable[[], bool]], None]


class Backend:
    """An exporter that does as it is told."""

    def __init__(self) -> None:
        self.batches: list[list[Span]] = []
        self.answers: list[Result | Exception] = []
        self.always: Result = Result(Outcome.SENT)
        self.open = threading.Event()
        self.open.set()
        self.entered = threading.Event()
        self.idles = 0
        self.closed = 0

    def export(self, spans: list[Span]) -> Result:
        self.entered.set()
        self.open.wait(30)
        answer = self.answers.pop(0) if self.answers else self.always
        if isinstance(answer, Exception):
            raise answer
        if answer.outcome is Outcome.SENT:
            self.batches.append(spans)
        return answer

    def idle(self) -> None:
        self.idles += 1

    def shutdown(self) -> None:
        self.closed += 1
        self.open.set()


RETRY = Result(Outcome.RETRY, "backend_unreachable", "cannot reach it: it is down; start it")


def queue_of(backend: Backend, account: Account, **options: float) -> SpanQueue:
    settings = {"max_delay": 0.01, "retry_initial": 0.01, "retry_max": 0.05, **options}
    return SpanQueue(backend, account, name="test", **settings)  # type: ignore[arg-type]


def balanced(account: Account) -> bool:
    return account.queued == 0 and account.accepted == account.sent + sum(account.dropped.values())


def test_delivers_in_order_and_in_batches(make_span: MakeSpan) -> None:
    backend, account = Backend(), Account()
    queue = queue_of(backend, account, batch_size=10)
    spans = [make_span(i) for i in range(95)]
    for span in spans:
        queue.put(span)
    queue.shutdown()
    assert [span for batch in backend.batches for span in batch] == spans
    assert max(map(len, backend.batches)) == 10
    assert account.sent == 95
    assert balanced(account)
    assert backend.closed == 1


def test_a_lone_span_goes_out_after_the_delay(make_span: MakeSpan, eventually: Eventually) -> None:
    backend, account = Backend(), Account()
    queue = queue_of(backend, account)
    queue.put(make_span())
    eventually(lambda: account.sent == 1)
    eventually(lambda: backend.idles > 1)
    queue.shutdown()


def test_a_hanging_backend_does_not_block_put(make_span: MakeSpan, eventually: Eventually) -> None:
    backend, account = Backend(), Account()
    backend.open.clear()
    queue = queue_of(backend, account, capacity=100, batch_size=10)
    queue.put(make_span(0))
    assert backend.entered.wait(10)
    for i in range(1, 1000):
        queue.put(make_span(i))
    assert account.accepted == 1000
    assert account.dropped == {"queue_full": 900}
    backend.open.set()
    eventually(lambda: account.sent == 100)
    queue.shutdown()
    assert balanced(account)
    # The newest ones were dropped.
    assert {span.span_id for batch in backend.batches for span in batch} == {
        make_span(i).span_id for i in range(100)
    }


def test_retries_until_the_backend_is_back(
    make_span: MakeSpan, eventually: Eventually, caplog: pytest.LogCaptureFixture
) -> None:
    backend, account = Backend(), Account()
    backend.answers = [RETRY] * 5
    with caplog.at_level(logging.WARNING):
        queue = queue_of(backend, account)
        for i in range(20):
            queue.put(make_span(i))
        eventually(lambda: account.sent == 20)
        queue.shutdown()
    assert balanced(account)
    assert [record.message for record in caplog.records] == [
        RETRY.problem,
        "export to test works again; 0 spans were dropped meanwhile",
    ]


def test_shutdown_with_a_dead_backend_is_quick_and_counted(make_span: MakeSpan) -> None:
    backend, account = Backend(), Account()
    backend.always = RETRY
    queue = queue_of(backend, account, batch_size=10, retry_initial=100.0)
    for i in range(35):
        queue.put(make_span(i))
    queue.shutdown(timeout=1.0)
    assert account.dropped == {"backend_unreachable": 35}
    assert balanced(account)


def test_shutdown_breaks_off_a_hanging_export(make_span: MakeSpan) -> None:
    backend, account = Backend(), Account()
    backend.open.clear()
    backend.always = RETRY
    queue = queue_of(backend, account, batch_size=10)
    for i in range(35):
        queue.put(make_span(i))
    assert backend.entered.wait(10)
    queue.shutdown(timeout=0.1)
    assert sum(account.dropped.values()) == 35
    assert balanced(account)


def test_shutdown_gives_up_on_an_export_that_cannot_be_broken_off(make_span: MakeSpan) -> None:
    class Stuck(Backend):
        def shutdown(self) -> None:
            self.closed += 1

    backend, account = Stuck(), Account()
    backend.open.clear()
    queue = queue_of(backend, account)
    queue.put(make_span())
    assert backend.entered.wait(10)
    queue.shutdown(timeout=0.1)
    assert account.dropped == {"shutdown_deadline": 1}
    backend.open.set()
    queue._thread.join(10)
    assert account.sent == 0
    assert balanced(account)


def test_put_after_shutdown_is_counted(make_span: MakeSpan) -> None:
    backend, account = Backend(), Account()
    queue = queue_of(backend, account)
    queue.shutdown()
    queue.put(make_span())
    queue.shutdown()
    assert account.dropped == {"after_shutdown": 1}
    assert balanced(account)


def test_rejections_and_faults_are_counted_and_the_worker_goes_on(
    make_span: MakeSpan, eventually: Eventually
) -> None:
    backend, account = Backend(), Account()
    backend.answers = [
        Result(Outcome.DROPPED, "backend_rejected", "refused"),
        RuntimeError("a fault"),
        Result(Outcome.SENT, "backend_rejected", "some refused", rejected=1),
    ]
    queue = queue_of(backend, account, batch_size=2, capacity=2)
    for i in range(4):
        queue.put(make_span(2 * i))
        queue.put(make_span(2 * i + 1))
        eventually(lambda: account.queued == 0)
    queue.shutdown()
    assert account.dropped == {"backend_rejected": 3, "exporter_failed": 2}
    assert account.sent == 3
    assert balanced(account)


def test_concurrent_producers_lose_nothing(make_span: MakeSpan) -> None:
    backend, account = Backend(), Account()
    queue = queue_of(backend, account, capacity=100_000)
    span = make_span()

    def produce() -> None:
        for _ in range(5000):
            queue.put(span)

    threads = [threading.Thread(target=produce) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    queue.shutdown(timeout=20)
    assert account.sent == 20_000
    assert balanced(account)
