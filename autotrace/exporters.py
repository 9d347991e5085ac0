"""The exporters that a configuration asks for, each behind its queue."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable

from autotrace.config import Config
from autotrace.errors import AutotraceError
from autotrace.export.queue import SpanExporter, SpanQueue
from autotrace.ledger import Ledger
from autotrace.metrics import RedMetrics
from autotrace.model import Span

_FLUSH_SECONDS = 5.0


class Exporters:
    """Opens what `config` asks for and hands every span to it. Raises AutotraceError if one cannot be opened.

    What an exporter needs is imported only if it is used: an agent without OTLP does not carry gRPC.
    """

    def __init__(self, config: Config, ledger: Ledger, metrics: RedMetrics) -> None:
        self._ledger = ledger
        self._metrics = metrics
        self._queues: list[SpanQueue] = []
        self._others: list[Callable[[], None]] = []
        self.metrics_url = ""
        try:
            self._open(config)
        except BaseException:
            self.close()
            raise

    def __bool__(self) -> bool:
        """Tell if there is any."""
        return bool(self._queues or self._others)

    @property
    def take_spans(self) -> bool:
        """Tell if any of them wants spans: /metrics alone does not."""
        return bool(self._queues)

    def emit(self, span: Span) -> None:
        """Hand a span to every exporter; never blocks."""
        for queue in self._queues:
            queue.put(span)

    def close(self) -> None:
        """Send what is queued, within some seconds, and end; the console ends with the RED table."""
        while self._queues:
            self._queues.pop().shutdown(_FLUSH_SECONDS)
        while self._others:
            self._others.pop()()

    def _open(self, config: Config) -> None:
        if config.metrics_port:
            self._open_prometheus(config)
        if config.json_path is not None:
            self._open_json(str(config.json_path))
        if config.otlp_traces or config.otlp_metrics:
            self._open_otlp(config)
        if config.console == "on" or (config.console == "auto" and sys.stdout.isatty()):
            self._open_console()

    def _open_prometheus(self, config: Config) -> None:
        from autotrace.export.prometheus import PrometheusError, PrometheusServer

        try:
            server = PrometheusServer(
                config.metrics_host, config.metrics_port, self._metrics.collect, self._ledger
            )
        except PrometheusError as error:
            raise AutotraceError(str(error)) from error
        self.metrics_url = server.url
        self._others.append(server.shutdown)

    def _open_json(self, path: str) -> None:
        from autotrace.export.json_file import JsonFileError, JsonFileExporter

        try:
            self._queue("json", JsonFileExporter(path), max_delay=0.2)
        except JsonFileError as error:
            raise AutotraceError(str(error)) from error

    def _open_otlp(self, config: Config) -> None:
        from autotrace.export.otlp import OtlpMetricsPusher, OtlpSpanExporter
        from autotrace.export.otlp_endpoint import OtlpConfigError, metric_interval, resolve

        try:
            if config.otlp_traces:
                endpoint = resolve("traces", config.otlp_endpoint, config.otlp_protocol, os.environ)
                self._queue("otlp", OtlpSpanExporter(endpoint))
            if config.otlp_metrics:
                endpoint = resolve("metrics", config.otlp_endpoint, config.otlp_protocol, os.environ)
                interval = metric_interval(os.environ)
                pusher = OtlpMetricsPusher(endpoint, self._metrics.collect, self._ledger, interval)
                self._others.append(pusher.shutdown)
        except OtlpConfigError as error:
            raise AutotraceError(str(error)) from error

    def _open_console(self) -> None:
        from autotrace.export.console import ConsoleExporter, can_draw, render_red

        color = sys.stdout.isatty()
        self._queue("console", ConsoleExporter(sys.stdout, color=color), max_delay=0.2)

        def print_red() -> None:
            snapshot = self._metrics.collect()
            if snapshot.services:
                print(render_red(snapshot, color=color, unicode=can_draw(sys.stdout)), flush=True)

        self._others.append(print_red)

    def _queue(self, name: str, exporter: SpanExporter, max_delay: float = 1.0) -> None:
        self._queues.append(SpanQueue(exporter, self._ledger.exporter(name), name=name, max_delay=max_delay))
