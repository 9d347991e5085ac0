"""Routes: identifiers become `{id}`, words stay, and their number is bounded."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from autotrace.model import Role
from autotrace.routes import DEPTH_MAX, OVERFLOW, SEGMENT_MAX, RouteTemplater, template

UUID = "123e4567-e89b-12d3-a456-426614174000"


@pytest.mark.parametrize(
    ("path", "route"),
    [
        ("/item/123", "/item/{id}"),
        (f"/item/{UUID}", "/item/{id}"),
        (f"/item/{UUID.upper()}/edit", "/item/{id}/edit"),
        (f"/file/{UUID}.png", "/file/{id}.png"),
        ("/commit/3f9a1c22", "/commit/{id}"),
        ("/commit/5f2b0c9d8e7a6b5c4d3e2f1a0b9c8d7e6f5a4b3c", "/commit/{id}"),
        ("/static/app.3f9a1c22.js", "/static/app.{id}.js"),
        ("/watch/dQw4w9WgXcQ", "/watch/{id}"),
        ("/t/eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.eyJzdWIiOiIxMjM0In0.c2ln-bmF0_dXJl", "/t/{id}"),
        ("/user/ada@example.org", "/user/{id}"),
        ("/user/ada%40example.org", "/user/{id}"),
        ("/report/2024-01-31", "/report/{id}"),
        ("/at/2024-01-31T10:20:30Z", "/at/{id}"),
        ("/order-12345/lines", "/order-{id}/lines"),
        ("/user12345", "/{id}"),
        ("/a/-7", "/a/{id}"),
        ("/sum/1,2,3", "/sum/{id}"),
        ("/item/123?x=456", "/item/{id}"),
        ("/item/123#part", "/item/{id}"),
    ],
)
def test_identifiers_are_replaced(path: str, route: str) -> None:
    assert template(path) == route


@pytest.mark.parametrize(
    "path",
    [
        "/",
        "",
        "*",
        "/items",
        "/items/",
        "//items",
        "/static/app.js",
        "/static/jquery-3.6.0.min.js",
        "/api/v1/items",
        "/api/v1.2/items",
        "/deadbeef/facade",
        "/how-to-install-python-3",
        "/hello%20world",
        "/caf%C3%A9",
        "/caf\xc3\xa9",
        "/sha256/utf8/ipv4",
        "/.well-known/acme-challenge",
    ],
)
def test_words_are_kept(path: str) -> None:
    assert template(path) == path


def test_depth_and_length_are_bounded() -> None:
    assert template("/a" * 100) == "/a" * DEPTH_MAX + "/{rest}"
    assert template("/" + "a" * (SEGMENT_MAX + 1)) == "/{id}"
    assert template("/" + "a1" * 2000) == "/{id}"


@given(st.text() | st.text("/abz019-._%@?#{}", max_size=200))
def test_any_path_gives_a_short_route_that_is_its_own_route(path: str) -> None:
    route = template(path)
    assert len(route) <= (DEPTH_MAX + 1) * (SEGMENT_MAX * 2)
    assert "?" not in route
    assert template(route) == route


@given(st.integers(0), st.uuids(), st.emails())
def test_numbers_uuids_and_emails_never_stay(number: int, uuid: object, email: str) -> None:
    for value in (number, uuid, re.sub("[/?#]", "x", email)):
        assert template(f"/x/{value}") == "/x/{id}"


def test_what_falls_over_the_cap_is_one_route_and_counted() -> None:
    routes = RouteTemplater(max_routes_per_service=2)
    assert [routes.route("shop", Role.SERVER, path) for path in ("/a", "/b/1", "/c", "/b/2", "/d", "/a")] == [
        "/a",
        "/b/{id}",
        OVERFLOW,
        "/b/{id}",
        OVERFLOW,
        "/a",
    ]
    assert routes.overflowed == 2
    assert routes.route("other", Role.SERVER, "/c") == "/c"
    assert routes.route("shop", Role.CLIENT, "/c") == "/c"


def test_many_paths_of_few_routes_never_overflow() -> None:
    routes = RouteTemplater(max_routes_per_service=1)
    assert {routes.route("shop", Role.SERVER, f"/item/{n}") for n in range(5000)} == {"/item/{id}"}
    assert routes.overflowed == 0
