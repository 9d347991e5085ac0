"""Which TLS library is probably inside a file that has no symbols of one."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

_LABEL = b"hs traffic"
"""It goes into the computation of TLS 1.3's keys (RFC 8446 section 7.1), so whatever speaks TLS has it."""

_MARKS = {
    "BoringSSL": re.compile(rb"BoringSSL"),
    "AWS-LC": re.compile(rb"AWS-LC \d"),
    "LibreSSL": re.compile(rb"LibreSSL \d"),
    "wolfSSL": re.compile(rb"wolfSSL"),
    "rustls": re.compile(rb"rustls-\d+\.\d"),
    "Mbed TLS": re.compile(rb"[Mm]bed ?TLS \d"),
    "OpenSSL": re.compile(rb"OpenSSL \d+\.\d+\.\d+[a-z]* +\d{1,2} [A-Z][a-z]{2} 20\d\d"),
}
"""What libraries say of themselves; those that are made from another one come before it."""

_CHUNK = 1 << 20
_LONGEST = 64


def library_inside(path: str) -> str:
    """The name of the TLS library that a file seems to have inside; "" if it has none. Raises OSError."""
    if not any(_LABEL in piece for piece in _pieces(path)):
        return ""
    said = {name for piece in _pieces(path) for name, mark in _MARKS.items() if mark.search(piece)}
    return next((name for name in _MARKS if name in said), "a TLS library that says no name")


def _pieces(path: str) -> Iterator[bytes]:
    """The file, in pieces that overlap by more than is looked for."""
    with Path(path).open("rb", buffering=0) as file:
        piece = b""
        while read := file.read(_CHUNK):
            piece = piece[-_LONGEST:] + read
            yield piece
