"""Span and trace ids, derived from what both ends of a connection know."""

from __future__ import annotations

from hashlib import blake2b
from typing import Final

from autotrace.model import Role

Ids = tuple[int, int]
"""A span's id, and the id of its trace if it is a root. Never 0."""

_SERVER: Final = Role.SERVER


class Identity:
    """Ids look random and are not: the same events give the same ids, so a replay gives the same spans.

    `host` tells this host, since its last boot, from all others (the kernel's boot id).
    """

    __slots__ = ("_host",)

    def __init__(self, host: bytes) -> None:
        self._host = blake2b(host, digest_size=24)

    def ids(self, key: str, role: Role, start_ns: int) -> Ids:
        """Ids of the end `role` of the exchange that `key` (`Connection.wire_key`) names.

        `start_ns` is the client's start if it is known, for both ends: sequence numbers recur, times do not.
        """
        digest = self._host.copy()
        name = "server" if role is _SERVER else "client"
        digest.update(f"{key}{name}{start_ns}".encode("utf-8", "surrogateescape"))
        value = digest.digest()
        return int.from_bytes(value[:8]) or 1, int.from_bytes(value[8:]) or 1
