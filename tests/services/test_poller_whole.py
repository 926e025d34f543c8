"""A ticket that has ended is believed when its torrent is whole, and not before."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest

from services.local.torrentino import StandinConfig
from shared.torrentino.torrent import RemoteTorrent
from tests.support.stages import Stages, assert_lawful, one, queue, stages, tickets, timeline
from tests.support.world import Row, World, make_world

HASH = "0123456789abcdef0123456789abcdef01234567"
PROCESS, REMOVE = "POST /pipeline/process/{id}", "DELETE /torrents/{hash}"
COMPLETED = {"type": "completed", "stats": {"files_placed": 1, "final_size_bytes": 5}}
NOT_PLACED = {"type": "failed", "error": "Placement failed: Failed to copy file from A to B"}
WAY = {"ACQUISITION": "tickets"}


def shows(
    by_hand: Stages,
    progress: float,
    state: str,
    name: str = "A torrent.flac",
    save_path: str = "/downloads",
) -> None:
    """Let the torrent client have just this torrent, so."""
    torrent = RemoteTorrent.from_json(
        {"hash": HASH, "name": name, "progress": progress, "state": state}
        | {"save_path": save_path, "size_bytes": 4711}
    )
    _answer(by_hand, torrent)


def _answer(by_hand: Stages, torrent: RemoteTorrent | None) -> None:
    async def answered(info_hash: str) -> RemoteTorrent | None:
        return torrent if info_hash == HASH else None

    by_hand.poll_client.torrent = answered


async def ticketed(still: World, by_hand: Stages) -> Row:
    """An item whose ticket was seen to download the torrent."""
    await queue(still, still.add_album(1, 1))
    await by_hand.ticket()
    item = await one(still)
    by_hand.set_state(item, type="downloading", info_hash=HASH, progress_pct=3.0)
    await by_hand.poll()
    return item


async def ends(still: World, by_hand: Stages, item: Row, state: Mapping[str, object]) -> Row:
    """The item after Torrentino said so."""
    by_hand.set_state(item, **state)
    await by_hand.poll()
    return await one(still)


@pytest.mark.parametrize("ended", [COMPLETED, NOT_PLACED])
async def test_an_end_before_the_torrent_is_whole_is_followed(
    still: World, ended: Mapping[str, object]
) -> None:
    """Live §2.1: a check that is taken for the download. Its files are then taken out of the
    torrent's own folder; nothing is blocked, removed or asked for twice."""
    async with stages(still, TORRENTINO_DOWNLOADS_ROOT="/downloads", **WAY) as by_hand:
        item = await ticketed(still, by_hand)
        by_hand.set_state(item, **ended)
        looks = [
            (1.0, "checking", None),
            (0.0, "downloading", 0.0),
            (0.4, "stalled", 40.0),
            (0.4, "queued", 40.0),
            (1.0, "checking", None),
            (1.0, "error", 100.0),
        ]
        for progress, state, shown in looks:
            shows(by_hand, progress, state)
            await by_hand.poll()
            item = await one(still)
            assert item["stage"] == "downloading"
            assert f"the torrent is not whole yet ({state})" in item["reason"]
            [ticket] = await tickets(still)
            assert (ticket["state"], ticket["progress_pct"]) == ("open", shown)
        shows(by_hand, 1.0, "seeding")
        await by_hand.poll()
        [ticket] = await tickets(still)
    item = await one(still)
    assert (item["stage"], item["retry_count"]) == ("ready", 0)
    assert (ticket["state"], ticket["delivery"]) == ("closed", "torrent")
    assert ticket["torrent_path"] == "/downloads/A torrent.flac"
    assert ticket["size_bytes"] == 4711, "the client's, by which its files are found"
    assert still.standin.requests[REMOVE] == 0
    assert await still.rows("SELECT 1 FROM bad_sources") == []
    await assert_lawful(still)


@pytest.mark.parametrize("state", ["seeding", "stalled", "paused", "queued"])
async def test_what_is_whole_is_collected_at_the_first_look(still: World, state: str) -> None:
    """Live §3.3: qBittorrent seeds without a peer as `stalled`, and waits its turn as `queued`."""
    async with stages(still, TORRENTINO_DOWNLOADS_ROOT="/downloads", **WAY) as by_hand:
        item = await ticketed(still, by_hand)
        shows(by_hand, 1.0, state)
        item = await ends(still, by_hand, item, NOT_PLACED)
    assert item["stage"] == "ready"


async def test_what_was_placed_too_early_is_placed_again(still: World) -> None:
    """The downloads are not seen here, and zeros may lie in the ticket's folder: over them, once
    the torrent is whole, and whatever the ticket says meanwhile they are not collected."""
    async with stages(still, **WAY) as by_hand:
        item = await ticketed(still, by_hand)
        shows(by_hand, 0.5, "downloading")
        item = await ends(still, by_hand, item, COMPLETED)
        assert item["stage"] == "downloading"
        shows(by_hand, 1.0, "seeding")
        sent = await _processed_at(by_hand)
        await by_hand.poll()
        [ticket] = await tickets(still)
        assert ticket["processed_files"] == {"A torrent.flac.converted": "A torrent.flac"}
        assert sent == [("/downloads/A torrent.flac", "A torrent.flac.converted", "flac")]
        for _ in range(2):
            await by_hand.poll()
            assert (await one(still))["stage"] == "processing", "it is still the old end"
        await still.execute("UPDATE tickets SET process_asked_at = now() - interval '1 hour'")
        await by_hand.poll()
        assert len(sent) == 2, "the request was lost"
        item = await ends(still, by_hand, item, COMPLETED)
    assert (item["stage"], item["retry_count"]) == ("ready", 0)
    assert still.standin.requests[REMOVE] == 0
    await assert_lawful(still)


async def _processed_at(by_hand: Stages) -> list[tuple[str, str, str]]:
    """What the pipeline is told from now on, without its doing anything."""
    told: list[tuple[str, str, str]] = []

    async def process(_: str, files: list[object], *, output_format: str, **__: object) -> None:
        told.extend((f.path, f.dest_filename, output_format) for f in files)  # type: ignore[attr-defined]

    by_hand.poll_client.process = process
    return told


async def test_a_torrent_that_leaves_before_it_is_whole_is_asked_for_again(still: World) -> None:
    """No attempt is used: what was placed of it is certainly not it."""
    async with stages(still, **WAY) as by_hand:
        item = await ticketed(still, by_hand)
        shows(by_hand, 0.5, "downloading")
        await ends(still, by_hand, item, COMPLETED)
        _answer(by_hand, None)
        await by_hand.poll()
        item = await one(still)
    assert (item["stage"], item["retry_count"], item["detours"]) == ("queued", 0, 1)
    assert "ready" not in await timeline(still)


async def test_one_that_is_never_whole_stalls(still: World) -> None:
    """The torrent's progress counts; without any the attempt ends, and says where it stood."""
    async with stages(still, STALL_TIMEOUT_S="100", **WAY) as by_hand:
        item = await ticketed(still, by_hand)
        for progress in (0.1, 0.2):
            shows(by_hand, progress, "downloading")
            await ends(still, by_hand, item, COMPLETED)
            await still.execute("UPDATE tickets SET progressed_at = now() - interval '200 s'")
        shows(by_hand, 0.3, "downloading")
        client = by_hand.poll_client
        client.orchestrator = _running
        await by_hand.poll()
        assert (await one(still))["stage"] == "downloading", "it moves"
        await still.execute("UPDATE tickets SET progressed_at = now() - interval '200 s'")
        await by_hand.poll()
        item = await one(still)
        assert (item["stage"], item["error_type"]) == ("retry_wait", "stalled")
        assert "not whole yet (downloading)" in item["error_message"]
        await by_hand.poll()
        [ticket] = await tickets(still)
    assert ticket["state"] == "closed"
    assert still.standin.requests[REMOVE] == 0


async def _running() -> dict[str, object]:
    return {"running": True}


@pytest.mark.parametrize(
    ("name", "path"),
    [
        ("Artist - Album [FLAC]", "/downloads/music/Artist - Album [FLAC]"),
        ("Artist / Album [FLAC]", "/downloads/music/Artist _ Album [FLAC]"),
        ("..", "/downloads/music/_"),
        ("a\nb", "/downloads/music/a_b"),
        ("é" * 200, "/downloads/music/" + "é" * 127),
    ],
)
async def test_a_name_that_is_none_on_disk_keeps_the_folder(
    still: World, name: str, path: str
) -> None:
    """Live §2.2: qBittorrent calls it as the magnet link did. The path is one that can be looked
    up, and the size is there to find the files by."""
    async with stages(still, TORRENTINO_DOWNLOADS_ROOT="/downloads", **WAY) as by_hand:
        item = await ticketed(still, by_hand)
        shows(by_hand, 1.0, "seeding", name, "/downloads/music")
        item = await ends(still, by_hand, item, NOT_PLACED)
        [ticket] = await tickets(still)
    assert item["stage"] == "ready"
    assert (ticket["torrent_path"], ticket["size_bytes"]) == (path, 4711)


async def test_a_name_with_slashes_is_found_again(still: World) -> None:
    """A torrent that was never seen to download is known by the path that its pipeline took."""
    async with stages(still, TORRENTINO_DOWNLOADS_ROOT="/downloads", **WAY) as by_hand:
        await queue(still, still.add_album(1, 1))
        await by_hand.ticket()
        shows(by_hand, 1.0, "seeding", "Artist / Album")
        client = by_hand.poll_client
        torrent = await client.torrent(HASH)

        async def conversion_input(_: str) -> str:
            return "/downloads/Artist / Album"

        async def torrents() -> list[RemoteTorrent]:
            return [torrent]

        client.conversion_input, client.torrents = conversion_input, torrents
        item = await ends(still, by_hand, await one(still), NOT_PLACED)
        [ticket] = await tickets(still)
    assert (item["stage"], ticket["info_hash"]) == ("ready", HASH)
    assert ticket["torrent_path"] == "/downloads/Artist _ Album"


async def test_one_file_under_another_name_is_placed_by_its_own(still: World) -> None:
    """The downloads are not seen here, and Torrentino looked for the title: it is told the name in
    the listing. Where that is the title the attempt is over."""
    async with stages(still, **WAY) as by_hand:
        item = await ticketed(still, by_hand)
        shows(by_hand, 1.0, "seeding", "A song [FLAC]")
        sent = await _processed_at(by_hand)

        async def listed(_: str) -> list[tuple[str, int]]:
            return [("01 - A song.flac", 4711)]

        by_hand.poll_client.catalog_files = listed
        error = "Placement failed: Source file not found: /downloads/A song [FLAC]"
        item = await ends(still, by_hand, item, {"type": "failed", "error": error})
        assert item["stage"] == "processing"
        assert sent == [("/downloads/01 - A song.flac", "0001.flac", "flac")]


@pytest.mark.parametrize("seen", [True, False])
async def test_zeros_of_the_right_size_are_no_broken_source(
    tmp_path: Path, database_url: str, seen: bool
) -> None:
    """The whole way, with a Torrentino that takes the check for the end: the song arrives in the
    first attempt, from the torrent's own folder or placed once more, and the torrent stays."""
    config = StandinConfig(
        client="librqbit",
        acquire_s=0.0,
        download_s=1.0,
        checking_s=0.5,
        tick_s=0.02,
        kind_tickets=False,
        early_share=0.0,
    )
    async with make_world(tmp_path, database_url, config) as world:
        [track] = world.add_album(1, 1)
        world.faults.fates["song 1001"] = "zeros"
        env = WAY | {"POLL_INTERVAL_S": "0.05"}
        if seen:
            env["TORRENTINO_DOWNLOADS_ROOT"] = str(world.downloads)
        await queue(world, [track])
        await world.run("ticketer", "poller", "fetcher_writer", **env)
        [item] = await world.until_ended(1)
        assert item["status"] == "COMPLETED", item["error_message"]
        assert (item["attempt"], item["retry_count"]) == (1, 0)
        assert list(world.files()) == [track]
        assert world.standin.requests[PROCESS] == (0 if seen else 1)
        assert world.standin.requests[REMOVE] == 0
        assert await world.rows("SELECT 1 FROM bad_sources") == []
