"""Simulated TLS connections that are older than the agent: every exchange is joined, and none to another one.

What the kernel side reports is simulated as bpf/tls/binding.h does it: the sender's `write_seq` when it begins to
encrypt a request, the receiver's `copied_seq` when it began to send last and when it has decrypted the first bytes.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from hypothesis import given
from hypothesis import strategies as st

from autotrace.correlate.wire import WireJoins
from autotrace.model import Connection, Context, Exchange, OnWire, Role

WAY = "client to server"


@dataclass
class Turn:
    """One exchange. The ciphertext of its request has a record with the head, and `body` bytes more.

    `held` bytes of it leave only when the answer has begun to come (a server that does not wait for the body).
    `ahead` says how much of what has come the server takes from the socket when it needs the head, in thousandths
    of what it does not need. `writes` calls make the answer, and before each the server takes a `drained` part.
    """

    head: int
    body: int
    held: int
    ahead: int
    drained: int
    writes: int
    lost_sent: bool
    lost_received: bool
    lost_answer: bool


@dataclass
class Line:
    """The direction from client to server, in bytes of ciphertext since `start`, a 32-bit sequence number."""

    start: int
    written: int = 0
    copied: int = 0
    heard: int = 0
    joins: WireJoins = field(default_factory=lambda: WireJoins(lambda stage, what: None, capacity=64))

    def sequence(self, position: int) -> int:
        return (self.start + position) & 0xFFFFFFFF

    def copy(self, thousandths: int) -> None:
        self.copied += (self.written - self.copied) * thousandths // 1000


def exchange(number: int) -> Exchange:
    connection = Connection(1, 10, 2, 1, 0, 1, "127.0.0.1", 4000, "127.0.0.1", 443, False, None, True)
    return Exchange(
        connection, Role.CLIENT, Context(number, 10, 10, 0, 1, 0), 0, "GET", "/", "1.1", {}, number
    )


def converse(line: Line, number: int, turn: Turn) -> tuple[Exchange, Exchange | None, bool]:
    """One exchange: the sender, whom the receiver was joined to, and if the records of both came."""
    sender = exchange(number)
    begins = line.written
    if not turn.lost_sent:
        line.joins.sent(sender, None, OnWire(WAY, line.sequence(begins), 0))
    ends = begins + turn.head + turn.body
    line.written = max(begins + turn.head, ends - turn.held)
    line.copied = max(line.copied, begins + turn.head)
    line.copy(turn.ahead)
    found = None
    if not turn.lost_received:
        here = OnWire(WAY, line.sequence(line.heard), line.sequence(line.copied))
        found, conflict = line.joins.join(None, here)
        assert not conflict
    for _ in range(turn.writes):
        line.heard = line.copied
        line.copy(turn.drained)
    line.written = ends
    if not turn.lost_answer:
        sender.status, sender.end_ns = 200, number
        line.joins.ended(sender)
    return sender, found, not turn.lost_sent and not turn.lost_received


size = st.integers(0, 40_000)
share = st.sampled_from((0, 0, 500, 1000))
lost = st.sampled_from((False, False, True))
turns = st.lists(
    st.builds(Turn, st.integers(22, 20_000), size, size, share, share, st.integers(1, 3), lost, lost, lost),
    min_size=1,
    max_size=12,
)


@given(turns, st.sampled_from((1, 1 << 31, (1 << 32) - 30_000, (1 << 32) - 1)))
def test_a_client_that_waits_for_its_answers(conversation: list[Turn], start: int) -> None:
    line = Line(start)
    for number, turn in enumerate(conversation, 1):
        sender, found, told = converse(line, number, turn)
        assert found is (sender if told else None)


def test_what_came_before_the_range_or_behind_it_is_another_request() -> None:
    line = Line(7)
    line.joins.sent(exchange(1), None, OnWire(WAY, 100, 0))
    assert line.joins.join(None, OnWire(WAY, 101, 200)) == (None, False)
    assert line.joins.join(None, OnWire(WAY, 50, 100)) == (None, False)
    assert line.joins.join(None, OnWire(WAY, 100, 100)) == (None, False)
    assert line.joins.join(None, OnWire("another way", 50, 200)) == (None, False)
    assert line.joins.join(None, OnWire(WAY, 100, 101))[0] is not None
    # Only one can have received it.
    assert line.joins.join(None, OnWire(WAY, 100, 101)) == (None, True)
