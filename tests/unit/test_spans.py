"""Spans: the stable OpenTelemetry HTTP conventions, attribute by attribute."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from autotrace.model import (
    Confidence,
    Connection,
    Context,
    Exchange,
    Link,
    LinkMethod,
    Process,
    Role,
    Span,
)
from autotrace.routes import RouteTemplater
from autotrace.spans import SpanMaker

WALL = 1_700_000_000_000_000_000
PROCESS = Process(10, "/usr/bin/shop", {"service.name": "shop"})
AF_UNIX, AF_INET, AF_INET6 = 1, 2, 10


def maker() -> SpanMaker:
    return SpanMaker({10: PROCESS}.get, RouteTemplater(), WALL)


def exchange(
    role: Role = Role.SERVER,
    target: str = "/item/7?secret=1",
    method: str = "GET",
    status: int = 200,
    error: str = "",
    headers: dict[str, str] | None = None,
    family: int = AF_INET,
    pid: int = 10,
    remote: tuple[str, int] = ("10.0.0.2", 4000),
) -> Exchange:
    local = ("", 0) if family == AF_UNIX else ("10.0.0.1", 8080)
    connection = Connection(1, pid, family, 1, 2, 3, *local, *remote, True, None)
    return Exchange(
        connection,
        role,
        Context(100, pid, 11, 0, 1, 0),
        1,
        method,
        target,
        "1.1" if method else "",
        {"host": "shop.example:8000", "user-agent": "curl/8"} if headers is None else headers,
        100,
        end_ns=250,
        status=status,
        error=error,
        link=Link(LinkMethod.WIRE, Confidence.EXACT, "because", 0xA, 0xB, 0xC),
    )


def over_tls(exchange: Exchange, port: int = 443) -> Exchange:
    exchange.connection.tls = True
    exchange.connection.local_port = exchange.connection.remote_port = port
    return exchange


def make(exchange: Exchange) -> Span:
    return maker().make(exchange)


def test_a_server_span() -> None:
    served = exchange()
    served.request_body_size, served.response_body_size = 3, 1000
    span = make(served)
    assert (span.trace_id, span.span_id, span.parent_span_id) == (0xA, 0xB, 0xC)
    assert (span.name, span.role, span.process) == ("GET /item/{id}", Role.SERVER, PROCESS)
    assert (span.start_unix_ns, span.end_unix_ns) == (WALL + 100, WALL + 250)
    assert (span.is_error, span.status_message) == (False, "")
    assert span.attributes == {
        "http.request.method": "GET",
        "http.route": "/item/{id}",
        "http.response.status_code": 200,
        "http.request.body.size": 3,
        "http.response.body.size": 1000,
        "url.path": "/item/7",
        "url.scheme": "http",
        "server.address": "shop.example",
        "server.port": 8000,
        "client.address": "10.0.0.2",
        "client.port": 4000,
        "network.peer.address": "10.0.0.2",
        "network.peer.port": 4000,
        "network.protocol.name": "http",
        "network.protocol.version": "1.1",
        "network.transport": "tcp",
        "user_agent.original": "curl/8",
        "thread.id": 11,
        "autotrace.link.method": "wire",
        "autotrace.link.confidence": "exact",
        "autotrace.link.evidence": "because",
    }


def test_a_client_span() -> None:
    span = make(exchange(Role.CLIENT))
    assert span.name == "GET /item/{id}"
    assert span.attributes == {
        "http.request.method": "GET",
        "http.response.status_code": 200,
        "url.full": "http://shop.example:8000/item/7",
        "url.template": "/item/{id}",
        "server.address": "shop.example",
        "server.port": 8000,
        "network.peer.address": "10.0.0.2",
        "network.peer.port": 4000,
        "network.protocol.name": "http",
        "network.protocol.version": "1.1",
        "network.transport": "tcp",
        "thread.id": 11,
        "autotrace.link.method": "wire",
        "autotrace.link.confidence": "exact",
        "autotrace.link.evidence": "because",
    }


@pytest.mark.parametrize(
    ("role", "status", "error", "error_type"),
    [
        (Role.SERVER, 399, "", None),
        (Role.SERVER, 404, "", None),
        (Role.SERVER, 500, "", "500"),
        (Role.SERVER, 503, "incomplete_response", "503"),
        (Role.SERVER, 404, "incomplete_response", "incomplete_response"),
        (Role.CLIENT, 302, "", None),
        (Role.CLIENT, 404, "", "404"),
        (Role.CLIENT, 500, "", "500"),
        (Role.CLIENT, 0, "ECONNRESET", "ECONNRESET"),
        (Role.CLIENT, 200, "incomplete_response", "incomplete_response"),
    ],
)
def test_errors(role: Role, status: int, error: str, error_type: str | None) -> None:
    span = make(exchange(role, status=status, error=error))
    assert span.attributes.get("error.type") == error_type
    assert span.is_error is (error_type is not None)
    assert bool(span.status_message) is (error_type is not None and error_type == error)
    assert span.attributes.get("http.response.status_code") == (status or None)


def test_the_reason_is_given_in_words() -> None:
    assert make(exchange(status=0, error="ECONNRESET")).status_message == "Connection reset by peer"
    assert make(exchange(status=0, error="timeout")).status_message == "no response came in time"
    assert make(exchange(status=0, error="errno_999")).status_message == "errno_999"


def test_a_response_that_was_missed_is_no_error() -> None:
    span = make(exchange(status=0))
    assert not span.is_error
    assert span.attributes["autotrace.response.missed"] is True


def test_a_connection_that_failed() -> None:
    span = make(exchange(Role.CLIENT, method="", target="", status=0, error="ECONNREFUSED", headers={}))
    assert (span.name, span.is_error, span.status_message) == ("connect", True, "Connection refused")
    assert not any(name.startswith(("http.", "url.", "network.protocol")) for name in span.attributes)
    assert span.attributes["server.address"] == "10.0.0.2"
    assert span.attributes["server.port"] == 4000
    assert span.attributes["network.transport"] == "tcp"
    assert span.attributes["error.type"] == "ECONNREFUSED"


def test_an_unknown_method_is_other() -> None:
    span = make(exchange(method="BREW", target="/pot"))
    assert span.name == "HTTP /pot"
    assert span.attributes["http.request.method"] == "_OTHER"
    assert span.attributes["http.request.method_original"] == "BREW"
    assert "autotrace.request.partial" not in span.attributes


def test_a_request_of_which_a_part_is_known_says_so() -> None:
    cut = exchange(method="BREW", target="/po")
    cut.partial = True
    span = make(cut)
    assert span.attributes["autotrace.request.partial"] is True
    assert (span.attributes["url.path"], span.attributes["http.request.method_original"]) == ("/po", "BREW")
    unknown = exchange(method="_OTHER", target="")
    unknown.partial = True
    span = make(unknown)
    assert span.attributes["http.request.method"] == "_OTHER"
    assert "http.request.method_original" not in span.attributes


@pytest.mark.parametrize(
    ("method", "target", "name", "path", "address", "port"),
    [
        ("GET", "http://user:pw@other.example:81/a?b", "GET /a", "/a", "other.example", 81),
        ("GET", "http://other.example", "GET /", "/", "other.example", 80),
        ("GET", "http://[::1]:81/a", "GET /a", "/a", "::1", 81),
        ("OPTIONS", "*", "OPTIONS *", "*", "shop.example", 8000),
        ("CONNECT", "far.example:443", "CONNECT", None, "far.example", 443),
        ("GET", "rubbish", "GET rubbish", "rubbish", "shop.example", 8000),
        ("GET", "?only=query", "GET", None, "shop.example", 8000),
        ("GET", "/caf\xc3\xa9", "GET /caf\u00e9", "/caf\u00e9", "shop.example", 8000),
        ("GET", "/\xff", "GET /\ufffd", "/\ufffd", "shop.example", 8000),
    ],
)
def test_targets(method: str, target: str, name: str, path: str | None, address: str, port: int) -> None:
    span = make(exchange(method=method, target=target))
    assert span.name == name
    assert span.attributes.get("url.path") == path
    assert (span.attributes["server.address"], span.attributes["server.port"]) == (address, port)


@pytest.mark.parametrize(
    ("host", "url"),
    [
        ("a.example", "http://a.example:4000/x"),
        ("a.example:80", "http://a.example/x"),
        ("a.example:81", "http://a.example:81/x"),
        ("u:p@a.example:81", "http://a.example:81/x"),
        ("[::1]:81", "http://[::1]:81/x"),
        ("::1", "http://[::1]:4000/x"),
        ("a.example:http", "http://a.example:4000/x"),
        ("a.example:99999", "http://a.example:4000/x"),
    ],
)
def test_the_url_of_a_client(host: str, url: str) -> None:
    assert make(exchange(Role.CLIENT, target="/x?q", headers={"host": host})).attributes["url.full"] == url


def test_without_a_host_the_connection_tells() -> None:
    served = make(exchange(headers={})).attributes
    called = make(
        exchange(Role.CLIENT, headers={}, target="/x", family=AF_INET6, remote=("fd00::1", 81))
    ).attributes
    assert (served["server.address"], served["server.port"]) == ("10.0.0.1", 8080)
    assert called["url.full"] == "http://[fd00::1]:81/x"


def test_unix_sockets_have_no_ports() -> None:
    called = make(exchange(Role.CLIENT, headers={}, family=AF_UNIX, remote=("/run/app.sock", 0))).attributes
    assert called["network.transport"] == "unix"
    assert called["network.peer.address"] == called["server.address"] == "/run/app.sock"
    served = make(exchange(headers={}, family=AF_UNIX, remote=("", 0))).attributes
    for attributes in (called, served):
        assert not any(name.endswith(".port") for name in attributes)
        assert "url.full" not in attributes
    assert "client.address" not in served


def test_a_url_over_a_unix_socket_has_the_host_that_the_request_names() -> None:
    called = make(exchange(Role.CLIENT, headers={"host": "app"}, family=AF_UNIX, remote=("/run/app.sock", 0)))
    assert str(called.attributes["url.full"]).startswith("http://app/")


@pytest.mark.parametrize("role", Role)
def test_the_route_is_the_spans_also_where_no_span_is_made(role: Role) -> None:
    for target in ("/item/7?x", "http://h/item/7", "*", "/"):
        one = exchange(role, target=target)
        attributes = make(one).attributes
        assert maker().route(one, PROCESS) == (attributes.get("http.route") or attributes.get("url.template"))
    assert maker().route(exchange(role, method="", target=""), PROCESS) == ""
    assert maker().route(exchange(role, method="CONNECT", target="h:1"), PROCESS) == ""


def test_an_exchange_without_a_link_is_refused() -> None:
    unlinked = exchange()
    unlinked.link = None
    with pytest.raises(ValueError, match="linked"):
        maker().make(unlinked)


def test_a_thread_of_io_uring_is_not_named() -> None:
    by_io_uring = exchange()
    by_io_uring.at = Context(100, 10, 0, 0, 1, 0)
    assert "thread.id" not in make(by_io_uring).attributes


def test_the_number_of_candidates_is_told_where_there_were_any() -> None:
    lonely = exchange()
    assert lonely.link is not None
    lonely.link.candidates = 8
    assert make(lonely).attributes["autotrace.link.candidates"] == 8


def test_a_span_never_ends_before_it_starts() -> None:
    odd = exchange()
    odd.end_ns = 50
    span = make(odd)
    assert span.end_unix_ns == span.start_unix_ns


def test_a_process_that_is_not_known_gives_a_span_all_the_same() -> None:
    span = make(exchange(pid=99))
    assert span.process.pid == 99
    assert span.process.service == "unknown_service"


def test_exchanges_of_one_connection_do_not_share_attributes() -> None:
    spans = maker()
    first, second = spans.make(exchange(status=500)), spans.make(exchange())
    assert first is not None
    assert second is not None
    assert "error.type" not in second.attributes
    spans.connection_closed(1)
    assert spans.make(exchange()) == second


LATIN_1 = st.text(st.characters(codec="latin-1"))


@given(
    st.sampled_from(Role),
    LATIN_1.filter(bool),
    LATIN_1,
    st.dictionaries(st.sampled_from(("host", "user-agent")), LATIN_1),
    st.sampled_from((AF_UNIX, AF_INET)),
)
def test_any_text_gives_a_span_that_can_be_sent(
    role: Role, method: str, target: str, headers: dict[str, str], family: int
) -> None:
    span = make(exchange(role, target, method, headers=headers, family=family))
    for text in (span.name, *(value for value in span.attributes.values() if isinstance(value, str))):
        text.encode()
    assert "?" not in str(span.attributes.get("url.path", ""))


def test_tls_is_https() -> None:
    assert make(over_tls(exchange())).attributes["url.scheme"] == "https"


@pytest.mark.parametrize(
    ("host", "url"),
    [
        ("shop.example", "https://shop.example/item/7"),
        ("shop.example:443", "https://shop.example/item/7"),
        ("shop.example:80", "https://shop.example:80/item/7"),
        ("shop.example:8443", "https://shop.example:8443/item/7"),
    ],
)
def test_the_default_port_of_https_is_left_out(host: str, url: str) -> None:
    span = make(over_tls(exchange(Role.CLIENT, headers={"host": host})))
    assert span.attributes["url.full"] == url


def test_other_attributes_are_those_of_plain_text() -> None:
    for role in Role:
        plain, encrypted = exchange(role), over_tls(exchange(role), 8080)
        plain.connection.local_port = plain.connection.remote_port = 8080
        differ = {
            key for key, value in make(plain).attributes.items() if make(encrypted).attributes[key] != value
        }
        assert differ == ({"url.scheme"} if role is Role.SERVER else {"url.full"})
