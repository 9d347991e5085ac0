"""Joins the two ends of a connection on this host: what one side sent is what the other received."""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Callable
from typing import Final

from autotrace.model import Exchange, OnWire

Key = str
"""What `Connection.wire_key` gives."""

KEEP_UNANSWERED_NS: Final = 10_000_000_000
"""How long a request whose sender gave up can still be joined. It may sit in the server's accept queue."""


class _Sent:
    """`taken`: the other end has shown up, or two requests claim the key."""

    __slots__ = ("client", "key", "on_wire", "taken")

    def __init__(self, client: Exchange, key: Key | None, on_wire: OnWire | None) -> None:
        self.client = client
        self.key = key
        self.on_wire = on_wire
        self.taken = False


class WireJoins:
    """Requests that were sent on this host, by wire key, until the other end has shown up.

    Where an end of a TLS connection is older than the agent, they are found by where their ciphertext is
    (`OnWire`): the latest one of a connection counts, for its client sends none before the last one is answered.

    A request that was answered without the other end having shown up went to another host, or to a process
    that is not watched. At most `capacity` requests are kept; the oldest go first, counted. A key is joined
    once: whoever comes after that, while the sender's exchange is open, meets a conflict.
    """

    def __init__(self, note: Callable[[str, str], object], capacity: int) -> None:
        self._note = note
        self._capacity = capacity
        self._by_key: dict[Key, _Sent] = {}
        self._by_way: dict[str, _Sent] = {}
        self._by_client: OrderedDict[Exchange, _Sent] = OrderedDict()
        self._unanswered: deque[_Sent] = deque()

    def __len__(self) -> int:
        return len(self._by_client)

    def sent(self, client: Exchange, key: Key | None, on_wire: OnWire | None = None) -> None:
        """`client` sent its request under `key`, at `on_wire`; one of them is known."""
        self._expire(client.start_ns)
        earlier = self._by_key.get(key) if key is not None else None
        if earlier is not None:
            if not earlier.client.end_ns:
                self._note("correlate", "wire_conflict")
                earlier.taken = True
                return
            self._remove(earlier)
        elif len(self._by_client) >= self._capacity:
            self._remove(next(iter(self._by_client.values())))
            self._note("correlate", "wire_evicted")
        sent = self._by_client[client] = _Sent(client, key, on_wire)
        if key is not None:
            self._by_key[key] = sent
        if on_wire is not None:
            self._by_way[on_wire.way] = sent

    def join(self, key: Key | None, on_wire: OnWire | None = None) -> tuple[Exchange | None, bool]:
        """The exchange that sent what was received under `key`, at `on_wire`, and whether there was a conflict
        over it."""
        sent = self._by_key.get(key) if key is not None else None
        if sent is None and on_wire is not None:
            sent = self._by_way.get(on_wire.way)
            if sent is not None and not _begins_in(sent, key, on_wire):
                return None, False
        if sent is None:
            return None, False
        if sent.taken:
            self._note("correlate", "wire_conflict")
            return None, True
        sent.taken = True
        return sent.client, False

    def ended(self, client: Exchange) -> None:
        """The sender's exchange is over."""
        sent = self._by_client.get(client)
        if sent is None:
            return
        if sent.taken or client.status:
            self._remove(sent)
        else:
            self._unanswered.append(sent)

    def _expire(self, now: int) -> None:
        unanswered = self._unanswered
        while unanswered and unanswered[0].client.end_ns < now - KEEP_UNANSWERED_NS:
            self._remove(unanswered.popleft())

    def _remove(self, sent: _Sent) -> None:
        if self._by_client.pop(sent.client, None) is not sent:
            return
        if sent.key is not None:
            del self._by_key[sent.key]
        if sent.on_wire is not None and self._by_way.get(sent.on_wire.way) is sent:
            del self._by_way[sent.on_wire.way]


def _begins_in(sent: _Sent, key: Key | None, on_wire: OnWire) -> bool:
    """Tell if what was sent begins in the range that was received. If both ends have keys, only these count."""
    if key is not None and sent.key is not None:
        return False
    return sent.on_wire is not None and on_wire.holds(sent.on_wire.start)
