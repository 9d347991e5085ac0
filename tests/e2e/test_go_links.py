"""In-process links of Go services: gRPC and HTTP, by goroutines. No parent is wrong; what is certain is there."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from go_chain import build_chain, check_chain, run_chain
from tls import Tls, only_copies

GRPC = ["direct", "twice", "child", "grandchild"]
HTTP = ["http", "both", "childhttp"]
WEB = ["web/direct", "web/http", "web/both", "web/twice"]
UNCERTAIN = ["worker", "late", "web/child", "web/late", "web/worker"]
STRIPPED = "-ldflags=-s -w"
OTHERS = os.environ.get("AUTOTRACE_GO_TOOLCHAINS") == "all"


@pytest.mark.parametrize(
    "flags", [(), (STRIPPED,), ("-buildmode=pie", STRIPPED)], ids=["plain", "stripped", "pie"]
)
def test_a_chain_of_grpc_and_http(tmp_path: Path, flags: tuple[str, ...]) -> None:
    kinds = [*GRPC, *HTTP, *WEB]
    result = run_chain(tmp_path, build_chain(tmp_path / "programs", *flags), kinds)
    links = check_chain(result, tmp_path, set(kinds))
    assert {text.split()[1] for text in links} == {"goroutine"}
    exact = [
        span for span in result.client("front") if span.attributes["autotrace.link.confidence"] == "exact"
    ]
    assert len(exact) > len(result.client("front")) / 2


def test_a_chain_in_tls(tmp_path: Path) -> None:
    """Of the back is missing what came to a read that waited when its probes were set."""
    kinds = [*GRPC, *HTTP]
    folder = Tls(tmp_path / "tls").folder
    programs = build_chain(tmp_path / "programs")
    result = run_chain(
        tmp_path, programs, kinds, options=only_copies(programs[0].parent), prefix=f"env TLS_FOLDER={folder}"
    )
    links = check_chain(result, tmp_path, set(kinds), whole=("front",))
    assert {text.split()[1] for text in links} == {"goroutine"}
    assert {span.link for span in result.server("back")} == {"wire"}


def test_what_is_not_certain_is_never_wrong(tmp_path: Path) -> None:
    """Work that goes on after the answer, that another goroutine does, or that an earlier request of the connection
    may have begun."""
    kinds = [*UNCERTAIN, "direct", "web/direct"]
    result = run_chain(tmp_path, build_chain(tmp_path / "programs"), kinds, count=700)
    links = check_chain(result, tmp_path, {"direct", "web/direct"})
    assert not links["late goroutine"] + links["worker goroutine"] + links["web/worker goroutine"], links


def test_goroutines_that_serve_one_stream_after_the_other(tmp_path: Path) -> None:
    """grpc.NumStreamWorkers: what such a goroutine starts may belong to an earlier stream."""
    kinds = ["direct", "twice", "child", "late"]
    programs = build_chain(tmp_path / "programs")
    result = run_chain(tmp_path, programs, kinds, prefix="env STREAM_WORKERS=4")
    links = check_chain(result, tmp_path, {"direct", "twice"})
    assert links["child none"], links


@pytest.mark.parametrize("grpc", ["v1.33.2", "v1.50.1", "v1.60.1", "v1.70.0", "v1.85.0"])
def test_releases_of_grpc_go(tmp_path: Path, grpc: str) -> None:
    if grpc not in ("v1.33.2", "v1.85.0") and not OTHERS:
        pytest.skip("only with AUTOTRACE_GO_TOOLCHAINS=all")
    kinds = [*GRPC, "web/direct"]
    result = run_chain(tmp_path, build_chain(tmp_path / "programs", STRIPPED, grpc=grpc), kinds)
    check_chain(result, tmp_path, set(kinds))


@pytest.mark.parametrize(
    ("go", "grpc", "certain"),
    [
        # Before Go 1.21 a goroutine does not know which one started it.
        ("go1.18.10", "v1.50.1", ["direct", "twice", "http", "web/direct"]),
        ("go1.20.14", "v1.60.1", ["direct", "twice", "http", "web/direct"]),
        ("go1.22.12", "v1.68.2", [*GRPC, *HTTP, *WEB]),
        ("go1.25.5", "v1.80.0", [*GRPC, *HTTP, *WEB]),
        ("go1.25.5", "v1.84.0", [*GRPC, *HTTP, *WEB]),
        ("go1.27.3", "v1.85.0", [*GRPC, *HTTP, *WEB]),
    ],
)
def test_releases_of_go(tmp_path: Path, go: str, grpc: str, certain: list[str]) -> None:
    if go != "go1.18.10" and not OTHERS:
        pytest.skip("only with AUTOTRACE_GO_TOOLCHAINS=all")
    programs = build_chain(tmp_path / "programs", STRIPPED, grpc=grpc, go=go)
    # Until Go 1.21 it is not known who has read what came with a connection's preface.
    result = run_chain(tmp_path, programs, [*certain, "child", "late"], prefix="env WARM=1")
    check_chain(result, tmp_path, set(certain))
