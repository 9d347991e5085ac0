"""Functions that CPython does not export: found by the type objects that point at them.

The first slots of `PyTypeObject` (Include/cpython/object.h) stand where they stood in 3.7. A static type is
exported data, so this works in stripped programs, too.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Collection, Iterator

from symbols.elf import Elf
from symbols.relocations import relative_addends
from symbols.symtab import STT_FUNC, Entry

_SLOTS = {"tp_dealloc": 48}
"""Offsets in PyTypeObject, in bytes, of builds for 64 bits without Py_TRACE_REFS."""

_STT_OBJECT = 1


def slot_functions(
    elf: Elf, names: Collection[str], symbols: Callable[[Collection[str]], list[Entry]]
) -> Iterator[Entry]:
    """Yield the functions that names like `PyContext_Type.tp_dealloc` stand for: what the slot points at.

    `symbols` looks up the types. A name of another form stands for nothing. Raises ElfError.
    """
    wanted: dict[str, list[tuple[str, int]]] = {}
    for name in names:
        kind, _, slot = name.partition(".")
        if slot in _SLOTS:
            wanted.setdefault(kind, []).append((name, _SLOTS[slot]))
    for entry in symbols(wanted) if wanted else ():
        for name, offset in wanted[entry.name] if entry.type == _STT_OBJECT else ():
            place = entry.address + offset
            # Of RELR the value stands in the file, as in a file that is not relocated.
            value = relative_addends(elf, range(place, place + 1)).get(place)
            if value is None:
                (value,) = struct.unpack("<Q", elf.read_address(place, 8))
            if value:
                yield Entry(name, value, 0, STT_FUNC, entry.binding, entry.hidden)
