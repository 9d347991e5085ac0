"""Header blocks decode as RFC 7541 says; of a connection joined late fields may be unknown, but are never wrong."""

from __future__ import annotations

import pytest
from hpack import Encoder
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from autotrace.protocols.http2_hpack import FIELDS_KEPT, Block, HeaderDecoder, MalformedBlockError

Fields = list[tuple[str, str]]
RELAXED = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])

NAMES = st.sampled_from([*sorted(FIELDS_KEPT), "cookie", "x-other", "date"])
VALUES = st.text(st.characters(min_codepoint=0x20, max_codepoint=0x7E), max_size=90)
HEADS = st.lists(
    st.lists(st.tuples(NAMES, VALUES), max_size=8, unique_by=lambda field: field[0]), min_size=1, max_size=12
)


def kept(fields: Fields) -> dict[str, str]:
    return {name: value for name, value in fields if name in FIELDS_KEPT}


# RFC 7541, appendix C.
REQUESTS = [  # C.4: with Huffman code
    ("828684418cf1e3c2e5f23a6ba0ab90f4ff", {":path": "/"}),
    ("828684be5886a8eb10649cbf", {":path": "/"}),
    ("828785bf408825a849e95ba97d7f8925a849e95bb8e8b4bf", {":scheme": "https", ":path": "/index.html"}),
]
RESPONSES = [  # C.5: a table of 256 bytes, from which entries are evicted
    (
        "4803333032580770726976617465611d4d6f6e2c203231204f637420323031332032303a31333a323120474d546e1768747470733a"
        "2f2f7777772e6578616d706c652e636f6d",
        {":status": "302"},
    ),
    ("4803333037c1c0bf", {":status": "307"}),
    (
        "88c1611d4d6f6e2c203231204f637420323031332032303a31333a323220474d54c05a04677a69707738666f6f3d4153444a4b4851"
        "4b425a584f5157454f50495541585157454f49553b206d61782d6167653d333630303b2076657273696f6e3d31",
        {":status": "200"},
    ),
]


def test_the_requests_of_the_rfc() -> None:
    decoder = HeaderDecoder(True)
    for block, expected in REQUESTS:
        fields = {":method": "GET", ":scheme": "http", ":authority": "www.example.com"} | expected
        assert decoder.decode(bytes.fromhex(block)) == Block(fields, False)


def test_the_responses_of_the_rfc() -> None:
    decoder = HeaderDecoder(True)
    assert decoder.decode(b"\x3f\xe1\x01") == Block({}, False)
    for block, expected in RESPONSES:
        assert decoder.decode(bytes.fromhex(block)) == Block(expected, False)


@RELAXED
@given(HEADS, st.lists(st.integers(0, 6000), max_size=4))
def test_what_was_encoded_is_decoded(heads: list[Fields], sizes: list[int]) -> None:
    encoder, decoder = Encoder(), HeaderDecoder(True)
    for i, head in enumerate(heads):
        if i < len(sizes):
            encoder.header_table_size = sizes[i]
        assert decoder.decode(encoder.encode(head)) == Block(kept(head), False)


@RELAXED
@given(HEADS, HEADS, st.integers(0, 6000), st.booleans())
def test_joined_late_nothing_is_wrong(
    before: list[Fields], after: list[Fields], size: int, huffman: bool
) -> None:
    encoder, decoder = Encoder(), HeaderDecoder(False)
    encoder.header_table_size = size
    for head in before:
        encoder.encode(head, huffman)
    for head in after:
        fields, unknown = decoder.decode(encoder.encode(head, huffman))
        assert fields.items() <= kept(head).items()
        assert unknown or fields == kept(head)


@RELAXED
@given(HEADS, HEADS, HEADS)
def test_a_lost_block_makes_unknown_and_not_wrong(
    before: list[Fields], lost: list[Fields], after: list[Fields]
) -> None:
    encoder, decoder = Encoder(), HeaderDecoder(True)
    for head in before:
        decoder.decode(encoder.encode(head))
    for head in lost:
        encoder.encode(head)
    decoder.lose()
    for head in after:
        fields, unknown = decoder.decode(encoder.encode(head))
        assert fields.items() <= kept(head).items()
        assert unknown or fields == kept(head)


def test_joined_late_the_names_come_back() -> None:
    """What is said by the static table is known at once, what is inserted from then on too."""
    encoder, decoder = Encoder(), HeaderDecoder(False)
    old = [(":method", "POST"), (":path", "/a.B/Old"), ("content-type", "application/grpc")]
    encoder.encode(old)
    assert decoder.decode(encoder.encode(old)) == Block({":method": "POST"}, True)
    new = [(":method", "POST"), (":path", "/a.B/New")]
    for _ in range(2):
        assert decoder.decode(encoder.encode(new)) == Block(dict(new), False)


@RELAXED
@given(st.lists(st.binary(max_size=60), max_size=6), st.booleans())
def test_any_bytes_are_a_block_or_malformed(blocks: list[bytes], from_start: bool) -> None:
    decoder = HeaderDecoder(from_start)
    for block in blocks:
        try:
            decoder.decode(block)
        except MalformedBlockError:
            continue


@pytest.mark.parametrize(
    "block",
    [
        b"\x80",  # index 0
        b"\xbe",  # an index behind the static table, the dynamic one being empty
        b"\xff\xff\xff\xff\xff\xff\x7f",  # an integer that is too large
        b"\x40\x05ab",  # a string that is longer than the block
        b"\x40",  # a literal without its strings
        b"\x82\x20",  # a change of the table size behind a field
        b"\x00\x81\xff\x00",  # Huffman code that ends with 8 bits of padding
    ],
)
def test_malformed(block: bytes) -> None:
    with pytest.raises(MalformedBlockError):
        HeaderDecoder(True).decode(block)


def test_after_a_malformed_block_the_table_is_unknown() -> None:
    encoder, decoder = Encoder(), HeaderDecoder(True)
    head = [(":path", "/new")]
    decoder.decode(encoder.encode(head))
    with pytest.raises(MalformedBlockError):
        decoder.decode(b"\x80")
    assert decoder.decode(encoder.encode(head)) == Block({}, True)


def test_long_values_are_cut() -> None:
    fields, _ = HeaderDecoder(True).decode(
        Encoder().encode([("traceparent", "a" * 5000), (":path", "/" * 9000)])
    )
    assert (len(fields["traceparent"]), len(fields[":path"])) == (1024, 8192)


def test_the_table_is_bounded() -> None:
    encoder, decoder = Encoder(), HeaderDecoder(True)
    encoder.header_table_size = 1 << 30
    for i in range(3000):
        assert (
            decoder.decode(encoder.encode([(":path", f"/{i}/" + "x" * 200)]))
            .fields[":path"]
            .startswith(f"/{i}/")
        )
    assert len(decoder._table) < 300
