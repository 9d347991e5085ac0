"""ELF files: headers, sections, segments, notes, and where the file holds what a virtual address shows.

The format is described in the System V ABI, chapters 4 and 5 (elf.h names the same fields). Only what is asked
for is read, with pread: a file can be cut short by its owner at any moment, and a mapping of it would then end
the reader with SIGBUS.
"""

from __future__ import annotations

import errno
import os
import stat
import struct
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from types import TracebackType
from typing import NamedTuple, Protocol, Self

from symbols.errors import ElfError

MAX_HEADERS = 4096
"""Programs have tens of sections and segments. A damaged file can claim billions, and each costs a read."""
MAX_READ = 64 << 20
"""Bytes read at once. What may be larger is read in chunks."""
MAX_TABLE = 128 << 20
"""Bytes of the largest table that is searched from its start to its end."""
CHUNK = 1 << 20
_MAX_NOTES = 1 << 20
_MAX_NOTE_SEGMENTS, _MAX_NOTE_SEGMENT = 16, 1 << 16

X86_64 = 62
AARCH64 = 183
"""Values of `Elf.machine` (EM_X86_64, EM_AARCH64)."""

PT_LOAD, PT_DYNAMIC, PT_NOTE, PT_GNU_EH_FRAME = 1, 2, 4, 0x6474E550
PF_X, PF_W, PF_R = 1, 2, 4
SHT_NOTE, SHT_NOBITS = 7, 8
SHF_COMPRESSED = 0x800

_CLASS_32, _CLASS_64 = 1, 2
_LITTLE_ENDIAN = 1


class Segment(NamedTuple):
    """A program header (Elf64_Phdr)."""

    type: int
    flags: int
    offset: int
    address: int
    file_size: int
    memory_size: int


class Section(NamedTuple):
    """A section header (Elf64_Shdr) with its name."""

    name: str
    type: int
    flags: int
    address: int
    offset: int
    size: int
    link: int


class Note(NamedTuple):
    """One entry of a note section or segment; `name` is without its final zero byte."""

    name: bytes
    type: int
    content: bytes


class Source(Protocol):
    """Where the bytes come from."""

    size: int

    def read(self, offset: int, size: int) -> bytes:
        """Return up to `size` bytes: fewer at the end of the file."""

    def close(self) -> None:
        """Give back what is held."""


class FileSource:
    """A regular file."""

    def __init__(self, path: str | Path) -> None:
        """Raises OSError if it cannot be opened, ElfError if it is a pipe or a device."""
        # O_NONBLOCK: the path may be made by the watched program, and opening a pipe would wait for its writer.
        self._fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY)
        status = os.fstat(self._fd)
        if not stat.S_ISREG(status.st_mode):
            os.close(self._fd)
            if stat.S_ISDIR(status.st_mode):
                raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
            raise ElfError(f"{path} is not a regular file")
        self.status = status
        self.size = status.st_size

    def read(self, offset: int, size: int) -> bytes:
        """As `Source.read`."""
        data = os.pread(self._fd, size, offset)
        while data and len(data) < size:
            more = os.pread(self._fd, size - len(data), offset + len(data))
            if not more:
                break
            data += more
        return data

    def close(self) -> None:
        """As `Source.close`."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1


class BytesSource:
    """A file that is in memory already."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self.size = len(data)

    def read(self, offset: int, size: int) -> bytes:
        """As `Source.read`."""
        return self._data[offset : offset + size]

    def close(self) -> None:
        """As `Source.close`."""


class Elf:
    """An open ELF file of 32 or 64 bits, little-endian. Everything it reads is checked against the file's size.

    Every method and property raises ElfError for a damaged file, and OSError if the disk fails.
    """

    def __init__(self, source: Source, name: str = "the file") -> None:
        """Read the header; `name` is for messages. The source is closed if this fails."""
        self._source = source
        self.name = name
        try:
            self._read_header()
        except BaseException:
            source.close()
            raise

    @classmethod
    def open(cls, path: str | Path) -> Self:
        """Open a file. Raises OSError if it cannot be opened and ElfError if it is not ELF or is damaged."""
        return cls(FileSource(path), str(path))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the file; what was read stays usable."""
        self._source.close()

    @property
    def size(self) -> int:
        """Size of the file in bytes."""
        return self._source.size

    def _read_header(self) -> None:
        head = self.read(0, 52) if self._source.size >= 52 else b""
        if not head.startswith(b"\x7fELF"):
            raise ElfError(f"{self.name} is not an ELF file")
        if head[4] not in (_CLASS_32, _CLASS_64) or head[5] != _LITTLE_ENDIAN:
            raise ElfError(f"{self.name} is not a little-endian ELF file of 32 or 64 bits")
        self.bits = 64 if head[4] == _CLASS_64 else 32
        if self.bits == 64:
            head = self.read(0, 64)
            fields = struct.unpack_from("<HHIQQQIHHHHHH", head, 16)
        else:
            fields = struct.unpack_from("<HHIIIIIHHHHHH", head, 16)
        self.machine: int = fields[1]
        self._segments_at: int = fields[4]
        self._segment_size: int = fields[8]
        self._segment_count: int = fields[9]
        self._sections_at: int = fields[5]
        self._section_size: int = fields[10]
        self._section_count: int = fields[11]
        self._names_index: int = fields[12]
        if max(self._segment_count, self._section_count) > MAX_HEADERS:
            raise ElfError(f"{self.name} claims more than {MAX_HEADERS} sections or segments: it is damaged")

    def read(self, offset: int, size: int) -> bytes:
        """Return exactly `size` bytes of the file."""
        if size > MAX_READ:
            raise ElfError(f"{self.name} claims a table of {size} bytes: it is damaged")
        if offset + size > self._source.size:
            raise ElfError(f"{self.name} points outside itself: it is damaged or cut short")
        data = self._source.read(offset, size)
        if len(data) != size:
            raise ElfError(f"{self.name} was cut short while it was read")
        return data

    def chunks(self, offset: int, size: int, overlap: int = 0) -> Iterator[tuple[int, bytes]]:
        """Yield (position in the table, bytes) of a table in the file, `overlap` bytes twice between two chunks.

        A chunk's length is a multiple of 24, the size of a symbol and of a relocation, but for the last and
        the overlap.
        """
        if size > MAX_TABLE:
            raise ElfError(f"{self.name} claims a table of {size} bytes, which is more than is searched")
        step = CHUNK - CHUNK % 24
        for position in range(0, size, step):
            yield position, self.read(offset + position, min(step + overlap, size - position))

    def loaded_chunks(self, any_flags: int, no_flags: int, overlap: int) -> Iterator[tuple[int, bytes]]:
        """Yield (address, bytes) of the loaded segments with one of `any_flags` and none of `no_flags`.

        As `chunks`; of the segments together no more than MAX_TABLE bytes.
        """
        left = MAX_TABLE
        for segment in self.segments:
            if segment.type == PT_LOAD and segment.flags & any_flags and not segment.flags & no_flags:
                size = min(segment.file_size, left)
                left -= size
                for position, chunk in self.chunks(segment.offset, size, overlap):
                    yield segment.address + position, chunk

    @cached_property
    def segments(self) -> tuple[Segment, ...]:
        """The program headers."""
        wide = self.bits == 64
        size = 56 if wide else 32
        if not self._segment_count:
            return ()
        if self._segment_size != size:
            raise ElfError(f"{self.name} has program headers of an unknown size: it is damaged")
        found = []
        for fields in struct.iter_unpack(
            "<IIQQQQQQ" if wide else "<IIIIIIII", self.read(self._segments_at, size * self._segment_count)
        ):
            if wide:
                kind, flags, offset, address, _, file_size, memory_size, _ = fields
            else:
                kind, offset, address, _, file_size, memory_size, flags, _ = fields
            found.append(Segment(kind, flags, offset, address, file_size, memory_size))
        return tuple(found)

    @cached_property
    def sections(self) -> tuple[Section, ...]:
        """The section headers; none if the file was stripped of them."""
        size = 64 if self.bits == 64 else 40
        if not self._section_count or not self._sections_at:
            return ()
        if self._section_size != size:
            raise ElfError(f"{self.name} has section headers of an unknown size: it is damaged")
        table = self.read(self._sections_at, size * self._section_count)
        rows = list(struct.iter_unpack("<IIQQQQIIQQ" if self.bits == 64 else "<IIIIIIIIII", table))
        if self._names_index >= len(rows):
            raise ElfError(f"{self.name} has no section names: it is damaged")
        names_at, names_size = rows[self._names_index][4:6]
        names = self.read(names_at, names_size)
        found = []
        for name_at, kind, flags, address, offset, length, link, *_ in rows:
            end = names.find(b"\0", name_at, name_at + 256)
            name = names[name_at:end].decode("utf-8", "replace") if end >= 0 else ""
            found.append(Section(name, kind, flags, address, offset, length, link))
        return tuple(found)

    def section(self, name: str) -> Section | None:
        """Return the first section of this name that has content in the file; None if there is none."""
        return next((s for s in self.sections if s.name == name and s.type != SHT_NOBITS), None)

    def section_data(self, name: str) -> bytes | None:
        """Return the content of a section as it is in the file; None if there is no section of that name."""
        section = self.section(name)
        return None if section is None else self.read(section.offset, section.size)

    def segment_of(self, address: int) -> Segment | None:
        """Return the loaded segment whose part in the file shows at a virtual address; None if none does."""
        for segment in self.segments:
            if segment.type == PT_LOAD and 0 <= address - segment.address < segment.file_size:
                return segment
        return None

    def offset_of(self, address: int) -> int | None:
        """Return where in the file a virtual address is; None if the file does not hold it (.bss)."""
        segment = self.segment_of(address)
        if segment is None:
            return None
        offset = segment.offset + address - segment.address
        return offset if offset < self._source.size else None

    def code_offset(self, address: int) -> int | None:
        """As `offset_of`, but None for what is not executable."""
        segment = self.segment_of(address)
        return self.offset_of(address) if segment is not None and segment.flags & PF_X else None

    def read_address(self, address: int, size: int) -> bytes:
        """Return `size` bytes that the program finds at a virtual address before relocations are applied."""
        segment = self.segment_of(address)
        if segment is None or address + size > segment.address + segment.file_size:
            raise ElfError(f"{self.name} points outside its segments: it is damaged")
        return self.read(segment.offset + address - segment.address, size)

    @cached_property
    def dynamic(self) -> dict[int, int]:
        """The dynamic section, tag -> value; of a tag that occurs more than once the first value."""
        found: dict[int, int] = {}
        segment = next((s for s in self.segments if s.type == PT_DYNAMIC), None)
        if segment is None:
            return found
        layout = struct.Struct("<QQ" if self.bits == 64 else "<II")
        size = min(segment.file_size, MAX_HEADERS * layout.size)
        for tag, value in layout.iter_unpack(self.read(segment.offset, size - size % layout.size)):
            if tag == 0:
                break
            found.setdefault(tag, value)
        return found

    @cached_property
    def build_id(self) -> str:
        """The build-id that the linker wrote (NT_GNU_BUILD_ID), in hexadecimal; "" if there is none."""
        segments = [s for s in self.segments if s.type == PT_NOTE and s.file_size <= _MAX_NOTE_SEGMENT]
        for segment in segments[:_MAX_NOTE_SEGMENTS]:
            for note in self.notes(segment.offset, segment.file_size):
                if note.name == b"GNU" and note.type == 3:
                    return note.content.hex()
        return ""

    def notes(self, offset: int, size: int) -> Iterator[Note]:
        """Yield the notes in a section or segment; names and contents are padded to 4 bytes."""
        if size > _MAX_NOTES:
            raise ElfError(f"{self.name} claims {size} bytes of notes: it is damaged")
        data = self.read(offset, size)
        position = 0
        while position + 12 <= size:
            name_size, content_size, kind = struct.unpack_from("<III", data, position)
            name_at = position + 12
            content_at = name_at + name_size + -name_size % 4
            position = content_at + content_size + -content_size % 4
            if content_at + content_size > size:
                raise ElfError(f"{self.name} has a note that is cut short: it is damaged")
            name = data[name_at : name_at + name_size].rstrip(b"\0")
            yield Note(name, kind, data[content_at : content_at + content_size])
