"""Header blocks of five encoders decode to the fields that they were made of, and joined late to nothing else.

hpack_stories.jsonl.gz has some of the stories of github.com/http2jp/hpack-test-case (MIT licence), one a line: of
each encoder the first four, and one of more than 100 blocks. AUTOTRACE_HPACK_STORIES names a folder of more such
files.
"""

from __future__ import annotations

import gzip
import json
import os
from pathlib import Path
from typing import Any

import pytest

from autotrace.protocols.base import HEADER_VALUE_MAX
from autotrace.protocols.http2_hpack import FIELDS_KEPT, PATH_MAX, Block, HeaderDecoder

MORE = os.environ.get("AUTOTRACE_HPACK_STORIES")
FILES = [
    Path(__file__).with_name("hpack_stories.jsonl.gz"),
    *(sorted(Path(MORE).glob("*.jsonl.gz")) if MORE else ()),
]


def fields(case: dict[str, Any]) -> dict[str, str]:
    """What a decoder keeps of the fields of a block."""
    found: dict[str, str] = {}
    for field in case["headers"]:
        ((name, text),) = field.items()
        if name in FIELDS_KEPT:
            value = text.encode().decode("latin-1")[: PATH_MAX if name == ":path" else HEADER_VALUE_MAX]
            found[name] = f"{found[name]}, {value}"[:HEADER_VALUE_MAX] if name in found else value
    return found


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name.partition(".")[0])
def test_stories(path: Path) -> None:
    stories = [json.loads(line)["cases"] for line in gzip.decompress(path.read_bytes()).split(b"\n") if line]
    assert stories
    for cases in stories:
        whole, late = HeaderDecoder(True), HeaderDecoder(False)
        for number, case in enumerate(cases):
            block, expected = bytes.fromhex(case["wire"]), fields(case)
            assert whole.decode(block) == Block(expected, False)
            if not number:
                continue
            told, unknown = late.decode(block)
            if unknown:
                assert told.keys() <= expected.keys()
                assert all(told[name] in expected[name] for name in told)
            else:
                assert told == expected
