"""Replays what coverage-guided fuzzing found interesting; see tests/fuzz/fuzz_elf.py."""

from pathlib import Path
from typing import Any

import pytest
from elf_questions import check
from tiny_elf import Symbol, TinyElf, code_address

CORPUS = sorted((Path(__file__).parents[2] / "fuzz" / "corpus" / "elf").iterdir())


def test_the_corpus_is_there() -> None:
    assert len(CORPUS) >= 50


@pytest.mark.parametrize("path", CORPUS, ids=lambda path: path.name[:8])
def test_corpus_input(path: Path) -> None:
    check(path.read_bytes())


def test_the_check_sees_answers() -> None:
    """The replay means something only if inputs reach the readers as they should."""
    builder = TinyElf().build_id().dynsym([Symbol("SSL_read", code_address(0))]).dwarf()
    builder.usdt((code_address(1), "p", "n", "8@%rax")).go(["main.main"])
    answers: dict[str, Any] = check(builder.bytes())
    assert answers["build_id"]
    assert answers["functions"].found.keys() == {"SSL_read"}
    assert answers["go_functions"].found.keys() == {"main.main"}
    assert answers["go_build"].go_version == "go1.22.3"
    assert len(answers["usdt"]) == 1
    assert answers["members"] == {"first": 0, "second": 6}
