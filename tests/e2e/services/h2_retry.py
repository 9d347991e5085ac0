"""HTTP/2 whose server, when a call took less than it was given, puts another frame before what is left: nginx does
so without TLS. `h2_retry.py PORT LOG`

Three requests, the third when the first two are answered. The client reads when the server has found no room. LOG
gets a JSON line for each stream that is answered, in their order.
"""

from __future__ import annotations

import json
import os
import select
import socket
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "fuzz"))

from http2_sequences import GET, HEADERS, SETTINGS, WHOLE, path
from http2_walker import PREFACE, frame

DATA, END_HEADERS, END_STREAM = 0, 4, 1
SIZE = 16_000
FRAMES = 40
OK = b"\x88"
AUTHORITY = b"\x01\x04shop"


def request(stream: int) -> bytes:
    return frame(HEADERS, WHOLE, stream, GET[:2] + path(f"/{stream}") + AUTHORITY)


def answer_two(connection: socket.socket, blocked: int) -> None:
    """Stream 1 gets a body that does not fit; stream 3 its answer as soon as that shows."""
    body = [frame(DATA, 0, 1, b"x" * SIZE) for _ in range(FRAMES)] + [frame(DATA, END_STREAM, 1)]
    left = [frame(HEADERS, END_HEADERS, 1, OK), *body]
    connection.setblocking(False)
    inserted = False
    while left:
        try:
            sent = connection.sendmsg(left)
        except BlockingIOError:
            sent = 0
        whole = sent == sum(map(len, left))
        while left and sent >= len(left[0]):
            sent -= len(left.pop(0))
        if sent:
            left[0] = left[0][sent:]
        if not whole and not inserted:
            inserted = True
            left.insert(1, frame(HEADERS, WHOLE, 3, OK))
            os.write(blocked, b"x")
        select.select([], [connection], [])
    assert inserted
    connection.setblocking(True)


def serve(connection: socket.socket, log: Path, blocked: int) -> None:
    heard = connection.makefile("rb")
    heard.read(len(PREFACE))
    connection.sendall(frame(SETTINGS, 0, 0))
    asked = []
    while head := heard.read(9):
        heard.read(int.from_bytes(head[:3]))
        if head[3] != HEADERS:
            continue
        asked.append(int.from_bytes(head[5:]))
        if asked == [1, 3]:
            answer_two(connection, blocked)
        elif asked[2:]:
            connection.sendall(frame(HEADERS, WHOLE, asked[-1], OK))
    log.write_text("".join(json.dumps({"stream": stream}) + "\n" for stream in asked))


def ask(port: int, blocked: int) -> None:
    connection = socket.socket()
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 8192)
    connection.connect(("127.0.0.1", port))
    heard = connection.makefile("rb")
    connection.sendall(PREFACE + frame(SETTINGS, 0, 0) + request(1) + request(3))
    os.read(blocked, 1)
    ended: set[int] = set()
    while 5 not in ended:
        head = heard.read(9)
        heard.read(int.from_bytes(head[:3]))
        if head[3] in (DATA, HEADERS) and head[4] & END_STREAM:
            ended.add(int.from_bytes(head[5:]))
            if ended == {1, 3}:
                connection.sendall(request(5))


def main() -> None:
    port, log = int(sys.argv[1]), Path(sys.argv[2])
    listener = socket.create_server(("127.0.0.1", port))
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 65536)
    has_found, found = os.pipe()
    if os.fork():
        serve(listener.accept()[0], log, found)
        assert os.wait()[1] == 0
    else:
        ask(port, has_found)


if __name__ == "__main__":
    main()
