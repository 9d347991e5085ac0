"""Replays what coverage-guided fuzzing found interesting; see tests/fuzz/fuzz_http1.py."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest

FUZZ = Path(__file__).parents[2] / "fuzz"
CORPUS = sorted((FUZZ / "corpus" / "http1").iterdir())


@pytest.fixture(scope="module")
def conversation():
    spec = importlib.util.spec_from_file_location("http1_conversation", FUZZ / "http1_conversation.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_corpus_is_there():
    assert len(CORPUS) >= 50


@pytest.mark.parametrize("path", CORPUS, ids=lambda path: path.name[:8])
def test_corpus_input(conversation, path):
    conversation.check(path.read_bytes())


def test_the_check_sees_messages(conversation):
    """The replay means something only if inputs reach the parser as they should."""
    call, operation = conversation.Call, conversation.Operation
    data = conversation.encode(
        call(operation.DATA, 0, b"GET / HTTP/1.1\r\n\r\n"),
        call(operation.DATA, 1, b"HTTP/1.1 200 OK\r\nContent-Length: 320\r\n\r\n"),
        call(operation.PROGRESS, 1, b"\x14" + b"x" * 8),
    )
    kinds = [type(message).__name__ for message in conversation.check(data)]
    assert kinds == ["Request", "MessageEnd", "Response", "MessageEnd"]
