"""Low-cardinality routes from paths: `/item/123` and `/item/<uuid>` become `/item/{id}`.

`http.route` and `url.template` of the OpenTelemetry HTTP conventions want the framework's own template. It
cannot be seen from outside, so parts of a path that look like identifiers are replaced.
"""

from __future__ import annotations

import re
from typing import Final

from autotrace.model import Role

# An enum member as a global: a look-up in the class costs three times as much.
_SERVER: Final = Role.SERVER

OVERFLOW = "/{overflow}"
"""The route of everything beyond the cap."""

ID = "{id}"
REST = "{rest}"
DEPTH_MAX = 10
"""Segments of the longest route; what follows becomes `{rest}`."""

SEGMENT_MAX = 64
"""Characters of the longest segment that is kept."""

_CACHED_PATHS_MAX = 1024

_PLAIN = re.compile(r"[^0-9@]*")
_UUID = re.compile(
    r"(?<![0-9a-f])[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}(?![0-9a-f])", re.I | re.A
)
_VERSION = re.compile(r"[vV]?[0-9]{1,2}(?:\.[0-9]{1,2}){1,3}|[vV][0-9]{1,3}", re.A)
_EMAIL = re.compile(r"[^@/]+(?:@|%40)[^@/]+\.[^@/.]+", re.I)
_NUMBERS = re.compile(r"-?[0-9]+(?:[,.:;T_+-][0-9]+)*Z?", re.A)
_TOKEN = re.compile(r"[0-9A-Za-z_=~+.-]{20,}", re.A)
_SEPARATOR = re.compile(r"([-_.,:;=~+@!$'()*]|%[0-9A-Fa-f]{2})")
_HEX = re.compile(r"(?:0[xX])?[0-9a-fA-F]{8,}", re.A)
_WORD_AND_NUMBER = re.compile(r"[A-Za-z]+[0-9]{4,}", re.A)
_DIGITS = re.compile(r"[0-9]+", re.A)


def template(path: str) -> str:
    """Make a route of a path. A query is dropped, percent-encoding is left alone, nothing is rejected."""
    path = path.partition("?")[0].partition("#")[0]
    if len(path) <= SEGMENT_MAX and path.count("/") <= DEPTH_MAX and _PLAIN.fullmatch(path):
        return path
    segments = path.split("/")
    if len(segments) > DEPTH_MAX + 1:
        segments[DEPTH_MAX + 1 :] = [REST]
        return "/".join([_segment(segment) for segment in segments[:-1]] + [REST])
    return "/".join([_segment(segment) for segment in segments])


def _segment(segment: str) -> str:
    if _PLAIN.fullmatch(segment):
        return segment if len(segment) <= SEGMENT_MAX else ID
    if _VERSION.fullmatch(segment) and not segment.isdigit():
        return segment
    if (
        len(segment) > SEGMENT_MAX
        or _NUMBERS.fullmatch(segment)
        or _EMAIL.fullmatch(segment)
        or (_TOKEN.fullmatch(segment) and _is_random(segment))
    ):
        return ID
    pieces = _SEPARATOR.split(_UUID.sub(ID, segment))
    # Every second piece is a separator.
    pieces[::2] = [ID if _is_id(piece, alone=len(pieces) == 1) else piece for piece in pieces[::2]]
    return "".join(pieces)


def _is_random(token: str) -> bool:
    """Tell a base64url-like token from a phrase with dashes."""
    digits = len(_DIGITS.findall(token))
    upper = sum(map(str.isupper, token))
    lower = sum(map(str.islower, token))
    return digits >= 3 and upper >= 3 and lower >= 3 and not _UUID.search(token)


def _is_id(piece: str, alone: bool) -> bool:
    runs = len(_DIGITS.findall(piece))
    if not runs:
        return False
    if piece.isdigit():
        return alone or len(piece) >= 3
    return (
        _HEX.fullmatch(piece) is not None
        or _WORD_AND_NUMBER.fullmatch(piece) is not None
        or (len(piece) >= 10 and runs >= 2)
        or len(piece) >= 20
    )


class RouteTemplater:
    """Templates paths, with at most `max_routes_per_service` routes for each role of a service."""

    def __init__(self, max_routes_per_service: int = 200) -> None:
        self._max_routes = max_routes_per_service
        self._server_routes: dict[str, set[str]] = {}
        self._client_routes: dict[str, set[str]] = {}
        self._cache: dict[str, str] = {}
        self._overflowed = 0

    @property
    def overflowed(self) -> int:
        """How many paths were given the route `OVERFLOW`."""
        return self._overflowed

    def route(self, service: str, role: Role, path: str) -> str:
        """The route of a path (without its query) that `service` was asked for, or asked others for."""
        route = self._cache.get(path)
        if route is None:
            if len(self._cache) >= _CACHED_PATHS_MAX:
                self._cache.clear()
            route = self._cache[path] = template(path)
        services = self._server_routes if role is _SERVER else self._client_routes
        routes = services.get(service)
        if routes is None:
            routes = services[service] = set()
        if route in routes:
            return route
        if len(routes) >= self._max_routes:
            self._overflowed += 1
            return OVERFLOW
        routes.add(route)
        return route
