"""Reads a recording's replay as the readable values that stand in its golden file."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Any

from harness import SpanRecord, read_spans

from autotrace.agent import replay
from autotrace.config import Config

RECORDINGS = Path(__file__).parent / "recordings"
NAMES = ("nginx_proxy", "python_calls", "grpc_calls", "go_chain")


def replayed(recording: Path) -> dict[str, Any]:
    """What a replay makes of a recording: its spans, each below its parent, and the account of its exchanges.

    Times are nanoseconds, those of spans since the first span's start. Raises AutotraceError.
    """
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / "spans.jsonl"
        config = Config(json_path=path, metrics_port=0, console="off")
        ledger = replay(config, recording, lambda _line: None)
        spans = sorted(read_spans(path), key=lambda span: (span.start, span.kind, span.span_id))
    known = {span.span_id for span in spans}
    begin = spans[0].start if spans else 0
    return {
        "exchanges": ledger["exchanges"],
        "notes": ledger["notes"],
        "traces": [_tree(span, spans, begin) for span in spans if span.parent_id not in known],
    }


def _tree(span: SpanRecord, spans: list[SpanRecord], begin: int) -> dict[str, Any]:
    return {
        "name": span.name,
        "service": span.service,
        "kind": span.kind,
        "trace_id": span.trace_id,
        "span_id": span.span_id,
        "parent_id": span.parent_id,
        "start": span.start - begin,
        "end": span.end - begin,
        "error": span.error,
        "attributes": dict(sorted(span.attributes.items())),
        "children": [_tree(child, spans, begin) for child in spans if child.parent_id == span.span_id],
    }


def golden_text(name: str) -> str:
    """The text of the golden file that fits the recording as it is replayed now."""
    return json.dumps(replayed(RECORDINGS / f"{name}.bin"), indent=1) + "\n"
