"""What a recording must not hold is not in its records."""

from __future__ import annotations

import struct

import pytest

from autotrace import abi
from autotrace.kernel.decode import decode
from autotrace.model import Frames, StreamClaim
from autotrace.protocols.http1_redact import Http1Redactor
from autotrace.protocols.http2_redact import Http2Redactor
from autotrace.redaction import Redaction


@pytest.mark.parametrize(
    ("path", "kept"), [(b"/cart?card=4111", "/cart"), (b"/shop.Cart/Add", "/shop.Cart/Add"), (b"", "")]
)
def test_a_runtimes_word_on_a_request_loses_its_query(path: bytes, kept: str) -> None:
    size = abi.STREAM_EVENT.size + len(path)
    header = (int(abi.EventType.STREAM), size, 5, 6, 7, 8)
    record = abi.STREAM_EVENT.pack(*header, 1, 2, 3, 4, 9, 5, 6, 0, 0, 0, len(path)) + path
    event = decode(record)
    assert isinstance(event, StreamClaim)
    redacted = Redaction(Http1Redactor, Http2Redactor).redact(record, event)
    assert decode(redacted) == event._replace(path=kept)


def test_who_sent_frames_is_kept() -> None:
    data = bytes.fromhex("000006 01 05 00000001 828684410161")  # GET / of http://a
    size = abi.FRAMES_EVENT.size + len(data) + 16
    header = (int(abi.EventType.FRAMES), size, 5, 6, 7, 8)
    fields = (1, 2, 3, 7, 8, 4, 0, 100, 1, 1, 1, 0, len(data), 2)
    record = abi.FRAMES_EVENT.pack(*header, *fields) + data + struct.pack("=2Q", 900, 800)
    event = decode(record)
    assert isinstance(event, Frames)
    redacted = decode(Redaction(Http1Redactor, Http2Redactor).redact(record, event))
    assert isinstance(redacted, Frames)
    assert redacted.at == event.at
    assert redacted.at.lineage == (900, 800)
