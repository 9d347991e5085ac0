"""An HTTP/2 client that says what none may say (tests/fuzz/http2_sequences.py), and a server that lets it pass.

h2_forbidden.py server PORT LOG
h2_forbidden.py client PORT

Each sequence has a connection of its own, and stands between two requests, for /before and /after; an ending stands
after one. The server answers these streams only, and logs their numbers.
"""

from __future__ import annotations

import json
import socket
import socketserver
import sys
from collections.abc import Iterator
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "fuzz"))

from http2_sequences import ENDINGS, FIRST, GET, HEADERS, LAST, SEQUENCES, SETTINGS, WHOLE, path
from http2_walker import PREFACE, frame

PIECE, PIECES_MAX = 7, 300


def frames(connection: socket.socket, skip: int) -> Iterator[tuple[int, int]]:
    """Kind and stream of the frames that are read, up to the end of the connection."""
    held = b""
    while data := connection.recv(1 << 16):
        held += data
        if skip and len(held) >= skip:
            held, skip = held[skip:], 0
        while not skip and len(held) >= 9:
            behind = 9 + int.from_bytes(held[:3])
            if len(held) < behind:
                break
            yield held[3], int.from_bytes(held[5:9])
            held = held[behind:]


class Handler(socketserver.BaseRequestHandler):
    def handle(self) -> None:
        connection: socket.socket = self.request
        connection.sendall(frame(SETTINGS, 0, 0))
        answered = set()
        for kind, stream in frames(connection, len(PREFACE)):
            if kind == HEADERS and stream in (FIRST, LAST) and stream not in answered:
                answered.add(stream)
                with Path(sys.argv[3]).open("a") as log:
                    log.write(json.dumps({"stream": stream}) + "\n")
                connection.sendall(frame(HEADERS, WHOLE, stream, b"\x88"))


class Server(socketserver.ThreadingTCPServer):
    allow_reuse_address = True
    daemon_threads = True


def ask(connection: socket.socket, heard: Iterator[tuple[int, int]], stream: int, target: str) -> None:
    connection.sendall(frame(HEADERS, WHOLE, stream, GET[:2] + path(target)))
    while (HEADERS, stream) != next(heard):
        pass


def hold(port: int, said: bytes, in_pieces: bool, last: bool) -> None:
    with socket.create_connection(("127.0.0.1", port)) as connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        heard = frames(connection, 0)
        connection.sendall(PREFACE + frame(SETTINGS, 0, 0))
        ask(connection, heard, FIRST, "/before")
        size = PIECE if in_pieces else len(said)
        for at in range(0, len(said), size):
            connection.sendall(said[at : at + size])
        if last:
            ask(connection, heard, LAST, "/after")


def main() -> None:
    port = int(sys.argv[2])
    if sys.argv[1] == "server":
        Server(("127.0.0.1", port), Handler).serve_forever()
    between = [(sequence.data, True) for sequence in SEQUENCES.values()]
    for said, last in [*between, *((ending, False) for ending in ENDINGS.values())]:
        hold(port, said, False, last)
        if len(said) <= PIECE * PIECES_MAX:
            hold(port, said, True, last)


if __name__ == "__main__":
    main()
