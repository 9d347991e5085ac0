"""Calls the pipeline: what its compiled modules allocate counts as allocated here, for they have no frames of
their own that tracemalloc could see."""

from __future__ import annotations

from autotrace.model import Event
from autotrace.pipeline import Pipeline


def hand_over(pipeline: Pipeline, event: Event) -> None:
    pipeline.event(event)
