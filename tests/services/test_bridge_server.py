"""What the bridge asks of the catalog server: listings, receipts, availability, what plays."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from unittest.mock import patch

import pytest
from starlette.responses import HTMLResponse, PlainTextResponse, RedirectResponse, Response

from services.bridge import receipt, server_http
from services.bridge.catalog_server import CatalogServer
from services.bridge.server_http import ADMIN_GAP_S, AFTER_429_S, LOGIN_GAP_S, Account, Session
from services.local.sample import create_catalog
from shared.clock import SystemClock
from shared.errors import DependencyDown, Misconfigured
from shared.health import Health
from tests.support.bridge_parts import Parts, parts
from tests.support.bridged import bridged
from tests.support.stages import bare_world
from tests.support.waits import eventually
from tests.support.world import album_id


@pytest.fixture
async def bridge(tmp_path: Path, database_url: str) -> AsyncIterator[Parts]:
    """The parts of a bridge, and a catalog server; no NATS, and no other service."""
    with bare_world(tmp_path, database_url) as world:
        create_catalog(world.catalog)
        async with bridged(world) as made, parts(made) as found:
            yield found


async def playing(bridge: Parts, number: int, count: int, *, seconds: float = 8.0) -> list[str]:
    """An album of which every track is placed and published."""
    tracks = bridge.bridge.world.add_album(number, count, seconds=seconds)
    await bridge.bridge.place(*tracks)
    await bridge.bridge.publish(*tracks)
    return tracks


async def states(bridge: Parts) -> dict[str, tuple[str, int]]:
    """The state of each request, and how many listings lacked it."""
    rows = await bridge.bridge.world.rows("SELECT * FROM bridge_requests")
    return {row["remote_id"]: (row["state"], row["missed"]) for row in rows}


async def problems(bridge: Parts) -> dict[str, str]:
    """What does not work at the server, as the statistics show it."""
    [row] = await bridge.bridge.world.rows("SELECT problems FROM bridge_server")
    return dict(row["problems"])


async def _refused(bridge: Parts) -> dict[str, str]:
    await bridge.availability.run_once()
    return await problems(bridge)


# --- the queue


async def test_every_page_is_read(bridge: Parts) -> None:
    """Also where many requests were made within one second, which the server does not order."""
    bridge.bridge.server.ask("1", "ALBUM", "done00", status="COMPLETED", created_at=1)
    asked = {bridge.bridge.server.ask("1", "ALBUM", f"album{n}", created_at=5) for n in range(7)}
    busy = bridge.bridge.server.ask("1", "ALBUM", "busy00", status="IN_PROGRESS")
    await bridge.intake(page=3).run_once()
    found = await states(bridge)
    assert found == dict.fromkeys(asked, ("found", 0))
    assert busy not in found


async def test_only_two_whole_listings_in_a_row_say_that_a_request_is_gone(bridge: Parts) -> None:
    """One that ended early, or in which rows moved, says nothing."""
    server, intake = bridge.bridge.server, bridge.intake(page=3)
    ids = [server.ask("1", "ALBUM", f"album{n}", created_at=n) for n in range(6)]
    await intake.run_once()
    item = server.queue.pop(ids[4])
    await intake.run_once()
    assert (await states(bridge))[ids[4]] == ("found", 1)
    # Between the pages one of the first rows goes: the second page begins elsewhere.
    moving = server.queue[ids[0]]

    def move() -> None:
        server.queue.pop(ids[0], None)

    server.odd.between_pages = move
    await intake.run_once()
    assert (await states(bridge))[ids[4]] == ("found", 1)
    server.odd.between_pages = None
    server.odd.answers["/admin/requests"] = lambda: PlainTextResponse("", 500)
    with pytest.raises(DependencyDown):
        await intake.run_once()
    server.odd.answers.clear()
    server.queue[ids[0]] = moving
    assert (await states(bridge))[ids[4]] == ("found", 1)
    await intake.run_once()
    assert (await states(bridge))[ids[4]] == ("withdrawn", 2)
    server.queue[ids[4]] = item
    await intake.run_once()
    assert (await states(bridge))[ids[4]] == ("found", 0)


def giving(answer: Response) -> Callable[[], Response]:
    """What makes this answer."""
    return lambda: answer


async def test_an_answer_that_is_none_is_named(bridge: Parts) -> None:
    """What passes by itself, and what an operator has to change."""
    for answer, error, text in (
        (PlainTextResponse("", 502), DependencyDown, "answered 502"),
        (PlainTextResponse("database is locked", 400), DependencyDown, "database is locked"),
        (PlainTextResponse("Download manager not enabled", 503), Misconfigured, "not enabled"),
        (HTMLResponse("<html>"), Misconfigured, "with HTML"),
        (PlainTextResponse("{}"), Misconfigured, "not a list"),
        (PlainTextResponse("gone", 404), Misconfigured, "CATALOG_SERVER_URL"),
        (RedirectResponse("http://elsewhere/"), Misconfigured, "307"),
        (PlainTextResponse("x" * 2000), Misconfigured, "more than 1000 bytes"),
    ):
        bridge.bridge.server.odd.answers["/admin/requests"] = giving(answer)
        with pytest.raises(error, match=text), patch.object(server_http, "MAX_BODY_BYTES", 1000):
            await bridge.server.requests(offset=0)


async def test_after_429_the_bridge_waits_its_own_time(bridge: Parts) -> None:
    """`retry-after: 0` is not meant."""
    server = bridge.bridge.server
    server.odd.answers["/admin/requests"] = lambda: PlainTextResponse("slow down", 429)
    with pytest.raises(DependencyDown):
        await bridge.server.requests(offset=0)
    server.odd.answers.clear()
    calls = len(server.calls)
    with pytest.raises(DependencyDown, match="fewer"):
        await bridge.server.requests(offset=0)
    assert len(server.calls) == calls
    bridge.clock.ahead_s += AFTER_429_S
    assert await bridge.server.requests(offset=0) == []


async def test_a_connection_that_the_server_has_closed_is_replaced() -> None:
    """Once, and not for an upload, which may have arrived."""
    paths: list[str] = []
    closes: list[str] = ["/v1/download/admin/requests", "/v1/ingestion/upload"]

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        path = (await reader.readuntil(b"\r\n\r\n")).split()[1].decode().partition("?")[0]
        paths.append(path)
        if path in closes:
            closes.remove(path)
        else:
            body = b'{"token":"t","permissions":["EditCatalog"]}' if "login" in path else b"[]"
            length = str(len(body)).encode()
            writer.write(b"HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: " + length)
            writer.write(b"\r\n\r\n" + body)
        writer.close()

    async def account() -> Account:
        return Account(user="bridge", password="p", device_uuid="device-1")

    server, clock = await asyncio.start_server(answer, "127.0.0.1", 0), SystemClock()
    async with server:
        url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        session = Session(base_url=url, account=account, health=Health(clock), clock=clock)
        client = CatalogServer(session)
        assert await client.requests(offset=0) == []
        with pytest.raises(DependencyDown, match="no answer"):
            await client.upload("r", filename="a.wav", data=b"x")
        await session.close()
    assert paths.count("/v1/download/admin/requests") == 2
    assert paths.count("/v1/ingestion/upload") == 1


async def test_the_device_is_the_same_after_a_restart(bridge: Parts) -> None:
    """And another one for another account."""
    ids = [await bridge.store.device_uuid(url="http://a", user=user) for user in ("x", "x", "y")]
    assert ids[0] == ids[1] != ids[2]


# --- ends


async def test_without_the_right_to_delete_it_waits_and_says_so(bridge: Parts) -> None:
    """EditCatalog is granted later: the request then ends."""
    permissions = bridge.bridge.server.users["bridge"].permissions
    permissions.discard("EditCatalog")
    await playing(bridge, 1, 1)
    remote_id = await bridge.follow(1)
    endings = bridge.endings("delete")
    await endings.run_once()
    row = await bridge.bridge.request(remote_id)
    assert row is not None
    assert (row["state"], "lacks EditCatalog" in row["problem"]) == ("ending", True)
    assert "lacks EditCatalog" in (await problems(bridge))["requests"]
    permissions.add("EditCatalog")
    await bridge.bridge.world.execute("UPDATE bridge_requests SET due_at = now()")
    await bridge.until_ended(endings, remote_id)
    assert "requests" not in await problems(bridge)


async def test_a_deletion_whose_answer_is_lost_is_made_again(bridge: Parts) -> None:
    """The second time the server does not know the id, which is as good."""
    await playing(bridge, 1, 1)
    remote_id = await bridge.follow(1)
    bridge.bridge.server.odd.lost["/admin/request/"] = 1
    endings = bridge.endings("delete")
    with pytest.raises(DependencyDown):
        await endings.run_once()
    assert (await bridge.until_ended(endings, remote_id))["how"] == "deleted"
    statuses = [status for method, _, status in bridge.bridge.server.calls if method == "DELETE"]
    assert statuses == [200, 400]


async def test_one_that_the_server_does_not_delete_holds_up_no_other(bridge: Parts) -> None:
    """Its text is kept with the request."""
    await playing(bridge, 1, 1)
    await playing(bridge, 2, 1)
    stuck, other = await bridge.follow(1), await bridge.follow(2)
    refused = PlainTextResponse("FOREIGN KEY constraint failed", 400)
    bridge.bridge.server.odd.answers[f"/admin/request/{stuck}"] = lambda: refused
    endings = bridge.endings("delete")
    await bridge.until_ended(endings, other)
    row = await bridge.bridge.request(stuck)
    assert row is not None
    assert (row["state"], "FOREIGN KEY" in row["problem"]) == ("ending", True)


async def test_a_request_that_the_server_has_again_is_ended_again(bridge: Parts) -> None:
    """Its database was restored; with `leave` it is left."""
    await playing(bridge, 1, 1)
    remote_id = await bridge.follow(1)
    item = bridge.bridge.server.queue[remote_id]
    endings = bridge.endings("delete")
    await bridge.until_ended(endings, remote_id)
    bridge.bridge.server.queue[remote_id] = item
    await bridge.intake(page=500).run_once()
    await bridge.until_ended(endings, remote_id)
    assert bridge.bridge.server.queue == {}
    await playing(bridge, 2, 1)
    left = await bridge.follow(2)
    await bridge.until_ended(bridge.endings("leave"), left)
    await bridge.intake(page=500).run_once()
    assert (await states(bridge))[left] == ("ended", 0)


async def test_a_session_that_ends_is_renewed_as_often_as_the_server_takes_it(
    bridge: Parts,
) -> None:
    """After a restore of the server's users."""
    server = bridge.bridge.server
    assert await bridge.server.requests(offset=0) == []
    server.end_sessions()
    with pytest.raises(DependencyDown, match="waits for the next login"):
        await bridge.server.requests(offset=0)
    assert server.logins == 1
    bridge.clock.ahead_s += LOGIN_GAP_S
    assert await bridge.server.requests(offset=0) == []
    assert server.logins == 2


# --- receipts


async def test_a_receipt_comes_after_the_flags_are_computed(bridge: Parts) -> None:
    """So the event that it causes tells the clients of an album that is there."""
    await playing(bridge, 1, 3)
    bridge.bridge.server.ingestion = True
    remote_id = await bridge.follow(1)
    row = await bridge.until_ended(bridge.endings("receipt"), remote_id)
    assert (row["how"], row["problem"]) == ("receipt", None)
    assert bridge.bridge.flags(1) == ("complete", 3)
    [bell] = bridge.bridge.server.uploads.bells
    assert bell["request_id"] == remote_id
    assert len(bridge.bridge.server.uploads.jobs) == 1


@pytest.mark.parametrize(
    ("case", "problem"),
    [
        ("ingestion is off", "Ingestion manager not enabled"),
        ("a track", "requests of albums only"),
        ("a short album", "as short as a receipt"),
        ("no flags", "BRIDGE_AVAILABILITY is false"),
        ("another review", "asks something else"),
        ("answers are checked", "Album not in catalog"),
        ("the file was taken", "changed the files"),
    ],
)
async def test_where_a_receipt_is_not_possible_the_request_is_deleted(
    bridge: Parts, case: str, problem: str
) -> None:
    """And that is said once, with the reason."""
    server = bridge.bridge.server
    server.ingestion = case != "ingestion is off"
    tracks = await playing(bridge, 1, 1 if case == "a short album" else 2, seconds=2.0)
    server.odd.options = ["track:1", "no_match"] if case == "another review" else None
    server.odd.checks_answers = case == "answers are checked"
    server.odd.converts_receipts = case == "the file was taken"
    kind, asked = ("TRACK_AUDIO", tracks[0]) if case == "a track" else ("ALBUM", "")
    remote_id = await bridge.follow(1, kind, asked)
    endings = bridge.endings("receipt", availability=case != "no flags")
    row = await bridge.until_ended(endings, remote_id)
    assert (row["how"], problem in row["problem"]) == ("deleted", True), row["problem"]
    assert server.queue == {}
    [said] = await bridge.bridge.world.rows("SELECT problems FROM bridge_server")
    assert problem in said["problems"]["receipt"]


async def test_an_upload_whose_answer_is_lost_is_found_again(
    bridge: Parts, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is not uploaded twice."""
    monkeypatch.setattr(receipt, "UPLOAD_S", 0.1)
    await playing(bridge, 1, 2)
    bridge.bridge.server.ingestion = True
    bridge.bridge.server.odd.lost["/upload"] = 1
    remote_id = await bridge.follow(1)
    endings = bridge.endings("receipt")

    async def lost() -> bool:
        try:
            await endings.run_once()
            await bridge.availability.run_once()
        except DependencyDown:
            return True
        return False

    await eventually(lost)
    row = await bridge.until_ended(endings, remote_id)
    assert (row["how"], len(bridge.bridge.server.uploads.jobs)) == ("receipt", 1)


async def test_without_the_right_to_ask_what_was_in_place_before_ends_too(bridge: Parts) -> None:
    """Such a request has no item of ours: its files tell."""
    server = bridge.bridge.server
    server.users["bridge"].permissions -= {"AccessCatalog", "ServerAdmin"}
    album, track = bridge.bridge.world.add_album(1, 2), bridge.bridge.world.add_album(2, 1)
    await bridge.bridge.place(*album, *track)
    await bridge.bridge.world.execute(
        "UPDATE media_files SET album_id = $1 WHERE track_id = ANY($2)", album_id(1), album
    )
    asked = [await bridge.follow(1), await bridge.follow(2, "TRACK_AUDIO", track[0])]
    endings = bridge.endings("delete")
    await endings.run_once()
    assert asked == list(server.queue)
    await bridge.bridge.publish(*album, *track)
    await bridge.bridge.world.execute("UPDATE bridge_requests SET due_at = now()")
    for remote_id in asked:
        await bridge.until_ended(endings, remote_id)
    assert server.queue == {}
    said = await eventually(lambda: _refused(bridge), lambda said: "availability" in said)
    assert "lacks AccessCatalog" in said["playable"]
    assert "lacks ServerAdmin" in said["availability"]


# --- availability


async def test_the_job_runs_after_a_change_and_not_again(bridge: Parts) -> None:
    """What is published while it runs needs another run; calls are a second apart."""
    await playing(bridge, 1, 3)
    server = bridge.bridge.server

    async def ran(times: int) -> bool:
        await bridge.availability.run_once()
        return len(server.availability.runs) == times and not (await bridge.store.changes()).asked

    await eventually(lambda: ran(1))
    assert bridge.bridge.flags(1) == ("complete", 3)
    await bridge.availability.run_once()
    assert len(server.availability.runs) == 1
    await playing(bridge, 2, 1)
    await eventually(lambda: ran(2))
    assert bridge.bridge.flags(2) == ("complete", 1)
    # The question that follows an order has waited for what was missing to the distance.
    assert len(bridge.slept) >= len(server.availability.runs)
    assert max(bridge.slept) <= ADMIN_GAP_S


async def test_a_run_that_was_under_way_does_not_count(bridge: Parts) -> None:
    """409: it may have begun before the last change."""
    bridge.bridge.server.availability.seconds = 1.5
    await bridge.server.trigger_availability()
    await playing(bridge, 1, 1)

    async def ran() -> bool:
        bridge.clock.ahead_s += 1
        await bridge.availability.run_once()
        return len(bridge.bridge.server.availability.runs) == 2

    await eventually(ran)
    statuses = [s for _, path, s in bridge.bridge.server.calls if path.endswith("/trigger")]
    assert statuses[0] == statuses[-1] == 202
    assert 409 in statuses


async def test_a_large_run_is_announced_before_it_is_asked_for(bridge: Parts) -> None:
    """50,001 files: a warning in the statistics first, and the run ten minutes later."""
    await bridge.bridge.world.execute(
        "INSERT INTO media_files (track_id, audio_uri, ext, size_bytes, sha256, duration_ms, codec,"
        " bitrate_kbps, published_at, playable_at)"
        " SELECT 'track' || n, 'audio/' || n, 'ogg', 1, '', 1, 'vorbis', 1,"
        " now() - interval '1 minute', now() FROM generate_series(1, 50001) n"
    )
    await bridge.availability.run_once()
    [row] = await bridge.bridge.world.rows("SELECT problems FROM bridge_server")
    assert "repairs 50001 tracks" in row["problems"]["availability"]
    bridge.clock.ahead_s += 60
    await bridge.availability.run_once()
    assert not bridge.bridge.server.calls
    await bridge.bridge.world.execute(
        "UPDATE bridge_server SET availability_warned_at = now() - interval '11 minutes'"
    )
    bridge.clock.ahead_s += 60
    await bridge.availability.run_once()
    assert (await bridge.store.changes()).asked


# --- what plays


async def test_what_plays_is_kept_in_the_ledger_with_the_reason_where_it_does_not(
    bridge: Parts,
) -> None:
    """150 tracks in two calls; one that is lost later is noticed."""
    tracks = await playing(bridge, 1, 150)
    world = bridge.bridge.world
    (world.media / _uri(tracks[7])).unlink()
    placed = bridge.bridge.world.add_album(2, 1)
    await bridge.bridge.place(*placed)
    assert await bridge.playable.run_once() == 150
    batches = [1 for _, path, _ in bridge.bridge.server.calls if path.endswith("/batch")]
    assert len(batches) == 3  # and one again for what does not play
    rows = await world.rows("SELECT * FROM media_files WHERE playable_at IS NULL ORDER BY track_id")
    assert {row["track_id"] for row in rows} == {tracks[7], placed[0]}
    reasons = {row["track_id"]: row["not_playable"] for row in rows}
    assert reasons[placed[0]] is None
    assert reasons[tracks[7]] == "the catalog server finds no file where the catalog names one"
    (world.media / _uri(tracks[7])).write_bytes(b"fLaC")
    bridge.clock.ahead_s += 61
    await bridge.playable.run_once()
    rows = await world.rows("SELECT 1 FROM media_files WHERE playable_at IS NULL")
    assert len(rows) == 1


async def test_a_track_that_plays_no_more_is_noticed_within_a_day(bridge: Parts) -> None:
    """So the figures stay true."""
    [track] = await playing(bridge, 1, 1)
    await bridge.playable.run_once()
    world = bridge.bridge.world
    await world.execute("UPDATE media_files SET playable_at = now() - interval '25 hours'")
    (world.media / _uri(track)).unlink()
    bridge.clock.ahead_s += 61
    await bridge.playable.run_once()
    [row] = await world.rows("SELECT playable_at, not_playable FROM media_files")
    assert row["playable_at"] is None
    assert row["not_playable"] is not None


def _uri(track: str) -> str:
    return f"audio/{track[:2]}/{track[2:4]}/{track[4:6]}/{track}.flac"
