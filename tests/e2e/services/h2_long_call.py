"""Three requests of HTTP/2, the second behind so many frames in one call that no walk gets to its end.

h2_long_call.py PORT PATH [PIECES]

With PIECES the second request's call has as many pieces of memory instead, a frame in each.
"""

from __future__ import annotations

import socket
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "fuzz"))

from http2_sequences import GET, HEADERS, SETTINGS, WHOLE, path
from http2_walker import PREFACE, frame

EXTENSION = 0xEE
"""A kind of frame that every peer ignores (RFC 9113 section 5.5)."""

FRAMES = 12_000
AUTHORITY = b"\x01\x04shop"


def main() -> None:
    port, target = int(sys.argv[1]), sys.argv[2]
    pieces = int(sys.argv[3]) if len(sys.argv) > 3 else 0
    with socket.create_connection(("127.0.0.1", port)) as connection:
        heard = connection.makefile("rb")
        connection.settimeout(60)
        connection.sendall(PREFACE + frame(SETTINGS, 0, 0))
        for stream, before in ((1, 0), (3, pieces - 1 if pieces else FRAMES), (5, 0)):
            request = frame(HEADERS, WHOLE, stream, GET[:2] + path(target) + AUTHORITY)
            frames = [frame(EXTENSION, 0, 0, b"x")] * before + [request]
            sent = connection.sendmsg(frames) if pieces else 0
            connection.sendall(b"".join(frames)[sent:])
            ended = False
            while not ended:
                head = heard.read(9)
                heard.read(int.from_bytes(head[:3]))
                ended = head[3] in (0, HEADERS) and bool(head[4] & 1) and int.from_bytes(head[5:]) == stream


if __name__ == "__main__":
    main()
