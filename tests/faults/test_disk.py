"""The disk fails at every write of the file path: it costs time, and nothing else."""

from __future__ import annotations

import errno
import hashlib
import os
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from services.fetcher_writer import disk_budget as room
from shared.errors import DependencyDown, Unavailable
from shared.media.paths import audio_uri
from tests.support.autoindex import Autoindex
from tests.support.disk import Disk, watched_disk
from tests.support.invariants import sweep
from tests.support.mounts import bound, mounted, tmpfs
from tests.support.outcomes import VARIABLE, outcome
from tests.support.stages import Stages, held_by, in_audio, one, queue, stages
from tests.support.world import Row, World, album_id, eventually

SECONDS = 1.0
NUMBERS = (
    errno.ENOSPC,
    errno.EDQUOT,
    errno.EIO,
    errno.EROFS,
    errno.EACCES,
    errno.ESTALE,
)
ADVICE = ("free some space", "raise it", "check it", "writable", "give this user", "mount it")
# Enough for every path; a run that makes fewer calls ends the search.
MOST_CALLS = 60


class Files:
    """One item after the other, each ready to be fetched."""

    def __init__(self, world: World, by_hand: Stages, *, shared_name: bool) -> None:
        self.world = world
        self.by_hand = by_hand
        self._tracks = iter(world.add_album(1, 6 * MOST_CALLS, seconds=SECONDS))
        self._shared_name = shared_name
        (song,) = {song.path for song in world.songs}
        self._digest = _digest(song)

    async def ready(self) -> None:
        """There is an item whose file waits to be fetched, and nothing under audio/."""
        shutil.rmtree(self.world.media / "audio", ignore_errors=True)
        waiting = "SELECT 1 FROM queue_items WHERE stage = 'ready'"
        if not await self.world.rows(waiting):
            await queue(self.world, [next(self._tracks)], seconds=SECONDS)
            await self.by_hand.until_ready()
        if self._shared_name:
            self._give_second_names()

    def _give_second_names(self) -> None:
        """What has another name is copied, not linked."""
        for path in [p for p in self.world.incoming.rglob("*") if p.is_file()]:
            other = self.world.folder / f"other-{path.stat().st_ino}"
            if not other.exists():
                os.link(path, other)

    async def newest(self) -> Row:
        return (await self.world.items())[-1]

    def check_names(self) -> None:
        """Whatever is under audio/ is whole."""
        for path in (self.world.media / "audio").rglob("*"):
            assert path.is_dir() or _digest(path) == self._digest, path


def _digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _parts(world: World) -> list[str]:
    return [path.name for path in (world.media / ".incoming").glob("*.part")]


async def _one_failure(files: Files, disk: Disk, at: int, number: int, *, for_good: bool) -> bool:
    """One call fails; False when there was no such call."""
    await files.ready()
    disk.sicken(at, number, for_good=for_good)
    held = await held_by(files.by_hand.fetch)
    failed = disk.failed
    disk.heal()
    item = await files.newest()
    what = f"call {at} with {errno.errorcode[number]}, {item['stage']}: {held}"
    assert (item["stage"], item["retry_count"]) in (("ready", 0), ("completed", 0)), what
    files.check_names()
    if item["stage"] == "ready":
        # One call that fails does not make the disk a broken one: the item alone waits.
        assert held is not None or item["hand_backs"] == 1, what
        said = str(item["reason"]) if held is None else held.detail
        assert any(advice in said for advice in ADVICE), what
        await held_by(files.by_hand.fetch)
        assert (await files.newest())["stage"] == "completed", what
        files.check_names()
    await sweep(files.world)
    assert _parts(files.world) == [], what
    return bool(failed)


@pytest.mark.parametrize(("delivery", "shift"), [("link", 0), ("copy", 2), ("http", 4)])
async def test_each_write_of_the_file_path_may_fail(
    world: World, delivery: str, shift: int
) -> None:
    """At every call, in turn with each errno: no attempt burnt, nothing broken, no file left."""
    fault = f"disk error at any write, by {delivery}"
    async with _fetching(world, delivery) as files, outcome(world, fault) as timed:
        with watched_disk(world.media) as disk:
            for at in range(MOST_CALLS):
                # One of the six for each call, or all with `make faults`; every second for good.
                numbers = NUMBERS if VARIABLE in os.environ else (NUMBERS[(at + shift) % 6],)
                tried = [
                    await _one_failure(files, disk, at, number, for_good=(at + place) % 2 == 0)
                    for place, number in enumerate(numbers)
                ]
                if not any(tried):
                    break
                # Each round ends well, so what counts is the last one, which is as long as any.
                timed.removed()
            assert 5 < at < MOST_CALLS - 1, "every call of the path was tried"


@asynccontextmanager
async def _fetching(world: World, delivery: str) -> AsyncIterator[Files]:
    async with Autoindex(world.incoming) as server:
        over_http = {"TORRENTINO_DELIVERY": "http", "TORRENTINO_FILES_URL": server.url}
        named = over_http if delivery == "http" else {}
        async with stages(world, **named) as by_hand:
            yield Files(world, by_hand, shared_name=delivery == "copy")


# --- real filesystems


@asynccontextmanager
async def _on_small_disk(world: World, *, kib: int) -> AsyncIterator[Stages]:
    """The media root is a tmpfs of this size, and one song of 8 s (more than 24 KiB) is ready."""
    with tmpfs(world.media, kib=kib):
        (track,) = world.add_album(1, 1)
        await queue(world, [track])
        async with stages(world) as by_hand:
            await by_hand.until_ready()
            yield by_hand


async def test_a_really_full_disk(world: World) -> None:
    """ENOSPC as the kernel gives it: the item waits unburnt, and comes when there is room."""
    async with outcome(world, "media disk full") as timed, _on_small_disk(world, kib=4096) as fetch:
        filler = world.media / "filler"
        assert await held_by(fetch.fetcher.preconditions.check) is None
        filler.write_bytes(bytes(4096 * 1024 - 24 * 1024))
        # The reservation would see it coming; this is the disk that fills up under way.
        await world.execute("UPDATE tickets SET final_size_bytes = NULL")
        held = await held_by(fetch.fetch)
        assert isinstance(held, DependencyDown)
        assert "free some space" in held.detail
        item = await one(world)
        assert (item["stage"], item["retry_count"]) == ("ready", 0)
        assert "free some space" in item["reason"]
        assert in_audio(world) == _parts(world) == []
        filler.unlink()
        timed.removed()
        await held_by(fetch.fetch)
        assert len(in_audio(world)) == 1


async def test_looking_at_a_full_disk_does_not_end_its_pause(world: World) -> None:
    """A full disk can be read: requests go on, fetching stands still, and says since when."""
    world.add_album(1, 2)
    running = await world.run(MIN_FREE_DISK_MB="1000000000")
    assert running.api is not None
    await running.api.post(f"/v1/download/album/{album_id(1)}")

    async def paused() -> list[Row]:
        assert running.api is not None
        stats = (await running.api.get("/v1/download/admin/stats")).json()
        assert stats["health"]["media"]["ok"]
        return [entry for entry in stats["paused"] if entry["dependency"] == "space"]

    (first,) = await eventually(paused)
    assert (first["stage"], first["service"]) == ("fetching", "fetcher_writer")
    await eventually(world.items, lambda items: all(i["stage"] == "ready" for i in items))
    assert (await running.api.post(f"/v1/download/album/{album_id(1)}")).status_code == 202
    (again,) = await paused()
    assert again["since"] == first["since"]
    moves = await world.rows("SELECT stage FROM events WHERE kind = 'item'")
    assert "fetching" not in {move["stage"] for move in moves}


async def test_room_is_reserved_before_anything_is_written(world: World) -> None:
    """A file that does not fit is not begun; the reason says how much is missing."""
    async with outcome(world, "no room for the next file") as timed:  # noqa: SIM117
        async with _on_small_disk(world, kib=4096) as by_hand:
            assert await held_by(by_hand.fetcher.preconditions.check) is None
            filler = world.media / "filler"
            filler.write_bytes(bytes(4096 * 1024 - 24 * 1024))
            held = await held_by(by_hand.fetch)
            assert isinstance(held, DependencyDown)
            assert "the files that wait need 1 MiB" in held.detail
            claimed = "SELECT 1 FROM events WHERE stage = 'fetching'"
            assert await world.rows(claimed) == []
            filler.unlink()
            timed.removed()
            assert await by_hand.fetch() == 1


async def test_a_disk_that_became_read_only(world: World) -> None:
    """EROFS as the kernel gives it, after an error of the disk: nothing burnt, then all is well."""
    async with outcome(world, "media disk read-only") as timed:  # noqa: SIM117
        async with _on_small_disk(world, kib=8192) as by_hand:
            assert await held_by(by_hand.fetcher.preconditions.check) is None
            mounted("mount", "-o", "remount,ro", str(world.media))
            held = await held_by(by_hand.fetch)
            assert isinstance(held, DependencyDown)
            assert "mount it writable" in held.detail
            assert (await one(world))["retry_count"] == 0
            mounted("mount", "-o", "remount,rw", str(world.media))
            timed.removed()
            await held_by(by_hand.fetch)


@pytest.mark.parametrize("moment", ["before collecting", "before placing"])
async def test_a_disk_unmounted_under_way(
    world: World, moment: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between the check and the write: nothing lands on the disk below, nothing is burnt."""
    world.media.joinpath("audio").mkdir()
    world.media.joinpath(".incoming").mkdir()
    kept = world.folder / "kept"
    async with outcome(world, f"media disk unmounted {moment}") as timed:  # noqa: SIM117
        async with _on_small_disk(world, kib=8192) as by_hand:
            assert await held_by(by_hand.fetcher.preconditions.check) is None
            with bound(world.media, kept):
                recipe = by_hand.fetcher.recipe
                name = "collect" if moment == "before collecting" else "publish"
                real = getattr(recipe, name)

                async def unmounted(*args: object) -> object:
                    mounted("umount", "-l", str(world.media))
                    return await real(*args)

                monkeypatch.setattr(recipe, name, unmounted)
                held = await held_by(by_hand.fetch)
                monkeypatch.undo()
                below = [p for p in world.media.rglob("*") if p.is_file()]
                mounted("mount", "--bind", str(kept), str(world.media))
            assert isinstance(held, Unavailable)
            assert "Mount it" in held.detail
            assert below == []
            assert (await one(world))["retry_count"] == 0
            timed.removed()
            await held_by(by_hand.fetch)
            assert len(in_audio(world)) == 1


# --- room


async def test_what_others_hold_is_not_given_away(world: World) -> None:
    """Two workers that look at once count each other, and what is written already counts once."""
    tracks = world.add_album(1, 3)
    await queue(world, tracks)
    async with stages(world) as one_worker, stages(world) as another:
        await one_worker.until_ready()
        await world.execute("UPDATE tickets SET final_size_bytes = 1000")
        tight = room.Room(usable_bytes=2500, total_bytes=10_000, parts={})
        first = await one_worker.fetcher.store.claim(1, tight)
        second = await another.fetcher.store.claim(4, tight)
        assert (len(first), len(second)) == (1, 1)
        with pytest.raises(DependencyDown, match="what is being fetched"):
            await another.fetcher.store.claim(4, tight)
        part = f"{first[0].claim.item_id}.{first[0].claim.fence}.part"
        written = room.Room(usable_bytes=2500, total_bytes=10_000, parts={part: 1000})
        assert len(await another.fetcher.store.claim(4, written)) == 1


async def test_a_file_larger_than_the_disk_waits_and_says_so(world: World) -> None:
    """It is looked at again after an hour, does not hold up the others, and burns nothing."""
    tracks = world.add_album(1, 2)
    await queue(world, tracks)
    async with stages(world) as by_hand:
        await by_hand.until_ready()
        await world.execute(
            "UPDATE tickets SET final_size_bytes = 9000 WHERE id ="
            " (SELECT ticket_id FROM queue_items ORDER BY seq LIMIT 1)"
        )
        await world.execute(
            "UPDATE tickets SET final_size_bytes = 10 WHERE final_size_bytes <> 9000"
        )
        disk = room.Room(usable_bytes=500, total_bytes=5000, parts={})
        assert await by_hand.fetcher.store.put_off(disk) == 1
        assert await by_hand.fetcher.store.put_off(disk) == 0
        assert len(await by_hand.fetcher.store.claim(4, disk)) == 1
        item = (await world.items())[0]
        assert (item["stage"], item["retry_count"]) == ("ready", 0)
        assert item["reason"].startswith("waits for a larger disk")


# --- upper and lower case


async def test_two_ids_that_differ_by_case_do_not_share_a_file(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where "a" and "A" are one name the second track is refused, and never gets the first's."""
    (track,) = world.add_album(1, 1)
    await queue(world, [track])
    async with stages(world) as by_hand:
        await by_hand.until_ready()
        await held_by(by_hand.fetcher.preconditions.check)
        other = world.media / audio_uri(track, "flac").replace(track, track.lower())
        other.parent.mkdir(parents=True)
        other.write_bytes(b"another track's")
        _ignore_case(monkeypatch)
        await by_hand.fetch()
        item = await one(world)
        assert (item["status"], item["error_type"]) == ("FAILED", "rejected")
        assert "tell upper from lower case" in item["error_message"]
        assert [path.name for path in other.parent.iterdir()] == [other.name]
        assert other.read_bytes() == b"another track's"


def _ignore_case(monkeypatch: pytest.MonkeyPatch) -> None:
    """A look-up that takes "a" for "A", as vfat, macOS and ext4 with casefold do."""
    link, exists = os.link, os.path.lexists

    def folded(path: object) -> bool:
        wanted = Path(str(path))
        return wanted.parent.is_dir() and any(
            entry.name.casefold() == wanted.name.casefold() for entry in wanted.parent.iterdir()
        )

    def linked(source: object, target: object, **named: object) -> None:
        if folded(target) and not exists(str(target)):
            raise FileExistsError(errno.EEXIST, "File exists", str(target))
        link(source, target, **named)  # type: ignore[arg-type]

    monkeypatch.setattr(os, "link", linked)
    monkeypatch.setattr(os.path, "lexists", folded)
