"""Exchanges become spans, as the stable OpenTelemetry semantic conventions for HTTP want them."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from typing import Final, Protocol

from opentelemetry.semconv.attributes.client_attributes import CLIENT_ADDRESS, CLIENT_PORT
from opentelemetry.semconv.attributes.error_attributes import ERROR_TYPE
from opentelemetry.semconv.attributes.http_attributes import (
    HTTP_REQUEST_METHOD,
    HTTP_REQUEST_METHOD_ORIGINAL,
    HTTP_RESPONSE_STATUS_CODE,
    HTTP_ROUTE,
)
from opentelemetry.semconv.attributes.network_attributes import (
    NETWORK_PEER_ADDRESS,
    NETWORK_PEER_PORT,
    NETWORK_PROTOCOL_NAME,
    NETWORK_PROTOCOL_VERSION,
    NETWORK_TRANSPORT,
)
from opentelemetry.semconv.attributes.server_attributes import SERVER_ADDRESS, SERVER_PORT
from opentelemetry.semconv.attributes.url_attributes import URL_FULL, URL_PATH, URL_SCHEME
from opentelemetry.semconv.attributes.user_agent_attributes import USER_AGENT_ORIGINAL

from autotrace import rpc
from autotrace.authority import split_authority
from autotrace.model import AttributeValue, Connection, Exchange, Link, Process, Role, Span

# In the conventions, but not stable yet.
HTTP_REQUEST_BODY_SIZE = "http.request.body.size"
HTTP_RESPONSE_BODY_SIZE = "http.response.body.size"
THREAD_ID = "thread.id"
URL_TEMPLATE = "url.template"

LINK_METHOD = "autotrace.link.method"
LINK_CONFIDENCE = "autotrace.link.confidence"
LINK_EVIDENCE = "autotrace.link.evidence"
LINK_CANDIDATES = "autotrace.link.candidates"
REQUEST_PARTIAL = "autotrace.request.partial"
"""True if not all of the request's head is known, as it is longer than what is captured, or as its HTTP/2
connection is older than the agent: a field that is missing may have been there, and a path may be cut."""
RESPONSE_MISSED = "autotrace.response.missed"
"""True if the response passed unseen (bytes were lost), so that its status is not known."""

_OTHER = "_OTHER"
KNOWN_METHODS: Final = frozenset(
    {"CONNECT", "DELETE", "GET", "HEAD", "OPTIONS", "PATCH", "POST", "PUT", "TRACE", "QUERY"}
)
"""RFC 9110 section 9.3, PATCH (RFC 5789), and QUERY, which the conventions count in too."""

_AF_UNIX: Final = 1
# An enum member as a global: a look-up in the class costs three times as much.
_SERVER: Final = Role.SERVER
_DEFAULT_PORTS = {"http": 80, "https": 443}
_CACHED_MAX = 4096

_IN_WORDS = {
    "CANCEL": "the stream was cancelled",
    "REFUSED_STREAM": "the server refused the stream",
    "aborted": "the connection was given up before it was made",
    "incomplete_response": "the connection ended inside the response",
    "no_response": "the connection was closed before a response came",
    "process_exited": "the process exited before the exchange was over",
    "protocol_error": "the response is not valid HTTP",
    "timeout": "no response came in time",
}


class Routes(Protocol):
    """What `autotrace.routes.RouteTemplater` offers."""

    def route(self, service: str, role: Role, path: str) -> str: ...


class SpanMaker:
    """Makes the span of an exchange that has ended.

    `process_of` finds a process by pid. `wall_offset_ns` is the Unix time at monotonic time 0.
    """

    def __init__(
        self, process_of: Callable[[int], Process | None], routes: Routes, wall_offset_ns: int
    ) -> None:
        self._process_of = process_of
        self._routes = routes
        self._wall_offset_ns = wall_offset_ns
        self._of_connection: dict[int, dict[str, AttributeValue]] = {}
        self._authorities: dict[str, tuple[str, int]] = {}

    def route(self, exchange: Exchange, process: Process) -> str:
        """`http.route` or `url.template` of an exchange whose span nobody wants; empty if it has none."""
        if not exchange.method:
            return ""
        _, path = _split_target(exchange.method, exchange.target)
        if not path:
            return ""
        return self._routes.route(process.service, exchange.role, path)

    def make(self, exchange: Exchange) -> Span:
        """The span of an exchange. ValueError if it has no link."""
        link = exchange.link
        if link is None:
            raise ValueError("an exchange cannot become a span before it is linked")
        connection = exchange.connection
        process = self._process_of(connection.pid) or _unknown_process(connection.pid)
        attributes = self._connection_attributes(connection, exchange.role)
        if exchange.rpc is not None:
            name = self._rpc_attributes(exchange, attributes)
        elif exchange.method:
            name = self._request_attributes(exchange, process, attributes)
        else:
            name = "connect"
            attributes[SERVER_ADDRESS] = connection.remote_address
            if connection.family != _AF_UNIX:
                attributes[SERVER_PORT] = connection.remote_port
        if exchange.at.tid:
            attributes[THREAD_ID] = exchange.at.tid
        _link_attributes(link, attributes)
        if exchange.partial:
            attributes[REQUEST_PARTIAL] = True
        error_type = _error_type(exchange)
        if error_type:
            attributes[ERROR_TYPE] = error_type
        elif not (exchange.status if exchange.rpc is None else exchange.rpc.status):
            attributes[RESPONSE_MISSED] = True
        start = exchange.start_ns + self._wall_offset_ns
        end = exchange.end_ns + self._wall_offset_ns
        return Span(
            link.trace_id,
            link.span_id,
            link.parent_span_id,
            name,
            exchange.role,
            start,
            end if end > start else start,
            attributes,
            bool(error_type),
            _in_words(exchange.error) if exchange.error and exchange.error == error_type else "",
            process,
            link.trace_state,
        )

    def place(self, span: Span, exchange: Exchange) -> None:
        """Give a span the place in a trace that its exchange has come to have since it was made."""
        link = exchange.link
        if link is not None:
            span.trace_id, span.parent_span_id, span.trace_state = (
                link.trace_id,
                link.parent_span_id,
                link.trace_state,
            )
            _link_attributes(link, span.attributes)

    def connection_closed(self, connection_id: int) -> None:
        """Forget what was kept for a connection."""
        self._of_connection.pop(connection_id, None)

    def _connection_attributes(self, connection: Connection, role: Role) -> dict[str, AttributeValue]:
        attributes = self._of_connection.get(connection.id)
        if attributes is None:
            if len(self._of_connection) >= _CACHED_MAX:
                self._of_connection.clear()
            attributes = self._of_connection[connection.id] = _connection_attributes(connection, role)
        return attributes.copy()

    def _request_attributes(
        self, exchange: Exchange, process: Process, attributes: dict[str, AttributeValue]
    ) -> str:
        """Add what the request and the response say; returns the span's name."""
        connection, role, headers = exchange.connection, exchange.role, exchange.request_headers
        method = exchange.method
        if method in KNOWN_METHODS:
            attributes[HTTP_REQUEST_METHOD] = name = method
        else:
            attributes[HTTP_REQUEST_METHOD] = _OTHER
            if method != _OTHER:
                attributes[HTTP_REQUEST_METHOD_ORIGINAL] = _text(method)
            name = "HTTP"
        authority, path = _split_target(method, exchange.target)
        address, port = self._server_attributes(exchange, authority, attributes)
        scheme = "https" if connection.tls else "http"
        if path:
            route = self._routes.route(process.service, role, path)
            name = f"{name} {route}"
        if role is _SERVER:
            attributes[URL_SCHEME] = scheme
            if path:
                attributes[URL_PATH] = path
                attributes[HTTP_ROUTE] = route
            agent = headers.get("user-agent")
            if agent:
                attributes[USER_AGENT_ORIGINAL] = _text(agent)
        elif path:
            attributes[URL_TEMPLATE] = route
            if authority or "host" in headers or connection.family != _AF_UNIX:
                attributes[URL_FULL] = _full_url(scheme, address, port, path)
        if exchange.version:
            attributes[NETWORK_PROTOCOL_NAME] = "http"
            attributes[NETWORK_PROTOCOL_VERSION] = exchange.version
        if exchange.status:
            attributes[HTTP_RESPONSE_STATUS_CODE] = exchange.status
        if exchange.request_body_size is not None:
            attributes[HTTP_REQUEST_BODY_SIZE] = exchange.request_body_size
        if exchange.response_body_size is not None:
            attributes[HTTP_RESPONSE_BODY_SIZE] = exchange.response_body_size
        return name

    def _rpc_attributes(self, exchange: Exchange, attributes: dict[str, AttributeValue]) -> str:
        """The same for a remote call."""
        self._server_attributes(exchange, "", attributes)
        return _text(rpc.add_attributes(exchange, attributes))

    def _server_attributes(
        self, exchange: Exchange, authority: str, attributes: dict[str, AttributeValue]
    ) -> tuple[str, int]:
        """Add where the request goes, and return it. `authority` is what its target names."""
        connection = exchange.connection
        if exchange.role is _SERVER:
            address, port = connection.local_address, connection.local_port
        else:
            address, port = connection.remote_address, connection.remote_port
        if authority:
            address, port = self._authority(authority)
            port = port or _DEFAULT_PORTS["https" if connection.tls else "http"]
        elif host := exchange.request_headers.get("host"):
            address, named_port = self._authority(host)
            # nginx names an upstream group here: where the connection goes is better known from the
            # connection.
            port = named_port or port
        if address:
            attributes[SERVER_ADDRESS] = address
        if port:
            attributes[SERVER_PORT] = port
        return address, port

    def _authority(self, authority: str) -> tuple[str, int]:
        parts = self._authorities.get(authority)
        if parts is None:
            if len(self._authorities) >= _CACHED_MAX:
                self._authorities.clear()
            parts = self._authorities[authority] = split_authority(_text(authority))
        return parts


def _connection_attributes(connection: Connection, role: Role) -> dict[str, AttributeValue]:
    unix = connection.family == _AF_UNIX
    attributes: dict[str, AttributeValue] = {NETWORK_TRANSPORT: "unix" if unix else "tcp"}
    if connection.remote_address:
        attributes[NETWORK_PEER_ADDRESS] = connection.remote_address
        if role is _SERVER:
            attributes[CLIENT_ADDRESS] = connection.remote_address
    if not unix:
        attributes[NETWORK_PEER_PORT] = connection.remote_port
        if role is _SERVER:
            attributes[CLIENT_PORT] = connection.remote_port
    return attributes


def _link_attributes(link: Link, attributes: dict[str, AttributeValue]) -> None:
    # `value` of an enumeration's member is a call, `_value_` is not.
    attributes[LINK_METHOD] = link.method._value_
    attributes[LINK_CONFIDENCE] = link.confidence._value_
    attributes[LINK_EVIDENCE] = link.evidence
    if link.candidates:
        attributes[LINK_CANDIDATES] = link.candidates
    else:
        attributes.pop(LINK_CANDIDATES, None)


def _unknown_process(pid: int) -> Process:
    return Process(pid, "", {"service.name": "unknown_service", "process.pid": pid})


def _split_target(method: str, target: str) -> tuple[str, str]:
    """Authority and path of a target (RFC 9112 section 3.2) without its query; either can be empty."""
    target = _text(target)
    if "?" in target or "#" in target:
        target = target.partition("?")[0].partition("#")[0]
    if target.startswith("/"):
        return "", target
    if method == "CONNECT":
        return target, ""
    _, scheme_end, rest = target.partition("://")
    if not scheme_end:
        return "", target
    authority, slash, path = rest.partition("/")
    return authority, slash + path or "/"


def _full_url(scheme: str, address: str, port: int, path: str) -> str:
    host = f"[{address}]" if ":" in address else address
    authority = host if port in (0, _DEFAULT_PORTS[scheme]) else f"{host}:{port}"
    return f"{scheme}://{authority}{path if path.startswith('/') else ''}"


def _error_type(exchange: Exchange) -> str:
    """`error.type`, empty if all is well: a 4xx status is the client's failure and not the server's."""
    if exchange.rpc is not None:
        return rpc.error_type(exchange)
    if exchange.status >= (500 if exchange.role is _SERVER else 400):
        return str(exchange.status)
    return exchange.error


def _in_words(error: str) -> str:
    words = _IN_WORDS.get(error)
    if words is None:
        number = getattr(errno, error, None)
        words = os.strerror(number) if isinstance(number, int) else error
    return words


def _text(value: str) -> str:
    """Undo the latin-1 that heads are read as, if they were UTF-8; the result can always be encoded."""
    if value.isascii():
        return value
    return value.encode("latin-1", "replace").decode("utf-8", "replace")
