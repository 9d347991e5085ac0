"""One end of a connection, and the names that both ends give its bytes."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple

from autotrace.model.context import Context, Direction


class OnWire(NamedTuple):
    """Where the ciphertext of a message begins, as far as one end of a TLS connection can tell.

    `way` is the direction's name, the same at both ends. The sender knows a TCP sequence number, `start`, at or
    behind which the ciphertext begins (`end` is 0); the receiver a range, from `start` to before `end`. The first
    `start` is in the receiver's range, and that of no other request is, if its client waits for its answers: the
    range starts at what was received when the receiver began to send last. So what begins in it has no answer yet.
    """

    way: str
    start: int
    end: int

    def holds(self, sent: int) -> bool:
        """Tell if `sent`, the sender's `start`, is in the receiver's range. Sequence numbers wrap at 32 bits."""
        return (sent - self.start) & 0xFFFFFFFF < (self.end - self.start) & 0xFFFFFFFF


@dataclass(slots=True)
class Connection:
    """One end of a connection, as one watched process holds it."""

    id: int
    pid: int
    family: int
    socket: int
    peer_socket: int
    netns: int
    local_address: str
    local_port: int
    remote_address: str
    remote_port: int
    from_start: bool
    opened_at: Context | None
    tls: bool = False
    requests: int = 0
    """Requests seen so far on this connection."""
    multiplexed: bool = False
    """Its exchanges are streams (HTTP/2): each message says which one it belongs to."""
    heard_at: int = 0
    """When the last byte was received before this end began to send its last turn; 0 if none was, or if it is
    multiplexed."""
    _turn: tuple[Direction, int, int, int] | None = field(default=None, init=False, repr=False, compare=False)
    """What `turn_begins` was told last."""
    _wire_names: tuple[tuple[str, str], ...] = field(default=(), init=False, repr=False, compare=False)
    """By direction: what stands before and behind the position in its wire keys. Made when first needed."""

    def wire_key(self, direction: Direction, position: int) -> str | None:
        """Name a byte of this connection so that both ends give the same name.

        TCP: (sender, receiver, sequence number). Addresses of the loopback range mean different hosts in
        different network namespaces, so the namespace is part of the key for them alone. Unix sockets: the two
        kernel sockets and the byte count, sound only if the connection was seen from its start; None if not.
        TLS: its plaintext bytes are counted, which is as sound only from the start.
        """
        if not self.names_bytes:
            return None
        if self.family != 1 and not self.tls:
            position &= 0xFFFFFFFF
        if not self._wire_names:
            self._wire_names = self._name_wire(receives=True), self._name_wire(receives=False)
        before, behind = self._wire_names[direction]
        return f"{before}{position}{behind}"

    def stream_key(self, direction: Direction, stream: int) -> str | None:
        """Name a stream (RFC 9113 section 5.1.1) so that both ends give the same name; `direction` is that of
        its request. Unlike a byte count, it is sound on a Unix socket of any age."""
        if not self.names_streams:
            return None
        if not self._wire_names:
            self._wire_names = self._name_wire(receives=True), self._name_wire(receives=False)
        before, behind = self._wire_names[direction]
        return f"('stream', {before}{stream}{behind})"

    @property
    def names_bytes(self) -> bool:
        """Tell if `wire_key` gives a name."""
        if self.family == 1:
            return self.from_start and self.peer_socket != 0
        return self.from_start or not self.tls

    @property
    def names_streams(self) -> bool:
        """Tell if `stream_key` gives a name."""
        return self.family != 1 or self.peer_socket != 0

    def turn_begins(self, direction: Direction, position: int, start: int, end: int) -> None:
        """Plaintext of TLS begins a turn; see `Chunk` for `start` and `end`."""
        self._turn = direction, position, start, end

    def forget_turn(self) -> None:
        """The request that begins this turn may not be the only one that waits for its answer."""
        self._turn = None

    def on_wire(self, direction: Direction, position: int) -> OnWire | None:
        """Tell where the ciphertext of a message is whose plaintext begins at `position`; None if it is not known.
        It did not begin a turn then, or it may not be the only one that waits."""
        if self._turn is None or self._turn[0] != direction or self._turn[1] != position:
            return None
        if not self._wire_names:
            self._wire_names = self._name_wire(receives=True), self._name_wire(receives=False)
        before, behind = self._wire_names[direction]
        return OnWire(before + behind, self._turn[2], self._turn[3])

    def _name_wire(self, receives: bool) -> tuple[str, str]:
        if self.family == 1:
            ends: tuple[object, object] = self.socket, self.peer_socket
            namespace = ""
        else:
            ends = (self.local_address, self.local_port), (self.remote_address, self.remote_port)
            loopback = self.local_address.startswith("127.") or self.local_address == "::1"
            namespace = f", {self.netns if loopback else 0}"
        sender, receiver = reversed(ends) if receives else ends
        kind = "unix" if self.family == 1 else "tls" if self.tls else "tcp"
        return f"({kind!r}, {sender}, {receiver}, ", f"{namespace})"
