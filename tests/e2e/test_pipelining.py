"""The less usual orders of requests and responses on one connection."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from conversation import Conversation, exchanges, hold
from harness import SERVICES, Traced, free_ports, listening, log_entries, running, shell, wait_for
from kernel_state import entries
from scripted import Step, both, client, get, ok, play, post, server, told

STOPPED = 2  # PROTOCOL_STOPPED in bpf/include/maps.h


def _check(steps: list[Step], directory: Path, expected: list[tuple[str, int, int, int]]) -> None:
    result = play(directory, steps)
    servers, clients = both(result)
    assert sorted(map(told, servers)) == sorted(expected), result.said
    assert sorted(map(told, clients)) == sorted(expected), result.said
    assert not [span for span in result.spans if span.attributes.get("error.type", "4").startswith("i")]


def test_all_requests_in_one_write_and_all_responses_in_another(tmp_path: Path) -> None:
    paths = [f"/p{i}" for i in range(9)]
    steps = [client("".join(map(get, paths))), server("".join(ok(i) for i in range(9)))] * 2
    _check(steps, tmp_path, [(path, 200, 0, i) for i, path in enumerate(paths)] * 2)


def test_pipelined_requests_answered_one_by_one(tmp_path: Path) -> None:
    paths = [f"/p{i}" for i in range(60)]
    steps = [client("".join(map(get, paths))), *(server(ok(i)) for i in range(60))]
    _check(steps, tmp_path, [(path, 200, 0, i) for i, path in enumerate(paths)])


def test_pipelined_messages_larger_than_a_head(tmp_path: Path) -> None:
    """Each in a write of its own: a call that begins like a message has a head, wherever the turn began."""
    steps = [client(post(f"/p{i}", 9000 + i) + "q" * (9000 + i)) for i in range(5)]
    steps += [server(ok(20_000 + i)) for i in range(5)]
    _check(steps, tmp_path, [(f"/p{i}", 200, 9000 + i, 20_000 + i) for i in range(5)])


def test_more_pipelined_requests_in_one_write_than_are_captured(tmp_path: Path) -> None:
    """The head of the turn is captured, the rest of it is not: what is missing is missing, not made up. Which
    answers are whose is not known on this connection from then on: the next exchange is dropped, and counted."""
    paths = [f"/p{i}" for i in range(200)]
    steps = [client("".join(map(get, paths))), *(server(ok(i)) for i in range(200))]
    steps += [client(get("/next")), server(ok(7777))]
    result = play(tmp_path, steps, dropped={"pipelined_answers_unknown": 2})
    sizes = {path: i for i, path in enumerate(paths)}
    complete = [told(span) for span in result.spans if span.status]
    assert all(response in (sizes[path], -1) for path, _, _, response in complete), complete
    assert len(complete) >= 2 * 50


@pytest.mark.parametrize(
    ("interim", "fields"),
    [
        ("HTTP/1.1 100 Continue\r\n\r\n", "Expect: 100-continue\r\n"),
        ("HTTP/1.1 103 Early Hints\r\nLink: </style.css>; rel=preload\r\n\r\n", ""),
        ("HTTP/1.1 102 Processing\r\n\r\nHTTP/1.1 103 Early Hints\r\n\r\n", ""),
    ],
)
def test_interim_responses(tmp_path: Path, interim: str, fields: str) -> None:
    steps: list[Step] = []
    for _ in range(2):
        steps += [client(post("/interim", 8000, fields)), server(interim)]
        steps += [client("q" * 8000), server(ok(50, "201 Created"))]
    _check(steps, tmp_path, [("/interim", 201, 8000, 50)] * 2)


def test_an_expected_continue_that_does_not_come(tmp_path: Path) -> None:
    """The final response comes instead, and the client leaves its body out."""
    head = post("/refused", 8000, "Expect: 100-continue\r\n")
    steps = [client(head), server(ok(10, "417 No")), client(get("/next")), server(ok(20))]
    result = play(tmp_path, steps)
    servers, clients = both(result)
    for spans in (servers, clients):
        assert [(s.path, s.status) for s in spans] == [("/refused", 417), ("/next", 200)]
        assert [s.attributes["http.response.body.size"] for s in spans] == [10, 20]


def test_an_early_response(tmp_path: Path) -> None:
    """It comes while the request is still being sent; the rest follows, and the connection goes on."""
    steps = [
        client(post("/early", 60_000) + "q" * 20_000),
        server(ok(30, "413 Too Large")),
        client("q" * 40_000),
        client(get("/next")),
        server(ok(40)),
    ]
    result = play(tmp_path, steps)
    servers, clients = both(result)
    for spans in (servers, clients):
        assert [(s.path, s.status) for s in spans] == [("/early", 413), ("/next", 200)]
        assert [s.attributes["http.response.body.size"] for s in spans] == [30, 40]


def test_an_early_response_and_a_reset(tmp_path: Path) -> None:
    """The server closes with bytes unread. The reset overtakes the client, which still reads the response."""
    steps: list[Step] = [
        client(post("/early", 60_000) + "q" * 2000),
        ("client", "unheard", "q" * 30_000),
        ("server", "unheard", ok(3000, "413 Too Large")),
        ("server", "wait", 0.1),
        ("server", "close", ""),
        ("client", "wait", 0.5),
        ("client", "listen", ""),
    ]
    result = play(tmp_path, steps)
    servers, clients = both(result)
    for spans in (servers, clients):
        assert [(s.path, s.status) for s in spans] == [("/early", 413)]
        assert [s.attributes.get("http.response.body.size") for s in spans] == [3000]


@pytest.mark.parametrize("size", [10, 100_000])
def test_a_client_that_ends_its_direction_first(tmp_path: Path, size: int) -> None:
    """Both directions have ended, and TCP is done with the connection, before the client reads the response."""
    steps: list[Step] = [
        client(get("/half")),
        ("client", "shut", ""),
        ("server", "unheard", ok(size)),
        ("server", "close", ""),
        ("client", "wait", 0.5),
        ("client", "listen", ""),
    ]
    result = play(tmp_path, steps)
    servers, clients = both(result)
    assert [told(s) for s in servers] == [told(s) for s in clients] == [("/half", 200, 0, size)]
    assert not [span for span in result.spans if span.error]


@pytest.mark.parametrize("unix", [False, True])
def test_an_upgraded_connection_is_not_captured_any_more(tmp_path: Path, unix: bool) -> None:
    upgrade = "Upgrade: websocket\r\nConnection: upgrade\r\n"
    steps: list[Step] = [
        client(get("/plain")),
        server(ok(3)),
        client(get("/socket", upgrade)),
        server(f"HTTP/1.1 101 Switching Protocols\r\n{upgrade}\r\n"),
        ("client", "wait", 0.5),
        client(get("/not-http")),
        server(ok(5)),
        ("client", "wait", 1.5),
    ]

    def stopped(agent: int) -> None:
        wait_for(
            lambda: [e["value"]["protocol"] for e in entries(agent, "conns")] == [STOPPED] * 2,
            "the kernel side to stop",
        )

    result = play(tmp_path, steps, unix, stopped)
    servers, clients = both(result)
    for spans in (servers, clients):
        assert [(s.path, s.status, s.error) for s in spans] == [
            ("/plain", 200, False),
            ("/socket", 101, False),
        ]


def test_a_tunnel_through_a_proxy(tmp_path: Path) -> None:
    """curl -p: CONNECT is an exchange of curl and the proxy; what is in the tunnel is the proxy's and the
    backend's, told on the connection between these two."""
    proxy, back = free_ports(2)
    python, log = sys.executable, tmp_path / "log"
    asked = f"http://127.0.0.1:{back}/through/[1-5]"
    with Traced(
        tmp_path / "agent",
        shell(
            f"{python} {SERVICES}/connect_proxy.py {proxy} threads",
            f"{python} {SERVICES}/backend.py {back} {log}",
            f"(until curl -s -o /dev/null 127.0.0.1:{back}/ready; do sleep 0.1; done;"
            f" until curl -s -p -x 127.0.0.1:{proxy} '{asked}'; do sleep 0.1; done)",
        ),
    ) as agent:
        wait_for(lambda: log.exists() and log.read_text().count("/through/") == 5, "the requests")
        result = agent.finish()
    result.check_ledger()
    connects = [s for s in result.spans if s.attributes.get("http.request.method") == "CONNECT"]
    assert {(s.kind, s.service, s.status) for s in connects if s.status} == {
        ("client", "curl", 200),
        ("server", "connect_proxy", 200),
    }
    through = [s for s in result.spans if s.path.startswith("/through/")]
    served = [e["path"] for e in log_entries(log) if e["path"] != "/ready"]
    assert [s.path for s in result.server("backend") if s.path in served] == served
    assert sorted(s.path for s in through if s.kind == "client") == sorted(served)
    assert {s.service for s in through if s.kind == "client"} == {"connect_proxy"}


def _chunked(sizes: list[int]) -> bytes:
    body = b"".join(b"%x\r\n%b\r\n" % (size, b"r" * size) for size in sizes)
    return b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + body + b"0\r\n\r\n"


@pytest.mark.parametrize("family", ["inet", "unix"])
def test_chunked_bodies_whose_end_only_the_last_bytes_tell(tmp_path: Path, family: str) -> None:
    """Whatever the calls are like, the response is over when its last byte has gone, not before: the reader
    makes the writer wait."""
    response = _chunked([7, 60_000, 3, 400_000, 1, 500_000])
    ways = {
        "one-write": {},
        "refused": {"nonblock": 1, "sndbuf": 4608},
        "pieces": {"piece": 30_001},
        "vectors": {"write": "writev", "read": "readv", "iov": 9},
        "many-vectors": {"write": "sendmsg", "read": "recvmsg", "iov": 200},
        "most-vectors": {"write": "sendmsg", "read": "readv", "iov": 1000},
        "refused-vectors": {"write": "writev", "read": "recvmsg", "iov": 60, "nonblock": 1, "sndbuf": 4608},
        "two-messages": {"write": "sendmmsg", "read": "recvmmsg"},
        "terminator-apart": {"piece": len(response) - 5},
        "terminator-cut": {"piece": len(response) - 2},
    }
    where = {} if family == "inet" else {"family": "unix", "address": tmp_path / "socket"}
    conversations = [
        Conversation(f"/{way}", response=response, options={"pause": 250, **options, **where})
        for way, options in ways.items()
    ]
    result = hold(tmp_path, conversations)
    for conversation in conversations:
        servers, clients = exchanges(result, conversation.path)
        assert [(s.status, s.error) for s in servers + clients] == [(200, False)] * 4, result.said
        # Later the receive buffer may have grown to hold it all.
        waited = clients + (servers[:1] if "sndbuf" in conversation.options else [])
        assert all(span.end - span.start >= 240_000_000 for span in waited), (conversation.path, waited)
    assert "gap" not in result.said
    assert "malformed" not in result.said


@pytest.mark.parametrize("how", ["exact", "buffered"])
def test_two_threads_in_full_duplex(tmp_path: Path, how: str) -> None:
    """One thread writes requests as fast as it can, another reads the responses; the same on the server.

    If reads take whatever is there, most heads lie deep inside of what one call reads: not captured then, and
    missed, but never mistaken.
    """
    (port,) = free_ports(1)
    duplex = [sys.executable, str(SERVICES / "duplex.py")]
    with Traced(
        tmp_path / "agent",
        shell(
            f"{' '.join(duplex)} server {port} {tmp_path}/server.log {how}",
            f"(until [ -e {tmp_path}/go ]; do sleep 0.1; done;"
            f" {' '.join(duplex)} client {port} {tmp_path}/client.log {how}; exec sleep 60)",
        ),
    ) as agent:
        wait_for(lambda: listening(port), "the server")
        (tmp_path / "go").touch()
        wait_for((tmp_path / "client.log").exists, "the client", 60)
        result = agent.finish()
    result.check_ledger()
    answered = log_entries(tmp_path / "server.log")
    truth = {(e["path"], e["status"], e["received"], e["sent"]) for e in answered}
    assert len(truth) == 1500
    if how == "exact":
        for spans in (result.server(), result.client()):
            # A response may be over before the last of its request is told: the size of that is not known then.
            assert sorted(told(span)[:2] for span in spans) == sorted(each[:2] for each in truth), result.said
        assert {span.link for span in result.server()} == {"wire"}
    by_path = {path: (status, (received, -1), (sent, -1)) for path, status, received, sent in truth}
    for span in result.spans:
        path, status, received, sent = told(span)
        expected = by_path[path]
        assert status in (expected[0], 0), span
        assert received in expected[1], span
        assert sent in expected[2], span


def test_a_large_response_and_the_next_request_of_the_same_thread(tmp_path: Path) -> None:
    """A response that was only counted is over when its thread reads the next request, on another connection: the
    call that this one makes has one parent."""
    front, back = free_ports(2)
    python = sys.executable
    with (
        running([python, str(SERVICES / "backend.py"), str(back), str(tmp_path / "back.log")], back),
        Traced(
            tmp_path / "agent",
            shell(f"{python} {SERVICES}/one_thread.py {front} {back} {tmp_path}/front.log"),
        ) as agent,
    ):
        wait_for(lambda: listening(front), "the server")
        drive_two(front, 60)
        result = agent.finish()
    result.check_ledger()
    by_id = {span.span_id: span for span in result.spans}
    calls = [span for span in result.client() if span.path.startswith("/call/")]
    assert len(calls) == 60
    assert {by_id[span.parent_id].path for span in calls if span.parent_id} <= {s.path for s in calls}
    assert all(by_id[span.parent_id].path == span.path for span in calls if span.parent_id)
    assert len([span for span in calls if span.parent_id]) >= 59


def drive_two(port: int, rounds: int) -> None:
    """A large response on one connection, then at once a request on another, by turns."""
    import http.client

    large, small = (http.client.HTTPConnection("127.0.0.1", port, timeout=10) for _ in range(2))
    for i in range(rounds):
        for connection, path in ((large, f"/large/{i}"), (small, f"/call/{i}")):
            connection.request("GET", path)
            assert connection.getresponse().read()
    large.close()
    small.close()
