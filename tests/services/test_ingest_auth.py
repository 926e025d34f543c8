"""No route is open without credentials, and no user sees what is another's."""

from __future__ import annotations

from typing import cast

from starlette.applications import Starlette
from starlette.routing import Route

from shared.web import WebServer
from tests.support.ingest_helpers import KEY, V1, ask, assert_problem, raw, serve
from tests.support.world import ADMIN, ADMIN_KEY, World, as_user


def routes(world: World) -> list[tuple[str, str]]:
    """Every method and path that ingest serves, with ids filled in."""
    [server] = [d for r in world.running for d in r.duties if isinstance(d, WebServer)]
    found = []
    for route in cast("Starlette", server.app).routes:
        assert isinstance(route, Route)
        path = "/".join(
            "some-id-1" if part.startswith("{") else part for part in route.path.split("/")
        )
        found += [(method, path) for method in sorted(route.methods or ())]
    assert len(found) >= 10
    return found


async def test_every_route_wants_a_key(world: World) -> None:
    """Without a key, with a wrong one, a part of it, or another scheme: 401, whatever the route."""
    api = await serve(world)
    values = [
        None, "", "Bearer", "Bearer ", "Bearer wrong", f"Bearer {ADMIN_KEY[:-1]}",
        f"Bearer {ADMIN_KEY}x", f"Basic {ADMIN_KEY}", ADMIN_KEY, "Bearer \xff\xfe",
    ]  # fmt: skip
    for method, path in routes(world):
        for value in values:
            headers = [] if value is None else [b"Authorization: " + value.encode("latin-1")]
            answer = await raw(api, method, path, *headers)
            assert answer.status == 401, (method, path, value)
            assert answer.headers["www-authenticate"] == "Bearer"
            if method != "HEAD":
                assert_problem(answer, 401, "not-authenticated")
    assert await world.rows("SELECT 1 FROM scans") == []


async def test_without_a_configured_key_nobody_comes_in(world: World) -> None:
    """No BOOTSTRAP_ADMIN_KEY is no open door."""
    api = await serve(world, BOOTSTRAP_ADMIN_KEY="")
    for value in ("Bearer ", "Bearer None", f"Bearer {ADMIN_KEY}"):
        answer = await raw(api, "GET", f"{V1}/limits", f"Authorization: {value}".encode())
        assert_problem(answer, 401, "not-authenticated")


async def test_a_key_may_have_any_characters(world: World) -> None:
    """The key is compared byte for byte, and `bearer` is written in any case."""
    api = await serve(world, BOOTSTRAP_ADMIN_KEY="schlüssel→key ")
    for value in ("Bearer schlüssel→key", "bearer  schlüssel→key "):
        answer = await raw(api, "GET", f"{V1}/limits", f"Authorization: {value}".encode())
        assert answer.status == 200, answer.body


async def test_who_acts_for_a_user_is_no_administrator(world: World) -> None:
    """X-User-Id on an administrator's route is 403, and starts nothing."""
    api = await serve(world)
    admin = [(m, p) for m, p in routes(world) if "/admin/" in p and m != "HEAD"]
    assert len(admin) == 15
    for method, path in admin:
        answer = await api.request(method, path, headers=as_user("42"))
        assert_problem(answer, 403, "not-allowed")
    assert await world.rows("SELECT 1 FROM scans") == []


async def test_a_user_id_is_checked(world: World) -> None:
    """An X-User-Id that is no id is 422, not another user and not the administrator."""
    api = await serve(world)
    # F32: "admin" would see the administrator's items.
    for user in ("admin", "", " ", "a b", "x" * 129, "tab\there", "nul\x00", "ü"):
        answer = await raw(api, "GET", f"{V1}/limits", KEY, f"X-User-Id: {user}".encode())
        if "\x00" in user:
            assert answer.status == 400  # not HTTP at all
            continue
        assert_problem(answer, 422, "invalid-request")


async def test_an_identity_is_given_once(world: World) -> None:
    """F32: of two headers a proxy may check one, and we may read the other."""
    api = await serve(world)
    one, two = b"X-User-Id: 42", b"X-User-Id: 43"
    for headers in (
        (KEY, one, two),
        (KEY, one, one),
        (KEY, KEY),
        (KEY, b"Authorization: Bearer x"),
    ):
        answer = await raw(api, "GET", f"{V1}/limits", *headers)
        assert_problem(answer, 422, "invalid-request")


async def test_nobody_sees_what_is_anothers(world: World) -> None:
    """Another user's item is 404, as one that does not exist; the administrator sees all."""
    [track] = world.add_album(1, 1)
    api = await serve(world)
    item_id = (await ask(api, track, "42")).json()["item"]["id"]
    path = f"{V1}/items/{item_id}"
    assert (await api.get(path, headers=as_user("42"))).status_code == 200
    assert (await api.get(path, headers=ADMIN)).status_code == 200
    stranger = await api.get(path, headers=as_user("7"))
    assert_problem(stranger, 404, "unknown")
    nothing = await api.get(f"{V1}/items/{'0' * 36}", headers=as_user("7"))
    assert stranger.json()["type"] == nothing.json()["type"]
    assert (await api.get(f"{V1}/my-requests", headers=as_user("7"))).json()["total"] == 0
    await ask(api, track, "7")
    assert (await api.get(path, headers=as_user("7"))).status_code == 200
