"""The fetcher-writer and whole torrents: each file goes to its own track, or to none."""

from __future__ import annotations

import hashlib
import json
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from services.fetcher_writer import collected_files
from services.fetcher_writer.disk_budget import Room
from services.fetcher_writer.store import Store, share
from shared.errors import DependencyDown, Misconfigured
from shared.media.decode import Decoded, decode
from shared.media.paths import audio_uri, source_uri
from shared.media.probe import ProbeResult
from shared.media.tools import AudioTools
from tests.support.audio import make_audio, overwrite
from tests.support.conversion import Source, probed, samples, write
from tests.support.rare_formats import dsf
from tests.support.stages import (
    BY_TEST,
    Stages,
    assert_lawful,
    held_by,
    in_audio,
    one,
    queue,
    stages,
    timeline,
)
from tests.support.world import Row, World, album_id, eventually, track_id

ROOT = "Artist - Tides (2001) [FLAC]"
HASH = "00112233445566778899aabbccddeeff00112233"
TITLES = (
    *("Harbour", "Low Water", "The Pilot", "Undertow", "Spring Tide", "Kelp", "Beacon"),
    *("Ebb", "Salt Road", "Fathoms", "Neap", "Landfall"),
)


def length_s(place: int) -> float:
    """Of the track at this place, counted from 1; the lengths differ by more than they may."""
    return 2.0 + 1.2 * place


@pytest.fixture(scope="module")
def songs(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """The audio of twelve tracks, each of its own length and tone."""
    folder = tmp_path_factory.mktemp("songs")
    return [
        make_audio(folder / f"{place}.flac", seconds=length_s(place), frequency=200 + 20 * place)
        for place in range(1, 13)
    ]


@dataclass
class Torrent:
    """A torrent that was downloaded, and the items that its ticket serves."""

    world: World
    downloads: Path
    tracks: list[str]

    def lay(self, name: str, source: Path) -> Path:
        """Put a file of the torrent where the client saves it."""
        path = self.downloads / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(source.read_bytes())
        return path

    async def is_there(
        self, *, kind: str = "album", only: Sequence[str] | None = None, **columns: object
    ) -> None:
        """The ticket of these items (None: all) has ended, and its files are to be fetched."""
        values: dict[str, object] = {
            "id": "t1",
            "dest_path": str(self.world.incoming / "t1"),
            "state": "closed",
            "priority": 2,
            "kind": kind,
            "album_id": album_id(1) if kind == "album" else None,
            "info_hash": HASH,
            "torrent_title": "Artist - Tides",
            "delivery": "torrent",
            "torrent_path": str(self.downloads / ROOT),
        } | columns
        names = ", ".join(values)
        places = ", ".join(f"${n}" for n in range(1, len(values) + 1))
        await self.world.execute(
            f"INSERT INTO tickets ({names}, closed_at) VALUES ({places}, now())"
            " ON CONFLICT DO NOTHING",
            *values.values(),
        )
        await self.ready(self.tracks if only is None else only)

    async def ready(self, tracks: Sequence[str]) -> None:
        await self.world.execute(
            "UPDATE queue_items SET stage = 'ready', status = 'DOWNLOADING', ticket_id = 't1',"
            " actor = $2, due_at = now() WHERE track_id = ANY($1)",
            list(tracks),
            BY_TEST,
        )

    async def by_track(self) -> dict[str, Row]:
        return {row["track_id"]: row for row in await self.world.items()}


async def wanted(
    world: World, places: Sequence[int], *, known: Sequence[int] | None = None, discs: int = 1
) -> Torrent:
    """Items for these tracks of an album, whose tracklist is `known` (None: just these)."""
    tracks = [track_id(1000 + place) for place in places]
    await queue(world, tracks, album=1, kind="album", content_id=album_id(1))
    listed = [
        {
            "id": track_id(1000 + place),
            "title": TITLES[place - 1],
            "artist": "Artist",
            "disc": 1 + (place - 1) * discs // 12,
            "number": 1 + (place - 1) % (12 // discs),
            "duration_ms": int(length_s(place) * 1000),
        }
        for place in (known or places)
    ]
    await world.execute(
        "INSERT INTO albums (album_id, name, artist, tracks) VALUES ($1, 'Tides', 'Artist', $2)",
        album_id(1),
        json.dumps(listed),
    )
    await world.execute(
        "UPDATE queue_items q SET track_name = t->>'title', duration_ms = (t->>'duration_ms')::int,"
        " disc_number = (t->>'disc')::int, track_number = (t->>'number')::int, actor = $1"
        " FROM albums, jsonb_array_elements(tracks) t WHERE t->>'id' = q.track_id",
        BY_TEST,
    )
    return Torrent(world=world, downloads=world.folder / "downloads", tracks=tracks)


@asynccontextmanager
async def fetching(world: World, **overrides: str) -> AsyncIterator[Stages]:
    """The workers of an installation that sees the torrents' own folder."""
    (world.folder / "downloads").mkdir(exist_ok=True)
    settings = {
        "TORRENTINO_DOWNLOADS_ROOT": str(world.folder / "downloads"),
        "DURATION_TOLERANCE_S": "0.5",
        "TICKET_GROUPING": "auto",
    }
    async with stages(world, **settings | overrides) as made:
        yield made


def named(place: int) -> str:
    return f"{ROOT}/{place:02d} - {TITLES[place - 1]}.flac"


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def states(folder: Path) -> dict[str, tuple[str, int, int, int]]:
    """Content, mode, size and modification time of every file below."""
    found = {}
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            status = path.stat()
            found[str(path)] = (
                sha256(path),
                status.st_mode,
                status.st_size,
                status.st_mtime_ns,
            )
    return found


def parts(world: World) -> list[str]:
    return [path.name for path in (world.media / ".incoming").glob("*.part")]


def placed_right(world: World, songs: Sequence[Path], places: Sequence[int]) -> None:
    """Exactly these tracks are under audio/, each with its own audio."""
    found = world.files()
    assert sorted(found) == [track_id(1000 + place) for place in sorted(places)]
    for place in places:
        assert sha256(found[track_id(1000 + place)]) == sha256(songs[place - 1]), place


async def test_an_album_comes_out_of_its_torrent(still: World, songs: list[Path]) -> None:
    """Twelve originals are placed under their tracks' names, and the torrent is as it was."""
    torrent = await wanted(still, range(1, 13))
    for place in range(1, 13):
        torrent.lay(named(place), songs[place - 1]).chmod(0o664 if place > 6 else 0o600)
    torrent.lay(f"{ROOT}/cover.jpg", songs[0])
    await torrent.is_there()
    before = states(torrent.downloads)
    async with fetching(still, FETCH_CONCURRENCY="3") as by_hand:
        assert await by_hand.fetch() == 12
        await by_hand.clean()
    placed_right(still, songs, range(1, 13))
    assert states(torrent.downloads) == before
    linked = [
        place for place in range(1, 13) if (torrent.downloads / named(place)).stat().st_nlink == 2
    ]
    assert linked == [7, 8, 9, 10, 11, 12], "a file that not all users may read is copied"
    assert {path.stat().st_mode & 0o444 for path in still.files().values()} == {0o444}
    assert parts(still) == []
    await assert_lawful(still)


async def test_what_the_torrent_lacks_goes_on_by_itself(still: World, songs: list[Path]) -> None:
    """Eight of twelve are placed; four are queued for tickets of their own, no attempt burnt."""
    torrent = await wanted(still, range(1, 13))
    for place in range(1, 9):
        torrent.lay(named(place), songs[place - 1])
    await torrent.is_there()
    async with fetching(still) as by_hand:
        assert await by_hand.fetch() == 12
    placed_right(still, songs, range(1, 9))
    items = await torrent.by_track()
    left = [items[track] for track in torrent.tracks[8:]]
    assert [(each["stage"], each["ask_next"], each["retry_count"]) for each in left] == [
        ("queued", "track", 0)
    ] * 4
    begins = "Artist - Tides does not have this track; the file nearest in length, "
    assert all(each["reason"].startswith(begins) for each in left), left
    rows = await still.rows("SELECT track_id, info_hash, lacks FROM bad_sources ORDER BY track_id")
    assert [tuple(row.values()) for row in rows] == [(t, HASH, True) for t in torrent.tracks[8:]]
    await assert_lawful(still)


@pytest.mark.parametrize(("kind", "grouping"), [("album", "album"), ("track", "auto")])
async def test_without_another_kind_of_ticket_a_miss_is_a_failed_attempt(
    still: World, songs: list[Path], kind: str, grouping: str
) -> None:
    """With TICKET_GROUPING=album, or from a track's own ticket; and the torrent is told apart."""
    torrent = await wanted(still, [3], known=range(1, 13))
    for place in (1, 2):
        torrent.lay(named(place), songs[place - 1])
    await torrent.is_there(kind=kind)
    async with fetching(still, TICKET_GROUPING=grouping) as by_hand:
        await by_hand.fetch()
    item = await one(still)
    assert (item["stage"], item["error_type"], item["retry_count"]) == (
        "retry_wait",
        "not_found",
        1,
    )
    assert [each["file"] for each in item["error_evidence"]["files"]] == [named(1), named(2)]
    (source,) = await still.rows("SELECT lacks FROM bad_sources")
    assert source["lacks"]


async def test_lengths_tell_swapped_names_apart(still: World, songs: list[Path]) -> None:
    """Tracks 3 and 4 have each other's names: each gets its own audio all the same."""
    torrent = await wanted(still, range(1, 6))
    for place, name in ((1, 1), (2, 2), (3, 4), (4, 3), (5, 5)):
        torrent.lay(named(name), songs[place - 1])
    await torrent.is_there()
    async with fetching(still) as by_hand:
        await by_hand.fetch()
    placed_right(still, songs, range(1, 6))


async def test_what_cannot_be_told_apart_is_left_to_a_person(
    still: World, songs: list[Path]
) -> None:
    """Numbers alone make nothing sure: held with both files, and the chosen one is placed."""
    torrent = await wanted(still, [1, 2])
    await still.execute("UPDATE albums SET tracks = jsonb_set(tracks, '{1,duration_ms}', '3200')")
    await still.execute("UPDATE queue_items SET duration_ms = 3200, actor = $1", BY_TEST)
    for name in ("01", "02"):
        torrent.lay(f"{ROOT}/{name}.flac", songs[0])
    await torrent.is_there()
    async with fetching(still) as by_hand:
        await by_hand.fetch()
        items = await still.items()
        assert [(each["stage"], each["error_type"]) for each in items] == [
            ("needs_choice", None)
        ] * 2
        assert "approve the item with the name of its file" in items[0]["reason"]
        evidence = items[0]["error_evidence"]
        names = {str(each["file"]) for each in evidence["candidates"]}
        assert names == {f"{ROOT}/01.flac", f"{ROOT}/02.flac"}
        assert (evidence["ticket"], evidence["info_hash"]) == ("t1", HASH)
        assert parts(still) == []
        assert await by_hand.fetch() == 0
        await still.execute(
            "UPDATE queue_items SET stage = 'ready', chosen_file = $2, actor = $3 WHERE id = $1",
            *(items[0]["id"], f"{ROOT}/02.flac", BY_TEST),
        )
        assert await by_hand.fetch() == 1
        assert in_audio(still) == [f"{torrent.tracks[0]}.flac"]
        assert (await timeline(still, items[0]["id"]))[-4:] == [
            "ready", "fetching", "verifying", "completed",
        ]  # fmt: skip
    await assert_lawful(still)


@pytest.mark.parametrize("choice", ["wrong", "gone"])
async def test_a_choice_is_verified_as_any_file(
    still: World, songs: list[Path], choice: str
) -> None:
    """A person may be wrong: the audio of another track is not placed, nor is nothing."""
    torrent = await wanted(still, [1, 2])
    for place in (1, 2):
        torrent.lay(named(place), songs[place - 1])
    await torrent.is_there()
    await still.execute(
        "UPDATE queue_items SET chosen_file = $2, actor = $3 WHERE track_id = $1",
        *(torrent.tracks[0], named(2) if choice == "wrong" else "elsewhere.flac", BY_TEST),
    )
    async with fetching(still) as by_hand:
        await by_hand.fetch()
    item = (await torrent.by_track())[torrent.tracks[0]]
    expected = "corruption" if choice == "wrong" else "not_found"
    assert (item["stage"], item["error_type"]) == ("retry_wait", expected)
    assert f"{torrent.tracks[0]}.flac" not in in_audio(still)


async def test_one_broken_file_harms_no_other(still: World, songs: list[Path]) -> None:
    """It fails its own track, for which the torrent is blocked; the others are placed."""
    torrent = await wanted(still, range(1, 6))
    for place in range(1, 6):
        torrent.lay(named(place), songs[place - 1])
    overwrite(torrent.downloads / named(4), songs[3])
    (torrent.downloads / named(5)).write_bytes(b"no audio at all" * 2000)
    await torrent.is_there()
    async with fetching(still) as by_hand:
        await by_hand.fetch()
    placed_right(still, songs, [1, 2, 3])
    items = await torrent.by_track()
    for track in torrent.tracks[3:]:
        assert (items[track]["stage"], items[track]["error_type"]) == ("retry_wait", "corruption")
    rows = await still.rows("SELECT track_id, lacks FROM bad_sources ORDER BY track_id")
    assert [tuple(row.values()) for row in rows] == [(t, False) for t in torrent.tracks[3:]]


async def test_two_workers_share_one_ticket(still: World, songs: list[Path]) -> None:
    """Each has claimed some of its items, and both come to the same opinion of its files."""
    torrent = await wanted(still, range(1, 7))
    for place in range(1, 7):
        torrent.lay(named(place), songs[place - 1])
    await torrent.is_there(only=torrent.tracks[:3])
    async with fetching(still) as first, fetching(still) as second:
        assert await first.fetcher.run_once() == 3
        await torrent.ready(torrent.tracks[3:])
        assert await second.fetcher.run_once() == 3
        await eventually(lambda: _idle(first, second))
    placed_right(still, songs, range(1, 7))
    assert parts(still) == []


async def _idle(*copies: Stages) -> bool:
    return not any(copy.fetcher.working for copy in copies)


async def test_items_of_a_ticket_come_together(still: World, songs: list[Path]) -> None:
    """One place is free, and all five are claimed; no more than one file is in hand at once."""
    torrent = await wanted(still, range(1, 6))
    for place in range(1, 6):
        torrent.lay(named(place), songs[place - 1])
    await torrent.is_there()
    async with fetching(still, FETCH_CONCURRENCY="1") as by_hand:
        collector, at_once, most = by_hand.fetcher.recipe.collector, 0, 0
        collect = collector.collect

        async def counting(*args: object) -> str:
            nonlocal at_once, most
            at_once += 1
            most = max(most, at_once)
            how = await collect(*args)  # type: ignore[arg-type]
            at_once -= 1
            return how

        collector.collect = counting  # type: ignore[method-assign,assignment]
        assert await by_hand.fetcher.run_once() == 5
        assert await by_hand.fetcher.run_once() == 0
        await eventually(lambda: _idle(by_hand))
    assert most == 1
    placed_right(still, songs, range(1, 6))


async def test_nothing_is_collected_twice(still: World, songs: list[Path]) -> None:
    """What was collected to be measured is what is placed."""
    torrent = await wanted(still, range(1, 4))
    for place in range(1, 4):
        torrent.lay(named(place), songs[place - 1])
    await torrent.is_there()
    async with fetching(still) as by_hand:
        collector, seen = by_hand.fetcher.recipe.collector, []
        collect = collector.collect

        async def noting(*args: object) -> str:
            seen.append(args[1])
            return await collect(*args)  # type: ignore[arg-type]

        collector.collect = noting  # type: ignore[method-assign,assignment]
        await by_hand.fetch()
    placed_right(still, songs, range(1, 4))
    assert len(seen) == 3


@pytest.mark.parametrize("by", ["its user", "another worker"])
async def test_an_item_that_is_lost_under_way_takes_none_along(
    still: World, songs: list[Path], by: str
) -> None:
    """Withdrawn or taken over while the files are sorted: the others get theirs."""
    torrent = await wanted(still, range(1, 4))
    for place in range(1, 4):
        torrent.lay(named(place), songs[place - 1])
    await torrent.is_there()
    async with fetching(still) as by_hand:
        candidates = by_hand.fetcher.recipe.collector.candidates

        async def losing(*args: object) -> object:
            if by == "its user":
                await still.execute(
                    "UPDATE queue_items SET stage = 'failed', status = 'FAILED', completed_at = 1,"
                    " lease_until = NULL, actor = $2 WHERE track_id = $1",
                    *(torrent.tracks[0], BY_TEST),
                )
            else:
                await still.execute(
                    "UPDATE queue_items SET lease_until = now() - interval '1 s', actor = $2"
                    " WHERE track_id = $1",
                    *(torrent.tracks[0], BY_TEST),
                )
                await by_hand.give_back()
            assert [await by_hand.leases.run_once() for _ in range(2)] == [0, 1]
            return await candidates(*args)  # type: ignore[arg-type]

        by_hand.fetcher.recipe.collector.candidates = losing  # type: ignore[method-assign,assignment]
        await by_hand.fetcher.run_once()
        await eventually(lambda: _idle(by_hand))
        placed_right(still, songs, [2, 3])
        assert parts(still) == []
        by_hand.fetcher.recipe.collector.candidates = candidates  # type: ignore[method-assign]
        again = 0 if by == "its user" else 1
        assert await by_hand.fetch() == again
    placed_right(still, songs, [1, 2, 3] if again else [2, 3])


async def test_a_deluxe_torrent_has_more_than_is_wanted(still: World, songs: list[Path]) -> None:
    """Bonus tracks and tracks that are not wanted now stay where they are."""
    torrent = await wanted(still, [2, 5], known=range(1, 9))
    for place in range(1, 13):
        torrent.lay(named(place), songs[place - 1])
    await torrent.is_there()
    async with fetching(still) as by_hand:
        assert await by_hand.fetch() == 2
    placed_right(still, songs, [2, 5])


async def test_two_discs_number_alike(still: World, songs: list[Path]) -> None:
    """The folder says which disc it is."""
    torrent = await wanted(still, range(1, 13), discs=2)
    for place in range(1, 13):
        disc, number = 1 + (place - 1) // 6, 1 + (place - 1) % 6
        torrent.lay(f"{ROOT}/CD{disc}/{number:02d}. {TITLES[place - 1]}.flac", songs[place - 1])
    await torrent.is_there()
    async with fetching(still) as by_hand:
        await by_hand.fetch()
    placed_right(still, songs, range(1, 13))


async def test_a_track_ticket_takes_its_track_out_of_an_album(
    still: World, songs: list[Path]
) -> None:
    """The torrent that was found for one track has them all."""
    torrent = await wanted(still, [4], known=range(1, 13))
    for place in range(1, 8):
        torrent.lay(named(place), songs[place - 1])
    await torrent.is_there(kind="track")
    async with fetching(still) as by_hand:
        await by_hand.fetch()
    placed_right(still, songs, [4])


async def test_a_torrent_of_one_file_is_that_file(still: World, songs: list[Path]) -> None:
    """Its neighbours in the client's folder are other torrents."""
    torrent = await wanted(still, [1], known=range(1, 13))
    torrent.lay("song.flac", songs[0])
    torrent.lay("other.flac", songs[1])
    await torrent.is_there(kind="track", torrent_path=str(torrent.downloads / "song.flac"))
    async with fetching(still) as by_hand:
        await by_hand.fetch()
    placed_right(still, songs, [1])


async def test_what_the_pipeline_placed_under_our_names_is_told_apart(
    still: World, songs: list[Path]
) -> None:
    """The names are ours and say nothing: those in the torrent do."""
    torrent = await wanted(still, [1, 2])
    await still.execute("UPDATE albums SET tracks = jsonb_set(tracks, '{1,duration_ms}', '3200')")
    await still.execute("UPDATE queue_items SET duration_ms = 3200, actor = $1", BY_TEST)
    folder = still.incoming / "t1"
    folder.mkdir()
    for name in ("0001.flac", "0002.flac"):
        (folder / name).write_bytes(songs[0].read_bytes())
    await torrent.is_there(
        delivery="incoming",
        torrent_path=None,
        files_placed=2,
        final_size_bytes=2 * songs[0].stat().st_size,
        processed_files=json.dumps({"0001.flac": named(2), "0002.flac": named(1)}),
    )
    async with fetching(still) as by_hand:
        assert await by_hand.fetch() == 2
        assert len(in_audio(still)) == 2
        await by_hand.clean()
    assert not folder.exists()


async def test_files_in_a_folder_that_is_not_named_wait(still: World, songs: list[Path]) -> None:
    """Without TORRENTINO_DOWNLOADS_ROOT nothing is claimed or burnt, and the text names it."""
    torrent = await wanted(still, [1, 2])
    torrent.lay(named(1), songs[0])
    await torrent.is_there()
    async with stages(still) as by_hand:
        held = await held_by(by_hand.fetch)
        assert isinstance(held, Misconfigured)
        assert "TORRENTINO_DOWNLOADS_ROOT" in held.detail
    assert {item["stage"] for item in await still.items()} == {"ready"}


async def test_an_album_takes_its_room_once(still: World) -> None:
    """Each of four items counts a quarter, what one of them has written counts for all."""
    torrent = await wanted(still, range(1, 5))
    await torrent.is_there(size_bytes=4000)
    async with fetching(still) as by_hand:
        store: Store = by_hand.fetcher.store
        nothing = Room(usable_bytes=900, total_bytes=10_000, parts={})
        with pytest.raises(DependencyDown, match="need 1 MiB"):
            await store.claim(4, nothing)
        works = await store.claim(1, Room(usable_bytes=3500, total_bytes=10_000, parts={}))
        assert len(works) == 3
        first = works[0].claim
        part = f"{first.item_id}.{first.fence}.2.part"
        left = Room(usable_bytes=1500, total_bytes=10_000, parts={part: 2500})
        assert len(await store.claim(4, left)) == 1


async def test_a_ticket_without_items_takes_no_room(still: World) -> None:
    """Its items have moved to other tickets: nothing is divided by their number."""
    await still.execute(
        "INSERT INTO tickets (id, dest_path, priority, final_size_bytes) VALUES ('t', '/t', 0, 9)"
    )
    sql = f"SELECT s.bytes FROM tickets t {share('$1', '$2')}"
    assert await still.rows(sql, ["incoming"], [1]) == [{"bytes": 9}]


async def test_what_was_verified_is_converted(still: World, songs: list[Path]) -> None:
    """AUDIO_FORMAT: the track is what was asked for, and its source is kept beside on request."""
    torrent = await wanted(still, [1, 2])
    for place in (1, 2):
        torrent.lay(named(place), songs[place - 1])
    await torrent.is_there()
    before = states(torrent.downloads)
    converts = {"AUDIO_FORMAT": "opus", "AUDIO_KEEP_SOURCE": "true"}
    async with fetching(still, **converts) as by_hand:
        await by_hand.fetch()
    assert in_audio(still) == [f"{track}.opus" for track in torrent.tracks]
    ledger = await still.rows("SELECT ext, codec, size_bytes FROM media_files")
    assert {(row["ext"], row["codec"]) for row in ledger} == {("opus", "opus")}
    for place, track in enumerate(torrent.tracks, start=1):
        kept = still.media / source_uri(track, "flac")
        assert sha256(kept) == sha256(songs[place - 1])
        assert (still.media / audio_uri(track, "opus")).stat().st_size < kept.stat().st_size
    (item, *_) = await still.items()
    assert (await timeline(still, item["id"]))[-4:] == [
        "fetching", "verifying", "converting", "completed",
    ]  # fmt: skip
    assert parts(still) == []
    assert states(torrent.downloads) == before
    await assert_lawful(still)


async def test_what_browsers_do_not_play_is_not_placed(
    still: World, songs: list[Path], tmp_path: Path
) -> None:
    """AUDIO_FORMAT=original: ALAC becomes FLAC with its 24 bits, Windows Media becomes Opus, the
    rest stays as it is."""
    torrent = await wanted(still, [1, 2, 3])
    alac, wma = tmp_path / "1", tmp_path / "2"
    write(Source("alac24", seconds=length_s(1)), alac)
    write(Source("wma", seconds=length_s(2)), wma)
    for place, source in enumerate((alac, wma, songs[2]), start=1):
        torrent.lay(named(place), source)
    await torrent.is_there()
    async with fetching(still) as by_hand:
        assert await by_hand.fetch() == 3
    placed = in_audio(still)
    assert placed == [
        f"{t}.{e}" for t, e in zip(torrent.tracks, ("flac", "opus", "flac"), strict=True)
    ]
    first, second, third = (still.media / audio_uri(*name.rsplit(".", 1)) for name in placed)
    assert probed(first)["streams"][0]["bits_per_raw_sample"] == "24"
    assert sha256(third) == sha256(songs[2])
    ledger = await still.rows("SELECT codec, duration_ms FROM media_files ORDER BY track_id")
    assert [row["codec"] for row in ledger] == ["flac", "opus", "flac"]
    for place, row in enumerate(ledger, start=1):
        assert row["duration_ms"] / 1000 == pytest.approx(length_s(place), abs=0.15)
    told = await still.rows("SELECT reason FROM events")
    reasons = {row["reason"] for row in told}
    assert "converting alac to flac, because browsers do not play it" in reasons
    assert second.stat().st_size < alac.stat().st_size
    await assert_lawful(still)


async def test_wavpack_and_dsd_become_playable(still: World, tmp_path: Path) -> None:
    """An album of WavPack files with a track of DSD goes all the way: matched, verified, placed."""
    torrent = await wanted(still, [1, 2, 3])
    files = [tmp_path / f"{place}" for place in (1, 2, 3)]
    for place, path in zip((1, 2), files, strict=False):
        write(Source("wavpack", seconds=length_s(place)), path)
    files[2].write_bytes(dsf(length_s(3)))
    for place, (source, ending) in enumerate(zip(files, ("wv", "wv", "dsf"), strict=True), start=1):
        torrent.lay(named(place).replace(".flac", f".{ending}"), source)
    await torrent.is_there()
    async with fetching(still, AUDIO_PLAYABLE="convert") as by_hand:
        assert await by_hand.fetch() == 3
    placed = in_audio(still)
    assert placed == [f"{track}.flac" for track in torrent.tracks]
    made = [still.media / audio_uri(track, "flac") for track in torrent.tracks]
    assert [probed(path)["streams"][0]["sample_rate"] for path in made] == [
        "44100", "44100", "88200",
    ]  # fmt: skip
    assert [samples(path) for path in made[:2]] == [samples(path) for path in files[:2]]
    assert {row["status"] for row in await still.items()} == {"COMPLETED"}
    await assert_lawful(still)


async def test_with_refuse_only_what_plays_is_placed(
    still: World, songs: list[Path], tmp_path: Path
) -> None:
    """Of two copies the one that plays; what only its content shows is refused with the cure."""
    torrent = await wanted(still, [1, 2])
    for path, kind, place in ((tmp_path / "1", "wavpack", 1), (tmp_path / "2", "alac", 2)):
        write(Source(kind, seconds=length_s(place)), path)
    torrent.lay(named(1).replace(".flac", ".wv"), tmp_path / "1")
    torrent.lay(named(1), songs[0])
    torrent.lay(named(2).replace(".flac", ".m4a"), tmp_path / "2")
    await torrent.is_there()
    async with fetching(still, AUDIO_PLAYABLE="refuse") as by_hand:
        await by_hand.fetch()
    assert in_audio(still) == [f"{torrent.tracks[0]}.flac"]
    assert sha256(still.media / audio_uri(torrent.tracks[0], "flac")) == sha256(songs[0])
    refused = (await torrent.by_track())[torrent.tracks[1]]
    assert refused["error_type"] == "corruption"
    assert "AUDIO_PLAYABLE=convert converts it" in refused["error_message"]
    assert refused["error_evidence"]["rule"] == "not_playable"
    await assert_lawful(still)


async def test_what_is_in_the_format_already_stays(still: World, songs: list[Path]) -> None:
    """Not a byte of it is changed, and there is no source beside it."""
    torrent = await wanted(still, [1])
    torrent.lay(named(1), songs[0])
    await torrent.is_there()
    converts = {"AUDIO_FORMAT": "flac", "AUDIO_KEEP_SOURCE": "true"}
    async with fetching(still, **converts) as by_hand:
        await by_hand.fetch()
    placed_right(still, songs, [1])
    assert not (still.media / ".incoming" / "sources").exists()


def sheet(lengths: Mapping[int, float]) -> str:
    """A CUE sheet of tracks that follow one another in one file."""
    lines, at = ['FILE "image.wav" WAVE'], 0.0
    for number, (place, seconds) in enumerate(lengths.items(), start=1):
        frames = round(at * 75)
        stamp = f"{frames // 4500:02d}:{frames // 75 % 60:02d}:{frames % 75:02d}"
        lines += [
            f"  TRACK {number:02d} AUDIO",
            f'    TITLE "{TITLES[place - 1]}"',
            f"    INDEX 01 {stamp}",
        ]
        at += seconds
    return "\n".join(lines)


async def test_one_big_file_is_cut_by_its_sheet(still: World) -> None:
    """An image with a CUE sheet beside it: each track is its part, and the image stays."""
    torrent = await wanted(still, [1, 2, 3])
    lengths = {place: length_s(place) for place in (1, 2, 3)}
    image = make_audio(still.folder / "image.flac", seconds=sum(lengths.values()))
    torrent.lay(f"{ROOT}/image.flac", image)
    (torrent.downloads / ROOT / "image.cue").write_text(sheet(lengths))
    await torrent.is_there()
    before = states(torrent.downloads)
    async with fetching(still) as by_hand:
        assert await by_hand.fetch() == 3
    assert in_audio(still) == [f"{track}.flac" for track in torrent.tracks]
    ledger = await still.rows("SELECT duration_ms FROM media_files ORDER BY track_id")
    for row, seconds in zip(ledger, lengths.values(), strict=True):
        assert abs(row["duration_ms"] / 1000 - seconds) < 0.05
    assert states(torrent.downloads) == before
    assert parts(still) == []


async def test_no_more_is_decoded_than_the_longest_track(
    still: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A WAV out of a pipe tells no length: it is measured to a minute beyond any track."""
    torrent = await wanted(still, [1, 2, 3])
    for place in (1, 2, 3):
        song = tmp_path / f"{place}.wav"
        write(Source("wav", seconds=length_s(place)), song)
        whole, ones = song.read_bytes(), b"\xff" * 4
        at = whole.index(b"data") + 4
        song.write_bytes(whole[:4] + ones + whole[8:at] + ones + whole[at + 4 :])
        torrent.lay(f"{ROOT}/{place:02d} - {TITLES[place - 1]}.wav", song)
    await torrent.is_there()
    bounds: list[float] = []

    async def watched(
        path: Path,
        tools: AudioTools,
        *,
        longest_s: float,
        probed: ProbeResult,
    ) -> Decoded:
        bounds.append(longest_s)
        return await decode(path, tools, longest_s=longest_s, probed=probed)

    monkeypatch.setattr(collected_files, "decode", watched)
    async with fetching(still) as by_hand:
        assert await by_hand.fetch() == 3
    assert set(bounds) == {length_s(3) + 0.5 + 60}
    assert len(in_audio(still)) == 3


async def test_measuring_has_a_budget(still: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """A ticket whose files take too long to measure fails with that, and its torrent is blocked."""
    monkeypatch.setattr(collected_files, "BUDGET_S", 0.0)
    torrent = await wanted(still, [1, 2])
    for place in (1, 2):
        song = make_audio(still.folder / f"{place}.flac", seconds=length_s(place))
        torrent.lay(f"{ROOT}/file {'xy'[place - 1]}.flac", song)
    await torrent.is_there()
    async with fetching(still) as by_hand:
        await by_hand.fetch()
    for item in await still.items():
        assert item["stage"] in ("retry_wait", "failed")
        assert item["error_type"] == "corruption"
        assert "longer to measure" in item["error_message"]
    blocked = await still.rows("SELECT track_id FROM bad_sources ORDER BY track_id")
    assert [row["track_id"] for row in blocked] == torrent.tracks
