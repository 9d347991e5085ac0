"""Joins the two ends of a connection on this host: what one side sent is what the other received."""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Callable

from autotrace.model import Exchange

Key = str
"""What `Connection.wire_key` gives."""

KEEP_UNANSWERED_NS = 10_000_000_000
"""How long a request whose sender gave up can still be joined. It may sit in the server's accept queue."""


class _Sent:
    """`taken`: the other end has shown up, or two requests claim the key."""

    __slots__ = ("client", "key", "taken")

    def __init__(self, key: Key, client: Exchange) -> None:
        self.key = key
        self.client = client
        self.taken = False


class WireJoins:
    """Requests that were sent on this host, by wire key, until the other end has shown up.

    A request that was answered without the other end having shown up went to another host, or to a process
    that is not watched. At most `capacity` requests are kept; the oldest go first, counted. A key is joined
    once: whoever comes after that, while the sender's exchange is open, meets a conflict.
    """

    def __init__(self, note: Callable[[str, str], object], capacity: int) -> None:
        self._note = note
        self._capacity = capacity
        self._by_key: OrderedDict[Key, _Sent] = OrderedDict()
        self._by_client: dict[Exchange, _Sent] = {}
        self._unanswered: deque[_Sent] = deque()

    def __len__(self) -> int:
        return len(self._by_key)

    def sent(self, key: Key, client: Exchange) -> None:
        """`client` sent its request under `key`."""
        self._expire(client.start_ns)
        earlier = self._by_key.get(key)
        if earlier is not None:
            if not earlier.client.end_ns:
                self._note("correlate", "wire_conflict")
                earlier.taken = True
                return
            self._remove(earlier)
        elif len(self._by_key) >= self._capacity:
            self._remove(next(iter(self._by_key.values())))
            self._note("correlate", "wire_evicted")
        self._by_key[key] = self._by_client[client] = _Sent(key, client)

    def join(self, key: Key) -> tuple[Exchange | None, bool]:
        """The exchange that sent what was received under `key`, and whether there was a conflict over it."""
        sent = self._by_key.get(key)
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
        if self._by_client.pop(sent.client, None) is sent:
            del self._by_key[sent.key]
