"""What must hold of `symbols` whatever file it is given, checked on files that a fuzzer makes."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

from symbols.btf import Btf
from symbols.elf import BytesSource, Elf
from symbols.errors import SymbolsError
from symbols.function import Lookup
from symbols.image import Image

NAMES = ("SSL_read", "SSL_write", "main.main", "local", "absent")


def check(data: bytes) -> dict[str, object]:
    """Ask everything about a file of these bytes. Any error but SymbolsError is a defect, and so is an answer that
    points outside the code. Returns the answers."""
    answers: dict[str, object] = {}
    with in_memory(data) as path:
        try:
            image = Image(path)
        except SymbolsError:
            return answers
        with image, Elf(BytesSource(data)) as elf:
            for name, question in {
                "build_id": lambda: image.build_id,
                "functions": lambda: image.functions(NAMES),
                "go_functions": lambda: image.go_functions(NAMES),
                "go_build": image.go_build,
                "usdt": lambda: [(probe, probe.arguments()) for probe in image.usdt()],
                "members": lambda: image.member_offsets("wanted", ["first", "second"]),
                "btf": lambda: structures(elf),
            }.items():
                try:
                    answers[name] = question()
                except SymbolsError:
                    continue
            for lookup in (answers.get("functions"), answers.get("go_functions")):
                if isinstance(lookup, Lookup):
                    check_lookup(elf, lookup)
    return answers


def check_lookup(elf: Elf, lookup: Lookup) -> None:
    """Every address that is given is a place in the file that is loaded as code."""
    assert not lookup.found.keys() & lookup.refused.keys()
    for name, function in lookup.found.items():
        assert name == function.name
        assert elf.code_offset(function.address) == function.offset < elf.size
        for place in function.returns:
            assert function.offset <= place < function.offset + function.size <= elf.size


def structures(elf: Elf) -> list[object]:
    """Every struct of the BTF in a file."""
    btf = Btf(elf.section_data(".BTF") or b"")
    btf.enums()
    return [btf.struct(name) for name in btf.struct_names()]


@contextmanager
def in_memory(data: bytes) -> Iterator[str]:
    """A path of a file with this content that is not on any disk."""
    descriptor = os.memfd_create("fuzz")
    try:
        os.write(descriptor, data)
        yield f"/proc/self/fd/{descriptor}"
    finally:
        os.close(descriptor)
