"""An HTTP/2 server that answers nobody until so many requests are open at once: `h2_hold.py PORT LOG COUNT`.

Then it answers all of them, and logs one JSON line: how many there were, and on how many connections.
"""

from __future__ import annotations

import json
import selectors
import socket
import sys
from pathlib import Path

HEADERS, SETTINGS, PING = 1, 4, 6
END_STREAM, ACK, END_HEADERS = 1, 1, 4
PREFACE_SIZE = 24
STATUS_200 = b"\x88"


def frame(kind: int, flags: int, stream: int, payload: bytes = b"") -> bytes:
    return len(payload).to_bytes(3) + bytes([kind, flags]) + stream.to_bytes(4) + payload


class Peer:
    """A connection, and the streams that wait on it."""

    def __init__(self, connection: socket.socket) -> None:
        self.connection = connection
        self.streams: list[int] = []
        self._held = b""
        self._skip = PREFACE_SIZE
        connection.sendall(frame(SETTINGS, 0, 0))

    def read(self) -> bool:
        """Take what there is. False if the peer is gone."""
        data = self.connection.recv(1 << 16)
        self._held += data
        if self._skip and len(self._held) >= self._skip:
            self._held, self._skip = self._held[self._skip :], 0
        while not self._skip and len(self._held) >= 9:
            behind = 9 + int.from_bytes(self._held[:3])
            if len(self._held) < behind:
                break
            kind, flags = self._held[3], self._held[4]
            if kind == HEADERS:
                self.streams.append(int.from_bytes(self._held[5:9]))
            elif kind in (SETTINGS, PING) and not flags & ACK:
                self.connection.sendall(frame(kind, ACK, 0, self._held[9:behind] if kind == PING else b""))
            self._held = self._held[behind:]
        return bool(data)

    def answer(self) -> None:
        self.connection.sendall(
            b"".join(frame(HEADERS, END_STREAM | END_HEADERS, stream, STATUS_200) for stream in self.streams)
        )


def main() -> None:
    port, log, count = int(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3])
    selector, peers = selectors.DefaultSelector(), list[Peer]()
    listener = socket.create_server(("127.0.0.1", port), backlog=1024)
    selector.register(listener, selectors.EVENT_READ)
    while True:
        for key, _ in selector.select():
            if key.data is None:
                connection, _ = listener.accept()
                peers.append(Peer(connection))
                selector.register(connection, selectors.EVENT_READ, peers[-1])
            elif not key.data.read():
                selector.unregister(key.fileobj)
                key.data.connection.close()
        waiting = sum(len(peer.streams) for peer in peers)
        if waiting >= count:
            used = [peer for peer in peers if peer.streams]
            log.write_text(json.dumps({"requests": waiting, "connections": len(used)}) + "\n")
            for peer in used:
                peer.answer()
            peers.clear()


if __name__ == "__main__":
    main()
