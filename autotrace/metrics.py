"""RED metrics: rate, errors and duration of every exchange, and the service graph.

Names, attributes and bucket boundaries are those of the OpenTelemetry metric conventions for HTTP and RPC
(https://opentelemetry.io/docs/specs/semconv/http/http-metrics/, .../rpc/rpc-metrics/). The service graph has
the names of Tempo's metrics generator, which Grafana draws. Every exchange is counted, whatever becomes of
its span.

The aggregation is our own: one dict look-up, two bucket increments and one addition for an exchange.
"""

from __future__ import annotations

import time
from bisect import bisect_left
from math import floor, log2
from threading import Lock
from typing import Final, NamedTuple

from autotrace import rpc
from autotrace.authority import split_authority
from autotrace.ledger import Ledger
from autotrace.model import (
    FINE_STEPS_PER_OCTAVE,
    Exchange,
    HistogramPoint,
    Process,
    RedSnapshot,
    Role,
    ServiceEdge,
    ServiceMetrics,
)

DURATION_BOUNDS: Final = (0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0)
"""Upper bounds in seconds, as the conventions advise for both duration histograms."""

KNOWN_METHODS = frozenset(
    {"CONNECT", "DELETE", "GET", "HEAD", "OPTIONS", "PATCH", "POST", "PUT", "QUERY", "TRACE"}
)
"""Any other method is reported as `_OTHER` (the conventions' rule against unbounded cardinality)."""

OVERFLOW = "otel.metric.overflow"
"""Attribute of the series that takes what is over a cap (OpenTelemetry metrics SDK, cardinality limits)."""

USER = "user"
"""Tempo's name for the unknown client of a server exchange that nobody watched sent."""

VIRTUAL_NODE = "virtual_node"
"""Tempo's `connection_type` of an edge of which one end is not watched."""

_Key = tuple[str, bool, str, int, str, str, str, str, int]


class _RpcKey(NamedTuple):
    service: str
    is_server: bool
    system: str
    method: str
    status: str
    error: str
    address: str
    port: int


_Seen = tuple[_Key | _RpcKey, str | None]
"""What of an exchange decides where it is counted, the service at the other end too."""
_log2: Final = log2  # as a constant: a module's own names are looked up each time
_FIRST_BOUND: Final = 0.005  # of DURATION_BOUNDS; most are below it
_FINE_MIN_SECONDS: Final = 1e-9
_HOSTS_REMEMBERED = 1024
_COUNTED_MAX = 4096
# An enum member as a global: a look-up in the class costs three times as much.
_SERVER: Final = Role.SERVER


class _Histogram:
    __slots__ = ("counts", "fine", "sum")

    def __init__(self) -> None:
        self.counts = [0] * (len(DURATION_BOUNDS) + 1)
        self.sum = 0.0
        self.fine: dict[int, int] = {}


class _Edge:
    __slots__ = ("client", "failed", "server", "total")

    def __init__(self) -> None:
        self.total = 0
        self.failed = 0
        self.server = _Histogram()
        self.client = _Histogram()


class _Counted:
    """Where an exchange is counted: `side` is the histogram of its end of the edge. `is_request`: it counts as a
    request of the edge."""

    __slots__ = ("edge", "is_request", "series", "side")

    def __init__(self, series: _Histogram, edge: _Edge, side: _Histogram, is_request: bool) -> None:
        self.series = series
        self.edge = edge
        self.side = side
        self.is_request = is_request


class RedMetrics:
    """Aggregates exchanges. `observe` is called by one thread, `collect` by any. Only new series need the lock: a
    copy may have half of the observation that is made meanwhile, and the next one has the rest."""

    def __init__(
        self,
        ledger: Ledger,
        *,
        max_series_per_service: int = 2000,
        max_services: int = 500,
        max_edges: int = 2000,
    ) -> None:
        """A series over a cap is counted in one overflow series and noted in `ledger` under `metrics`."""
        self._ledger = ledger
        self._max_series = max_series_per_service
        self._max_services = max_services
        self._max_edges = max_edges
        self._start_unix_ns = time.time_ns()
        self._lock = Lock()
        self._resources: dict[str, dict[str, str | int]] = {}
        self._series_of: dict[str, int] = {}
        self._series: dict[_Key | _RpcKey, _Histogram] = {}
        self._edges: dict[tuple[str, str, str], _Edge] = {}
        self._counted: dict[_Seen, _Counted] = {}
        self._hosts: dict[str, tuple[str, int]] = {}

    def observe(self, exchange: Exchange, process: Process, route: str, peer: Process | None = None) -> None:
        """Count one exchange that has ended.

        `route` is `http.route` of a server exchange, `url.template` of a client exchange, "" if not known.
        `peer` is the process of `exchange.peer_pid`. A request between two watched services is counted at the
        client's end; the server's end adds its duration. So each edge is counted once.
        """
        ns = exchange.end_ns - exchange.start_ns
        seconds = ns * 1e-9 if ns > 0 else 0.0
        service, status, is_server = process.service, exchange.status, exchange.role is _SERVER
        error = exchange.error
        call = exchange.rpc
        if call is not None:
            error = rpc.error_type(exchange)
        elif not error and status >= (500 if is_server else 400):
            error = str(status)
        address, port = ("", 0) if is_server else self._server_of(exchange)
        key: _Key | _RpcKey
        if call is None:
            key = (service, is_server, exchange.method, status, error, route, exchange.version, address, port)
        else:
            name = call.method or rpc.METHOD_UNKNOWN
            key = _RpcKey(service, is_server, call.system, name, call.status, error, address, port)
        seen = (key, None if peer is None else peer.service)
        counted = self._counted.get(seen)
        if counted is None:
            with self._lock:
                counted = self._find(seen, process)
        bucket = bisect_left(DURATION_BOUNDS, seconds) if seconds > _FIRST_BOUND else 0
        fine = floor(
            _log2(seconds if seconds > _FINE_MIN_SECONDS else _FINE_MIN_SECONDS) * FINE_STEPS_PER_OCTAVE
        )
        series, side = counted.series, counted.side
        series.counts[bucket] += 1
        series.sum += seconds
        series.fine[fine] = series.fine.get(fine, 0) + 1
        side.counts[bucket] += 1
        side.sum += seconds
        if counted.is_request:
            edge = counted.edge
            edge.total += 1
            if error:
                edge.failed += 1

    def collect(self) -> RedSnapshot:
        """A copy of everything counted so far."""
        with self._lock:
            services = {
                name: ServiceMetrics(name, dict(resource), [], [], [], [])
                for name, resource in self._resources.items()
            }
            for key, series in self._series.items():
                service = services[key[0]]
                point = HistogramPoint(_attributes(key), series.counts.copy(), series.sum, series.fine.copy())
                if isinstance(key, _RpcKey):
                    (service.rpc_server if key.is_server else service.rpc_client).append(point)
                else:
                    (service.server if key[1] else service.client).append(point)
            edges = [
                ServiceEdge(
                    {"client": client, "server": server, **({"connection_type": kind} if kind else {})},
                    edge.total,
                    edge.failed,
                    edge.server.counts.copy(),
                    edge.server.sum,
                    edge.client.counts.copy(),
                    edge.client.sum,
                )
                for (client, server, kind), edge in self._edges.items()
            ]
        return RedSnapshot(
            self._start_unix_ns, time.time_ns(), DURATION_BOUNDS, list(services.values()), edges
        )

    def _find(self, seen: _Seen, process: Process) -> _Counted:
        """Where such exchanges are counted; what is over no cap is remembered."""
        key, peer = seen
        if isinstance(key, _RpcKey):
            service, is_server, address, port = key.service, key.is_server, key.address, key.port
        else:
            service, is_server, method, _, _, _, _, address, port = key
            if method not in KNOWN_METHODS:
                key = (service, is_server, "_OTHER", *key[3:])
        series = self._series.get(key) or self._new_series(key, process)
        kind = VIRTUAL_NODE if peer is None else ""
        if is_server:
            ends = (USER if peer is None else peer, service, kind)
        else:
            ends = (service, (f"{address}:{port}" if port else address) if peer is None else peer, kind)
        edge = self._edges.get(ends) or self._new_edge(ends)
        side = edge.server if is_server else edge.client
        counted = _Counted(series, edge, side, not is_server or peer is None)
        if self._series.get(seen[0]) is series and self._edges.get(ends) is edge:
            if len(self._counted) >= _COUNTED_MAX:
                self._counted.clear()
            self._counted[seen] = counted
        return counted

    def _new_series(self, key: _Key | _RpcKey, process: Process) -> _Histogram:
        service = key[0]
        if service not in self._resources and len(self._resources) >= self._max_services:
            self._ledger.note("metrics", "service_overflow")
            service = OVERFLOW
        if service not in self._resources:
            self._resources[service] = _service_resource(service, process)
        count = self._series_of.get(service, 0)
        if service == OVERFLOW or count >= self._max_series:
            if service != OVERFLOW:
                self._ledger.note("metrics", "series_overflow")
            if isinstance(key, _RpcKey):
                key = _RpcKey(service, key.is_server, OVERFLOW, "", "", "", "", 0)
            else:
                key = (service, key[1], OVERFLOW, 0, "", "", "", "", 0)
            if key in self._series:
                return self._series[key]
        self._series_of[service] = count + 1
        series = self._series[key] = _Histogram()
        return series

    def _new_edge(self, key: tuple[str, str, str]) -> _Edge:
        if len(self._edges) >= self._max_edges:
            self._ledger.note("metrics", "edge_overflow")
            key = (OVERFLOW, OVERFLOW, VIRTUAL_NODE)
            if key in self._edges:
                return self._edges[key]
        edge = self._edges[key] = _Edge()
        return edge

    def _server_of(self, exchange: Exchange) -> tuple[str, int]:
        """`server.address` and `server.port`: from the Host header, else the connection's other end."""
        connection = exchange.connection
        host = exchange.request_headers.get("host", "")
        if not host:
            return connection.remote_address, connection.remote_port
        found = self._hosts.get(host)
        if found is None:
            if len(self._hosts) >= _HOSTS_REMEMBERED:
                self._hosts.clear()
            found = self._hosts[host] = split_authority(host)
        return found if found[1] else (found[0], connection.remote_port)


def _service_resource(service: str, process: Process) -> dict[str, str | int]:
    """What is true of every process of a service: the first one's resource without `process.*`."""
    if service == OVERFLOW:
        return {"service.name": OVERFLOW}
    resource = {k: v for k, v in process.resource.items() if not k.startswith("process.")}
    resource["service.name"] = service
    return resource


def _attributes(key: _Key | _RpcKey) -> dict[str, str | int | bool]:
    if isinstance(key, _RpcKey):
        return _rpc_attributes(key)
    _, is_server, method, status, error, route, version, address, port = key
    if method == OVERFLOW:
        return {OVERFLOW: True}
    attributes: dict[str, str | int | bool] = {"http.request.method": method, "url.scheme": "http"}
    if status:
        attributes["http.response.status_code"] = status
    if error:
        attributes["error.type"] = error
    if route:
        attributes["http.route" if is_server else "url.template"] = route
    if version:
        attributes["network.protocol.version"] = version
    if address:
        attributes["server.address"] = address
    if port:
        attributes["server.port"] = port
    return attributes


def _rpc_attributes(key: _RpcKey) -> dict[str, str | int | bool]:
    if key.system == OVERFLOW:
        return {OVERFLOW: True}
    attributes: dict[str, str | int | bool] = {"rpc.system.name": key.system, "rpc.method": key.method}
    if key.status:
        attributes["rpc.response.status_code"] = key.status
    if key.error:
        attributes["error.type"] = key.error
    if key.address:
        attributes["server.address"] = key.address
    if key.port:
        attributes["server.port"] = key.port
    return attributes
