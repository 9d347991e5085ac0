"""Records of the ring become events, and bytes that are no record give one typed error."""

from __future__ import annotations

import socket
import struct
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from autotrace import abi
from autotrace.kernel.decode import DecodeError, decode
from autotrace.model import (
    Chunk,
    ConnectionClosed,
    ConnectionOpened,
    Context,
    Direction,
    Frames,
    FramesOrigin,
    ProcessExited,
    ProcessSeen,
    ProcessStarted,
    Progress,
    StreamClaim,
)

TYPE = abi.EventType
FLAG = abi.ConnFlag
UNIX, INET, INET6 = socket.AF_UNIX, socket.AF_INET, socket.AF_INET6
TS, CONN, PID, TID = 5_000, (9 << 12) | 3, 42, 43
U64_MAX = (1 << 64) - 1


def header(kind: int, size: int, conn: int = CONN) -> tuple[int, ...]:
    return kind, size, TS, conn, PID, TID


def reach(end: int = 0, last_ts: int = 0, tail: bytes = b"") -> tuple[Any, ...]:
    """The kernel side keeps a tail at the end of its eight bytes."""
    return end, last_ts, tail.rjust(8, b"\xaa"), len(tail), 0


NO_REACH = (0, 0, b"", 0, 0)
NO_CONTEXT = (0,) * 7


def chunk(
    data: bytes,
    direction: int = 0,
    other: tuple[Any, ...] = NO_REACH,
    body_size: int = 0,
    wire: tuple[int, int] = (0, 0),
) -> bytes:
    size = abi.CHUNK_EVENT.size + len(data)
    at = (4_999, 77, 12_345, PID, TID, 6, 0)
    return (
        abi.CHUNK_EVENT.pack(
            *header(TYPE.CHUNK, size), *at, *other, 1 << 33, 4, direction, len(data), body_size, *wire
        )
        + data
    )


def progress(direction: int = 1, tail: bytes = b"last") -> bytes:
    size = abi.PROGRESS_EVENT.size
    return abi.PROGRESS_EVENT.pack(*header(TYPE.PROGRESS, size), *reach(900, 800, tail), direction, 0)


def connection(
    kind: int = TYPE.CONN_OPEN,
    family: int = INET,
    local: bytes = b"\x7f\0\0\1",
    remote: bytes = b"\x0a\0\0\2",
    flags: int = FLAG.CONN_ESTABLISHED,
    error: int = 0,
    opened: tuple[int, ...] = NO_CONTEXT,
) -> bytes:
    return abi.CONN_EVENT.pack(
        *header(kind, abi.CONN_EVENT.size),
        *(0xFFFF_8880_0000_1000, 0xFFFF_8880_0000_2000, 4_026_531_840, family, flags, 8080, 50_000, error),
        *opened,
        *reach(1000, 1001, b"rx"),
        *reach(2000, 2001, b"tx bytes"),
        local,
        remote,
    )


def process(kind: int, parent: int = 0, comm: bytes = b"nginx") -> bytes:
    return abi.PROCESS_EVENT.pack(*header(kind, abi.PROCESS_EVENT.size, conn=0), parent, 0, comm)


def stream(
    path: bytes = b"/shop.Cart/Add", flags: int = 0, direction: int = 0, cause: tuple[int, int] = (0, 0)
) -> bytes:
    size = abi.STREAM_EVENT.size + len(path)
    fields = (30, 29, 31, 32, cause[0], 7, cause[1], direction, flags, 0, len(path))
    return abi.STREAM_EVENT.pack(*header(TYPE.STREAM, size), *fields) + path


def frames(data: bytes = b"\0\0\0\4\0\0\0\0\0", lineage: tuple[int, ...] = ()) -> bytes:
    size = abi.FRAMES_EVENT.size + len(data) + 8 * len(lineage)
    at = (4_999, 77, 12_345, PID, TID, 6, 0)
    fields = (1 << 33, 3, 1, 0, 0, len(data), len(lineage))
    return (
        abi.FRAMES_EVENT.pack(*header(TYPE.FRAMES, size), *at, *fields)
        + data
        + struct.pack(f"={len(lineage)}Q", *lineage)
    )


EVERY_RECORD = [
    frames(),
    frames(lineage=(900, 800, U64_MAX)),
    connection(),
    connection(TYPE.CONN_CLOSE, error=104, opened=(1, 2, 3, 4, 5, 6, 0)),
    connection(family=INET6),
    connection(family=UNIX, local=b"/run/app.sock"),
    chunk(b"GET / HTTP/1.1\r\n\r\n", other=reach(10, 20, b"\r\n")),
    progress(),
    stream(),
    process(TYPE.PROCESS_START, parent=7),
    process(TYPE.PROCESS_SEEN),
    process(TYPE.PROCESS_EXIT),
]


def test_a_chunk() -> None:
    event = decode(chunk(b"GET /", other=reach(500, 400, b"end")))
    at = Context(ts=4_999, pid=PID, tid=TID, task=77, run=6, cause=12_345)
    assert event == Chunk(CONN, Direction.RX, 4, 1 << 33, b"GET /", at, 500, 400, b"end")
    assert decode(chunk(b"", direction=1)) == Chunk(CONN, Direction.TX, 4, 1 << 33, b"", at, 0, 0, b"")
    ciphertext = decode(chunk(b"", direction=1, body_size=6, wire=(7, 8)))
    assert ciphertext == Chunk(CONN, Direction.TX, 4, 1 << 33, b"", at, 0, 0, b"", 6, 7, 8)


def test_frames() -> None:
    at = Context(ts=4_999, pid=PID, tid=TID, task=77, run=6, cause=12_345)
    origin = FramesOrigin.FOLLOWS
    assert decode(frames(b"frame")) == Frames(CONN, Direction.TX, 3, 1 << 33, b"frame", 0, origin, at)
    event = decode(frames(b"frame", (900, 800)) + b"\0\0\0")
    assert isinstance(event, Frames)
    assert (event.data, event.at) == (b"frame", at._replace(lineage=(900, 800)))


def test_a_lineage_longer_than_its_record_is_refused() -> None:
    longer = bytearray(frames())
    struct.pack_into("<I", longer, abi.FRAMES_EVENT.size - 4, 0xFFFF_FFFF)
    with pytest.raises(DecodeError, match="FRAMES"):
        decode(bytes(longer))


def test_a_runtimes_word_on_a_request() -> None:
    both = abi.StreamFlag.STREAM_GRPC | abi.StreamFlag.STREAM_OWN_TASK
    assert decode(stream(flags=both)) == StreamClaim(
        TS, CONN, PID, 30, 31, 32, 7, Direction.RX, "/shop.Cart/Add", True, True, 29
    )
    assert decode(stream(b"", direction=1)) == StreamClaim(
        TS, CONN, PID, 30, 31, 32, 7, Direction.TX, "", False, False, 29
    )
    event = decode(stream(cause=(11, 12)))
    assert isinstance(event, StreamClaim)
    assert (event.cause, event.cause_stream, event.path) == (11, 12, "/shop.Cart/Add")
    with pytest.raises(DecodeError, match="STREAM"):
        decode(stream()[:-3])


def test_the_ring_rounds_a_record_up_and_that_is_no_data() -> None:
    event = decode(chunk(b"GET /") + b"\0\0\0")
    assert isinstance(event, Chunk)
    assert event.data == b"GET /"


@pytest.mark.parametrize(("code", "direction"), [(0, Direction.RX), (1, Direction.TX)])
def test_progress(code: int, direction: Direction) -> None:
    assert decode(progress(code)) == Progress(TS, CONN, direction, 900, 800, b"last")


@pytest.mark.parametrize("tail", [b"", b"\n", b"1234567", b"12345678"])
def test_a_tail_has_the_length_it_says(tail: bytes) -> None:
    event = decode(progress(tail=tail))
    assert isinstance(event, Progress)
    assert event.tail == tail


def test_a_connection_that_was_seen_being_made() -> None:
    flags = FLAG.CONN_ESTABLISHED | FLAG.CONN_FROM_START | FLAG.CONN_OUTGOING
    event = decode(connection(flags=flags, opened=(100, 8, 9, PID, TID, 2, 0)))
    assert event == ConnectionOpened(
        ts=TS,
        conn=CONN,
        pid=PID,
        family=INET,
        socket=0xFFFF_8880_0000_1000,
        peer_socket=0xFFFF_8880_0000_2000,
        netns=4_026_531_840,
        local_address="127.0.0.1",
        local_port=8080,
        remote_address="10.0.0.2",
        remote_port=50_000,
        from_start=True,
        opened_at=Context(ts=100, pid=PID, tid=TID, task=8, run=2, cause=9),
        rx_end=1000,
        rx_last_ts=1001,
        tx_end=2000,
        tx_last_ts=2001,
    )


def test_a_connection_whose_plaintext_is_captured() -> None:
    event = decode(connection(flags=FLAG.CONN_TLS))
    assert isinstance(event, ConnectionOpened)
    assert event.tls


def test_an_older_connection_has_no_opening() -> None:
    event = decode(connection())
    assert isinstance(event, ConnectionOpened)
    assert (event.from_start, event.opened_at) == (False, None)


@pytest.mark.parametrize("established", [True, False])
def test_a_close(established: bool) -> None:
    flags = FLAG.CONN_OUTGOING | (FLAG.CONN_ESTABLISHED if established else 0)
    event = decode(connection(TYPE.CONN_CLOSE, flags=flags, error=111))
    assert isinstance(event, ConnectionClosed)
    assert event[:4] == (TS, CONN, 111, established)
    assert event[4:10] == (1000, 1001, b"rx", 2000, 2001, b"tx bytes")
    assert event.opened == decode(connection(flags=flags, error=111))


@pytest.mark.parametrize(
    ("family", "raw", "text"),
    [
        (INET, bytes([192, 0, 2, 1]), "192.0.2.1"),
        (INET, b"", "0.0.0.0"),
        (INET6, socket.inet_pton(INET6, "2001:db8::7"), "2001:db8::7"),
        (INET6, socket.inet_pton(INET6, "::1"), "::1"),
        (INET6, b"", "::"),
        (INET6, socket.inet_pton(INET6, "::ffff:192.0.2.1"), "192.0.2.1"),
        (UNIX, b"/run/app.sock", "/run/app.sock"),
        (UNIX, b"\0app-7", "@app-7"),
        (UNIX, b"", ""),
        (UNIX, b"/run/\xff\xfe", "/run/\ufffd\ufffd"),
        (UNIX, b"/" + b"x" * 107, "/" + "x" * 107),
    ],
)
def test_an_address_as_text(family: int, raw: bytes, text: str) -> None:
    event = decode(connection(family=family, local=raw))
    assert isinstance(event, ConnectionOpened)
    assert event.local_address == text


def test_processes() -> None:
    assert decode(process(TYPE.PROCESS_START, parent=7)) == ProcessStarted(TS, PID, 7, "nginx")
    assert decode(process(TYPE.PROCESS_START)) == ProcessStarted(TS, PID, 0, "nginx")
    assert decode(process(TYPE.PROCESS_SEEN)) == ProcessSeen(TS, PID)
    assert decode(process(TYPE.PROCESS_EXIT)) == ProcessExited(TS, PID)


@pytest.mark.parametrize(
    ("raw", "text"),
    [(b"a" * 15, "a" * 15), (b"a" * 16, "a" * 16), (b"sh\0old name", "sh"), (b"\xe9t\xe9", "\ufffdt\ufffd")],
)
def test_the_name_of_a_program_ends_at_its_nul(raw: bytes, text: str) -> None:
    assert decode(process(TYPE.PROCESS_START, comm=raw)) == ProcessStarted(TS, PID, 0, text)


@pytest.mark.parametrize("record", EVERY_RECORD, ids=lambda record: TYPE(record[0]).name)
def test_a_record_that_is_cut_short_is_refused_at_every_byte(record: bytes) -> None:
    for length in range(len(record)):
        with pytest.raises(DecodeError):
            decode(record[:length])


def test_what_no_kernel_side_of_this_version_sends_is_refused() -> None:
    whole = chunk(b"GET /")
    longer = bytearray(whole)
    struct.pack_into("<I", longer, abi.CHUNK_EVENT.size - 16, 6)
    for record, reason in [
        (bytes(longer), "6 bytes of data"),
        (chunk(b"x", direction=2), "CHUNK"),
        (progress(direction=7), "PROGRESS"),
        (process(0), "unknown type 0"),
        (process(max(TYPE) + 1), f"unknown type {max(TYPE) + 1}"),
    ]:
        with pytest.raises(DecodeError, match=reason):
            decode(record)


@pytest.mark.parametrize("record", EVERY_RECORD, ids=lambda record: TYPE(record[0]).name)
def test_a_type_of_more_than_one_byte_is_not_taken_for_another(record: bytes) -> None:
    with pytest.raises(DecodeError):
        decode(record[:1] + b"\1\0\0" + record[4:])


def test_a_tail_longer_than_it_can_be_is_refused() -> None:
    size = abi.PROGRESS_EVENT.size
    record = abi.PROGRESS_EVENT.pack(*header(TYPE.PROGRESS, size), 900, 800, b"12345678", 9, 0, 0, 0)
    with pytest.raises(DecodeError):
        decode(record)


def test_an_unknown_address_family_is_refused() -> None:
    with pytest.raises(DecodeError, match="family 99"):
        decode(connection(family=99))


@given(st.binary(max_size=600))
@example(b"")
def test_noise_gives_an_event_or_the_one_error(data: bytes) -> None:
    with suppress(DecodeError):
        decode(data)


@given(
    st.sampled_from(EVERY_RECORD),
    st.lists(st.tuples(st.integers(0, 511), st.integers(0, 255)), max_size=6),
    st.integers(0, 60),
)
def test_damage_gives_an_event_or_the_one_error(
    record: bytes, changes: list[tuple[int, int]], cut: int
) -> None:
    damaged = bytearray(record)
    for offset, value in changes:
        damaged[offset % len(damaged)] = value
    with suppress(DecodeError):
        decode(bytes(damaged[: len(damaged) - cut]))


@given(
    st.binary(max_size=300),
    st.integers(0, 1),
    st.binary(max_size=8),
    st.integers(0, U64_MAX),
    st.integers(1, U64_MAX),
    st.integers(0, 8192),
)
def test_what_was_packed_comes_out(
    data: bytes, direction: int, tail: bytes, end: int, last_ts: int, body_size: int
) -> None:
    event = decode(chunk(data, direction, reach(end, last_ts, tail), body_size))
    assert isinstance(event, Chunk)
    assert (event.data, event.direction) == (data, Direction(direction))
    assert (event.other_end, event.other_last_ts, event.other_tail) == (end, last_ts, tail)
    assert (event.body_size, event.wire_from, event.wire_end) == (body_size, 0, 0)


@given(st.from_regex(r"[!-~]{1,107}", fullmatch=True), st.booleans())
def test_a_unix_name_comes_out(name: str, abstract: bool) -> None:
    raw = (b"\0" if abstract else b"") + name.encode()
    event = decode(connection(family=UNIX, remote=raw))
    assert isinstance(event, ConnectionOpened)
    assert event.remote_address == ("@" if abstract else "") + name
