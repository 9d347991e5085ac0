"""Machine code: where a function returns.

x86-64 is decoded instruction by instruction from the function's first byte, so that a byte that only looks like
RET inside another instruction is never taken for one. On arm64 every instruction has four bytes.
"""

from __future__ import annotations

import struct

from iced_x86 import Code, Decoder, FlowControl

from symbols.elf import AARCH64, X86_64
from symbols.errors import CodeError

_ARM64_RET_MASK, _ARM64_RET = 0xFFFFFC1F, 0xD65F0000
"""RET Xn: Arm Architecture Reference Manual, C6.2 RET; bits 5 to 9 are the register."""


def return_sites(code: bytes, machine: int) -> tuple[int, ...]:
    """Return where in a function its return instructions start, in bytes from its first byte.

    `code` is the whole function and nothing before it. Raises CodeError if it cannot be decoded to its end, or if
    the machine is neither x86-64 nor arm64.
    """
    if machine == X86_64:
        return _x86_64(code)
    if machine == AARCH64:
        return _arm64(code)
    raise CodeError(f"machine code of ELF machine {machine} is not decoded")


def _x86_64(code: bytes) -> tuple[int, ...]:
    sites = []
    for instruction in Decoder(64, code):
        if instruction.code == Code.INVALID:
            raise CodeError(f"there is no x86-64 instruction {instruction.ip} bytes into the function")
        if instruction.flow_control == FlowControl.RETURN:
            sites.append(instruction.ip)
    return tuple(sites)


def _arm64(code: bytes) -> tuple[int, ...]:
    if len(code) % 4:
        raise CodeError("an arm64 function does not end at an instruction")
    return tuple(
        4 * index
        for index, (word,) in enumerate(struct.iter_unpack("<I", code))
        if word & _ARM64_RET_MASK == _ARM64_RET
    )
