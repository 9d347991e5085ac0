"""The authority of a URL or a Host field: `host`, `host:port`, `[IPv6]:port` (RFC 3986 section 3.2)."""

from __future__ import annotations


def split_authority(authority: str) -> tuple[str, int]:
    """Host, and port or 0 if there is none; without credentials. What is not a valid port counts as none."""
    authority = authority.rpartition("@")[2]
    if authority.startswith("["):
        host, _, port = authority[1:].partition("]")
        port = port.removeprefix(":")
    elif authority.count(":") > 1:
        host, port = authority, ""
    else:
        host, _, port = authority.partition(":")
    valid = port.isascii() and port.isdigit() and len(port) <= 5 and 0 < int(port) < 65536
    return host, int(port) if valid else 0
