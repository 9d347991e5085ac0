"""A gRPC client that cuts what it says where others do not: `grpc_cuts.py HOW PORT LOG`.

HOW: `calls` (each message in a DATA frame of its own, all bytes but the first in writes of 1 to 7), `frames` (of
each message the first bytes in DATA frames of 1 to 7 bytes, those of all streams in turn), `both`. It reads 1 to
7 bytes at a time. The methods are those of grpc_peer.py's kind `both`, all at once; it logs one JSON line for
each: method, messages.
"""

from __future__ import annotations

import json
import random
import socket
import sys
from pathlib import Path

from hpack import Encoder

STREAMS = 60
DATA, HEADERS, SETTINGS = 0, 1, 4
END_STREAM, ACK, END_HEADERS = 1, 1, 4
PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
SHORTEST, LONGEST = 1, 7
CUT = 20
"""Bytes of a message that are cut."""


def frame(kind: int, flags: int, stream: int, payload: bytes = b"") -> bytes:
    return len(payload).to_bytes(3) + bytes([kind, flags]) + stream.to_bytes(4) + payload


def pieces(text: bytes, most: int) -> list[bytes]:
    """`text` in pieces of 1 to 7 bytes, but what is behind `most` bytes whole."""
    out, at = [], 0
    while at < min(most, len(text)):
        size = random.randint(SHORTEST, LONGEST)
        out.append(text[at : at + size])
        at += size
    return [*out, text[at:]] if at < len(text) else out


def conversation(numbers: range, in_frames: bool) -> bytes:
    """All that the client says but for the acknowledgement of the server's settings."""
    encoder, rest = Encoder(), {}
    said = PREFACE + frame(SETTINGS, 0, 0)
    for number in numbers:
        fields = [
            (":method", "POST"),
            (":scheme", "http"),
            (":path", f"/shop.Cart/both-{number}"),
            (":authority", "127.0.0.1"),
            ("te", "trailers"),
            ("content-type", "application/grpc"),
        ]
        said += frame(HEADERS, END_HEADERS, 2 * number + 1, encoder.encode(fields))
        messages = [b"\0" + number.to_bytes(4) + b"q" * number] * (number % 5)
        rest[2 * number + 1] = [
            piece for each in messages for piece in (pieces(each, CUT) if in_frames else [each])
        ]
    while rest:
        stream = random.choice(list(rest))
        if rest[stream]:
            said += frame(DATA, 0, stream, rest[stream].pop(0))
        else:
            said += frame(DATA, END_STREAM, stream)
            del rest[stream]
    return said


def await_ends(connection: socket.socket, count: int) -> None:
    """Read until so many streams are over."""
    held = b""
    while count:
        data = connection.recv(random.randint(SHORTEST, LONGEST))
        assert data, "the server went away"
        held += data
        while len(held) >= 9 and len(held) >= (behind := 9 + int.from_bytes(held[:3])):
            count -= held[3] == HEADERS and held[4] & END_STREAM
            if held[3] == SETTINGS and not held[4] & ACK:
                connection.sendall(frame(SETTINGS, ACK, 0))
            held = held[behind:]


def main() -> None:
    how, port, log = sys.argv[1], int(sys.argv[2]), Path(sys.argv[3])
    numbers = range(STREAMS)
    said = conversation(numbers, how != "calls")
    with socket.create_connection(("127.0.0.1", port)) as connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for piece in pieces(said, 0 if how == "frames" else len(said)):
            connection.sendall(piece)
        await_ends(connection, STREAMS)
    entries = [{"method": f"shop.Cart/both-{number}", "messages": number % 5} for number in numbers]
    log.write_text("".join(json.dumps(entry) + "\n" for entry in entries))


if __name__ == "__main__":
    main()
