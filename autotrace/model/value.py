"""What stages hand to one another by the thousand."""

from __future__ import annotations

from typing import Any


class Value:
    """Something that is what its attributes are: equal if they are, and never changed.

    A NamedTuple says the same in fewer lines, but where it is compiled (setup.py) a class with an `__init__` of its
    own costs a fraction of it, to make and to read. So it is for what every exchange needs. `__slots__` names the
    attributes.
    """

    __slots__ = ()

    def __eq__(self, other: object) -> bool:
        return type(self) is type(other) and self._values() == other._values()

    def __hash__(self) -> int:
        return hash((type(self), *self._values().values()))

    def __repr__(self) -> str:
        values = ", ".join(f"{name}={value!r}" for name, value in self._values().items())
        return f"{type(self).__name__}({values})"

    def _replace(self, **changes: Any) -> Any:
        """A copy with other values for some attributes."""
        return type(self)(**(self._values() | changes))

    def _values(self) -> dict[str, Any]:
        # mypyc makes members of the slots and keeps their names elsewhere.
        names: tuple[str, ...] = getattr(type(self), "__mypyc_attrs__", None) or type(self).__slots__
        return {name: getattr(self, name) for name in names}
