"""What comes in malformed, by either door: refused or put aside, and nothing else happens."""

from __future__ import annotations

import json

from shared.bus.subjects import (
    COMMAND_SCAN,
    REQUEST_ALBUM,
    REQUEST_CANCEL,
    REQUEST_TRACK,
)
from shared.rejections import Rejections
from tests.support.ingest_helpers import (
    KEY,
    V1,
    Dead,
    assert_problem,
    dead,
    everything_below,
    in_outbox,
    message,
    raw,
    serve,
    unhandled,
)
from tests.support.stages import stages
from tests.support.world import World, eventually, track_id

GOOD = track_id(1001)
TARGETS = (
    b"../../etc/passwd",
    b"..%2f..%2fetc%2fpasswd",
    b"..",
    b"%2f",
    b"%2e%2e%2f" + GOOD.encode(),
    b"%00",
    GOOD.encode() + b"%00",
    GOOD.encode() + b"%0a",
    b"%0a" + GOOD.encode(),
    b"ab%0d%0acd%0aef",
    b"a" * 300,
    b"abcde",
    "ünïcödé".encode(),
    b"%c3%bcnic%c3%b6de",
    b"%ff%fe%fd%fc%fb%fa",
    b"",
    b"%20" + GOOD.encode(),
    GOOD.encode() + b"/",
    GOOD.encode() + b"/x",
    b"ab;cd'ef--",
    GOOD.encode() + b"%3Fx=1",
)


async def test_malformed_ids_over_http_touch_nothing(world: World) -> None:
    """Any path that is no id gets 422, whatever its encoding, and changes no row and no file."""
    world.add_album(1, 1)
    api = await serve(world)
    before = everything_below(world.folder / "media")
    for kind in (b"track/", b"album/"):
        for target in TARGETS:
            answer = await raw(api, "POST", f"{V1}/".encode() + kind + target, KEY)
            if answer.status == 400:
                # Bytes that HTTP itself does not allow in a target never reach the routes.
                assert any(byte > 127 for byte in target), target
                continue
            assert_problem(answer, 422, "invalid-request")
    assert await world.rows("SELECT 1 FROM requests") == []
    assert await world.rows("SELECT 1 FROM events") == []
    assert await world.items() == []
    assert everything_below(world.folder / "media") == before


async def test_malformed_ids_of_things_are_422(world: World) -> None:
    """An id that PostgreSQL could not even look up is malformed, and no error of the server."""
    api = await serve(world)
    for path in ("items/%00", "items/a%0ab", "admin/scan/%00", "admin/scan/%c3%a9"):
        assert_problem(await raw(api, "GET", f"{V1}/{path}", KEY), 422, "invalid-request")


def _track(**more: object) -> bytes:
    return json.dumps(message(GOOD) | more).encode()


GARBAGE: tuple[tuple[str, bytes], ...] = (
    (REQUEST_TRACK, b""),
    (REQUEST_TRACK, b"\xff\xfe\x00"),
    (REQUEST_TRACK, b"{"),
    (REQUEST_TRACK, b"null"),
    (REQUEST_TRACK, b"[]"),
    (REQUEST_TRACK, b"[" * 100_000),
    (REQUEST_TRACK, b'{"a":' * 50_000 + b"1" + b"}" * 50_000),
    (REQUEST_TRACK, b"x" * 900_000),
    # The largest that NATS takes: with the reason it is larger than one message may be.
    (REQUEST_TRACK, b"y" * (1024 * 1024)),
    (REQUEST_TRACK, b"{}"),
    (REQUEST_TRACK, _track(v=2)),
    (REQUEST_TRACK, _track(v="1")),
    (REQUEST_TRACK, _track(v=True)),
    (REQUEST_TRACK, _track(v=None)),
    (REQUEST_TRACK, _track(request_id="")),
    (REQUEST_TRACK, _track(request_id=7)),
    (REQUEST_TRACK, _track(request_id="a\0b")),
    (REQUEST_TRACK, _track(request_id="x" * 129)),
    (REQUEST_TRACK, _track(user_id=42)),
    (REQUEST_TRACK, _track(user_id="4\x002")),
    (REQUEST_TRACK, _track(priority=0)),
    (REQUEST_TRACK, _track(priority=4)),
    (REQUEST_TRACK, _track(priority="2")),
    (REQUEST_TRACK, _track(priority=2**70)),
    (REQUEST_TRACK, _track(track_id="../../../etc/passwd")),
    (REQUEST_TRACK, _track(track_id="..%2f..%2f")),
    (REQUEST_TRACK, _track(track_id="abc\0def")),
    (REQUEST_TRACK, _track(track_id="")),
    (REQUEST_TRACK, _track(track_id="a" * 300)),
    (REQUEST_TRACK, _track(track_id="ünïcödé")),
    (REQUEST_TRACK, _track(track_id=None)),
    (REQUEST_TRACK, b'{"v":1,"request_id":"r","track_id":"\\ud800\\ud800\\ud800"}'),
    (REQUEST_TRACK, _track(track={"id": GOOD, "name": "NUL \0 inside"})),
    (REQUEST_TRACK, _track(track={"id": GOOD, "name": "x", "artists": ["NUL \0"]})),
    (REQUEST_TRACK, _track(track={"id": GOOD, "name": "x", "disc_number": 2**63})),
    (REQUEST_TRACK, _track(track={"id": GOOD, "name": "x", "track_number": 2**31})),
    (REQUEST_TRACK, _track(track={"id": GOOD, "name": "x", "duration_ms": 2**64})),
    (REQUEST_TRACK, _track(track={"id": GOOD, "name": "x", "duration_ms": -1})),
    (REQUEST_TRACK, _track(track={"id": GOOD, "name": "x" * 1001})),
    (REQUEST_TRACK, _track(track={"id": track_id(9), "name": "another"})),
    (REQUEST_TRACK, _track(track={"id": GOOD})),
    (
        REQUEST_TRACK,
        b'{"v":1,"request_id":"r","track_id":"%b",' % GOOD.encode() + b'"track":'
        b'{"id":"%b","name":"\\ud83d alone"}}' % GOOD.encode(),
    ),
    (REQUEST_ALBUM, json.dumps({"v": 1, "request_id": "r", "album_id": "../x"}).encode()),
    (REQUEST_ALBUM, _track()),
    (
        REQUEST_ALBUM,
        json.dumps({"v": 1, "request_id": "r", "album_id": GOOD, "tracks": [1]}).encode(),
    ),
    (REQUEST_CANCEL, b"{}"),
    (REQUEST_CANCEL, json.dumps({"v": 1, "request_id": "a\0"}).encode()),
    (COMMAND_SCAN, b"{"),
    (COMMAND_SCAN, b"[" * 100_000),
    (COMMAND_SCAN, b"[]"),
    (COMMAND_SCAN, json.dumps({"v": 1}).encode()),
    (COMMAND_SCAN, json.dumps({"v": True, "request_id": "r"}).encode()),
    (COMMAND_SCAN, json.dumps({"v": 1, "request_id": "a\0"}).encode()),
    (COMMAND_SCAN, json.dumps({"v": 1, "request_id": "\ud800"}).encode()),
    (COMMAND_SCAN, json.dumps({"v": 1, "request_id": "r", "user_id": "\0"}).encode()),
    (COMMAND_SCAN, json.dumps({"v": 1, "request_id": "r", "user_id": "\ud800"}).encode()),
    (COMMAND_SCAN, json.dumps({"v": 1, "request_id": "r", "queue": "yes"}).encode()),
    (COMMAND_SCAN, json.dumps({"v": 1, "request_id": "r", "mode": "ACTUAL"}).encode()),
    (COMMAND_SCAN, json.dumps({"v": 1, "request_id": "r", "scope": "album"}).encode()),
    (COMMAND_SCAN, json.dumps({"v": 1, "request_id": "r", "limit": 2**63}).encode()),
    (COMMAND_SCAN, json.dumps({"v": 1, "request_id": "r", "\ud800": 1}).encode()),
    (COMMAND_SCAN, b'{"v":1,"request_id":"r","limit":' + b"9" * 5000 + b"}"),
)


async def test_garbage_over_nats_is_put_aside_whole(world: World) -> None:
    """What cannot be understood goes to the dead stream at once, whole, with the reason, and is
    acknowledged; the good message behind it is carried out."""
    world.add_album(1, 1)
    await serve(world, "ingest", "watchdog")
    for subject, body in GARBAGE:
        await world.publish(subject, body)
    good = message(GOOD, "42")
    await world.publish(REQUEST_TRACK, good)
    found = await dead(world, len(GARBAGE) + 1)  # one of them came in two parts
    expected = sorted(body for _, body in GARBAGE)
    assert sorted(_put_together(found)) == expected
    assert all(entry.headers["Pezzottify-Reason"] for entry in found)
    assert {entry.headers["Pezzottify-Subject"] for entry in found} == {
        REQUEST_TRACK, REQUEST_ALBUM, REQUEST_CANCEL, COMMAND_SCAN,
    }  # fmt: skip
    [item] = await eventually(world.items)
    assert item["track_id"] == GOOD
    assert await world.rows("SELECT id FROM requests") == [{"id": good["request_id"]}]
    assert await world.rows("SELECT id FROM scans") == []
    assert await eventually(lambda: unhandled(world), lambda left: left == 0) == 0


def _put_together(found: list[Dead]) -> list[bytes]:
    whole: list[bytes] = []
    parts: dict[str, bytes] = {}
    for entry in found:
        if "Pezzottify-Part" not in entry.headers:
            whole.append(entry.data)
            continue
        key = entry.headers["Nats-Msg-Id"].rpartition(":")[0]
        parts[key] = parts.get(key, b"") + entry.data
    return whole + list(parts.values())


async def test_an_unknown_track_over_nats_is_rejected_with_an_event(world: World) -> None:
    """A message that is understood and cannot be met is told as request.rejected, not buried."""
    await serve(world)
    body = message("NoSuchTrackAnywhere123", "42")
    await world.publish(REQUEST_TRACK, body)
    [event] = await eventually(lambda: in_outbox(world, "request.rejected"))
    assert event["request_id"] == body["request_id"]
    assert event["user_id"] == "42"
    assert event["problem"] == "Unknown"
    published = await eventually(lambda: world.events("request.rejected"))
    assert published[0]["body"]["request_id"] == body["request_id"]


async def test_the_sender_of_a_malformed_message_is_told(world: World) -> None:
    """F38: beside the dead message there is request.rejected, where the message says for whom."""
    await serve(world, "ingest", "watchdog")
    bad = message("../x", "42")
    await world.publish(REQUEST_TRACK, bad)
    scan = {"v": 1, "request_id": "scan-1", "scope": "nonsense"}
    await world.publish(COMMAND_SCAN, scan)
    await world.publish(REQUEST_ALBUM, b"{no json")
    assert len(await dead(world, 3)) == 3
    told = {each["request_id"]: each for each in await in_outbox(world, "request.rejected")}
    assert told.keys() == {bad["request_id"], "scan-1"}
    assert told[bad["request_id"]] == {
        "request_id": bad["request_id"],
        "user_id": "42",
        "track_id": None,
        "problem": "InvalidRequest",
        "reason": told[bad["request_id"]]["reason"],
    }
    assert "is not an id" in told[bad["request_id"]]["reason"]
    assert "scope" in told["scan-1"]["reason"]
    await eventually(lambda: world.events("request.rejected"), lambda found: len(found) == 2)


async def test_a_message_that_comes_again_is_rejected_once(still: World) -> None:
    """A redelivery has the id of its message; the same text in another message is another one."""
    body = json.dumps(message("../x", "42")).encode()
    async with stages(still) as by_hand:
        rejections = Rejections(by_hand.app.database, by_hand.app.announcer, actor="ingest")
        for message_id in ("1", "1", "2", "1"):
            await rejections.record(REQUEST_TRACK, body, reason="why", message_id=message_id)
    assert len(await in_outbox(still, "request.rejected")) == 2


async def test_no_such_route_is_a_problem(world: World) -> None:
    """Every route that is none answers 404 problem+json, without a redirect."""
    api = await serve(world)
    for method, path in (
        ("POST", "track"), ("POST", "album"), ("GET", ""), ("GET", "limits/"),
        ("GET", "nothing/here"), ("GET", "track-x/abcdef"), ("GET", "../../openapi.json"),
    ):  # fmt: skip
        assert_problem(await raw(api, method, f"{V1}/{path}", KEY), 404, "not-found")


async def test_a_wrong_method_is_a_problem(world: World) -> None:
    """405 is problem+json too, and names the methods that there are."""
    api = await serve(world)
    for method, path in (("GET", f"track/{GOOD}"), ("POST", "limits"), ("DELETE", "admin/scan")):
        answer = await api.request(method, f"{V1}/{path}")
        assert_problem(answer, 405, "method-not-allowed")
        assert answer.headers["allow"]
