"""What holds for any HTTP/2 traffic, in any interleaving and any cut, and for any bytes at all."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from hpack import Encoder
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from autotrace.model import Direction, Message, StreamEnd, StreamRequest, StreamResponse
from autotrace.protocols.http2 import Http2Parser

FUZZ = Path(__file__).parents[2] / "fuzz"
CORPUS = sorted((FUZZ / "corpus" / "http2").iterdir())
RX, TX = Direction.RX, Direction.TX
RELAXED = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])


@pytest.fixture(scope="module")
def conversation() -> ModuleType:
    spec = importlib.util.spec_from_file_location("http2_conversation", FUZZ / "http2_conversation.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def chain(
    walking: Any, encoder: Encoder, stream: int, fields: list[tuple[str, str]], cuts: int, end: bool
) -> bytes:
    """A header block in `cuts` frames."""
    block = encoder.encode(fields)
    size = -(-len(block) // cuts)
    parts = [block[i : i + size] for i in range(0, len(block), size)]
    frames = walking.frame(1, int(end) | (4 if len(parts) == 1 else 0), stream, parts[0])
    for i, part in enumerate(parts[1:], 2):
        frames += walking.frame(9, 4 if i == len(parts) else 0, stream, part)
    return bytes(frames)


@st.composite
def talk(
    draw: st.DrawFn, walking: Any
) -> tuple[list[tuple[Direction, bytes]], dict[int, tuple[str, int, int, int]]]:
    """What both sides say in order, and what is true of each stream: path, status, sizes of both contents."""
    encoders = {TX: Encoder(), RX: Encoder()}
    truth: dict[int, tuple[str, int, int, int]] = {}
    said: list[tuple[Direction, bytes]] = []
    todo: dict[int, list[str]] = {}
    count = draw(st.integers(1, 8))
    steps = draw(st.permutations([2 * i + 1 for i in range(count) for _ in range(4)]))
    for stream in sorted(set(steps)):
        sizes = draw(st.tuples(st.integers(0, 40), st.integers(0, 40)))
        truth[stream] = (
            f"/{draw(st.integers(0, 3))}/{stream}",
            draw(st.sampled_from([200, 204, 404, 503])),
            *sizes,
        )
        # A client begins its streams in order.
        head = [(":method", "GET"), (":scheme", "http"), (":path", truth[stream][0])]
        said.append((TX, chain(walking, encoders[TX], stream, head, draw(st.integers(1, 3)), False)))
        todo[stream] = ["request", "head", "response", "trailers"]
    for stream in steps:
        _, status, asked, answered = truth[stream]
        what = todo[stream].pop(0)
        noise = draw(
            st.sampled_from([b"", walking.frame(6, 0, 0, b"8 bytes."), walking.frame(8, 0, 0, b"\0\0\1\0")])
        )
        if what == "request":
            said.append((TX, walking.frame(0, 1, stream, b"q" * asked) + noise))
        elif what == "head":
            fields = [(":status", str(status)), ("server", "x")]
            said.append(
                (RX, noise + chain(walking, encoders[RX], stream, fields, draw(st.integers(1, 3)), False))
            )
        elif what == "response":
            said.append((RX, walking.frame(0, 0, stream, b"r" * answered) + noise))
        else:
            said.append((RX, chain(walking, encoders[RX], stream, [("x-sum", "1")], 1, True)))
    return said, truth


def outline(messages: list[Message]) -> dict[int, tuple[str, int, int | None, int | None]]:
    found: dict[int, list[Any]] = {}
    for message in messages:
        if isinstance(message, StreamRequest):
            assert message.stream not in found
            found[message.stream] = [message.target, 0, None, None]
        elif isinstance(message, StreamResponse):
            found[message.stream][1] = message.status
        else:
            assert isinstance(message, StreamEnd), message
            found[message.stream][2 if message.direction is TX else 3] = message.body_size
    return {stream: tuple(values) for stream, values in found.items()}  # type: ignore[misc]


@RELAXED
@given(st.data())
def test_any_interleaving_and_any_cut_tell_the_same(walking: Any, data: st.DataObject) -> None:
    said, truth = data.draw(talk(walking))
    parser, walker = Http2Parser(), walking.Walker(TX)
    messages: list[Message] = []
    for direction, text in [
        (TX, walking.PREFACE + walking.frame(4, 0, 0)),
        (RX, walking.frame(4, 0, 0)),
        *said,
    ]:
        cuts = sorted(data.draw(st.lists(st.integers(0, len(text)), max_size=3)))
        for first, last in zip([0, *cuts], [*cuts, len(text)], strict=True):
            record = walker.move(direction, text[first:last])
            messages += parser.frames(record) if record is not None else []
    assert outline(messages) == truth


@RELAXED
@given(st.data())
def test_with_losses_nothing_is_wrong(walking: Any, data: st.DataObject) -> None:
    said, truth = data.draw(talk(walking))
    parser, walker = Http2Parser(), walking.Walker(TX)
    for direction, text in [
        (TX, walking.PREFACE + walking.frame(4, 0, 0)),
        (RX, walking.frame(4, 0, 0)),
        *said,
    ]:
        record = walker.move(direction, text, lose=data.draw(st.integers(0, 9)) == 0)
        for message in parser.frames(record) if record is not None else []:
            if isinstance(message, StreamRequest):
                assert message.target == truth[message.stream][0] or (message.partial and not message.target)
            elif isinstance(message, StreamResponse):
                assert message.status in (0, truth[message.stream][1])
            elif isinstance(message, StreamEnd):
                whole = truth[message.stream][2 if message.direction is TX else 3]
                assert message.body_size in (None, whole)


@RELAXED
@given(st.binary(max_size=400))
def test_any_input_of_the_fuzzer(conversation: ModuleType, data: bytes) -> None:
    conversation.check(data)


def test_the_corpus_is_there() -> None:
    assert len(CORPUS) >= 20


@pytest.mark.parametrize("path", CORPUS, ids=lambda path: path.name[:8])
def test_corpus_input(conversation: ModuleType, path: Path) -> None:
    conversation.check(path.read_bytes())


def test_the_check_sees_messages(conversation: ModuleType, walking: ModuleType) -> None:
    """The replay means something only if inputs reach the parser as they should."""
    call, move = conversation.Call, conversation.Operation.MOVE
    data = conversation.encode(
        call(move, 1, walking.frame(1, 5, 1, Encoder().encode([(":method", "GET"), (":path", "/")]))),
        call(move, 0, walking.frame(1, 5, 1, Encoder().encode([(":status", "200")]))),
    )
    kinds = [type(message).__name__ for message in conversation.check(data)]
    assert kinds == ["StreamRequest", "StreamEnd", "StreamResponse", "StreamEnd"]
