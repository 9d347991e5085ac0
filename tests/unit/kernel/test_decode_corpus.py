"""Replays what coverage-guided fuzzing found interesting; see tests/fuzz/fuzz_decode.py."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest

FUZZ = Path(__file__).parents[2] / "fuzz"
CORPUS = sorted((FUZZ / "corpus" / "decode").iterdir())


@pytest.fixture(scope="module")
def event_stream() -> ModuleType:
    spec = importlib.util.spec_from_file_location("event_stream", FUZZ / "event_stream.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_corpus_is_there() -> None:
    assert len(CORPUS) >= 50


@pytest.mark.parametrize("path", CORPUS, ids=lambda path: path.name[:8])
def test_corpus_input(event_stream: ModuleType, path: Path) -> None:
    event_stream.check(path.read_bytes())


def test_the_check_sees_spans(event_stream: ModuleType) -> None:
    """The replay means something only if inputs reach the pipeline as they should."""
    step, what = event_stream.step, event_stream.What
    ask, answer = b"GET /a HTTP/1.1\r\n\r\n", b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
    data = [
        step(what.OPEN, 0, 4),
        step(what.OPEN, 1, 12),
        step(what.CHUNK, 1, 1, ask),
        step(what.CHUNK, 0, 0, ask),
        step(what.CHUNK, 0, 1, answer),
        step(what.CHUNK, 1, 0, answer),
        step(what.CLOSE, 0, 0),
        step(what.CLOSE, 1, 0),
        step(what.CLOSE, 2, 255),
    ]
    stream = event_stream.check(b"".join(data))
    spans = [(span.role.value, span.name, span.is_error) for span in stream.spans]
    assert spans == [("server", "GET /a", False), ("client", "GET /a", False), ("client", "connect", True)]
    assert stream.spans[0].parent_span_id == stream.spans[1].span_id
