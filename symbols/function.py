"""What a look-up of functions gives."""

from __future__ import annotations

from typing import NamedTuple


class Function(NamedTuple):
    """A function of a file.

    `address` is its virtual address as linked, `offset` its place in the file, which is what a uprobe is attached
    to. `size` is in bytes, 0 if the file does not tell. `returns` are the places in the file of its return
    instructions; only a look-up of Go functions fills it.
    """

    name: str
    address: int
    size: int
    offset: int
    returns: tuple[int, ...] = ()


class Lookup(NamedTuple):
    """Functions by name.

    `refused` are names that are in the file but have no address that can be trusted, each with the reason as a
    clause. A name that is in neither is not in the file.
    """

    found: dict[str, Function]
    refused: dict[str, str]
