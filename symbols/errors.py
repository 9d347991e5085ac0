"""The errors of this package."""

from __future__ import annotations


class SymbolsError(Exception):
    """A file does not hold what was looked for, or what it holds is damaged. The text is one sentence."""


class ElfError(SymbolsError):
    """Not an ELF file, or a damaged one."""


class BtfError(SymbolsError):
    """Damaged BTF, or a type that is not in it."""


class CodeError(SymbolsError):
    """Machine code that cannot be decoded from its first byte to its last."""
