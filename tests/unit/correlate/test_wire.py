"""The wire join: one sender, one receiver, bounded memory."""

from __future__ import annotations

from collections import Counter

import pytest

from autotrace.correlate.wire import KEEP_UNANSWERED_NS, WireJoins
from autotrace.model import Connection, Context, Exchange, Role


@pytest.fixture
def notes() -> Counter[str]:
    return Counter()


@pytest.fixture
def joins(notes: Counter[str]) -> WireJoins:
    return WireJoins(lambda stage, what: notes.update({what: 1}), capacity=3)


def client(start_ns: int = 1) -> Exchange:
    connection = Connection(1, 10, 2, 1, 0, 1, "10.0.0.1", 4000, "10.0.0.2", 80, True, None)
    at = Context(start_ns, 10, 10, 0, 1, 0)
    return Exchange(connection, Role.CLIENT, at, 1, "GET", "/", "1.1", {}, start_ns)


def finish(exchange: Exchange, end_ns: int, status: int = 200) -> Exchange:
    exchange.end_ns = end_ns
    exchange.status = status
    return exchange


def test_a_key_is_joined_once(joins: WireJoins, notes: Counter[str]) -> None:
    sender = client()
    joins.sent(sender, "k")
    assert joins.join("other") == (None, False)
    assert joins.join("k") == (sender, False)
    assert joins.join("k") == (None, True)
    assert notes == {"wire_conflict": 1}


def test_a_joined_key_is_free_again_when_its_sender_has_ended(joins: WireJoins, notes: Counter[str]) -> None:
    first, second = client(), client(5)
    joins.sent(first, "k")
    joins.join("k")
    joins.ended(finish(first, 4))
    assert len(joins) == 0
    joins.sent(second, "k")
    assert joins.join("k") == (second, False)
    assert not notes


def test_two_open_senders_of_one_key_are_both_left_out(joins: WireJoins, notes: Counter[str]) -> None:
    first, second = client(), client()
    joins.sent(first, "k")
    joins.sent(second, "k")
    assert joins.join("k") == (None, True)
    joins.ended(finish(second, 2))
    joins.ended(finish(first, 2))
    assert len(joins) == 0
    assert notes["wire_conflict"] == 2


def test_an_answered_request_that_went_elsewhere_is_forgotten(joins: WireJoins) -> None:
    sender = client()
    joins.sent(sender, "k")
    joins.ended(finish(sender, 2))
    assert len(joins) == 0


def test_an_unanswered_request_can_be_joined_for_a_while(joins: WireJoins) -> None:
    early, late = client(), client()
    joins.sent(early, "early")
    joins.sent(late, "late")
    joins.ended(finish(early, 2, status=0))
    joins.ended(finish(late, 2, status=0))
    joins.sent(client(2 + KEEP_UNANSWERED_NS), "x")
    assert joins.join("early") == (early, False)
    joins.sent(client(3 + KEEP_UNANSWERED_NS), "y")
    assert joins.join("late") == (None, False)
    assert len(joins) == 2


def test_a_recurring_key_belongs_to_its_latest_sender(joins: WireJoins, notes: Counter[str]) -> None:
    first, second = client(), client(5)
    joins.sent(first, "k")
    joins.ended(finish(first, 2, status=0))
    joins.sent(second, "k")
    joins.sent(client(3 + KEEP_UNANSWERED_NS), "x")
    assert joins.join("k") == (second, False)
    assert not notes


def test_the_oldest_goes_first_when_it_is_full(joins: WireJoins, notes: Counter[str]) -> None:
    senders = [client(n) for n in range(1, 6)]
    for n, sender in enumerate(senders):
        joins.sent(sender, str(n))
    assert len(joins) == 3
    assert notes == {"wire_evicted": 2}
    assert joins.join("0") == (None, False)
    assert joins.join("4") == (senders[4], False)
    for sender in senders:
        joins.ended(finish(sender, 9))
    assert len(joins) == 0
