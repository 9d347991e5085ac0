"""Wire keys: both ends of a connection give a byte the same name, and no other byte has it."""

from __future__ import annotations

import pytest

from autotrace.model import Connection, Direction, OnWire


def ends(tls: bool, from_start: bool = True) -> tuple[Connection, Connection]:
    near, far = ("10.0.0.1", 5000), ("10.0.0.2", 443)
    return (
        Connection(1, 10, 2, 1, 0, 7, *near, *far, from_start, None, tls),
        Connection(2, 20, 2, 2, 0, 7, *far, *near, from_start, None, tls),
    )


@pytest.mark.parametrize("tls", [False, True])
def test_both_ends_agree(tls: bool) -> None:
    client, server = ends(tls)
    key = client.wire_key(Direction.TX, 1234)
    assert key == server.wire_key(Direction.RX, 1234)
    assert key != server.wire_key(Direction.TX, 1234)
    assert key != client.wire_key(Direction.TX, 1235)


def test_sequence_numbers_wrap_and_plaintext_does_not() -> None:
    (plain, _), (encrypted, _) = ends(False), ends(True)
    assert plain.wire_key(Direction.TX, 1) == plain.wire_key(Direction.TX, 1 + (1 << 32))
    assert encrypted.wire_key(Direction.TX, 1) != encrypted.wire_key(Direction.TX, 1 + (1 << 32))


def test_plaintext_that_was_not_counted_from_its_start_has_no_name() -> None:
    client, _ = ends(tls=True, from_start=False)
    assert client.wire_key(Direction.TX, 0) is None
    older, _ = ends(tls=False, from_start=False)
    assert older.wire_key(Direction.TX, 0) is not None


def test_where_the_ciphertext_of_a_turn_begins() -> None:
    client, server = ends(tls=True, from_start=False)
    assert client.on_wire(Direction.TX, 0) is None
    client.turn_begins(Direction.TX, 300, 1000, 0)
    server.turn_begins(Direction.RX, 500, 990, 1200)
    sent, received = client.on_wire(Direction.TX, 300), server.on_wire(Direction.RX, 500)
    assert sent is not None
    assert received is not None
    assert sent.way == received.way
    assert received.holds(sent.start)
    # What comes later in a turn, and the other direction, are not told by it.
    assert client.on_wire(Direction.TX, 301) is None
    assert client.on_wire(Direction.RX, 300) is None
    client.forget_turn()
    assert client.on_wire(Direction.TX, 300) is None


@pytest.mark.parametrize("start", [0, 1 << 31, (1 << 32) - 50])
def test_a_range_of_sequence_numbers_wraps(start: int) -> None:
    received = OnWire("", start, (start + 100) & 0xFFFFFFFF)
    inside = [n for n in range(-3, 103) if received.holds((start + n) & 0xFFFFFFFF)]
    assert inside == list(range(100))
    assert not OnWire("", start, start).holds(start)


def test_plain_text_and_tls_are_not_confused() -> None:
    (plain, _), (encrypted, _) = ends(False), ends(True)
    assert plain.wire_key(Direction.TX, 5) != encrypted.wire_key(Direction.TX, 5)
