"""What a client may never send (RFC 9113, RFC 7541), named by what is wrong, as far as it can be said between two
good requests. `FIRST` is a stream that has been answered before, `LAST` one that will be begun after; the numbers
between are free.
"""

from __future__ import annotations

from typing import NamedTuple

from http2_walker import frame

DATA, HEADERS, PRIORITY, RST_STREAM, SETTINGS, PUSH_PROMISE, PING, GOAWAY, WINDOW_UPDATE, CONTINUATION = (
    range(10)
)
END_STREAM, ACK, END_HEADERS, PADDED, PRIORITISED = 0x1, 0x1, 0x4, 0x8, 0x20
FIRST, LAST = 1, 100_001

GET = bytes([0x82, 0x86, 0x84])  # static entries (RFC 7541 appendix A): GET, http, /
WHOLE = END_HEADERS | END_STREAM


class Sequence(NamedTuple):
    """`reasons`: what a parser says is malformed about it. `asked`: streams with a request that counts and never
    gets an answer; so many of them are `reset`."""

    data: bytes
    reasons: tuple[str, ...] = ()
    asked: int = 0
    reset: int = 0


def path(text: str) -> bytes:
    """A `:path` field that touches no table (RFC 7541 section 6.2.2)."""
    return b"\x04" + bytes([len(text)]) + text.encode()


def _flood(size: int, count: int) -> bytes:
    return frame(HEADERS, 0, 3, b"") + b"".join(frame(CONTINUATION, 0, 3, b"\0" * size) for _ in range(count))


SEQUENCES = {
    # Sizes (sections 4.2 and 6)
    "RST_STREAM of 3 bytes": Sequence(frame(RST_STREAM, 0, FIRST, b"abc"), ("frame_size",)),
    "RST_STREAM of 5 bytes": Sequence(frame(RST_STREAM, 0, FIRST, b"abcde"), ("frame_size",)),
    "PRIORITY of 4 bytes": Sequence(frame(PRIORITY, 0, FIRST, b"abcd")),
    "PING of 6 bytes": Sequence(frame(PING, 0, 0, b"abcdef")),
    "WINDOW_UPDATE of 3 bytes": Sequence(frame(WINDOW_UPDATE, 0, 0, b"abc")),
    "SETTINGS of 5 bytes": Sequence(frame(SETTINGS, 0, 0, b"abcde"), ("settings",)),
    "SETTINGS acknowledged with content": Sequence(frame(SETTINGS, ACK, 0, b"abcdef"), ("settings",)),
    "GOAWAY of 7 bytes": Sequence(frame(GOAWAY, 0, 0, b"abcdefg"), ("frame_size",)),
    "HEADERS with room for no padding length": Sequence(frame(HEADERS, WHOLE | PADDED, 3), ("frame_size",)),
    "HEADERS with room for no priority": Sequence(
        frame(HEADERS, WHOLE | PRIORITISED, 3, b"abc"), ("padding",)
    ),
    "HEADERS with more padding than payload": Sequence(
        frame(HEADERS, WHOLE | PADDED, 3, b"\x09" + GET), ("padding",)
    ),
    "DATA with more padding than payload": Sequence(frame(DATA, PADDED, FIRST, b"\x09abc")),
    "DATA of 100,000 bytes": Sequence(frame(DATA, 0, FIRST, b"x" * 100_000)),
    "PING of 100,000 bytes": Sequence(frame(PING, 0, 0, b"x" * 100_000)),
    # Streams that such a frame has none of, or must have (section 6)
    "DATA on stream 0": Sequence(frame(DATA, 0, 0, b"abc"), ("stream_0",)),
    "HEADERS on stream 0": Sequence(frame(HEADERS, WHOLE, 0, GET), ("stream_0",)),
    "PRIORITY on stream 0": Sequence(frame(PRIORITY, 0, 0, b"abcde")),
    "RST_STREAM on stream 0": Sequence(frame(RST_STREAM, 0, 0, b"\0\0\0\x08"), ("stream_0",)),
    "SETTINGS on a stream": Sequence(frame(SETTINGS, 0, 3), ("settings",)),
    "PING on a stream": Sequence(frame(PING, 0, 3, b"8 bytes.")),
    "GOAWAY on a stream": Sequence(frame(GOAWAY, 0, 3, b"\0\0\0\0\0\0\0\0"), ("stream_not_0",)),
    # States of streams (section 5.1)
    "DATA on an idle stream": Sequence(frame(DATA, END_STREAM, 3, b"abc")),
    "RST_STREAM on an idle stream": Sequence(frame(RST_STREAM, 0, 3, b"\0\0\0\x08")),
    "WINDOW_UPDATE on an idle stream": Sequence(frame(WINDOW_UPDATE, 0, 3, b"\0\0\0\1")),
    "CONTINUATION on an idle stream": Sequence(
        frame(CONTINUATION, END_HEADERS, 3, GET), ("continuation_of_nothing",)
    ),
    "DATA on a stream that is over": Sequence(frame(DATA, END_STREAM, FIRST, b"abc")),
    "HEADERS on a stream that is over": Sequence(frame(HEADERS, WHOLE, FIRST, GET), ("stream_closed",)),
    "CONTINUATION on a stream that is over": Sequence(
        frame(CONTINUATION, END_HEADERS, FIRST, GET), ("continuation_of_nothing",)
    ),
    "DATA after the request's end": Sequence(
        frame(HEADERS, WHOLE, 3, GET) + frame(DATA, END_STREAM, 3, b"abc"), asked=1
    ),
    "HEADERS after the request's end": Sequence(
        frame(HEADERS, WHOLE, 3, GET) * 2, ("stream_closed",), asked=1
    ),
    "trailers that do not end the stream": Sequence(
        frame(HEADERS, END_HEADERS, 3, GET) + frame(HEADERS, END_HEADERS, 3, b"\x00\x01a\x01b"),
        ("head_without_pseudo_headers",),
        asked=1,
    ),
    "a stream number that goes down": Sequence(
        frame(HEADERS, WHOLE, 5, GET) + frame(HEADERS, WHOLE, 3, GET), ("stream_closed",), asked=1
    ),
    "an even stream number": Sequence(frame(HEADERS, WHOLE, 2, GET)),
    "a stream that depends on itself": Sequence(
        frame(HEADERS, WHOLE | PRIORITISED, 3, b"\0\0\0\3\x10" + GET), asked=1
    ),
    "PUSH_PROMISE of a client": Sequence(frame(PUSH_PROMISE, END_HEADERS, FIRST, b"\0\0\0\2" + GET)),
    "PUSH_PROMISE of 2 bytes": Sequence(frame(PUSH_PROMISE, END_HEADERS, FIRST, b"ab"), ("padding",)),
    # Header blocks (sections 4.3 and 6.10)
    "DATA in a header block": Sequence(
        frame(HEADERS, END_STREAM, 3, GET) + frame(DATA, END_STREAM, 3, b"abc"), ("header_block_interrupted",)
    ),
    "a header block goes on on another stream": Sequence(
        frame(HEADERS, END_STREAM, 3, GET) + frame(CONTINUATION, END_HEADERS, 5),
        ("continuation_of_nothing", "header_block_interrupted"),
    ),
    "1,000 CONTINUATIONs": Sequence(_flood(5, 1000), ("header_block_size", "continuation_of_nothing")),
    "a header block of 400 kB": Sequence(
        _flood(16_000, 25), ("header_block_size", "continuation_of_nothing")
    ),
    "empty CONTINUATIONs": Sequence(_flood(0, 1000), ("header_block_size", "continuation_of_nothing")),
    # Header compression (RFC 7541)
    "an index beyond the table": Sequence(
        frame(HEADERS, WHOLE, 3, GET + b"\xff\xff\x01"), ("header_compression",)
    ),
    "index 0": Sequence(frame(HEADERS, WHOLE, 3, b"\x80"), ("header_compression",)),
    "an integer without end": Sequence(
        frame(HEADERS, WHOLE, 3, b"\xff" + b"\xff" * 40), ("header_compression",)
    ),
    "a string longer than the block": Sequence(
        frame(HEADERS, WHOLE, 3, b"\x04\x7f\xff\x03abc"), ("header_compression",)
    ),
    "Huffman code with EOS in it": Sequence(
        frame(HEADERS, WHOLE, 3, b"\x82\x86\x04\x84\xff\xff\xff\xff"), ("header_compression",)
    ),
    "a table size beyond what was agreed": Sequence(
        frame(HEADERS, WHOLE, 3, b"\x3f\xe1\xff\xff\x03" + GET), asked=1
    ),
    "a table size after a field": Sequence(frame(HEADERS, WHOLE, 3, GET + b"\x20"), ("header_compression",)),
    "a table of 4 GB": Sequence(
        frame(HEADERS, WHOLE, 3, b"\x3f\xff\xff\xff\xff\x0f" + GET), ("header_compression",)
    ),
    # Requests (section 8.3)
    "a request without a method": Sequence(
        frame(HEADERS, WHOLE, 3, GET[1:]), ("request_without_method_or_path",)
    ),
    "a request without a path": Sequence(
        frame(HEADERS, WHOLE, 3, GET[:2]), ("request_without_method_or_path",)
    ),
    "a request with two methods": Sequence(frame(HEADERS, WHOLE, 3, b"\x82\x83" + GET[1:]), asked=1),
    "an empty header block": Sequence(frame(HEADERS, END_HEADERS, 3), ("head_without_pseudo_headers",)),
    "a response of the client": Sequence(frame(HEADERS, WHOLE, 3, b"\x88"), ("response_of_the_client",)),
    # Frames and flags that mean nothing (sections 4.1 and 5.5)
    "frames of an unknown kind": Sequence(frame(0x16, 0xFF, 3, b"x" * 300) * 20),
    "flags that mean nothing": Sequence(
        frame(PING, 0xFE, 0, b"8 bytes.") + frame(DATA, 0xD6, FIRST, b"\0abc")
    ),
    "the reserved bit": Sequence(frame(HEADERS, WHOLE, 3 | 1 << 31, GET), asked=1),
    # More than anybody needs
    "1,000 SETTINGS": Sequence(frame(SETTINGS, 0, 0, b"\0\1\0\0\0\0") * 1000),
    "1,000 PINGs": Sequence(frame(PING, 0, 0, b"8 bytes.") * 1000),
    "1,000 streams reset at once": Sequence(
        b"".join(
            frame(HEADERS, WHOLE, stream, GET) + frame(RST_STREAM, 0, stream, b"\0\0\0\x08")
            for stream in range(3, 2003, 2)
        ),
        asked=1000,
        reset=1000,
    ),
}
"""By what is wrong with it."""

ENDINGS = {
    "half a frame header": b"\0\0\5\0",
    "a frame of 16 MB of which little comes": frame(DATA, 0, FIRST, b"abc", 0xFFFFFF),
    "a head of 16 MB of which little comes": frame(HEADERS, WHOLE, 3, GET, 0xFFFFFF),
    "a header block that does not end": frame(HEADERS, 0, 3, GET),
    "HTTP/1.1 where frames were": b"GET / HTTP/1.1\r\nHost: a\r\n\r\n",
    "the preface again": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "nothing that means anything": bytes(range(256)) * 40,
}
"""What nothing can follow: the connection ends."""
