"""The poller follows the torrent: how the files of an ended ticket are to reach us."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.stages import Stages, assert_lawful, one, queue, stages, tickets, timeline
from tests.support.world import Row, World

PROCESS = "POST /pipeline/process/{id}"
HASHES = [letter * 40 for letter in "abc"]
NOT_PLACED = {"type": "failed", "error": "Placement failed: Failed to copy file from A to B"}
GROUPED = {"TICKET_GROUPING": "auto", "ACQUISITION": "tickets"}


def sees_downloads(world: World) -> dict[str, str]:
    """The settings of an installation that sees the torrents' own folder."""
    return GROUPED | {"TORRENTINO_DOWNLOADS_ROOT": str(world.downloads)}


async def want(world: World, count: int = 3, number: int = 1, **spec: bool) -> str:
    """An album in the queue, and a torrent of it, whose title is returned."""
    ids = world.add_album(number, count, seconds=1, songs=False)
    title = f"The Testers - Album {number} [FLAC]"
    files = {
        f"{title}/{n:02} - Song {int(id_[1:])}.flac": world.audio[id_]
        for n, id_ in enumerate(ids, 1)
    }
    world.add_torrent(title, files, **spec)
    await queue(world, ids, album=number, seconds=1)
    return title


async def until_failed(world: World, by_hand: Stages) -> None:
    """The ticket is made, and Torrentino is at the end of its means."""
    await by_hand.ticket()
    await by_hand.until_remote("failed")


async def stages_of(world: World) -> set[str]:
    return {item["stage"] for item in await world.items()}


async def test_a_folder_is_taken_from_the_torrents_own_place(world: World) -> None:
    """The pipeline failed on it, but all of it lies where we see it: nothing is asked for."""
    async with stages(world, **sees_downloads(world)) as by_hand:
        title = await want(world)
        await until_failed(world, by_hand)
        await by_hand.poll()
        [ticket] = await tickets(world)
    assert (ticket["state"], ticket["delivery"]) == ("closed", "torrent")
    assert ticket["torrent_path"] == str(world.downloads / title)
    assert await stages_of(world) == {"ready"}
    assert world.standin.requests[PROCESS] == 0
    await assert_lawful(world)


async def test_a_torrent_that_was_never_seen_downloading_is_known_all_the_same(
    world: World,
) -> None:
    """All of it happened between two looks: what its pipeline began with tells which it was."""
    async with stages(world, **sees_downloads(world)) as by_hand:
        title = await want(world)
        await until_failed(world, by_hand)
        [before] = await tickets(world)
        assert before["info_hash"] is None
        await by_hand.poll()
        [ticket] = await tickets(world)
    assert ticket["info_hash"] == world.torrents[0].info_hash
    assert ticket["torrent_title"] == title


async def test_what_is_seen_of_the_torrent_is_kept(still: World) -> None:
    """Title and files stay when a later answer lacks them, and go with their torrent."""
    async with stages(still) as by_hand:
        [track] = still.add_album(1, 1)
        await queue(still, [track])
        await by_hand.ticket()
        item = await one(still)
        mapping = {"torrent_file_path": "R/1.flac", "ticket_item_id": "track-1", "confidence": 0.9}
        selected = {"title": "A", "info_hash": HASHES[0], "file_mappings": [mapping]}

        async def seen(**state: object) -> tuple[object, object, object]:
            by_hand.set_state(item, **state)
            await by_hand.poll()
            [row] = await tickets(still)
            return row["info_hash"], row["torrent_title"], row["file_mappings"]

        kept = [{"path": "R/1.flac", "item_id": "track-1", "confidence": 0.9}]
        both = {"candidates": [selected], "candidate_idx": 0, "info_hash": HASHES[0]}
        assert await seen(type="auto_approved", selected=selected) == (HASHES[0], "A", kept)
        assert await seen(type="downloading", **both | {"candidates": []}) == (HASHES[0], "A", kept)
        assert await seen(type="downloading", **both) == (HASHES[0], "A", kept)
        # Failover: another torrent, of which no files are known.
        other = {"candidates": [{"title": "B"}], "candidate_idx": 0, "info_hash": HASHES[1]}
        assert await seen(type="downloading", **other) == (HASHES[1], "B", None)
        assert await seen(type="converting") == (HASHES[1], "B", None)
        assert await seen(type="acquiring", phase={"phase": "searching"}) == (None, None, None)


async def test_without_the_folder_the_pipeline_is_told_once_what_to_place(world: World) -> None:
    """Exactly the wanted files, under names that we recorded before it is asked."""
    async with stages(world, **GROUPED) as by_hand:
        title = await want(world, 4)
        await world.execute("DELETE FROM queue_items WHERE track_number IN (1, 4)")
        await until_failed(world, by_hand)
        await by_hand.poll()
        [ticket] = await tickets(world)
        assert ticket["processed_files"] == {
            "0001.flac": f"{title}/02 - Song 1002.flac",
            "0002.flac": f"{title}/03 - Song 1003.flac",
        }
        assert await stages_of(world) == {"processing"}
        await by_hand.until_remote("completed")
        await by_hand.poll()
        [ticket] = await tickets(world)
    assert (ticket["state"], ticket["delivery"]) == ("closed", "incoming")
    assert ticket["files_placed"] == 2
    assert await stages_of(world) == {"ready"}
    assert world.standin.requests[PROCESS] == 1
    whole = [path for path in Path(ticket["dest_path"]).iterdir() if path.stat().st_size]
    assert sorted(path.name for path in whole) == ["0001.flac", "0002.flac"]
    await assert_lawful(world)


async def test_a_request_that_was_lost_is_made_again_after_a_while(world: World) -> None:
    """The connection breaks before it has an effect: told again later, and never at once."""
    async with stages(world, **GROUPED) as by_hand:
        await want(world)
        await until_failed(world, by_hand)
        world.faults.drop_before, world.faults.only = 1, PROCESS
        await by_hand.poll()
        assert world.faults.drop_before == 0
        await by_hand.poll()
        assert world.standin.requests[PROCESS] == 1
        assert await stages_of(world) == {"processing"}
        await world.execute("UPDATE tickets SET process_asked_at = now() - interval '1 hour'")
        await by_hand.poll()
        assert world.standin.requests[PROCESS] == 2
        await by_hand.until_remote("completed")
        await by_hand.poll()
    assert await stages_of(world) == {"ready"}


async def test_a_request_whose_answer_was_lost_is_made_once(world: World) -> None:
    """It had its effect: the ticket shows it, and nothing is told twice."""
    async with stages(world, **GROUPED) as by_hand:
        await want(world)
        await until_failed(world, by_hand)
        world.faults.drop_after, world.faults.only = 1, PROCESS
        await by_hand.poll()
        await by_hand.until_remote("completed")
        await by_hand.poll()
    assert await stages_of(world) == {"ready"}
    assert world.standin.requests[PROCESS] == 1


async def test_a_job_that_fails_ends_the_attempt(world: World) -> None:
    """What its pipeline was told to place could not be converted: no third try of the same."""
    world.faults.fates["album 1"] = "process_failed"
    async with stages(world, **GROUPED) as by_hand:
        await want(world)
        await until_failed(world, by_hand)
        await by_hand.poll()
        await by_hand.until_remote("failed")
        await by_hand.poll()
        items = await world.items()
        [ticket] = await tickets(world)
    assert {(i["stage"], i["error_type"]) for i in items} == {("retry_wait", "corruption")}
    assert ticket["state"] == "closed"
    assert world.standin.requests[PROCESS] == 1
    await assert_lawful(world)


async def test_a_folder_whose_files_nobody_knows_names_the_cure(world: World) -> None:
    """No listing and no visible folder: the attempt ends, with what an administrator can set."""
    async with stages(world, **GROUPED) as by_hand:
        await want(world, listed=False)
        await by_hand.ticket()
        await by_hand.until_remote("needs_approval", "failed")
        for ticket in world.standin.tickets():
            await _approve(by_hand, str(ticket["id"]))
        await by_hand.until_remote("failed")
        await by_hand.poll()
        items = await world.items()
    assert {(i["stage"], i["error_type"]) for i in items} == {("retry_wait", "storage")}
    assert all("TORRENTINO_DOWNLOADS_ROOT" in item["error_message"] for item in items)
    assert world.standin.requests[PROCESS] == 0


async def _approve(by_hand: Stages, ticket_id: str) -> None:
    client = by_hand.poll_client
    remote = await client.get(ticket_id)
    if remote.state == "needs_approval":
        await client.approve(ticket_id)


async def test_a_job_that_a_restart_stranded_is_told_again(world: World) -> None:
    """Converting for an hour, and in no list of the pipeline: the same files once more."""
    async with stages(world, **GROUPED) as by_hand:
        await want(world)
        await until_failed(world, by_hand)
        world.faults.fates["album 1"] = "stuck_converting"
        await by_hand.poll()
        await by_hand.poll()
        assert await stages_of(world) == {"processing"}
        world.faults.fates.clear()
        await world.execute("UPDATE tickets SET progressed_at = now() - interval '2 hours'")
        await by_hand.poll()
        assert world.standin.requests[PROCESS] == 2
        await by_hand.until_remote("completed")
        await by_hand.poll()
    assert await stages_of(world) == {"ready"}


async def held(still: World, by_hand: Stages) -> Row:
    """An item whose ticket downloads without a hash."""
    [track] = still.add_album(1, 1)
    await queue(still, [track])
    await by_hand.ticket()
    item = await one(still)
    by_hand.set_state(item, type="downloading", info_hash="", progress_pct=3.0, candidates=[])
    await by_hand.poll()
    return item


async def test_an_empty_hash_holds_the_ticket(still: World) -> None:
    """What downloads without a hash may be anything: held with a reason, never stalled, and never
    collected, also when it completes."""
    async with stages(still, STALL_TIMEOUT_S="0.001") as by_hand:
        item = await held(still, by_hand)
        for state in ("downloading", "converting", "placing"):
            by_hand.set_state(item, type=state, info_hash="", progress_pct=3.0)
            await by_hand.poll()
            now = await one(still)
            assert now["stage"] == "needs_approval"
            assert "another torrent's" in now["reason"]
        by_hand.set_state(item, type="completed", stats={"files_placed": 1})
        await by_hand.poll()
        now = await one(still)
    assert (now["stage"], now["error_type"]) == ("retry_wait", "not_found")
    assert "ready" not in await timeline(still)
    assert await still.rows("SELECT 1 FROM bad_sources") == []


async def test_a_candidate_with_a_hash_ends_the_hold(still: World, by_hand: Stages) -> None:
    """Torrentino fails over to a torrent that it knows: the item continues by itself."""
    item = await held(still, by_hand)
    by_hand.set_state(item, type="downloading", info_hash=HASHES[0], progress_pct=3.0)
    await by_hand.poll()
    assert (await one(still))["stage"] == "downloading"
    by_hand.set_state(item, type="completed", stats={"files_placed": 1})
    await by_hand.poll()
    assert (await one(still))["stage"] == "ready"


NOTHING = {"type": "acquisition_failed", "reason": "No suitable candidates found"}


async def test_an_album_that_is_not_found_goes_on_by_track(still: World) -> None:
    """No peer has the album: its tracks are asked for one by one at once; no attempt is used."""
    async with stages(still, **GROUPED) as by_hand:
        await queue(still, still.add_album(1, 2), album=1)
        await by_hand.ticket()
        by_hand.set_state((await still.items())[0], **NOTHING)
        await by_hand.poll()
        items = await still.items()
        [ticket] = await tickets(still)
    assert {(i["stage"], i["ask_next"], i["retry_count"]) for i in items} == {
        ("queued", "track", 0)
    }
    assert (ticket["kind"], ticket["state"]) == ("album", "withdrawing")
    await assert_lawful(still)


@pytest.mark.parametrize(
    ("title", "then"),
    [
        ("The Testers - Album 4 [FLAC]", "queued"),
        ("The Testers - Album 1 (Deluxe) [MP3]", "needs_approval"),
    ],
)
async def test_candidates_of_other_albums_are_no_candidates(
    still: World, title: str, then: str
) -> None:
    """Torrentino shows whatever has half of the words: a person is asked only about the album."""
    async with stages(still, **GROUPED) as by_hand:
        await queue(still, still.add_album(1, 2), album=1)
        await by_hand.ticket()
        found = [{"title": title, "info_hash": HASHES[0], "size_bytes": 5, "score": 0.7}]
        by_hand.set_state((await still.items())[0], type="needs_approval", candidates=found)
        await by_hand.poll()
        items = await still.items()
    assert {(i["stage"], i["retry_count"]) for i in items} == {(then, 0)}
    assert {i["ask_next"] for i in items} == {"track" if then == "queued" else None}
    await assert_lawful(still)


async def test_where_only_albums_are_asked_for_nothing_found_is_an_attempt(still: World) -> None:
    """TICKET_GROUPING=album: there is no other kind of ticket to go on with."""
    async with stages(still, TICKET_GROUPING="album") as by_hand:
        await queue(still, still.add_album(1, 2), album=1)
        await by_hand.ticket()
        by_hand.set_state((await still.items())[0], **NOTHING)
        await by_hand.poll()
        items = await still.items()
    assert {(i["stage"], i["error_type"]) for i in items} == {("retry_wait", "not_found")}


@pytest.mark.parametrize(
    ("title", "before", "then"),
    [
        ("The Testers - Album 1 [FLAC]", None, "queued"),
        ("The Testers - Album 1 [FLAC]", "album", "queued"),
        # It comes from an album's ticket that did not serve it: once is enough.
        ("The Testers - Album 1 [FLAC]", "track", "needs_approval"),
        ("The Testers - Song 1001 [FLAC]", None, "needs_approval"),
    ],
)
async def test_a_track_of_which_only_albums_are_found_is_asked_for_by_album(
    still: World, title: str, before: str | None, then: str
) -> None:
    """Instead of waiting for a person; but never twice in a row."""
    async with stages(still, **GROUPED) as by_hand:
        [track] = still.add_album(1, 1)
        await queue(still, [track], album=1)
        # As if the other kind had been due before, of which this ticket is the answer.
        await by_hand.ticket()
        await still.execute("UPDATE queue_items SET ask_next = $1", before)
        await still.execute("UPDATE tickets SET kind = 'track', album_id = NULL")
        item = await one(still)
        found = [{"title": title, "info_hash": HASHES[0], "size_bytes": 5, "score": 0.5}]
        by_hand.set_state(item, type="needs_approval", candidates=found)
        await by_hand.poll()
        item = await one(still)
        [ticket] = await tickets(still)
        looked = still.standin.requests["GET /catalog/{hash}"]
        await by_hand.poll()
    assert (item["stage"], item["retry_count"]) == (then, 0)
    if then == "queued":
        assert (item["ask_next"], ticket["state"]) == ("album", "withdrawing")
    assert still.standin.requests["GET /catalog/{hash}"] == looked, "a person is not looked after"
    await assert_lawful(still)


async def test_the_pipeline_is_asked_once_a_run(still: World) -> None:
    """Twenty tickets that look stranded cost one question, not twenty."""
    async with stages(still) as by_hand:
        await queue(still, still.add_album(1, 20))
        while await by_hand.ticket():
            pass
        for item in await still.items():
            by_hand.set_state(item, type="converting")
        await by_hand.poll()
        await still.execute("UPDATE tickets SET progressed_at = now() - interval '2 hours'")
        still.standin.requests.clear()
        await by_hand.poll()
        assert await stages_of(still) == {"queued"}
        assert still.standin.requests["GET /pipeline/status"] == 1
