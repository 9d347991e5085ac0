"""Where gRPC-Go keeps a stream's id and method: from a table between releases that agree, and never guessed."""

from pathlib import Path

import pytest

from symbols.errors import SymbolsError
from symbols.go import BuildInfo, Module
from symbols.go_grpc_offsets import MODULE, GrpcStream, GrpcStreamOffsets, release


def program(version: str) -> BuildInfo:
    return BuildInfo("go1.22.0", "", "", "", dependencies=(Module(MODULE, version),))


def test_releases() -> None:
    assert release("v1.60.1") == (1, 60, 1)
    assert release("v1.61.0-dev") == (1, 61, 0)
    assert release("(devel)") is None


@pytest.mark.parametrize(
    ("version", "offsets"),
    [
        ("v1.33.2", GrpcStream(72, 0, False)),
        ("v1.36.0", GrpcStream(72, 0, False)),
        ("v1.37.1", GrpcStream(80, 0, False)),
        ("v1.64.0", GrpcStream(80, 0, False)),
        ("v1.72.2", GrpcStream(24, 0, True)),
        ("v1.67.1", GrpcStream(88, 0, False)),
        ("v1.79.3", GrpcStream(16, 108, False)),
    ],
)
def test_the_releases_between_those_that_were_measured(version: str, offsets: GrpcStream) -> None:
    assert GrpcStreamOffsets().by_version(version) == offsets


def test_releases_that_nobody_has_measured(tmp_path: Path) -> None:
    table = GrpcStreamOffsets()
    assert table.by_version("v1.20.0") is None
    assert table.by_version("v9.0.0") is None
    assert table.by_version("(devel)") is None
    file = tmp_path / "some.toml"
    file.write_text(
        '[[stream]]\ngrpc = "v1.1.0"\nmethod = 1\nid = 0\nby_pointer = false\n'
        '[[stream]]\ngrpc = "v1.3.0"\nmethod = 2\nid = 0\nby_pointer = false\n'
    )
    two = GrpcStreamOffsets(file)
    assert two.by_version("v1.1.0") == GrpcStream(1, 0, False)
    assert two.by_version("v1.2.0") is None


def test_a_program_without_grpc_or_of_32_bits_has_none() -> None:
    table, nowhere = GrpcStreamOffsets(), Path("/nowhere")
    assert table.find(nowhere, program("v1.60.0")) is not None
    assert table.find(nowhere, program("")) is None
    assert table.find(nowhere, program("v1.60.0")._replace(bits=32)) is None


@pytest.mark.parametrize("text", ["no TOML", "[[stream]]\ngrpc = 1", "stream = 1"])
def test_a_damaged_table(tmp_path: Path, text: str) -> None:
    file = tmp_path / "some.toml"
    file.write_text(text)
    with pytest.raises(SymbolsError, match=r"some\.toml"):
        GrpcStreamOffsets(file)
