"""From events to spans: what two services and their kernel say becomes one trace, and nothing gets lost unseen."""

from __future__ import annotations

import errno
from typing import Any

import pytest

from autotrace.ledger import Ledger
from autotrace.metrics import RedMetrics
from autotrace.model import (
    Chunk,
    Connection,
    ConnectionClosed,
    ConnectionOpened,
    Context,
    Direction,
    Event,
    Process,
    ProcessExited,
    ProcessSeen,
    ProcessStarted,
    Progress,
    Role,
    Span,
    StreamClaim,
)
from autotrace.pipeline import Pipeline

RX, TX = Direction.RX, Direction.TX
UNIX, INET = 1, 2
SECOND = 1_000_000_000
WALL_OFFSET = 1_700_000_000 * SECOND
NGINX, BACKEND = 10, 20
TRACEPARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"

PROCESSES = {
    NGINX: Process(NGINX, "/usr/sbin/nginx", {"service.name": "edge"}, "nginx", frozenset({"dispatch"})),
    BACKEND: Process(BACKEND, "/usr/bin/python3", {"service.name": "api"}, "python", frozenset({"thread"})),
}


def request(path: str, *fields: str, method: str = "GET") -> bytes:
    return "\r\n".join([f"{method} {path} HTTP/1.1", "Host: shop", *fields, "", ""]).encode()


def response(status: int = 200, body: bytes = b"", *fields: str) -> bytes:
    head = [f"HTTP/1.1 {status} Reason", f"Content-Length: {len(body)}", *fields, "", ""]
    return "\r\n".join(head).encode() + body


class Host:
    """A host as the kernel side would report it, with the pipeline behind it."""

    def __init__(self, route_limit: int = 100, spans_wanted: bool = True) -> None:
        self.now = 1000 * SECOND
        self.ledger = Ledger()
        self.metrics = RedMetrics(self.ledger)
        self.spans: list[Span] = []
        self.stopped: list[int] = []
        self.forgotten: list[int] = []
        self.pipeline = Pipeline(
            process_of=lambda pid: PROCESSES.get(pid) or Process(pid, "", {"service.name": "unknown"}),
            emit=self.spans.append if spans_wanted else None,
            stop_capture=lambda connection: self.stopped.append(connection.id),
            forget=self.forget,
            ledger=self.ledger,
            metrics=self.metrics,
            host=b"this host",
            wall_offset_ns=WALL_OFFSET,
            exchange_timeout_ns=60 * SECOND,
            route_limit=route_limit,
        )

    def forget(self, connection: Connection) -> None:
        self.forgotten.append(connection.id)

    def event(self, event: Event) -> None:
        self.now += 1000
        self.pipeline.event(event)

    def notes(self) -> dict[str, dict[str, int]]:
        notes: dict[str, dict[str, int]] = self.ledger.snapshot()["notes"]
        return notes

    def exchanges(self) -> dict[str, Any]:
        exchanges: dict[str, Any] = self.ledger.snapshot()["exchanges"]
        return exchanges

    def span(self, role: Role, service: str) -> Span:
        (found,) = [span for span in self.spans if (span.role, span.process.service) == (role, service)]
        return found

    def finish(self) -> None:
        self.pipeline.finish(self.now)
        assert self.ledger.balance() == 0


class End:
    """One end of a connection."""

    def __init__(
        self,
        host: Host,
        id: int,
        pid: int,
        ports: tuple[int, int],
        family: int = INET,
        opened_by: int | None = None,
        from_start: bool = True,
    ) -> None:
        self.host, self.id, self.pid, self.family = host, id, pid, family
        self.socket, self.peer_socket = 0x1000 + ports[0], 0x1000 + ports[1] if family == UNIX else 0
        self.ports = ports
        self.ends = [1 << 32, 1 << 32]
        self.turn = 0
        self.speaker: Direction | None = None
        self.from_start = from_start
        self.opened_at = self.context(opened_by) if opened_by is not None else None

    def context(self, cause: int = 0) -> Context:
        return Context(self.host.now, self.pid, self.pid, 0, 1, cause)

    def description(self) -> ConnectionOpened:
        address = "" if self.family == UNIX else "127.0.0.1"
        local, remote = (0, 0) if self.family == UNIX else self.ports
        return ConnectionOpened(
            self.host.now, self.id, self.pid, self.family, self.socket, self.peer_socket, 1,
            address, local, address, remote, self.from_start, self.opened_at,
        )  # fmt: skip

    def open(self) -> End:
        self.host.event(self.description())
        return self

    def moves(self, direction: Direction, data: bytes, cause: int = 0) -> None:
        """Bytes that are captured whole, in one call."""
        first = self.speaker is not direction
        self.turn += first
        self.speaker = direction
        other = (self.ends[direction.other], self.host.now - 500, b"") if first else (0, 0, b"")
        position = self.ends[direction]
        self.ends[direction] += len(data)
        at = self.context(cause)
        self.host.event(Chunk(self.id, direction, self.turn, position, data, at, *other))

    def counts(self, direction: Direction, length: int, tail: bytes = b"") -> None:
        """Bytes that are only counted, told by the sweep."""
        self.ends[direction] += length
        now = self.host.now
        self.host.event(Progress(now, self.id, direction, self.ends[direction], now, tail))

    def close(self, error: int = 0, established: bool = True) -> None:
        now = self.host.now
        reaches = (self.ends[RX], now, b"", self.ends[TX], now, b"")
        self.host.event(
            ConnectionClosed(now, self.id, error, established, *reaches, self.description()),
        )


def pair(
    host: Host, id: int, client: int, server: int, family: int = INET, cause: int = 0
) -> tuple[End, End]:
    """Both ends of a connection that was seen being made; ids `id` and `id + 1`."""
    ports = (40_000 + id, 80)
    asks = End(host, id, client, ports, family, opened_by=cause)
    answers = End(host, id + 1, server, ports[::-1], family)
    return asks.open(), answers.open()


def exchange(asks: End, answers: End, ask: bytes, answer: bytes, cause: int = 0) -> None:
    asks.moves(TX, ask, cause)
    answers.moves(RX, ask)
    answers.moves(TX, answer)
    asks.moves(RX, answer)


@pytest.fixture
def host() -> Host:
    return Host()


def nginx_asks_backend(host: Host, header: str = "") -> tuple[End, End, End]:
    """A request from another host goes through nginx to the backend and back."""
    fields = (f"traceparent: {header}",) if header else ()
    front = End(host, 1, NGINX, (80, 50_000)).open()
    front.moves(RX, request("/item/7?secret=1", *fields))
    asks, answers = pair(host, 2, NGINX, BACKEND, cause=front.id)
    exchange(asks, answers, request("/api/item/7", *fields), response(200, b"seven"))
    front.moves(TX, response(200, b"seven"))
    return front, asks, answers


def test_one_trace_from_nginx_to_the_backend(host: Host) -> None:
    began = host.now
    nginx_asks_backend(host)
    front, call, served = (
        host.span(Role.SERVER, "edge"),
        host.span(Role.CLIENT, "edge"),
        host.span(Role.SERVER, "api"),
    )
    assert len(host.spans) == 3
    assert front.trace_id == call.trace_id == served.trace_id
    assert (front.parent_span_id, call.parent_span_id, served.parent_span_id) == (
        0,
        front.span_id,
        call.span_id,
    )
    methods = [span.attributes["autotrace.link.method"] for span in (front, call, served)]
    assert methods == ["none", "dispatch", "wire"]
    assert [span.name for span in (front, call, served)] == [
        "GET /item/{id}",
        "GET /api/item/{id}",
        "GET /api/item/{id}",
    ]
    for span in host.spans:
        assert span.attributes["http.response.status_code"] == 200
        assert span.attributes["http.response.body.size"] == 5
        assert not span.is_error
        assert began + WALL_OFFSET < span.start_unix_ns < span.end_unix_ns <= host.now + WALL_OFFSET
    assert front.start_unix_ns < call.start_unix_ns < served.start_unix_ns
    assert served.end_unix_ns < call.end_unix_ns < front.end_unix_ns
    assert "secret" not in repr(host.spans)
    host.finish()
    assert host.exchanges() == {"seen": 3, "emitted": 3, "dropped": {}, "in_flight": 0}
    assert host.notes() == {}


def test_metrics_and_books_are_the_same_where_nobody_wants_spans() -> None:
    hosts = Host(), Host(spans_wanted=False)
    for host in hosts:
        nginx_asks_backend(host)
        nginx_asks_backend(host, TRACEPARENT)
        host.finish()
    wanted, unwanted = (host.metrics.collect() for host in hosts)
    assert len(hosts[0].spans) == 6
    assert not hosts[1].spans
    assert wanted.services == unwanted.services
    assert wanted.edges == unwanted.edges
    assert hosts[0].exchanges() == hosts[1].exchanges()


def test_the_trace_goes_on_from_a_header(host: Host) -> None:
    nginx_asks_backend(host, TRACEPARENT)
    assert {span.trace_id for span in host.spans} == {0x0AF7651916CD43DD8448EB211C80319C}
    front = host.span(Role.SERVER, "edge")
    assert front.parent_span_id == 0xB7AD6B7169203331
    assert host.span(Role.CLIENT, "edge").parent_span_id == front.span_id


def test_both_ends_know_each_other_and_the_edge_is_counted_once(host: Host) -> None:
    nginx_asks_backend(host)
    edges = {
        (edge.attributes["client"], edge.attributes["server"]): (
            edge.total,
            sum(edge.client_counts),
            sum(edge.server_counts),
        )
        for edge in host.metrics.collect().edges
    }
    assert edges == {("user", "edge"): (1, 0, 1), ("edge", "api"): (1, 1, 1)}


def test_a_kept_connection_carries_one_trace_per_request(host: Host) -> None:
    asks, answers = pair(host, 1, NGINX, BACKEND)
    for number in range(5):
        exchange(asks, answers, request(f"/n/{number}"), response(200 + number))
    asks.close()
    answers.close()
    calls = [span for span in host.spans if span.role is Role.CLIENT]
    served = [span for span in host.spans if span.role is Role.SERVER]
    assert len({span.trace_id for span in host.spans}) == 5
    assert [span.trace_id for span in calls] == [span.trace_id for span in served]
    assert [span.attributes["http.response.status_code"] for span in served] == [200, 201, 202, 203, 204]
    assert host.pipeline.connections == 0
    host.finish()


def test_a_body_that_was_only_counted_ends_its_exchange(host: Host) -> None:
    front = End(host, 1, NGINX, (80, 50_000)).open()
    front.moves(RX, request("/big"))
    front.moves(TX, b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n" + b"x" * 100)
    front.counts(TX, 50_000)
    assert host.spans == []
    front.counts(TX, 49_900)
    assert host.spans[0].attributes["http.response.body.size"] == 100_000
    host.finish()


# --- connections that end badly ----------------------------------------------------------------------------------


@pytest.mark.parametrize(("error", "kind"), [(errno.ECONNREFUSED, "ECONNREFUSED"), (0, "aborted")])
def test_a_connection_that_was_never_made_is_a_failed_call(host: Host, error: int, kind: str) -> None:
    front = End(host, 1, NGINX, (80, 50_000)).open()
    front.moves(RX, request("/item/7"))
    End(host, 2, NGINX, (40_000, 81), opened_by=front.id).close(error, established=False)
    front.moves(TX, response(502))
    call = host.span(Role.CLIENT, "edge")
    assert (call.name, call.is_error, call.attributes["error.type"]) == ("connect", True, kind)
    assert call.attributes["server.port"] == 81
    assert call.parent_span_id == host.span(Role.SERVER, "edge").span_id
    host.finish()
    assert host.exchanges()["emitted"] == 2


@pytest.mark.parametrize(
    ("answer", "error", "kind"),
    [
        (b"", 0, "no_response"),
        (b"", errno.ECONNRESET, "ECONNRESET"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhalf", 0, "incomplete_response"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhalf", errno.ETIMEDOUT, "ETIMEDOUT"),
    ],
)
def test_a_connection_that_ends_too_early(host: Host, answer: bytes, error: int, kind: str) -> None:
    front = End(host, 1, NGINX, (80, 50_000)).open()
    front.moves(RX, request("/"))
    if answer:
        front.moves(TX, answer)
    front.close(error)
    (span,) = host.spans
    assert (span.attributes["error.type"], span.is_error) == (kind, True)
    host.finish()


def test_what_waits_too_long_is_given_up(host: Host) -> None:
    front = End(host, 1, NGINX, (80, 50_000)).open()
    front.moves(RX, request("/slow"))
    host.pipeline.tick(host.now + 59 * SECOND)
    assert host.spans == []
    host.now += 61 * SECOND
    host.pipeline.tick(host.now)
    assert host.spans[0].attributes["error.type"] == "timeout"
    front.moves(TX, response())
    assert len(host.spans) == 1
    assert host.notes()["pairing"] == {"late_response": 1}
    host.finish()


# --- processes that end ------------------------------------------------------------------------------------------


def test_a_process_that_ended_in_the_middle(host: Host) -> None:
    front = End(host, 1, NGINX, (80, 50_000)).open()
    front.moves(RX, request("/"))
    host.event(ProcessExited(host.now, NGINX))
    front.close()
    assert host.spans[0].attributes["error.type"] == "process_exited"
    host.now += 2 * SECOND
    host.pipeline.tick(host.now)
    assert len(host.spans) == 1
    assert host.pipeline.connections == 0
    host.finish()


def test_bytes_that_are_told_after_the_exit_still_count(host: Host) -> None:
    front = End(host, 1, NGINX, (80, 50_000)).open()
    front.moves(RX, request("/"))
    front.moves(TX, b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n")
    host.event(ProcessExited(host.now, NGINX))
    front.ends[TX] += 100_000
    front.close()
    (span,) = host.spans
    assert not span.is_error
    assert span.attributes["http.response.body.size"] == 100_000
    host.finish()


def test_a_process_that_ended_and_whose_close_never_came(host: Host) -> None:
    front = End(host, 1, NGINX, (80, 50_000)).open()
    front.moves(RX, request("/"))
    exited = host.now
    host.event(ProcessExited(exited, NGINX))
    host.pipeline.tick(exited + SECOND // 2)
    assert host.spans == []
    host.pipeline.tick(exited + SECOND)
    (span,) = host.spans
    assert span.attributes["error.type"] == "process_exited"
    assert span.end_unix_ns == exited + WALL_OFFSET
    host.finish()


def test_the_exit_of_one_process_is_nothing_to_another(host: Host) -> None:
    asks, answers = pair(host, 1, NGINX, BACKEND)
    asks.moves(TX, request("/"))
    answers.moves(RX, request("/"))
    host.event(ProcessExited(host.now, NGINX))
    host.pipeline.tick(host.now + SECOND)
    assert [span.process.pid for span in host.spans] == [NGINX]
    answers.moves(TX, response())
    assert [span.process.pid for span in host.spans] == [NGINX, BACKEND]
    host.finish()


def test_a_unix_connection_of_a_process_that_is_gone_is_forgotten_on_both_sides(host: Host) -> None:
    unix = End(host, 1, NGINX, (7, 8), UNIX).open()
    tcp = End(host, 2, NGINX, (80, 50_000)).open()
    for end in (unix, tcp):
        end.moves(RX, request("/"))
    host.event(ProcessExited(host.now, NGINX))
    host.pipeline.tick(host.now + SECOND)
    assert host.forgotten == [unix.id]
    assert host.pipeline.connections == 1
    assert [span.attributes["error.type"] for span in host.spans] == ["process_exited"] * 2
    tcp.close()
    assert host.pipeline.connections == 0
    host.finish()
    assert host.exchanges()["seen"] == 2


def test_events_of_processes_make_no_spans(host: Host) -> None:
    host.event(ProcessStarted(host.now, 30, NGINX, "nginx"))
    host.event(ProcessSeen(host.now, 31))
    host.event(ProcessExited(host.now, 30))
    host.finish()
    assert host.exchanges() == {"seen": 0, "emitted": 0, "dropped": {}, "in_flight": 0}


def test_what_a_program_claimed_goes_with_it(host: Host) -> None:
    host.event(StreamClaim(host.now, 0, NGINX, 40, 60, 0, 1, TX, "/shop.Cart/Add"))
    host.event(ProcessStarted(host.now, 30, NGINX, "nginx"))
    assert "claims" not in host.notes()
    host.event(ProcessStarted(host.now, NGINX, 0, "nginx"))
    assert host.notes()["claims"] == {"request_never_came": 1}


# --- what is lost, left out or cut off --------------------------------------------------------------------------


def test_connections_whose_close_was_lost_are_ended(host: Host) -> None:
    kept = End(host, 1, NGINX, (80, 50_000)).open()
    lost = End(host, 2, NGINX, (81, 50_001)).open()
    for end in (kept, lost):
        end.moves(RX, request("/"))
    host.pipeline.keep_only({kept.id, 0x999}, host.now)
    (span,) = host.spans
    assert span.attributes["error.type"] == "no_response"
    assert host.pipeline.connections == 1
    assert host.notes()["streams"] == {"close_not_seen": 1}
    lost.close()
    kept.moves(TX, response())
    assert [span.is_error for span in host.spans] == [True, False]
    host.finish()


def test_what_a_connection_said_before_its_lost_close_is_handled_first(host: Host) -> None:
    lost = End(host, 1, NGINX, (80, 50_000)).open()
    lost.moves(RX, request("/"))
    opened: list[End] = []

    def handle_rest() -> None:
        lost.moves(TX, response())
        opened.append(End(host, 2, NGINX, (81, 50_001)).open())

    host.pipeline.keep_only(set(), host.now, handle_rest)
    assert [span.is_error for span in host.spans] == [False]
    assert host.notes()["streams"] == {"close_not_seen": 1}
    opened[0].moves(RX, request("/"))
    opened[0].moves(TX, response())
    assert [span.is_error for span in host.spans] == [False, False]
    host.finish()


@pytest.mark.parametrize("told", [True, False], ids=["told", "its description was lost"])
def test_a_connection_whose_socket_was_given_to_another_one_is_ended(host: Host, told: bool) -> None:
    lost = End(host, 1, NGINX, (80, 50_000)).open()
    lost.moves(RX, request("/"))
    kept = End(host, 2, NGINX, (80, 50_001))
    if told:
        kept.open()
    assert kept.socket == lost.socket
    host.pipeline.keep_only({kept.id}, host.now)
    if not told:
        assert host.pipeline.connections == 0
        kept.open()
    assert host.pipeline.connections == 1
    assert len(host.spans) == 1
    kept.moves(RX, request("/"))
    kept.moves(TX, response())
    assert [span.is_error for span in host.spans] == [True, False]
    host.finish()


def test_a_unix_connection_that_broke_off_in_an_answer_says_why(host: Host) -> None:
    unix = End(host, 1, NGINX, (7, 8), UNIX).open()
    unix.moves(RX, request("/"))
    unix.moves(TX, b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhalf")
    host.event(ProcessExited(host.now, NGINX))
    host.pipeline.tick(host.now + SECOND)
    assert [span.attributes["error.type"] for span in host.spans] == ["process_exited"]
    host.finish()


def test_a_call_that_the_process_reports_itself_gives_no_second_span(host: Host) -> None:
    asks, answers = pair(host, 1, NGINX, BACKEND)
    exchange(asks, answers, request("/", f"traceparent: {TRACEPARENT}"), response())
    served = host.span(Role.SERVER, "api")
    assert host.spans == [served]
    assert served.parent_span_id == 0xB7AD6B7169203331
    host.finish()
    assert host.exchanges() == {
        "seen": 2,
        "emitted": 1,
        "dropped": {"reported_by_process": 1},
        "in_flight": 0,
    }
    clients = [service.client for service in host.metrics.collect().services if service.service == "edge"]
    assert [sum(point.counts) for (point,) in clients] == [1]


def test_what_is_open_at_the_end_is_accounted_for(host: Host) -> None:
    End(host, 1, NGINX, (80, 50_000)).open().moves(RX, request("/"))
    assert host.exchanges()["in_flight"] == 1
    host.finish()
    assert host.exchanges() == {
        "seen": 1,
        "emitted": 0,
        "dropped": {"in_flight_at_stop": 1},
        "in_flight": 0,
    }


def test_a_process_that_exited_just_before_the_end_is_not_in_flight(host: Host) -> None:
    End(host, 1, NGINX, (80, 50_000)).open().moves(RX, request("/"))
    host.event(ProcessExited(host.now, NGINX))
    host.finish()
    assert [span.attributes["error.type"] for span in host.spans] == ["process_exited"]
    assert host.exchanges()["dropped"] == {}


def test_routes_beyond_the_limit_are_noted_once_each_tick() -> None:
    host = Host(route_limit=2)
    front = End(host, 1, NGINX, (80, 50_000)).open()
    for number, path in enumerate(("/a", "/b", "/c", "/d", "/a", "/e"), 1):
        front.moves(RX, request(path))
        front.moves(TX, response())
        if number == 4:
            host.pipeline.tick(host.now)
            assert host.notes()["spans"] == {"route_overflow": 2}
    host.pipeline.tick(host.now)
    assert host.notes()["spans"] == {"route_overflow": 3}
    assert [span.attributes["http.route"] for span in host.spans] == [
        "/a",
        "/b",
        "/{overflow}",
        "/{overflow}",
        "/a",
        "/{overflow}",
    ]
    host.finish()


def test_capture_stops_for_what_is_not_understood(host: Host) -> None:
    End(host, 1, NGINX, (80, 50_000)).open().moves(RX, b"EHLO example.org\r\n")
    upgraded = End(host, 2, NGINX, (80, 50_001)).open()
    upgraded.moves(RX, request("/chat", "Connection: Upgrade", "Upgrade: websocket"))
    upgraded.moves(TX, b"HTTP/1.1 101 Switching\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n")
    assert host.stopped == [1, 2]
    assert [span.attributes["http.response.status_code"] for span in host.spans] == [101]
    host.finish()
