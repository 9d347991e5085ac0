"""Bodies of known length stay in the kernel; their sizes are known all the same."""

from __future__ import annotations

from pathlib import Path

import pytest
from scripted import Step, both, client, get, in_pieces, ok, play, post, server, told

from autotrace.recording import Kind, read

SECRET = "s3cret-of-the-body"
BODY = SECRET * 40
FORGED = "GET /forged HTTP/1.1\r\nContent-Length: 9"


def answer(fields: str = "", status: str = "200 OK") -> str:
    return f"HTTP/1.1 {status}\r\nServer: script\r\n{fields}Content-Length: {len(BODY)}\r\n\r\n"


def padded(head: str, length: int) -> str:
    """The head with one more field, so that it has `length` bytes."""
    return head.removesuffix("\r\n") + f"X-Pad: {'p' * (length - len(head) - 9)}\r\n\r\n"


REQUEST = post("/secret", len(BODY))

CONVERSATIONS: dict[str, list[Step]] = {
    "head and body in one write": [client(REQUEST + BODY), server(answer() + BODY)] * 3,
    "the body in writes of its own": [
        *(client(REQUEST), client(BODY[:99]), client(BODY[99:])),
        *(server(answer()), server(BODY[:300]), server(BODY[300:])),
    ]
    * 3,
    "heads in several writes": [
        *(client(REQUEST[:30]), client(REQUEST[30:-3]), client(REQUEST[-3:] + BODY)),
        *(server(answer()[:25]), server(answer()[25:-1]), server(answer()[-1:] + BODY)),
    ]
    * 3,
    "heads in several writes, the last of several pieces": [
        client(REQUEST[:30]),
        in_pieces("client", REQUEST[30:-2], f"X-Pad: {'p' * 600}\r\n\r\n", BODY),
        *(server(answer()[:25]), in_pieces("server", answer()[25:-2] + "X-More: ", "x\r\n\r\n" + BODY)),
    ]
    * 3,
    "fields in other letters, with long and folded neighbours": [
        client(REQUEST.replace("Content-Length", "content-LENGTH") + BODY),
        server(answer(f"X-Long: {'y' * 1500}\r\nX-Folded: a\r\n b\r\n") + BODY),
    ]
    * 3,
    "bodies that look like messages": [
        client(post("/secret", len(FORGED + BODY))),
        client(FORGED + BODY),
        server(answer()),
        server(BODY),
    ],
}


@pytest.mark.parametrize("how", CONVERSATIONS)
def test_no_byte_of_a_body_of_known_length_leaves_the_kernel(tmp_path: Path, how: str) -> None:
    recording = tmp_path / "events.bin"
    steps = CONVERSATIONS[how]
    result = play(tmp_path, steps, options=("--record", str(recording)))
    servers, clients = both(result)
    said = ["".join(text) for who, _, text in steps if who == "server"]  # type: ignore[arg-type]
    exchanges = sum(text.endswith(BODY[-9:]) for text in said)
    size = len(BODY) + (len(FORGED) if "look" in how else 0)
    expected = [("/secret", 200, size, len(BODY))] * exchanges
    assert list(map(told, servers)) == expected
    assert list(map(told, clients)) == expected
    records = [entry.payload for entry in read(recording) if entry.kind is Kind.RECORD]
    assert any(b"POST /secret" in record for record in records)
    # A recording blanks what it does not need, but leaves it its length.
    assert not [record for record in records if record.partition(b"\r\n\r\n")[2]]


def test_heads_around_the_length_of_the_first_look(tmp_path: Path) -> None:
    """The kernel copies 512 bytes of a turn, or the first piece, and more only if the head does not end there."""
    steps: list[Step] = []
    lengths = [128, *range(510, 515), 767, 1024, 2048]
    for length in lengths:
        head, last = padded(answer(), length), padded(ok(0), length)
        steps += [client(padded(REQUEST, length) + BODY), server(head + BODY)]
        steps += [in_pieces("client", padded(REQUEST, length), BODY), in_pieces("server", head, BODY)]
        steps += [
            in_pieces("client", REQUEST[:20], REQUEST[20:], BODY),
            in_pieces("server", head[:16], head[16:] + BODY),
        ]
        steps += [client(get("/secret")), in_pieces("server", last[:30], last[30:-1], last[-1:])]
    pipelined = [client(get("/a") + get("/b")), in_pieces("server", padded(answer(), 512), BODY, ok(4))]
    servers, clients = both(play(tmp_path, steps + pipelined))
    size = len(BODY)
    expected = [("/secret", 200, size, size)] * 3 + [("/secret", 200, 0, 0)]
    for spans in servers, clients:
        assert list(map(told, spans)) == expected * len(lengths) + [("/a", 200, 0, size), ("/b", 200, 0, 4)]


@pytest.mark.parametrize("seen", [0, 1, 7, 8, 14, 15, 16, 17])
def test_a_field_that_is_cut_by_the_end_of_a_write(tmp_path: Path, seen: int) -> None:
    """A transfer coding counts more than a length (RFC 9112 section 6.3), in whatever pieces the two come."""
    first = "HTTP/1.1 200 OK\r\nContent-Length: 900\r\n"
    chunked = "Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n"
    more = "Content-Encoding: identity\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n"
    steps: list[Step] = []
    for rest in chunked, more:
        steps += [client(get("/cut")), server(first + rest[:seen]), server(rest[seen:])]
        steps += [client(get("/after")), server(ok(7))]
    for spans in both(play(tmp_path, steps)):
        assert list(map(told, spans)) == [("/cut", 200, 0, 5), ("/after", 200, 0, 7)] * 2


def test_a_path_that_was_cut_says_so(tmp_path: Path) -> None:
    """As much of it as is captured, and the mark that it is not all of the request."""
    path = "/" + "p" * 9000
    result = play(tmp_path, [client(get(path)), server(ok(5)), client(get("/whole")), server(ok(5))])
    for spans in (result.server(), result.client()):
        cut, whole = sorted(spans, key=lambda span: span.start)
        assert path.startswith(cut.path)
        assert 4000 < len(cut.path) <= 4096 - len("GET ")
        assert (cut.status, cut.attributes["autotrace.request.partial"]) == (200, True)
        assert (whole.path, whole.attributes.get("autotrace.request.partial")) == ("/whole", None)


def test_answers_that_have_a_length_and_no_body(tmp_path: Path) -> None:
    """A HEAD's answer and a 304 tell the length of what is not sent: what follows is the next answer."""
    head = get("/head").replace("GET", "HEAD")
    empty, not_modified = answer(), answer(status="304 Not Modified")
    alternately = [client(head), server(empty), client(get("/same")), server(not_modified)] * 2
    pipelined = [client(head), client(head), client(get("/same")), server(empty + empty + not_modified)]
    one_by_one = [
        client(head + get("/same") + get("/get")),
        server(empty),
        server(not_modified),
        server(ok(5)),
    ]
    steps: list[Step] = [*alternately, *pipelined, *one_by_one, client(get("/get")), server(ok(0))]
    servers, _ = both(play(tmp_path, steps))
    told_of = [told(span) for span in servers]
    assert sorted(told_of) == sorted(
        [("/head", 200, 0, 0)] * 5 + [("/same", 304, 0, 0)] * 4 + [("/get", 200, 0, 5), ("/get", 200, 0, 0)]
    )


def test_no_secret_is_in_anything_that_the_agent_writes(tmp_path: Path) -> None:
    """Not in its events, its spans, its log: from bodies of any kind, queries and fields that are not kept."""
    recording = tmp_path / "events.bin"
    fields = f"Authorization: Bearer {SECRET}\r\nCookie: session={SECRET}\r\n"
    chunk = f"{len(BODY):x};{SECRET}\r\n{BODY}\r\n"
    chunked = f"Transfer-Encoding: chunked\r\nSet-Cookie: {SECRET}\r\n\r\n"
    steps = [
        client(get(f"/search?q={SECRET}", fields)),
        server(f"HTTP/1.1 200 OK\r\n{chunked}{chunk}{chunk}0\r\n\r\n"),
        client(f"POST /upload?q={SECRET} HTTP/1.1\r\nHost: script\r\n{chunked}{chunk}"),
        client(f"{chunk}0\r\nX-Trailer: {SECRET}\r\n\r\n"),
        server(ok(3)),
        client(post(f"/form?{SECRET}", len(BODY)) + BODY),
        server(f"HTTP/1.0 200 OK\r\nSet-Cookie: {SECRET}\r\n\r\n{BODY}"),
        ("server", "close", ""),
    ]
    result = play(tmp_path, steps, options=("--record", str(recording)))
    assert sorted(map(told, result.server())) == sorted(
        [
            ("/search", 200, 0, 2 * len(BODY)),
            ("/upload", 200, 2 * len(BODY), 3),
            ("/form", 200, len(BODY), len(BODY)),
        ]
    )
    written = [path for path in tmp_path.rglob("*") if path.is_file() and not path.name.startswith("script")]
    assert recording in written
    assert not [path for path in written if SECRET.encode()[:8] in path.read_bytes()]
    assert SECRET[:8] not in result.said
