"""USDT probes: the static tracepoints of `<sys/sdt.h>` in programs and libraries.

Each is a note in section `.note.stapsdt`: the address of a nop instruction, names, and where the arguments are
when it is reached. The layout is described in SystemTap's wiki, "UserSpaceProbeImplementation".
"""

from __future__ import annotations

import re
import struct
from typing import NamedTuple

from symbols.elf import PF_W, Elf
from symbols.errors import ElfError

_OWNER, _TYPE = b"stapsdt", 3
_MAX_TEXT = 4096
"""Characters of the names and arguments of one probe: some tens in practice, a dozen for each argument."""


class Register(NamedTuple):
    """An argument that is in a register, by the assembler's name without `%` (`rdi`, `x0`)."""

    name: str


class Constant(NamedTuple):
    """An argument that is the same at every hit."""

    value: int


class Memory(NamedTuple):
    """An argument in memory at base + index_register * scale + displacement; "" where there is no register.

    For a variable by name (`counter(%rip)`) `symbol` is its name, and `displacement` is from its address.
    """

    base: str
    displacement: int = 0
    index_register: str = ""
    scale: int = 1
    symbol: str = ""


class Argument(NamedTuple):
    """One argument. `size` is in bytes. `place` is None for a notation that is not known."""

    text: str
    size: int
    signed: bool
    is_float: bool
    place: Register | Constant | Memory | None


class Probe(NamedTuple):
    """A probe at one place; a probe that the compiler copied stands at several.

    `offset` is where in the file the place is. `semaphore` is where in the file the 16-bit counter is that turns
    the probe on while it is not zero; None for a probe that is always on. `text` are the arguments as they are
    written in the file.
    """

    provider: str
    name: str
    address: int
    offset: int
    semaphore: int | None
    text: str

    def arguments(self) -> tuple[Argument, ...]:
        """The arguments, parsed."""
        return tuple(_argument(text) for text in _ARGUMENT.findall(self.text))


def probes(elf: Elf) -> list[Probe]:
    """Return the probes of a file, in its order. Raises ElfError if it is damaged.

    A probe whose address the file does not hold as code is left out.
    """
    if elf.bits != 64:
        return []
    base_section = next((s for s in elf.sections if s.name == ".stapsdt.base"), None)
    found = []
    section = elf.section(".note.stapsdt")
    for note in elf.notes(section.offset, section.size) if section is not None else ():
        if note.name == _OWNER and note.type == _TYPE:
            probe = _probe(elf, note.content, base_section.address if base_section else None)
            if probe is not None:
                found.append(probe)
    return found


def _probe(elf: Elf, content: bytes, base: int | None) -> Probe | None:
    if not 24 <= len(content) <= 24 + _MAX_TEXT or content.count(b"\0", 24) < 3:
        raise ElfError(f"{elf.name} has a USDT note that is cut short or too long: it is damaged")
    address, base_then, semaphore = struct.unpack_from("<QQQ", content)
    provider, name, text = (part.decode("utf-8", "replace") for part in content[24:].split(b"\0")[:3])
    # prelink moves a library without rewriting the notes; how far, the section tells by its address.
    moved = base - base_then if base is not None and base_then else 0
    offset = elf.code_offset(address + moved)
    if offset is None:
        return None
    semaphore_offset = None
    if semaphore:
        segment = elf.segment_of(semaphore + moved)
        if segment is None or not segment.flags & PF_W:
            return None
        semaphore_offset = elf.offset_of(semaphore + moved)
    return Probe(provider, name, address + moved, offset, semaphore_offset, text)


# Blanks separate arguments, but may also stand inside brackets: `-4@[sp, 12]`.
_ARGUMENT = re.compile(r"(?:\[[^\]]*\]|[^\s\[])+")
_HEAD = re.compile(r"(?:(-?)([1248])(f?)@)?(.+)", re.DOTALL)
_NUMBER = r"-?(?:0x[0-9a-fA-F]{1,16}|[0-9]{1,20})"
_X86_REGISTER = re.compile(r"%([a-z0-9]+)")
_X86_CONSTANT = re.compile(rf"\$({_NUMBER})")
_X86_MEMORY = re.compile(
    rf"(?P<symbol>[A-Za-z_.$][\w.$@]*)?(?P<displacement>\+?{_NUMBER}(?:[+-]{_NUMBER})*)?"
    r"\((?:%(?P<base>[a-z0-9]+))?(?:,%(?P<index>[a-z0-9]+)(?:,(?P<scale>[1248]))?)?\)"
)
_ARM64_REGISTER = re.compile(r"([xwvdsq][0-9]{1,2}|sp|xzr|wzr)")
_ARM64_CONSTANT = re.compile(rf"({_NUMBER})")
_ARM64_MEMORY = re.compile(
    rf"\[(?P<base>x[0-9]{{1,2}}|sp)(?:, ?#?(?P<displacement>{_NUMBER})|, ?(?P<index>x[0-9]{{1,2}}))?\]"
)


def _argument(text: str) -> Argument:
    """Parse `-4@%edi`: signed, 4 bytes, in a register. A size that is not told is the machine's, unsigned."""
    head = _HEAD.fullmatch(text)
    if head is None:
        return Argument(text, 8, False, False, None)
    minus, size, is_float, operand = head.groups()
    return Argument(text, int(size or 8), minus == "-", is_float == "f", _place(operand))


def _place(operand: str) -> Register | Constant | Memory | None:
    for pattern in (_X86_REGISTER, _ARM64_REGISTER):
        if match := pattern.fullmatch(operand):
            return Register(match[1])
    for pattern in (_X86_CONSTANT, _ARM64_CONSTANT):
        if match := pattern.fullmatch(operand):
            return Constant(_number(match[1]))
    if match := _X86_MEMORY.fullmatch(operand):
        displacement = sum(_number(part) for part in re.findall(_NUMBER, match["displacement"] or ""))
        return Memory(
            match["base"] or "",
            displacement,
            match["index"] or "",
            int(match["scale"] or 1),
            match["symbol"] or "",
        )
    if match := _ARM64_MEMORY.fullmatch(operand):
        return Memory(match["base"], _number(match["displacement"] or "0"), match["index"] or "")
    return None


def _number(text: str) -> int:
    return int(text, 16 if "x" in text else 10)
