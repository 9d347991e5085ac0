"""What leaves the agent: spans and metrics, in OpenTelemetry's terms."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, NamedTuple

from autotrace.model.context import Role
from autotrace.model.processes import Process

AttributeValue = str | int | float | bool | tuple[str, ...]


@dataclass(slots=True)
class Span:
    """A finished OpenTelemetry span. Times are nanoseconds since the Unix epoch. `status_message` is empty
    unless `is_error`."""

    trace_id: int
    span_id: int
    parent_span_id: int
    name: str
    role: Role
    start_unix_ns: int
    end_unix_ns: int
    attributes: dict[str, AttributeValue]
    is_error: bool
    status_message: str
    process: Process
    trace_state: str = ""


FINE_STEPS_PER_OCTAVE: Final = 8
"""Resolution of `HistogramPoint.fine`: a step is 2 ** (1 / 8), so a quantile is right to about 5 %."""


class HistogramPoint(NamedTuple):
    """One series of a duration histogram, in seconds.

    `counts[i]` counts what is at most `RedSnapshot.bounds[i]` and more than the bound before; the last one
    has no upper bound. `fine` holds the same observations by `floor(log2(seconds) * FINE_STEPS_PER_OCTAVE)`.
    """

    attributes: dict[str, str | int | bool]
    counts: list[int]
    sum: float
    fine: dict[int, int]


class ServiceMetrics(NamedTuple):
    """The RED histograms of one service: `http.server.request.duration`, `http.client.request.duration`,
    `rpc.server.call.duration`, `rpc.client.call.duration`."""

    service: str
    resource: dict[str, str | int]
    server: list[HistogramPoint]
    client: list[HistogramPoint]
    rpc_server: list[HistogramPoint]
    rpc_client: list[HistogramPoint]


class ServiceEdge(NamedTuple):
    """One edge of the service graph. `attributes` are its labels: client, server, and
    connection_type where one end is not watched."""

    attributes: dict[str, str | int | bool]
    total: int
    failed: int
    server_counts: list[int]
    server_sum: float
    client_counts: list[int]
    client_sum: float


class RedSnapshot(NamedTuple):
    """All metrics of exchanges at one moment, cumulative since `start_unix_ns`."""

    start_unix_ns: int
    time_unix_ns: int
    bounds: tuple[float, ...]
    services: list[ServiceMetrics]
    edges: list[ServiceEdge]
