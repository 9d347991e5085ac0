"""Small ELF files with every table that `symbols` reads, made in code: for the fuzzer's corpus and for tests.

Code is loaded at CODE_BASE plus its place in the file, data at DATA_BASE plus its place, so that an address is
never an offset by chance.
"""

from __future__ import annotations

import lzma
import struct
from typing import NamedTuple

CODE_BASE, DATA_BASE = 0x400000, 0x510000
CODE_AT = 0x240
FUNCTION_SIZE = 16
CODE = bytes.fromhex("b8c3c3c3c3 c3 b801000000 c3 cccccccc")
"""mov eax, 0xc3c3c3c3; ret; mov eax, 1; ret; padding. Returns are at 5 and at 11, nowhere else."""
BUILD_ID = bytes.fromhex("00112233445566778899aabbccddeeff00112233")

X86_64, AARCH64 = 62, 183
FUNC, IFUNC, OBJECT = 2, 10, 1
LOCAL, GLOBAL = 0, 1


class Symbol(NamedTuple):
    """A symbol; `address` is absolute, `section` 0 means undefined, `version` 0x8000 not the default."""

    name: str
    address: int
    size: int = FUNCTION_SIZE
    type: int = FUNC
    binding: int = GLOBAL
    section: int = 1
    version: int = 2


def code_address(index: int) -> int:
    """Address of the function of this index."""
    return CODE_BASE + CODE_AT + index * FUNCTION_SIZE


class TinyElf:
    """An ELF file in the making: what is added first stands first."""

    def __init__(self, functions: int = 4, code: bytes = CODE, machine: int = X86_64) -> None:
        self.machine = machine
        self.body = bytearray(CODE_AT) + code * functions
        self.code_end = len(self.body)
        self.sections: list[tuple[str, int, int, int, int, int]] = []
        self.segments: list[tuple[int, int, int, int, int]] = []
        self.dynamic: list[tuple[int, int]] = []

    def place(self, data: bytes, align: int = 8) -> int:
        """Append to the data segment and return the place in the file."""
        self.body += bytes(-len(self.body) % align)
        self.body += data
        return len(self.body) - len(data)

    def address(self, place: int) -> int:
        return DATA_BASE + place

    def section(
        self, name: str, data: bytes, kind: int = 1, flags: int = 0, link: int = 0, align: int = 8
    ) -> int:
        place = self.place(data, align)
        self.sections.append((name, kind, flags, place, len(data), link))
        return place

    def symbols(self, symbols: list[Symbol]) -> tuple[bytes, bytes]:
        """A symbol table and its strings."""
        strings = bytearray(b"\0")
        table = bytearray(24)
        for symbol in symbols:
            info = symbol.binding << 4 | symbol.type
            table += struct.pack(
                "<IBBHQQ", len(strings), info, 0, symbol.section, symbol.address, symbol.size
            )
            strings += symbol.name.encode() + b"\0"
        return bytes(table), bytes(strings)

    def symtab(self, symbols: list[Symbol]) -> TinyElf:
        """Add .symtab with .strtab after it."""
        table, strings = self.symbols(symbols)
        self.section(".symtab", table, kind=2, link=len(self.sections) + 2)
        self.section(".strtab", strings, kind=3)
        return self

    def dynsym(self, symbols: list[Symbol], gnu_hash: bool = True, versions: bool = False) -> TinyElf:
        """Add what the dynamic linker looks symbols up by."""
        buckets = 2
        if gnu_hash:
            symbols = sorted(symbols, key=lambda symbol: gnu(symbol.name) % buckets)
        table, strings = self.symbols(symbols)
        if gnu_hash:
            hashes = [gnu(symbol.name) for symbol in symbols]
            places = [value % buckets for value in hashes]
            starts = [places.index(b) + 1 if b in places else 0 for b in range(buckets)]
            last = [i + 1 == len(places) or places[i + 1] != b for i, b in enumerate(places)]
            chain = [value & ~1 | end for value, end in zip(hashes, last, strict=True)]
            words = [buckets, 1, 1, 6, 0xFFFFFFFF, 0xFFFFFFFF, *starts, *chain]
            tag = 0x6FFFFEF5
        else:
            heads, nexts = [0] * buckets, [0]
            for index, symbol in enumerate(symbols, 1):
                nexts.append(heads[sysv(symbol.name) % buckets])
                heads[sysv(symbol.name) % buckets] = index
            words = [buckets, len(nexts), *heads, *nexts]
            tag = 4
        self.dynamic += [
            (tag, self.address(self.place(struct.pack(f"<{len(words)}I", *words)))),
            (6, self.address(self.place(table))),
            (5, self.address(self.place(strings))),
            (10, len(strings)),
        ]
        if versions:
            numbers = struct.pack(f"<{len(symbols) + 1}H", 0, *(symbol.version for symbol in symbols))
            self.dynamic.append((0x6FFFFFF0, self.address(self.place(numbers))))
        return self

    def build_id(self, content: bytes = BUILD_ID) -> TinyElf:
        """Add the build-id note."""
        note = struct.pack("<III", 4, len(content), 3) + b"GNU\0" + content
        self.segments.append((4, 4, self.place(note), len(note), 4))
        return self

    def unwind(self, starts: list[int]) -> TinyElf:
        """Add unwind tables for functions of FUNCTION_SIZE bytes at these addresses."""
        entries_at = self.place(b"")
        rows = []
        for start in starts:
            at = self.place(b"", 1)
            here = self.address(at)
            self.place(struct.pack("<IIiI", 12, 4 + at - entries_at, start - here - 8, FUNCTION_SIZE), 1)
            rows.append((start, here))
        at = self.place(b"", 4)
        here = self.address(at)
        table = b"".join(struct.pack("<ii", start - here, entry - here) for start, entry in sorted(rows))
        header = struct.pack("<BBBBiI", 1, 0x1B, 0x03, 0x3B, 0, len(rows)) + table
        self.place(header, 1)
        self.segments.append((0x6474E550, 4, at, len(header), 4))
        return self

    def usdt(self, *probes: tuple[int, str, str, str], semaphore: int = 0, base: int = 0) -> TinyElf:
        """Add probes: address, provider, name, arguments."""
        notes = b""
        for address, provider, name, arguments in probes:
            content = struct.pack("<QQQ", address, base, semaphore)
            content += b"\0".join(text.encode() for text in (provider, name, arguments)) + b"\0"
            notes += (
                struct.pack("<III", 8, len(content), 3) + b"stapsdt\0" + content + bytes(-len(content) % 4)
            )
        self.section(".note.stapsdt", notes, kind=7, align=4)
        return self

    def go(self, names: list[str], magic: int = 0xFFFFFFF1, pie: bool = False, named: bool = True) -> TinyElf:
        """Add build information, .gopclntab and moduledata for functions in the order of the code.

        `pie`: the pointers are relocations, zero in the file. `named`: there is a section of that name.
        """
        info = b"\xff Go buildinf:" + bytes([8, 2]) + bytes(16) + b"\x08go1.22.3" + b"\x00"
        self.section(".go.buildinfo", info, align=16)
        wide = magic == 0xFFFFFFFA
        header_size = 64 if wide else 72
        texts, places = bytearray(), []
        for name in names:
            places.append(len(texts))
            texts += name.encode() + b"\0"
        texts += bytes(-len(texts) % 8)
        text = code_address(0)
        names_at, functions_at = header_size, header_size + len(texts) + 8
        entry, entry_size = ("<QQ", 16) if wide else ("<II", 8)
        first = text if wide else 0
        table, descriptions = b"", b""
        at = len(names) * entry_size + entry_size // 2
        at += -at % 8
        for index, place in enumerate(places):
            start = first + index * FUNCTION_SIZE
            table += struct.pack(entry, start, at + len(descriptions))
            descriptions += struct.pack("<Qi" if wide else "<Ii", start, place) + bytes(36 if wide else 40)
        end = first + len(names) * FUNCTION_SIZE
        table += end.to_bytes(entry_size // 2, "little")
        table += bytes(-len(table) % 8)
        fields = [names_at, names_at + len(texts), names_at + len(texts), names_at + len(texts), functions_at]
        if not wide:
            fields.insert(0, 0)
        header = struct.pack("<IHBBQQ", magic, 0, 1, 8, len(names), 0) + struct.pack(
            f"<{len(fields)}Q", *fields
        )
        data = header + bytes(texts) + bytes(8) + table + descriptions
        here = self.address(self.section(".gopclntab" if named else ".other", data, align=32))
        words = [0] * 23
        words[0], words[1], words[13], words[16] = (
            here,
            here + names_at,
            here + functions_at,
            here + functions_at,
        )
        words[20], words[21], words[22] = text, text + len(names) * FUNCTION_SIZE, text
        written = [0] * 23 if pie else words
        module = self.address(self.section(".go.module", struct.pack("<23Q", *written), align=32))
        if pie:
            kind = 8 if self.machine == X86_64 else 1027
            rows = [struct.pack("<QQQ", module + 8 * i, kind, word) for i, word in enumerate(words) if word]
            self.dynamic += [(7, self.address(self.place(b"".join(rows)))), (8, 24 * len(rows))]
        return self

    def dwarf(self) -> TinyElf:
        """Add `struct wanted { int first; union { int second; }; }`, DWARF 4, names in place."""
        abbreviations = bytes.fromhex(
            "01 11 01 00 00  02 13 01 03 08 0b 0b 00 00  03 0d 00 03 08 38 0b 00 00"
        )
        abbreviations += bytes.fromhex("04 17 01 00 00  05 0d 00 49 13 38 0b 00 00 00")
        entries = b"\x01\x02wanted\0\x08" + b"\x03first\0\x00"
        entries += b"\x05" + struct.pack("<IB", 11 + len(entries) + 7, 4) + b"\x00"
        entries += b"\x04" + b"\x03second\0\x02" + b"\x00\x00"
        unit = struct.pack("<HIB", 4, 0, 8) + entries
        self.section(".debug_info", struct.pack("<I", len(unit)) + unit, align=1)
        self.section(".debug_abbrev", abbreviations, align=1)
        return self

    def mini_debug_info(self, inner: bytes) -> TinyElf:
        """Add .gnu_debugdata."""
        self.section(".gnu_debugdata", lzma.compress(inner, lzma.FORMAT_XZ), align=1)
        return self

    def bytes(self) -> bytes:
        """The file."""
        if self.dynamic:
            table = b"".join(struct.pack("<QQ", tag, value) for tag, value in [*self.dynamic, (0, 0)])
            self.segments.append((2, 6, self.place(table), len(table), 8))
        loaded = [(1, 5, 0, self.code_end, 4096), (1, 6, self.code_end, len(self.body) - self.code_end, 4096)]
        names = bytearray(b"\0")
        rows = [bytes(64), struct.pack("<IIQQQQIIQQ", 0, 1, 6, code_address(0), CODE_AT, 16, 0, 0, 1, 0)]
        rows.pop()
        for name, kind, flags, place, size, link in self.sections:
            rows.append(
                struct.pack(
                    "<IIQQQQIIQQ", len(names), kind, flags, self.address(place), place, size, link, 0, 1, 0
                )
            )
            names += name.encode() + b"\0"
        rows.append(struct.pack("<IIQQQQIIQQ", 0, 3, 0, 0, self.place(bytes(names)), len(names), 0, 0, 1, 0))
        sections_at = self.place(b"".join(rows))
        segments = b"".join(
            struct.pack(
                "<IIQQQQQQ",
                kind,
                flags,
                place,
                (CODE_BASE if flags & 1 else DATA_BASE) + place,
                0,
                size,
                size,
                align,
            )
            for kind, flags, place, size, align in loaded + self.segments
        )
        count = len(loaded + self.segments)
        assert 64 + len(segments) <= CODE_AT
        self.body[:16] = b"\x7fELF\x02\x01\x01" + bytes(9)
        self.body[16:64] = struct.pack(
            "<HHIQQQIHHHHHH",
            3,
            self.machine,
            1,
            0,
            64,
            sections_at,
            0,
            64,
            56,
            count,
            64,
            len(rows),
            len(rows) - 1,
        )
        self.body[64 : 64 + len(segments)] = segments
        return bytes(self.body)


def gnu(name: str) -> int:
    """DT_GNU_HASH's function."""
    value = 5381
    for byte in name.encode():
        value = (value * 33 + byte) & 0xFFFFFFFF
    return value


def sysv(name: str) -> int:
    """DT_HASH's function (System V ABI, chapter 5)."""
    value = 0
    for byte in name.encode():
        value = (value << 4) + byte
        value ^= (value & 0xF0000000) >> 24
        value &= 0x0FFFFFFF
    return value
