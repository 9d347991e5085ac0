"""The streams stage: connections and their bytes, in order, with explicit gaps, on their way to a parser."""

from autotrace.streams.table import Parser, StreamTable

__all__ = ["Parser", "StreamTable"]
