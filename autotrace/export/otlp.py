"""OTLP traces and metrics over gRPC or HTTP."""

from __future__ import annotations

import logging
from collections.abc import Callable
from threading import Event, Thread

from autotrace.export.otlp_encode import TraceEncoder
from autotrace.export.otlp_endpoint import Endpoint
from autotrace.export.otlp_metrics import encode_metrics
from autotrace.export.otlp_send import open_sender
from autotrace.export.queue import Outcome, Result
from autotrace.ledger import Ledger
from autotrace.model import RedSnapshot, Span

logger = logging.getLogger(__name__)


class OtlpSpanExporter:
    """Sends spans to an OTLP receiver; feed it through a `SpanQueue`."""

    def __init__(self, endpoint: Endpoint) -> None:
        self._encoder = TraceEncoder()
        self._sender = open_sender(endpoint)

    def export(self, spans: list[Span]) -> Result:
        return self._sender.send(self._encoder.encode(spans))

    def idle(self) -> None:
        """Nothing waits here."""

    def shutdown(self) -> None:
        self._sender.close()


class OtlpMetricsPusher:
    """Pushes all metrics every `interval` seconds, and once more at shutdown.

    Metrics are cumulative, so a push that fails loses nothing: the next one carries it. Pushes are counted in
    the ledger as notes of `otlp_metrics`.
    """

    def __init__(
        self, endpoint: Endpoint, collect: Callable[[], RedSnapshot], ledger: Ledger, interval: float = 60.0
    ) -> None:
        self._sender = open_sender(endpoint)
        self._collect = collect
        self._ledger = ledger
        self._interval = interval
        self._failing = False
        self._stop = Event()
        self._thread = Thread(target=self._run, name="export-otlp-metrics", daemon=True)
        self._thread.start()

    def shutdown(self, timeout: float = 5.0) -> None:
        """Push a last time, for at most `timeout` seconds."""
        self._stop.set()
        self._thread.join(timeout)
        self._sender.close()
        self._thread.join(1.0)

    def _run(self) -> None:
        while not self._stop.wait(self._interval):
            self._push()
        self._push()

    def _push(self) -> None:
        snapshot = self._collect()
        if not snapshot.services:
            return
        result = self._sender.send(encode_metrics(snapshot))
        if result.outcome is Outcome.SENT and not result.rejected:
            self._ledger.note("otlp_metrics", "push_sent")
            if self._failing:
                self._failing = False
                logger.warning("metrics are sent again")
            return
        self._ledger.note("otlp_metrics", "push_failed")
        if not self._failing:
            self._failing = True
            logger.warning("%s", result.problem)
