"""The protocols that autotrace understands. To add one: write its parser (see `base`) and name it here."""

from __future__ import annotations

from autotrace.model import Direction
from autotrace.protocols.base import HEADERS_KEPT, FrameParser, Parser
from autotrace.protocols.http1 import Http1Parser
from autotrace.protocols.http2 import Http2Parser

__all__ = ["FRAME_PARSER", "HEADERS_KEPT", "PARSERS", "FrameParser", "Parser", "parser_for"]

PARSERS: tuple[type[Parser], ...] = (Http1Parser,)
FRAME_PARSER: type[FrameParser] = Http2Parser
"""For connections that the kernel walks frame by frame."""


def parser_for(direction: Direction, data: bytes) -> Parser | None:
    """Make the parser for a connection whose first captured bytes are `data`; None if no protocol fits."""
    for parser in PARSERS:
        if parser.recognise(direction, data):
            return parser()
    return None
