"""Opening ELF files with one typed error for everything that can be wrong with them."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from elftools.elf.elffile import ELFFile

from symbols.errors import ElfError, SymbolsError

MAX_HEADERS = 4096
"""Programs have tens of sections and segments. A damaged file can claim billions, and each costs a read."""


@contextmanager
def open_elf(path: str | Path) -> Iterator[ELFFile]:
    """Open the ELF file at `path` and keep it open for the block.

    Raises OSError if the file cannot be opened, and ElfError if it is not ELF or is damaged: pyelftools
    raises whatever its decoders stumble over, so every error inside the block that is not a SymbolsError or
    an OSError becomes an ElfError.
    """
    with Path(path).open("rb") as stream:
        try:
            elf = ELFFile(stream)
            if elf.num_sections() > MAX_HEADERS or elf.num_segments() > MAX_HEADERS:
                raise ElfError(f"{path} claims more than {MAX_HEADERS} sections or segments: it is damaged")
            yield elf
        except SymbolsError:
            raise
        except OSError as error:
            if error.errno != errno.EINVAL:
                raise
            raise ElfError(f"{path} points outside itself: it is damaged") from error  # a seek too far
        except Exception as error:
            raise ElfError(f"{path} cannot be read as ELF: {error or type(error).__name__}") from error


def section_data(elf: ELFFile, name: str) -> bytes | None:
    """Return the content of a section, decompressed; None if there is no section of that name."""
    section = elf.get_section_by_name(name)
    if section is None:
        return None
    if section["sh_type"] != "SHT_NOBITS" and section["sh_offset"] + section["sh_size"] > elf.stream_len:
        raise ElfError(f"section {name} reaches beyond the end of the file")
    return bytes(section.data())


def read_address(elf: ELFFile, address: int, size: int) -> bytes | None:
    """Return `size` bytes that the program will find at a virtual address; None if the file has them not."""
    for segment in elf.iter_segments("PT_LOAD"):
        start = segment["p_vaddr"]
        if start <= address and address + size <= start + segment["p_filesz"]:
            elf.stream.seek(segment["p_offset"] + address - start)
            data: bytes = elf.stream.read(size)
            return data if len(data) == size else None
    return None
