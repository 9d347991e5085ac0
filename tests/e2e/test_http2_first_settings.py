"""A server's first SETTINGS come in pieces too short to tell what they are, and before the client's preface."""

from __future__ import annotations

from pathlib import Path

import pytest
from hpack import Encoder
from http2_walker import PREFACE, frame
from scripted import Step, both, client, get, ok, play, server

HEADERS, SETTINGS = 1, 4
ACK, WHOLE = 1, 5  # END_STREAM and END_HEADERS
FIRST_SETTINGS = frame(SETTINGS, 0, 0, b"\0\3\0\0\0\x64")
STATUS = 418  # no entry of the static table: later ones stand as an index into what the first one left


def text(said: bytes) -> str:
    return said.decode("latin-1")


def request(encoder: Encoder, number: int) -> bytes:
    fields = [(":method", "GET"), (":scheme", "http"), (":path", f"/{number}"), (":authority", "script")]
    return frame(HEADERS, WHOLE, 2 * number + 1, encoder.encode(fields))


def response(encoder: Encoder, number: int) -> bytes:
    return frame(HEADERS, WHOLE, 2 * number + 1, encoder.encode([(":status", str(STATUS))]))


def in_calls(said: bytes, sizes: list[int]) -> list[Step]:
    """The server says it in calls of these sizes, and what is left in a last one."""
    steps = []
    while said:
        size, *sizes = sizes or [len(said)]
        steps.append(server(text(said[:size])))
        said = said[size:]
    return steps


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ([1] * 15, [1] * 100),  # never a whole frame in one call
        ([1], []),
        ([3], [6]),  # the preface comes in the middle of the header, and at its end
        ([8], [1]),
        ([4, 5], []),
        ([4, 11], []),
        ([2, 2, 8], []),
        ([9], [2]),  # the header whole, what is behind it not
        ([12], []),
    ],
)
def test_pieces(tmp_path: Path, before: list[int], after: list[int]) -> None:
    asking, answering = Encoder(), Encoder()
    said = sum(before)
    rest = FIRST_SETTINGS[said:] + frame(SETTINGS, ACK, 0) + response(answering, 0)
    steps = [
        *in_calls(FIRST_SETTINGS[:said], before),
        client(text(PREFACE + frame(SETTINGS, 0, 0) + frame(SETTINGS, ACK, 0) + request(asking, 0))),
        *in_calls(rest, after),
    ]
    for number in (1, 2):
        steps += [
            client(text(request(asking, number))),
            *in_calls(response(answering, number), [1] * 10 if len(after) > 1 else []),
        ]
    for spans in both(play(tmp_path, steps)):
        assert [(span.path, span.status) for span in spans] == [(f"/{i}", STATUS) for i in range(3)]
        assert not [span for span in spans if "autotrace.request.partial" in span.attributes]


@pytest.mark.parametrize(
    "greeting", [["\0"], ["\0", "\0\6", "\4\1"], ["\0", ok(0)], ["\0\0", "\6\4\0\0\0\0\1"]]
)
def test_what_only_begins_like_it(tmp_path: Path, greeting: list[str]) -> None:
    """Nothing is made of the greeting, and the request that follows is seen."""
    steps = [*map(server, greeting), client(get("/after")), server(ok(10))]
    for spans in both(play(tmp_path, steps)):
        assert [span.path for span in spans] == ["/after"]
