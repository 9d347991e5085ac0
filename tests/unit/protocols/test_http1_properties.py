"""What holds for any HTTP/1.1 traffic, and for any bytes at all."""

from __future__ import annotations

import random
from itertools import pairwise
from typing import NamedTuple

import h11
from hypothesis import example, given
from hypothesis import strategies as st

from autotrace.model import (
    Context,
    Direction,
    Message,
    MessageEnd,
    ProtocolError,
    Request,
    Response,
)
from autotrace.protocols.http1 import PIPELINED_MAX, Http1Parser
from autotrace.protocols.http1_framing import CHUNK_LINE_MAX
from autotrace.protocols.http1_head import HEAD_MAX

RX, TX = Direction.RX, Direction.TX
AT = Context(1, 1, 1, 0, 0, 0)


class Sent(NamedTuple):
    """A well-formed exchange, and what a parser must say of it."""

    request: bytes
    responses: bytes
    method: str
    target: str
    status: int
    request_size: int
    response_size: int


TARGETS = st.text(st.characters(min_codepoint=0x21, max_codepoint=0x7E), max_size=40).map(
    lambda text: "/" + text
)
CONTENT = st.binary(max_size=200) | st.sampled_from([b"0\r\n\r\n", b"\r\n\r\n", b"HTTP/1.1 200 OK\r\n\r\n"])
NOISE = st.lists(
    st.sampled_from(["Accept: */*", "X-Empty:", "Cookie: a=b; c=d", "tracestate: a=b", "B3: 0"]), max_size=4
)


@st.composite
def body(draw: st.DrawFn) -> tuple[list[str], bytes, int]:
    """Fields, bytes on the wire, content size."""
    content = draw(CONTENT)
    if draw(st.booleans()):
        return [f"Content-Length: {len(content)}"], content, len(content)
    cuts = sorted(draw(st.lists(st.integers(0, len(content)), max_size=4)))
    extension = draw(st.sampled_from([b"", b";a", b';a="b"']))
    wire = b""
    for first, last in pairwise([0, *cuts, len(content)]):
        if first < last:
            wire += b"%X%b\r\n%b\r\n" % (last - first, extension, content[first:last])
    trailer = draw(st.sampled_from([b"", b"Checksum: 1\r\n", b"A: 1\r\nB: 2\r\n"]))
    return ["Transfer-Encoding: chunked"], wire + b"0\r\n" + trailer + b"\r\n", len(content)


@st.composite
def exchange(draw: st.DrawFn) -> Sent:
    method = draw(st.sampled_from(["GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS", "PURGE"]))
    target = draw(TARGETS)
    nothing: tuple[list[str], bytes, int] = ([], b"", 0)
    fields, request_body, request_size = draw(body()) if method in ("POST", "PUT") else nothing
    lines = [f"{method} {target} HTTP/1.1", "Host: h", *draw(NOISE), *fields]
    request = "\r\n".join(lines).encode() + b"\r\n\r\n" + request_body

    status = draw(st.sampled_from([200, 201, 204, 304, 404, 500]))
    fields, response_body, response_size = draw(body())
    if status in (204, 304) or method == "HEAD":
        response_body, response_size = b"", 0
        fields = [] if status == 204 else fields
    interim = draw(
        st.sampled_from([b"", b"HTTP/1.1 100 Continue\r\n\r\n", b"HTTP/1.1 103 Early\r\nLink: x\r\n\r\n"])
    )
    lines = [f"HTTP/1.1 {status} Reason", *draw(NOISE), *fields]
    response = "\r\n".join(lines).encode() + b"\r\n\r\n" + response_body
    return Sent(request, interim + response, method, target, status, request_size, response_size)


EXCHANGES = st.lists(exchange(), min_size=1, max_size=5)


def expected(exchanges: list[Sent]) -> tuple[list[object], list[object]]:
    requests: list[object] = []
    responses: list[object] = []
    positions = [0, 0]
    for sent in exchanges:
        requests += [(positions[0], sent.method, sent.target), sent.request_size]
        interim = sent.responses.index(b"HTTP/1.1 %d" % sent.status)
        responses += [(positions[1] + interim, sent.status), sent.response_size]
        positions = [positions[0] + len(sent.request), positions[1] + len(sent.responses)]
    return requests, responses


def by_direction(messages: list[Message]) -> tuple[list[object], list[object]]:
    seen: tuple[list[object], list[object]] = ([], [])
    for message in messages:
        match message:
            case Request():
                seen[message.direction].append((message.position, message.method, message.target))
            case Response():
                seen[message.direction].append((message.position, message.status))
            case MessageEnd():
                assert message.complete
                seen[message.direction].append(message.body_size)
            case _:
                raise AssertionError(message)
    return seen


@given(EXCHANGES, st.booleans(), st.randoms(use_true_random=False))
def test_any_split_gives_the_same_messages(
    exchanges: list[Sent], pipelined: bool, rng: random.Random
) -> None:
    turns = [(RX, sent.request) for sent in exchanges] + [(TX, sent.responses) for sent in exchanges]
    if not pipelined:
        turns = [turn for sent in exchanges for turn in ((RX, sent.request), (TX, sent.responses))]
    parser = Http1Parser()
    positions = [0, 0]
    out: list[Message] = []
    for direction, data in turns:
        while data:
            size = rng.choice([1, 2, 3, 7, 20, 100, len(data)])
            out += parser.data(direction, positions[direction], data[:size], AT)
            positions[direction] += len(data[:size])
            data = data[size:]
    assert by_direction(out) == expected(exchanges)


@given(EXCHANGES)
def test_h11_reads_the_same(exchanges: list[Sent]) -> None:
    """h11 is an independent implementation of RFC 9112."""
    parser = Http1Parser()
    positions = [0, 0]
    server, client = h11.Connection(h11.SERVER), h11.Connection(h11.CLIENT)
    for sent in exchanges:
        requests, responses = by_direction(
            parser.data(RX, positions[0], sent.request, AT)
            + parser.data(TX, positions[1], sent.responses, AT)
        )
        positions = [positions[0] + len(sent.request), positions[1] + len(sent.responses)]

        server.receive_data(sent.request)
        request = server.next_event()
        assert isinstance(request, h11.Request)
        assert requests[0][1:] == (request.method.decode(), request.target.decode())
        assert requests[1] == _content_size(server)
        client.send(h11.Request(method=request.method, target=request.target, headers=[("Host", "h")]))
        client.send(h11.EndOfMessage())
        client.receive_data(sent.responses)
        response = client.next_event()
        while isinstance(response, h11.InformationalResponse):
            response = client.next_event()
        assert isinstance(response, h11.Response)
        assert responses[0][1] == response.status_code
        assert responses[1] == _content_size(client)
        server.send(h11.Response(status_code=204, headers=[]))
        server.send(h11.EndOfMessage())
        server.start_next_cycle()
        client.start_next_cycle()


def _content_size(connection: h11.Connection) -> int:
    size = 0
    while isinstance(event := connection.next_event(), h11.Data):
        size += len(event.data)
    assert isinstance(event, h11.EndOfMessage)
    return size


@st.composite
def long_exchange(draw: st.DrawFn) -> tuple[bytes, bytes, int, int]:
    sizes = draw(st.integers(0, 20_000)), draw(st.integers(0, 20_000))
    request = b"POST / HTTP/1.1\r\nContent-Length: %d\r\n\r\n" % sizes[0] + b"GET / HTTP/1.1\r\n" * 1250
    response = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % sizes[1] + b"HTTP/1.1 200 OK\r\n" * 1250
    head_sizes = request.index(b"\r\n\r\n") + 4, response.index(b"\r\n\r\n") + 4
    return request[: head_sizes[0] + sizes[0]], response[: head_sizes[1] + sizes[1]], *sizes


@given(
    st.lists(long_exchange(), min_size=1, max_size=4),
    st.integers(60, 5000),
    st.randoms(use_true_random=False),
)
def test_bodies_of_known_length_may_be_counted_only(wire, exchanges, capture, rng) -> None:
    connection = wire(Http1Parser(), capture, (0, 0))
    out: list[Message] = []
    positions = [0, 0]
    requests, responses = [], []
    for request, response, request_size, response_size in exchanges:
        out += connection.turn(RX, request)
        if rng.random() < 0.5:
            out += connection.sweep()
        out += connection.turn(TX, response)
        requests += [(positions[0], "POST", "/"), request_size]
        responses += [(positions[1], 200), response_size]
        positions = [positions[0] + len(request), positions[1] + len(response)]
    out += connection.sweep()
    assert by_direction(out) == (requests, responses)


FRAGMENTS = st.binary(max_size=40) | st.sampled_from(
    [
        b"GET / HTTP/1.1\r\n",
        b"HTTP/1.1 200 OK\r\n",
        b"HTTP/1.1 100 Continue\r\n\r\n",
        b"HTTP/1.1 101 Switching\r\n",
        b"CONNECT a HTTP/1.1\r\n\r\n",
        b"Content-Length: 5\r\n\r\n",
        b"Content-Length: 999999\r\n\r\n",
        b"Transfer-Encoding: chunked\r\n\r\n",
        b"\r\n\r\n",
        b"\r\n0\r\n\r\n",
        b"5\r\nhello\r\n",
        b"A" * 5000,
        b"A: " * 2000,
    ]
)
CALLS = st.lists(
    st.tuples(
        st.sampled_from(["data", "progress"]),
        st.sampled_from([RX, TX]),
        st.integers(0, 5000) | st.integers(0, 2**64),
        st.lists(FRAGMENTS, max_size=6).map(b"".join),
    ),
    max_size=40,
)


@given(CALLS, st.booleans())
def test_any_bytes_in_any_calls_are_survived(calls, orderly) -> None:
    parser = Http1Parser()
    for name, direction, position, data in calls:
        if name == "data":
            parser.data(direction, position, data, AT)
        else:
            parser.progress(direction, position, 5, data[-8:])
        assert len(parser._waiting) <= PIPELINED_MAX
        for side in parser._sides:
            assert len(side.pending) < HEAD_MAX
            assert len(getattr(side.body, "_line", b"")) <= CHUNK_LINE_MAX
    parser.close(9, orderly)


@given(
    st.lists(st.tuples(st.sampled_from([RX, TX]), st.binary(min_size=1, max_size=300)), max_size=8),
    exchange(),
)
def test_well_formed_turns_after_garbage_are_parsed(wire, garbage, sent) -> None:
    connection = wire(Http1Parser())
    # So the roles are known, and the garbage stands where a message had to begin.
    connection.turn(RX, b"GET / HTTP/1.1\r\n\r\n")
    connection.turn(TX, b"HTTP/1.1 204 No Content\r\n\r\n")
    errors: list[Message] = []
    for direction, data in garbage:
        # \0 is nowhere allowed at the start of a message.
        errors += connection.turn(direction, b"\0" + data)
    assert all(isinstance(message, ProtocolError) for message in errors)
    assert len(errors) <= len(garbage)
    assert len({message.direction for message in errors}) == len({direction for direction, _ in garbage})
    connection.turn(TX, b"\0")
    starts = connection.ends[RX], connection.ends[TX] + 1
    out = connection.turn(RX, sent.request)
    starts = starts[0], connection.ends[TX] + len(sent.responses)
    out += connection.turn(TX, sent.responses)
    heads = [message for message in out if isinstance(message, Request | Response)]
    assert [type(head) for head in heads] == [Request, Response]
    assert heads[0].position == starts[0]
    assert heads[0].method == sent.method
    assert heads[1].status == sent.status
    ends = [message for message in out if isinstance(message, MessageEnd)]
    assert [(end.body_size, end.complete) for end in ends] == [
        (sent.request_size, True),
        (sent.response_size, True),
    ]


@given(exchange(), st.data())
def test_every_first_piece_of_a_request_is_recognised(sent: Sent, data: st.DataObject) -> None:
    length = data.draw(st.integers(1, len(sent.request)))
    assert Http1Parser.recognise(RX, sent.request[:length])
    assert Http1Parser.recognise(TX, sent.responses[: max(1, min(length, len(sent.responses)))])


HEADS = st.sampled_from(
    [
        b"GET / HTTP/1.1\r\nHost: a\r\n\r\n",
        b"HEAD / HTTP/1.1\r\n\r\n",
        b"CONNECT a:1 HTTP/1.1\r\n\r\n",
        b"POST / HTTP/1.1\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\n",
        b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n",
        b"POST / HTTP/1.1\r\nTransfer-Encoding: gzip\r\n\r\n",
        b"POST / HTTP/1.1\nContent-Length: x\n\nrest",
        b"GET /cut HTTP/1.1\r\nHo",
        b"HTTP/1.1 100 Continue\r\n\r\n",
        b"HTTP/1.1 101 Switching\r\nUpgrade: x\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n",
        b"HTTP/1.1 200 OK\r\n\r\n",
        b"HTTP/1.1 304 Not Modified\r\nContent-Length: 5\r\n\r\n",
        b"\r\n",
        b"abc",
    ]
)
BODY_SIZES = st.sampled_from([0, 3, 5, 7])


@example(
    [(RX, b"GET / HTTP/1.1\r\nHost: a\r\n\r\n", 0), (TX, b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n", 7)],
    False,
)
@given(st.lists(st.tuples(st.sampled_from([RX, TX]), HEADS, BODY_SIZES), max_size=12), st.booleans())
@example([(RX, b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n", size) for size in (5, 7)], True)
def test_a_body_told_with_its_head_is_a_body_told_after_it(turns, orderly):
    together, apart = Http1Parser(), Http1Parser()
    ends = [0, 0]
    for number, (direction, data, body_size) in enumerate(turns):
        at = Context(number + 1, 1, 1, 0, 0, 0)
        expected = apart.data(direction, ends[direction], data, at)
        ends[direction] += len(data) + body_size
        if body_size:
            expected += apart.progress(direction, ends[direction], at.ts, b"")
        assert (
            together.data(direction, ends[direction] - len(data) - body_size, data, at, body_size) == expected
        )
    assert together.close(99, orderly) == apart.close(99, orderly)
