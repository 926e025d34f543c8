"""The fetcher-writer places nothing for a track that has a file by then."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from services.fetcher_writer.finish import Finished
from services.fetcher_writer.work import Work
from shared.catalog.models import Track
from shared.db.adopt import adopt_unasked
from shared.errors import Unavailable
from shared.media.placed_file import Whole
from shared.media.tools import find_tools
from shared.media.verify import verify
from tests.support.audio import cut, make_audio
from tests.support.ingest_helpers import name_file, servers_uri
from tests.support.stages import Stages, in_audio, one, queue, stages
from tests.support.world import World

SECONDS = 3.0


@pytest.fixture
def song(world: World) -> Path:
    """A song as long as the tracks that are asked for."""
    return make_audio(world.folder / "song.mp3", seconds=SECONDS, codec="mp3")


async def asked(world: World) -> str:
    """A track in the queue."""
    [track] = world.add_album(1, 1, seconds=SECONDS)
    await queue(world, [track], seconds=SECONDS)
    return track


async def the_only_file(world: World, uri: str) -> None:
    """The item is completed with this file, the only one, and the ledger has it."""
    item = await one(world)
    assert (item["status"], "in place already" in item["reason"]) == ("COMPLETED", True), item
    assert in_audio(world) == [Path(uri).name]
    rows = await world.rows("SELECT audio_uri, adopted FROM media_files")
    assert rows == [{"audio_uri": uri, "adopted": True}]
    assert list((world.media / ".incoming").glob("*.part")) == []


def just_before_the_name(by_hand: Stages, act: Callable[[], object]) -> None:
    """Let something happen when the file is verified and has no name yet."""
    recipe = by_hand.fetcher.recipe
    publish = recipe.publish

    async def late(work: Work, finished: Finished) -> None:
        act()
        await publish(work, finished)

    recipe.publish = late  # type: ignore[method-assign]


async def test_a_named_file_is_adopted_instead(world: World, song: Path) -> None:
    """Named while the ticket was open: nothing is collected, the item completes with it."""
    track = await asked(world)
    async with stages(world) as by_hand:
        await by_hand.until_ready()
        name_file(world, track, servers_uri(track), song)
        await by_hand.fetch()
        await the_only_file(world, servers_uri(track))


async def test_a_file_named_while_ours_was_verified_is_adopted(world: World, song: Path) -> None:
    """The server's own ingestion was faster: ours is dropped, though it is whole."""
    track = await asked(world)
    async with stages(world) as by_hand:
        await by_hand.until_ready()
        just_before_the_name(by_hand, lambda: name_file(world, track, servers_uri(track), song))
        await by_hand.fetch()
        await the_only_file(world, servers_uri(track))


async def test_a_file_recorded_while_ours_was_verified_is_adopted(
    world: World, song: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An adopt scan was faster, and the catalog names nothing any more: the ledger decides."""
    track = await asked(world)
    path = name_file(world, track, servers_uri(track), song)
    name_file(world, track, None)
    facts = await verify(path, expected_ms=3000, tolerance_s=6, tools=find_tools())
    async with stages(world) as by_hand:
        await by_hand.until_ready()
        recipe = by_hand.fetcher.recipe
        publish = recipe.publish

        async def late(work: Work, finished: Finished) -> None:
            async with by_hand.app.database.transaction() as connection:
                await adopt_unasked(
                    connection,
                    _track(track),
                    Whole(uri=servers_uri(track), facts=facts),
                    known=None,
                    named=False,
                    actor="watchdog",
                )
            await publish(work, finished)

        monkeypatch.setattr(recipe, "publish", late)
        await by_hand.fetch()
        await the_only_file(world, servers_uri(track))


async def test_the_ledgers_file_comes_before_a_named_one(world: World, song: Path) -> None:
    """Both are whole: the item completes with the ledger's, and nothing is changed."""
    track = await asked(world)
    async with stages(world) as by_hand:
        await by_hand.until_ready()
        await by_hand.fetch()
        before = await world.rows("SELECT audio_uri, adopted FROM media_files")
        await queue(world, [track], seconds=SECONDS)
        await by_hand.until_ready()
        name_file(world, track, servers_uri(track), song)
        await by_hand.fetch()
        assert {item["status"] for item in await world.items()} == {"COMPLETED"}
        assert await world.rows("SELECT audio_uri, adopted FROM media_files") == before
        assert before[0]["adopted"] is False
        assert in_audio(world) == [f"{track}.flac", f"{track}.ogg"]


async def test_a_broken_named_file_is_not_replaced(world: World, song: Path) -> None:
    """Without REPLACE_BROKEN the item is FAILED at once, with the file and the setting."""
    track = await asked(world)
    async with stages(world) as by_hand:
        await by_hand.until_ready()
        cut(name_file(world, track, servers_uri(track), song), song)
        await by_hand.fetch()
        item = await one(world)
        assert (item["status"], item["error_type"]) == ("FAILED", "rejected")
        assert servers_uri(track) in item["error_message"]
        assert "REPLACE_BROKEN" in item["error_message"]
        assert await world.rows("SELECT 1 FROM bad_sources") == []
        assert in_audio(world) == [Path(servers_uri(track)).name]


async def test_a_broken_named_file_is_replaced_where_the_setting_says_so(
    world: World, song: Path
) -> None:
    """Ours gets its own name, and the broken one stays; its problem is listed."""
    track = await asked(world)
    world.env["REPLACE_BROKEN"] = "true"
    async with stages(world) as by_hand:
        await by_hand.until_ready()
        cut(name_file(world, track, servers_uri(track), song), song)
        await by_hand.fetch()
        assert (await one(world))["status"] == "COMPLETED"
        assert in_audio(world) == [f"{track}.flac", f"{track}.ogg"]
        assert await world.rows("SELECT adopted FROM media_files") == [{"adopted": False}]
        problems = await world.rows("SELECT track_id, kind FROM presence_problems")
        assert problems == [{"track_id": track, "kind": "broken"}]


async def test_a_file_at_another_path_is_to_be_published(world: World, song: Path) -> None:
    """L-12: an adopted file that is gone is fetched again, to our own path, which is new to all."""
    track = await asked(world)
    async with stages(world) as by_hand:
        await by_hand.until_ready()
        path = name_file(world, track, servers_uri(track), song)
        await by_hand.fetch()
        await world.execute("UPDATE media_files SET published_at = now(), playable_at = now()")
        path.unlink()
        await queue(world, [track], seconds=SECONDS)
        await by_hand.until_ready()
        await by_hand.fetch()
        rows = await world.rows("SELECT adopted, published_at, playable_at FROM media_files")
        assert rows == [{"adopted": False, "published_at": None, "playable_at": None}]
        assert in_audio(world) == [f"{track}.flac"]


async def test_a_catalog_that_goes_away_hands_the_item_back(world: World) -> None:
    """An outage uses no attempt, and fetching continues when it is over."""
    await asked(world)
    async with stages(world) as by_hand:
        await by_hand.until_ready()
        away = world.catalog.rename(world.folder / "away.db")
        assert await by_hand.fetcher.run_once() == 1
        with pytest.raises(Unavailable, match="catalog"):
            await by_hand.fetch()
        item = await one(world)
        assert (item["stage"], item["retry_count"]) == ("ready", 0)
        away.rename(world.catalog)
        await by_hand.fetch()
        assert (await one(world))["status"] == "COMPLETED"


async def test_without_the_catalog_the_ledger_still_decides(world: World, song: Path) -> None:
    """CATALOG_DB is optional for the fetcher-writer: then a named file is not seen."""
    track = await asked(world)
    name_file(world, track, servers_uri(track), song)
    del world.env["CATALOG_DB"]
    await world.run("ticketer", "poller", "fetcher_writer")
    await world.until_ended(1)
    assert await world.rows("SELECT adopted FROM media_files") == [{"adopted": False}]


def _track(track: str) -> Track:
    return Track(
        id=track,
        name="x",
        artists=(),
        album_id=None,
        album_name=None,
        album_artist=None,
        disc_number=None,
        track_number=None,
        duration_ms=3000,
        isrc=None,
        popularity=None,
    )
