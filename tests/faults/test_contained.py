"""One bad file stays one bad file: the others arrive, and the place is not taken for broken."""

from __future__ import annotations

import asyncio
import errno
import os
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from services.local.sample import create_catalog
from shared.db.health_reports import Conditions
from shared.db.presence import Known
from shared.errors import DependencyDown, Misconfigured
from shared.media.paths import audio_dir
from shared.media.tools import AudioTools, find_tools
from tests.support.autoindex import Autoindex, answer
from tests.support.disk import refused_names, withheld
from tests.support.ready import arrived, ready, ready_album
from tests.support.stages import Stages, bare_world, held_by, in_audio, queue, stages
from tests.support.world import Row, World, eventually

# Each that reading a file or a folder may give, from the table of Linux.
OF_ONE_FILE = (
    *(errno.EACCES, errno.EPERM, errno.EIO, errno.ESTALE, errno.EBADMSG, errno.EUCLEAN),
    *(errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.ENAMETOOLONG, errno.ENXIO),
)
# Of all others some; tests/contract/test_delivery.py has every one at the adapter.
UNEXPLAINED = (
    *(errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.EAGAIN, errno.EINVAL, errno.ENOSYS),
    *(errno.ETIMEDOUT, errno.ENOTCONN, errno.EREMOTEIO),
)


@pytest.fixture
async def world(tmp_path: Path, database_url: str) -> AsyncIterator[World]:
    """Without Torrentino and NATS."""
    with bare_world(tmp_path, database_url) as made:
        create_catalog(made.catalog)
        made.env |= {"ACQUISITION": "tickets", "MIN_FREE_DISK_MB": "0", "SWEEP_INTERVAL_S": "0.2"}
        yield made


async def rounds(by_hand: Stages) -> None:
    """Fetch what is due now, without moving any time on."""
    while await by_hand.fetcher.run_once():
        await asyncio.gather(*by_hand.fetcher.working)


def is_in_order(by_hand: Stages, *names: str) -> bool:
    """Whether nothing is taken for away."""
    conditions = by_hand.app.health.conditions()
    known = [conditions.get(name) for name in names or ("incoming", "media", "media_write")]
    return all(each is None or each.ok for each in known)


# --- F13: the folder that both see


@pytest.mark.parametrize("bad", [1, 5, 20])
async def test_unreadable_folders_keep_no_other(world: World, bad: int) -> None:
    """F13: the oldest tickets cannot be read: each loses an attempt, with its path, and no more."""
    refused, good = await ready(world, bad), await ready(world, 3, first=100)
    with withheld(dict.fromkeys([each.folder for each in refused], errno.EACCES)):
        async with stages(world) as by_hand:
            await rounds(by_hand)
            assert await arrived(world, good) == 3
            assert is_in_order(by_hand)
            for each in refused:
                item = await each.item(world)
                assert (item["stage"], item["retry_count"]) == ("retry_wait", 1)
                assert str(each.folder) in item["error_message"]
                assert item["error_evidence"]["path"].startswith(str(each.folder))
                assert item["error_type"] == "storage"


async def test_every_error_of_reading_is_contained(world: World) -> None:
    """What a damaged file answers ends an attempt; what says nothing of its cause hands back."""
    numbers = [*OF_ONE_FILE, *UNEXPLAINED]
    bad = dict(zip(numbers, await ready(world, len(numbers)), strict=True))
    good = await ready(world, 2, first=500)
    with withheld({each.file: number for number, each in bad.items()}):
        async with stages(world) as by_hand:
            await rounds(by_hand)
            assert await arrived(world, good) == 2
            assert is_in_order(by_hand)
    for number, each in bad.items():
        item = await each.item(world)
        found = (item["stage"], item["retry_count"], item["hand_backs"])
        name = errno.errorcode[number]
        if number in OF_ONE_FILE:
            assert found == ("retry_wait", 1, 0), name
            assert each.folder.name in str(item["error_evidence"]), name
        else:
            assert found == ("ready", 0, 1), name
            assert item["due_at"] is not None, name


async def test_a_folder_of_many_unreadable_tickets_is_the_places_fault(world: World) -> None:
    """A wrong umask at Torrentino makes every folder so: no attempt is used, an alarm says it."""
    refused = await ready(world, 6)
    async with stages(world) as by_hand:
        with withheld(dict.fromkeys([each.folder for each in refused], errno.EACCES)):
            await held_by(lambda: rounds(by_hand))
            assert {(await each.item(world))["retry_count"] for each in refused} == {0}
            held = await held_by(by_hand.fetcher.run_once)
            assert isinstance(held, Misconfigured)
            assert f"readable by user id {os.getuid()}" in held.detail
        await by_hand.fetch()
        assert await arrived(world, refused) == 6


async def test_hand_backs_are_bounded_and_grow(world: World) -> None:
    """Too many open files again and again: no attempt for an hour, then one with the last words."""
    [bad] = await ready(world, 1)
    waits = []
    with withheld({bad.file: errno.EMFILE}):
        async with stages(world) as by_hand:
            for turn in range(13):
                assert await by_hand.fetch() == 1
                [row] = await world.rows(
                    "SELECT *, extract(epoch FROM due_at - now())::float AS wait_s FROM queue_items"
                )
                waits.append(row["wait_s"])
                if turn < 12:
                    assert (row["stage"], row["hand_backs"], row["retry_count"]) == (
                        "ready",
                        turn + 1,
                        0,
                    )
            assert (row["stage"], row["retry_count"], row["hand_backs"]) == ("retry_wait", 1, 0)
            assert "Too many open files" in row["error_message"]
            assert "13 times" in row["error_message"]
            assert is_in_order(by_hand)
    assert sum(waits[:-1]) > 1800
    assert all(wait < 901 for wait in waits[:-1])


async def test_a_success_forgets_the_hand_backs(world: World) -> None:
    [item] = await ready(world, 1)
    async with stages(world) as by_hand:
        with withheld({item.file: errno.ENOMEM}):
            await by_hand.fetch()
        assert (await item.item(world))["hand_backs"] == 1
        await by_hand.fetch()
        row = await item.item(world)
    assert (row["stage"], row["hand_backs"], row["retry_count"]) == ("completed", 0, 0)


async def test_claims_prefer_what_was_not_handed_back(world: World) -> None:
    """Of one priority; what is more urgent stays so."""
    old, new, urgent = [(await ready(world, 1, first=n))[0] for n in (1, 2, 3)]
    for each in (old, urgent):
        await world.execute("UPDATE queue_items SET hand_backs = 1 WHERE id = $1", each.item_id)
    await world.execute("UPDATE queue_items SET priority = 1 WHERE id = $1", urgent.item_id)
    async with stages(world) as by_hand:
        claimed = [(await by_hand.fetcher.store.claim(1))[0].track_id for _ in range(3)]
    assert claimed == [urgent.track, new.track, old.track]


# --- F14: over HTTP

HTML = answer(200, b"<html>", ["Content-Type: text/html"])
BAD_ANSWERS = {
    "file 403": ("file", answer(403, b"", []), "attempt"),
    "file 404": ("file", answer(404, b"", []), "attempt"),
    "file 410": ("file", answer(410, b"", []), "attempt"),
    "file 401": ("file", answer(401, b"", []), "attempt"),
    "file 302": ("file", answer(302, b"", ["Location: /"]), "attempt"),
    "file 416": ("file", answer(416, b"", []), "attempt"),
    "file 500": ("file", answer(500, b"", []), "attempt"),
    "file 503": ("file", answer(503, b"", []), "attempt"),
    "file gzip": ("file", answer(200, b"x", ["Content-Encoding: gzip"]), "attempt"),
    "file html": ("file", HTML, "attempt"),
    "file range": ("file", answer(206, b"x", ["Content-Range: bytes 5-5/9"]), "attempt"),
    "file nothing": ("file", b"", "hand back"),
    "listing 403": ("folder", answer(403, b"", []), "attempt"),
    "listing 500": ("folder", answer(500, b"", []), "attempt"),
    "listing html": ("folder", HTML, "attempt"),
    "listing broken": ("folder", answer(200, b'[{"name": ', []), "attempt"),
    "listing object": ("folder", answer(200, b"{}", []), "attempt"),
    "listing nothing": ("folder", b"", "hand back"),
}


async def test_every_bad_answer_of_the_file_server_is_contained(world: World) -> None:
    """F14: a file that the server refuses, or answers with nonsense, stops no other."""
    bad = dict(zip(BAD_ANSWERS, await ready(world, len(BAD_ANSWERS)), strict=True))
    good = await ready(world, 2, first=500)
    async with Autoindex(world.incoming) as server:
        for name, each in bad.items():
            kind, wire, _ = BAD_ANSWERS[name]
            place = f"/files/{each.folder.name}/"
            server.refusals[place + (each.file.name if kind == "file" else "")] = wire
        over_http = {"TORRENTINO_DELIVERY": "http", "TORRENTINO_FILES_URL": server.url}
        async with stages(world, FETCH_CONCURRENCY="20", **over_http) as by_hand:
            await rounds(by_hand)
            assert await arrived(world, good) == 2
            assert is_in_order(by_hand)
    for name, each in bad.items():
        item = await each.item(world)
        found = (item["stage"], item["retry_count"], item["hand_backs"])
        wanted = ("retry_wait", 1, 0) if BAD_ANSWERS[name][2] == "attempt" else ("ready", 0, 1)
        assert found == wanted, (name, item["error_message"], item["reason"])


# --- F16: entries of other programs

EXTRAS = (
    *(".DS_Store", "Thumbs.db", "desktop.ini", "readme.nfo", ".nfs0000000012", ".fuse_hidden0001"),
    *("@eaDir/song.flac/SYNO@.jpg", "._song.flac", "other.flac.part", ".Trash-1000/files/x.flac"),
)


@pytest.mark.parametrize("extras", [*((name,) for name in EXTRAS), EXTRAS])
async def test_entries_of_other_programs_fail_no_item(
    world: World, extras: tuple[str, ...]
) -> None:
    """F16: whatever a NAS or a desktop leaves in the folder; it is removed with the folder."""
    [item] = await ready(world, 1)
    for name in extras:
        path = item.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x" * 6148)
    async with stages(world) as by_hand:
        await by_hand.fetch()
        assert in_audio(world) == [f"{item.track}.flac"]
        await by_hand.clean()
        assert not item.folder.exists()


async def test_extras_beside_an_album(world: World) -> None:
    """Where Torrentino has placed several files, and its numbers cannot tell which they are."""
    items = await ready_album(world, 2, first=1001)
    for name in ("readme.nfo", ".DS_Store", "cover.jpg"):
        (items[0].folder / name).write_bytes(b"x" * 100)
    await world.execute(
        "UPDATE tickets SET files_placed = 3, final_size_bytes = final_size_bytes + 100"
    )
    async with stages(world) as by_hand:
        await by_hand.fetch()
    assert await arrived(world, items) == 2


async def test_a_folder_that_cannot_be_removed_keeps_no_other(world: World) -> None:
    """A file on NFS that is still open keeps its folder: it is tried later, and later."""
    stuck, free = await ready(world, 2)
    await world.execute(
        "UPDATE tickets SET closed_at = now() - interval '1 h' WHERE id = $1", stuck.ticket_id
    )
    async with stages(world) as by_hand:
        await by_hand.fetch()
        with withheld({stuck.folder: errno.EBUSY}):
            await by_hand.clean()
            assert not free.folder.exists()
        [row] = await world.rows("SELECT * FROM tickets WHERE id = $1", stuck.ticket_id)
        assert (row["collected_at"], row["clean_tries"]) == (None, 1)
        await by_hand.clean()
        assert stuck.folder.exists(), "not before its time"
        await world.execute("UPDATE tickets SET clean_at = now()")
        await by_hand.clean()
        assert not stuck.folder.exists()


# --- F17: another mount


async def _alarm(world: World) -> Row | None:
    rows = await world.rows("SELECT * FROM conditions WHERE dependency = 'incoming' AND NOT ok")
    return rows[0] if rows else None


@pytest.mark.parametrize("count", [1, 4])
async def test_another_mount_is_a_setting_to_correct(world: World, count: int) -> None:
    """F17: an alarm with both paths, no attempt, no new ticket; mended, all is collected."""
    items = await ready(world, count)
    right = world.incoming.rename(world.folder / "right")
    world.incoming.mkdir()
    async with stages(world) as by_hand:
        await held_by(by_hand.fetch)
        held = await held_by(by_hand.fetcher.run_once)
        assert isinstance(held, Misconfigured)
        for text in (str(items[0].folder.parent), "TORRENTINO_DEST_MOUNT", "docker-compose.yml"):
            assert text in held.detail
        for _ in range(3):
            await held_by(by_hand.fetch)
        moves = await world.rows("SELECT 1 FROM events WHERE stage = 'fetching'")
        assert len(moves) <= count, "the check comes before the claim"
        for each in items:
            item = await each.item(world)
            assert (item["stage"], item["retry_count"], item["hand_backs"]) == ("ready", 0, 0)

        reports = Conditions(by_hand.app.database, by_hand.app.health, worker="fetcher")
        await reports.run_once()
        alarm = await _alarm(world)
        assert alarm is not None
        assert alarm["alarm"] == "configuration"
        await queue(world, ["T000000000000000009999"])
        assert await by_hand.ticketer.run_once() == 0
        [waiting] = await world.rows("SELECT * FROM queue_items WHERE track_id LIKE '%9999'")
        assert waiting["stage"] == "queued"

        world.incoming.rmdir()
        right.rename(world.incoming)
        await by_hand.fetch()
        assert await arrived(world, items) == count
        await reports.run_once()
        assert await _alarm(world) is None
        # The ticketer asks Torrentino again, which is away in this world.
        await held_by(by_hand.ticket_once)
        [waiting] = await world.rows("SELECT * FROM queue_items WHERE track_id LIKE '%9999'")
        assert waiting["ticket_id"] is not None


async def test_one_lost_folder_is_the_items_fault(world: World) -> None:
    """Others are there: it is looked for over a minute, as a network shows it late, and lost."""
    [lost], good = await ready(world, 1, placed=False), await ready(world, 2, first=10)
    async with stages(world) as by_hand:
        await by_hand.fetch()
        assert await arrived(world, good) == 2
        for turn in range(1, 4):
            item = await lost.item(world)
            assert (item["stage"], item["hand_backs"], item["retry_count"]) == ("ready", turn, 0)
            await by_hand.fetch()
        item = await lost.item(world)
        assert (item["stage"], item["retry_count"]) == ("retry_wait", 1)
        assert str(lost.folder) in item["error_message"]
        assert is_in_order(by_hand)


async def test_a_lost_folder_after_a_restart_stops_nothing(world: World) -> None:
    """The place is known from before, although no other download is there to prove it."""
    await ready(world, 1)
    async with stages(world) as by_hand:
        await by_hand.fetch()
        await by_hand.clean()
    [lost] = await ready(world, 1, first=2, placed=False)
    async with stages(world) as by_hand:
        for _ in range(4):
            await by_hand.fetch()
        assert (await lost.item(world))["retry_count"] == 1
        assert is_in_order(by_hand)


async def test_a_folder_that_is_shown_late_costs_no_attempt(world: World) -> None:
    """A network filesystem remembers for a minute that there was no such folder."""
    [late], good = await ready(world, 1), await ready(world, 1, first=10)
    hidden = late.folder.rename(world.folder / "hidden")
    async with stages(world) as by_hand:
        await by_hand.fetch()
        assert await arrived(world, good) == 1
        hidden.rename(late.folder)
        await by_hand.fetch()
        assert await arrived(world, [late]) == 1
    assert (await late.item(world))["retry_count"] == 0


# --- our own disk


async def test_a_folder_of_one_track_that_cannot_be_written(world: World) -> None:
    """`audio/T0/…` is another user's: after three turns an attempt with the path."""
    bad, good = (
        (await ready(world, 1, first=1))[0],
        await ready(world, 2, first=1_000_000_000_000_000_000),
    )
    folder = world.media / "audio" / bad.track[:2]
    (folder / bad.track[2:4] / bad.track[4:6]).mkdir(parents=True)
    names = {folder / bad.track[2:4] / bad.track[4:6] / f"{bad.track}.flac"}
    async with stages(world) as by_hand:
        for turn in range(4):
            with refused_names(names, errno.EACCES):
                await by_hand.fetch()
            item = await bad.item(world)
            assert item["hand_backs"] == (turn + 1) % 4, turn
        assert (item["stage"], item["retry_count"]) == ("retry_wait", 1)
        assert bad.track in str(item["error_evidence"])
        assert await arrived(world, good) == 2
        assert is_in_order(by_hand)


@pytest.mark.parametrize("missing", [errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.EINVAL])
async def test_an_unknown_error_of_the_disk_burns_no_attempt(world: World, missing: int) -> None:
    """F18: it is handed back, and placed when the error is over."""
    [item] = await ready(world, 1)
    name = world.media / "audio"
    async with stages(world) as by_hand:
        assert await held_by(by_hand.fetcher.preconditions.check) is None
        with refused_names({name}, missing):
            await held_by(by_hand.fetch)
        row = await item.item(world)
        assert (row["stage"], row["retry_count"]) == ("ready", 0)
        await held_by(by_hand.fetch)
        await held_by(by_hand.fetch)
        assert await arrived(world, [item]) == 1


async def test_one_unreadable_folder_stops_neither_a_request_nor_a_scan(world: World) -> None:
    """The tracks beside it are looked up; what is wrong with this one an operator gets to know."""
    bad, good = "T0AA00000000000000000001", "T0BB00000000000000000002"
    folder = audio_dir(world.media, bad)
    folder.mkdir(parents=True)
    known = Known(ledger={}, problems={})
    uris: dict[str, str | None] = {bad: None, good: None}
    with withheld({folder: errno.EACCES}):
        seen = known.look(world.media, uris)
    assert not seen[good].own
    assert (seen[bad].unreadable, seen[good].unreadable) == (True, False)
    problem = seen[bad].problem
    assert problem is not None
    assert problem.detail == "it cannot be read: Permission denied"
    with (
        withheld({world.media / "audio": errno.EACCES}),
        pytest.raises(DependencyDown, match="checking for files"),
    ):
        known.look(world.media, uris)


# --- F19: places


async def test_a_ticket_of_many_files_leaves_a_place(world: World, tmp_path: Path) -> None:
    """All its files are claimed and none of them ends; the next ticket's file begins."""
    gate = tmp_path / "gate"
    os.mkfifo(gate)
    tools = find_tools()
    ffmpeg = tmp_path / "ffmpeg"
    ffmpeg.write_text(f"#!/bin/sh\nread line < {gate}\n")
    ffmpeg.chmod(0o755)
    slow = AudioTools(ffmpeg=str(ffmpeg), ffprobe=tools.ffprobe)
    large = await ready_album(world, 6, first=1001)
    async with stages(world, lambda: slow, FETCH_CONCURRENCY="2") as by_hand:
        assert await by_hand.fetcher.run_once() == 6
        small = (await ready(world, 1, first=5))[0]
        assert await by_hand.fetcher.run_once() == 1

        async def verifying() -> bool:
            return bool((await small.item(world))["stage"] == "verifying")

        await eventually(verifying)
        assert await arrived(world, large) == 0
        for task in by_hand.fetcher.working:
            task.cancel("stopping")
        await asyncio.gather(*by_hand.fetcher.working, return_exceptions=True)
        items = [await each.item(world) for each in [small, *large]]
        assert {(item["stage"], item["hand_backs"]) for item in items} == {("ready", 0)}
