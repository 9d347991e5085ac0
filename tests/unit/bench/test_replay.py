"""The replayed benchmark must do the real work: every exchange a linked span, or its speed means nothing."""

import json
from pathlib import Path

import pytest

from autotrace.agent import replay as agent_replay
from autotrace.config import Config
from bench import grpc_conversations
from bench.conversations import CONNECTIONS, EXCHANGES_PER_REQUEST, write_recording
from bench.figures import Figures
from bench.replay import load, measure, replay

REQUESTS = 10 * CONNECTIONS


@pytest.fixture
def recording(tmp_path: Path) -> Path:
    path = tmp_path / "recording.bin"
    assert write_recording(path, REQUESTS) == REQUESTS * EXCHANGES_PER_REQUEST
    return path


def links(recording: Path, spans_path: Path, exchanges: int) -> list[list[str]]:
    """How the spans of each trace are linked; every exchange has a span."""
    config = Config(json_path=spans_path, metrics_port=0, console="off")
    ledger = agent_replay(config, recording, lambda _line: None)
    assert ledger["exchanges"]["emitted"] == exchanges
    assert not ledger["notes"]
    traces: dict[str, list[str]] = {}
    for line in spans_path.read_text().splitlines():
        for resource in json.loads(line)["resourceSpans"]:
            for span in resource["scopeSpans"][0]["spans"]:
                attributes = {a["key"]: next(iter(a["value"].values())) for a in span["attributes"]}
                traces.setdefault(span["traceId"], []).append(attributes["autotrace.link.method"])
    return [sorted(methods) for methods in traces.values()]


def test_autotrace_replay_links_every_exchange_of_it(recording: Path, tmp_path: Path) -> None:
    traces = links(recording, tmp_path / "spans.jsonl", REQUESTS * EXCHANGES_PER_REQUEST)
    assert len(traces) == REQUESTS
    for methods in traces:
        # The first of several requests is alone on its thread when it is sent on.
        assert methods in (["dispatch", "none", "wire"], ["none", "thread", "wire"])


def test_every_call_of_the_grpc_recording_is_linked(tmp_path: Path) -> None:
    calls = 4 * grpc_conversations.AT_ONCE
    exchanges = grpc_conversations.write_recording(tmp_path / "recording.bin", calls)
    assert exchanges == calls * grpc_conversations.EXCHANGES_PER_CALL
    traces = links(tmp_path / "recording.bin", tmp_path / "spans.jsonl", exchanges)
    assert traces == [["goroutine", "none", "wire"]] * calls


def test_otlp_is_made_of_every_span_if_asked_for(recording: Path) -> None:
    entries = load(recording)
    whole = replay(entries, encode=True)
    assert whole.exchanges == REQUESTS * EXCHANGES_PER_REQUEST
    assert whole.otlp_bytes > 200 * whole.exchanges
    assert replay(entries, encode=False).otlp_bytes == 0


def test_a_recording_with_a_request_cut_off_is_refused(recording: Path) -> None:
    entries = load(recording)
    with pytest.raises(ValueError, match="did not make a span of every exchange"):
        replay(entries[:-10], encode=False)


def test_all_speeds_are_measured_as_often_as_asked_for(tmp_path: Path) -> None:
    figures = Figures()
    said: list[str] = []
    measure(figures, tmp_path / "recording.bin", REQUESTS, 2, said.append)
    summary = figures.summary()
    assert {name: figure["runs"] for name, figure in summary.items()} == {
        "replay_http1_exchanges_per_s": 2,
        "replay_http1_spans_per_s": 2,
        "replay_grpc_exchanges_per_s": 2,
        "replay_grpc_spans_per_s": 2,
    }
    assert len(said) == 6
