"""Torrents of many files, as the reference tells of them (1.1.3, 1.2, 1.4, 1.5, 3.2, 3.4)."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pytest

from services.local.torrentino.source import load_songs
from tests.support.standin_albums import (
    FFMPEG_FAILED,
    ROOT,
    TITLES,
    album_body,
    album_files,
    audible_files,
    downloaded,
    harbour,
    heard,
    order_of,
    process,
    spec_of,
)
from tests.support.standin_helpers import (
    JSON,
    create,
    eventually,
    listening,
    messages,
    quick,
    reaching,
    track_body,
)


async def test_the_whole_life_of_an_album_ticket(tmp_path: Path) -> None:
    """3.4: approved with mappings, failed at the folder, then processed under our names."""
    spec, dest = spec_of(audible_files(tmp_path)), tmp_path / "incoming"
    async with harbour(tmp_path, spec) as it, listening(it.standin) as socket:
        ticket = await create(it.api, album_body(dest))
        seen = await messages(socket, lambda last: last.get("state") == "failed")
        kinds = [each["state"] for each in seen if each["type"] == "ticket_update"]
        failed = (await it.api.get(f"/tickets/{ticket['id']}")).json()["state"]
        torrent = await downloaded(it.api, spec.info_hash)
        assert [(each.name, each.read_bytes()) for each in dest.iterdir()] == [
            (f"{ROOT}.converted", b"")
        ]
        answer = await process(it.api, ticket["id"], order_of(spec, it.downloads, dest))
        seen = await messages(socket, lambda last: last.get("state") == "completed")
        later = [each["state"] for each in seen if each["type"] == "ticket_update"]
        done = (await it.api.get(f"/tickets/{ticket['id']}")).json()["state"]
        audit = (await it.api.get(f"/audit?ticket_id={ticket['id']}")).json()["events"]
    assert list(dict.fromkeys(kinds)) == [
        *("pending", "acquiring", "auto_approved", "downloading"),
        *("converting", "placing", "failed"),
    ]
    source, target = f"{it.downloads}/{ROOT}", f"{dest}/{ROOT}.converted"
    assert failed["error"] == f"Placement failed: Failed to copy file from {source} to {target}"
    assert failed["retryable"] is True
    assert (torrent["save_path"], torrent["name"]) == (str(it.downloads), ROOT)
    assert torrent["size_bytes"] == sum(file.source.stat().st_size for file in spec.files)
    assert answer.status_code == 202
    message = "Job submitted to pipeline"
    assert answer.json() == {"success": True, "message": message, "ticket_id": ticket["id"]}
    assert list(dict.fromkeys(later)) == ["converting", "placing", "completed"]
    placed = {each.name: each for each in dest.iterdir() if each.stat().st_size}
    assert set(placed) == {"0001.flac", "0002.flac", "0003.flac"}
    assert done["stats"]["files_placed"] == 3
    assert done["stats"]["final_size_bytes"] == sum(p.stat().st_size for p in placed.values())
    assert (await heard(placed["0002.flac"])).codec == "flac"
    events = {each["event_type"]: each["data"] for each in audit}
    assert {"placement_failed", "placement_completed"} <= set(events)
    inputs = [e["data"]["input_path"] for e in audit if e["event_type"] == "conversion_started"]
    assert inputs[-1] == source


async def test_an_album_is_approved_with_its_mappings(tmp_path: Path) -> None:
    """1.1.3, 2.1: `artist album` finds the torrent; the known files are mapped by track number."""
    spec = spec_of(album_files(tmp_path))
    async with harbour(tmp_path, spec, download_s=60) as it:
        ticket = await create(it.api, album_body(tmp_path / "d"))
        state = (await reaching(it.api, ticket["id"], "downloading"))["state"]
    (selected,) = state["candidates"]
    assert selected == {
        "title": spec.title,
        "info_hash": spec.info_hash,
        "magnet_uri": f"magnet:?xt=urn:btih:{spec.info_hash}",
        "size_bytes": sum(file.source.stat().st_size for file in spec.files),
        # 0.6 * (0.75 + 0.15 * 0.5 + 0.10) + 0.4 * 1.0
        "score": 0.955,
        "file_mappings": [
            {
                "torrent_file_path": f"{ROOT}/{number:02d} - {title}.flac",
                "ticket_item_id": f"track-{number}",
                "confidence": 1.0,
            }
            for number, title in enumerate(TITLES, start=1)
        ],
    }


async def test_wrong_mappings(tmp_path: Path) -> None:
    """A mapping can be wrong, and a number alone is little evidence."""
    files = album_files(tmp_path)
    third = f"{ROOT}/03.flac"
    files = {**dict(list(files.items())[:2]), third: next(iter(files.values()))}
    wrong = {next(iter(files)): ("track-2", 0.9)}
    async with harbour(tmp_path, spec_of(files, mappings=wrong), download_s=60) as it:
        sent = album_body(tmp_path / "d")
        sent["query_context"]["tags"] = ["flac"]  # a quality tag in the title: 0.15 in full
        ticket = await create(it.api, sent)
        state = (await reaching(it.api, ticket["id"], "downloading"))["state"]
    mappings = state["candidates"][0]["file_mappings"]
    assert [(each["ticket_item_id"], each["confidence"]) for each in mappings] == [
        ("track-2", 0.9),
        ("track-2", 1.0),
        ("track-3", 0.35),
    ]


async def test_an_unlisted_torrent_has_no_mappings(tmp_path: Path) -> None:
    """3.4: without a .torrent URL the files are unknown, and nothing is blended into the score."""
    spec = spec_of(album_files(tmp_path), listed=False)
    async with harbour(tmp_path, spec, download_s=60) as it:
        ticket = await create(it.api, album_body(tmp_path / "d"))
        (selected,) = (await reaching(it.api, ticket["id"], "downloading"))["state"]["candidates"]
        entry = (await it.api.get(f"/catalog/{spec.info_hash}")).json()
    assert selected["score"] == 0.925
    assert "file_mappings" not in selected
    assert "files" not in entry


async def test_an_album_torrent_for_a_track_needs_approval(tmp_path: Path) -> None:
    """1.1.3: the track's name is not in the title; after an approval no mappings are left (2.4)."""
    spec = spec_of(album_files(tmp_path))
    async with harbour(tmp_path, spec) as it:
        ticket = await create(it.api, track_body("Fog Signal", tmp_path / "d"))
        state = (await reaching(it.api, ticket["id"], "needs_approval"))["state"]
        answer = await it.api.post(f"/tickets/{ticket['id']}/approve")
        failed = (await reaching(it.api, ticket["id"], "failed"))["state"]
    (summary,) = state["candidates"]
    assert set(summary) == {"title", "info_hash", "size_bytes", "seeders", "score", "reasoning"}
    # 0.6 * (0.75 * 2/4 + 0.15 * 0.5 + 0.10) + 0.4 * 0.65
    assert state["confidence"] == summary["score"] == 0.59
    assert "file_mappings" not in answer.json()["state"]["selected"]
    assert failed["error"].startswith("Placement failed: ")


async def test_a_song_comes_before_an_album(tmp_path: Path) -> None:
    """Candidates stand best first: a song's own torrents, then the album that may have it."""
    spec = spec_of(album_files(tmp_path))
    async with harbour(tmp_path, spec, titles=("Fog Signal",), download_s=60) as it:
        ticket = await create(it.api, track_body("Fog Signal", tmp_path / "d"))
        state = (await reaching(it.api, ticket["id"], "downloading"))["state"]
    scores = [each["score"] for each in state["candidates"]]
    assert scores == [0.93, 0.87, 0.59]
    (mapping,) = state["candidates"][2]["file_mappings"]
    assert mapping["ticket_item_id"] == "track-1"
    assert mapping["torrent_file_path"].endswith("Fog Signal.flac")


async def test_at_most_five_candidates(tmp_path: Path) -> None:
    """2.1: five at most, best first; seeders and quality decide between equal titles."""
    files = album_files(tmp_path)
    specs = [
        spec_of(files, f"The Band - Harbour [{label}]", seeders=seeders)
        for label, seeders in (
            *(("MP3", 1), ("V0", 5), ("FLAC", 10)),
            *(("FLAC WEB", 20), ("24bit", 15), ("CD", 0)),
        )
    ]
    async with harbour(tmp_path, *specs, download_s=60) as it:
        ticket = await create(it.api, album_body(tmp_path / "d"))
        state = (await reaching(it.api, ticket["id"], "downloading"))["state"]
    titles = [each["title"].partition("[")[2] for each in state["candidates"]]
    assert titles == ["FLAC WEB]", "24bit]", "FLAC]", "V0]", "MP3]"]


async def test_nothing_suitable(tmp_path: Path) -> None:
    """No candidate is another answer than a bad one; songs do not serve an album ticket."""
    other = spec_of(album_files(tmp_path), "Somebody - Else [FLAC]")
    async with harbour(tmp_path, other, titles=("Harbour",)) as it:
        ticket = await create(it.api, album_body(tmp_path / "d"))
        state = (await reaching(it.api, ticket["id"], "acquisition_failed"))["state"]
    assert state["reason"] == "No suitable candidates found"


async def test_two_discs_repeat_their_numbers(tmp_path: Path) -> None:
    """3.4: `track-1` is there once for each disc, each with its own disc's file."""
    source = next(iter(album_files(tmp_path).values()))
    spec = spec_of(
        {"Root/CD2/01 - Intro.flac": source, "Root/CD1/01 - Intro.flac": source}
        | {"Root/CD9/01.flac": source},
        "The Band - Harbour [2CD FLAC]",
    )
    async with harbour(tmp_path, spec, download_s=60) as it:
        sent = album_body(tmp_path / "d")
        sent["query_context"]["tags"] = ["flac"]
        sent["query_context"]["expected"]["tracks"] = [
            {"number": 1, "title": "Intro", "disc_number": disc} for disc in (1, 2)
        ] + [{"number": 1, "title": "Outro", "disc_number": 3}]
        ticket = await create(it.api, sent)
        (selected,) = (await reaching(it.api, ticket["id"], "downloading"))["state"]["candidates"]
    mappings = [
        (each["ticket_item_id"], each["torrent_file_path"], each["confidence"])
        for each in selected["file_mappings"]
    ]
    assert mappings == [
        ("track-1", "Root/CD2/01 - Intro.flac", 1.0),
        ("track-1", "Root/CD1/01 - Intro.flac", 1.0),
    ]


async def test_a_torrent_of_one_file_completes(tmp_path: Path) -> None:
    """3.2: a single file is placed as ever, whatever its torrent is called."""
    source = next(iter(album_files(tmp_path).values()))
    spec = spec_of({"one big file.flac": source}, "The Band - Harbour [vinyl rip]")
    async with harbour(tmp_path, spec) as it:
        sent = album_body(tmp_path / "d")
        sent["query_context"]["expected"]["tracks"] = []
        ticket = await create(it.api, sent)
        await reaching(it.api, ticket["id"], "completed")
    (file,) = (tmp_path / "d").iterdir()
    assert file.name == "one big file.flac.converted"
    assert file.read_bytes() == (it.downloads / "one big file.flac").read_bytes()


async def test_constraints_fail_at_the_conversion_of_a_folder(tmp_path: Path) -> None:
    """3.2: ffmpeg cannot read a directory; that is not retryable, and nothing is left."""
    async with harbour(tmp_path, spec_of(album_files(tmp_path))) as it:
        sent = album_body(tmp_path / "d", output_constraints={"type": "audio", "format": "flac"})
        ticket = await create(it.api, sent)
        state = (await reaching(it.api, ticket["id"], "failed"))["state"]
    assert (state["error"], state["retryable"]) == (f"{FFMPEG_FAILED}1)", False)
    assert not (tmp_path / "d").exists()


async def test_data_on_disk(tmp_path: Path) -> None:
    """1.4: data lie at `<save_path>/<name>`, and go with `delete_files` alone; sources stay."""
    files = album_files(tmp_path)
    spec = spec_of(files)
    async with harbour(tmp_path, spec) as it:
        ticket = await create(it.api, album_body(tmp_path / "d"))
        await reaching(it.api, ticket["id"], "failed")
        saved = {path: (it.downloads / path).read_bytes() for path in files}
        assert saved == {path: source.read_bytes() for path, source in files.items()}
        (it.downloads / next(iter(files))).write_bytes(b"changed in place")
        assert next(iter(files.values())).read_bytes() == saved[next(iter(files))]
        await it.api.delete(f"/torrents/{spec.info_hash}")
        assert (it.downloads / ROOT).exists()
        again = await create(it.api, album_body(tmp_path / "e"))
        await reaching(it.api, again["id"], "failed")
        gone = await it.api.delete(f"/torrents/{spec.info_hash}?delete_files=true")
        assert gone.status_code == 200
        assert (await it.api.get(f"/torrents/{spec.info_hash}")).status_code == 404
    assert [*it.downloads.iterdir()] == []
    assert all(source.exists() for source in files.values())


async def test_a_torrent_without_its_sources_never_completes(tmp_path: Path) -> None:
    """What cannot be written is an error of the torrent client; the ticket continues to wait."""
    files = album_files(tmp_path)
    spec = spec_of(files)
    async with harbour(tmp_path, spec, download_s=0.3) as it:
        ticket = await create(it.api, album_body(tmp_path / "d"))
        await reaching(it.api, ticket["id"], "downloading")
        next(iter(files.values())).unlink()

        async def broken() -> bool:
            torrent = (await it.api.get(f"/torrents/{spec.info_hash}")).json()
            return bool(torrent["state"] == "error")

        await eventually(broken)
        assert (await it.api.get(f"/tickets/{ticket['id']}")).json()["state"]["type"] == (
            "downloading"
        )


async def test_two_tickets_share_a_torrent(tmp_path: Path) -> None:
    """What has been downloaded is there at once for the next one, also after a restart."""
    spec = spec_of(album_files(tmp_path))
    async with harbour(tmp_path, spec, download_s=0.2) as it:
        first = await create(it.api, album_body(tmp_path / "d"))
        await reaching(it.api, first["id"], "failed")
        (before,) = (await it.api.get("/torrents")).json()["torrents"]
        await it.standin.restart()
        second = await create(it.api, album_body(tmp_path / "e"))
        await reaching(it.api, second["id"], "failed")
        (after,) = (await it.api.get("/torrents")).json()["torrents"]
    assert after == before


async def test_the_catalog_knows_what_searches_saw(tmp_path: Path) -> None:
    """1.5: files with their root folder, by hash and by words; 404 for the rest."""
    spec = spec_of(album_files(tmp_path))
    async with harbour(tmp_path, spec) as it:
        path = f"/catalog/{spec.info_hash}"
        assert (await it.api.get(path)).status_code == 404
        ticket = await create(it.api, album_body(tmp_path / "d"))
        await reaching(it.api, ticket["id"], "failed")
        entry = (await it.api.get(path)).json()
        assert entry["files"] == [
            {"path": file.path, "size_bytes": file.source.stat().st_size} for file in spec.files
        ]
        found = (await it.api.get("/catalog?query=band harbour")).json()
        assert found == {"entries": [entry], "total": 1}
        assert (await it.api.get("/catalog?query=nobody")).json() == {"entries": [], "total": 0}
        assert (await it.api.get("/catalog?limit=x")).status_code == 400
        stats = (await it.api.get("/catalog/stats")).json()
        assert (stats["total_torrents"], stats["total_files"]) == (1, 3)
        assert (await it.api.delete(path)).status_code == 200
        assert (await it.api.delete(path)).status_code == 404
        assert it.standin.requests["GET /catalog/{hash}"] == 2


async def test_magnets(tmp_path: Path) -> None:
    """1.4: a known hash is downloaded; any other link is taken too, and nothing comes of it."""
    spec = spec_of(album_files(tmp_path))
    async with harbour(tmp_path, spec, titles=("Low Tide",)) as it:
        ticket = await create(it.api, album_body(tmp_path / "d"))
        await reaching(it.api, ticket["id"], "failed")
        await it.api.delete(f"/torrents/{spec.info_hash}?delete_files=true")
        uri = f"magnet:?xt=urn:btih:{spec.info_hash.upper()}&dn=x&tr=http%3A%2F%2Fx%2Fannounce"
        options = {"paused": True, "category": "albums", "download_path": str(tmp_path / "else")}
        answer = await it.api.post("/torrents/add/magnet", json={"uri": uri, **options})
        assert (answer.status_code, answer.json()) == (200, {"hash": spec.info_hash})
        paused = (await it.api.get("/torrents?category=albums")).json()["torrents"]
        assert [(each["state"], each["progress"]) for each in paused] == [("paused", 0.0)]
        await it.api.post(f"/torrents/{spec.info_hash}/resume")
        await downloaded(it.api, spec.info_hash)
        assert (tmp_path / "else" / spec.files[0].path).is_file()
        unknown = {"uri": f"magnet:?xt=urn:btih:{'ab' * 20}"}
        assert (await it.api.post("/torrents/add/magnet", json=unknown)).json()["hash"] == "ab" * 20
        waiting = (await it.api.get(f"/torrents/{'ab' * 20}")).json()
        assert (waiting["state"], waiting["progress"]) == ("downloading", 0.0)
        no_hash = await it.api.post("/torrents/add/magnet", json={"uri": "magnet:?dn=x"})
        assert (no_hash.status_code, no_hash.json()) == (200, {"hash": ""})
        assert (await it.api.post("/torrents/add/magnet", json={})).status_code == 422
        assert it.standin.requests["POST /torrents/add/magnet"] == 4


@pytest.mark.parametrize("fate", ["not_found", "needs_approval", "download_stalled", "add_failed"])
async def test_fates_by_album_title(tmp_path: Path, fate: str) -> None:
    """A fate meant for an album is its ticket's."""
    kinds = {"not_found": "acquisition_failed", "needs_approval": "needs_approval"}
    async with harbour(tmp_path, spec_of(album_files(tmp_path))) as it:
        it.standin.faults.fates["harbour"] = fate
        ticket = await create(it.api, album_body(tmp_path / "d"))
        state = (await reaching(it.api, ticket["id"], kinds.get(fate, "failed")))["state"]
    if fate == "needs_approval":
        assert state["confidence"] == 0.1


async def test_torrents_from_json(tmp_path: Path) -> None:
    """A list may hold torrents beside songs; what is no torrent is refused."""
    files = album_files(tmp_path)
    rows: list[JSON] = [
        {"artist": "The Band", "title": "Song", "path": "song.flac"},
        {
            "title": "The Band - Harbour",
            "files": [{"path": path, "source": source.name} for path, source in files.items()],
            "seeders": 3,
            "listed": False,
        },
    ]
    place = tmp_path / "list.json"
    place.write_text(json.dumps(rows))
    source = await asyncio.to_thread(load_songs, place)
    context = album_body(tmp_path)["query_context"]
    (found,) = source.search(context)
    assert (found.spec.name, found.spec.seeders, found.enriched) == (ROOT, 3, False)
    assert found.spec.files[0].source == next(iter(files.values()))
    assert source.find({"description": "song", "tags": []}) is not None
    for row in ({"title": "x", "files": [{"path": "x"}]}, {"title": "x", "files": 5}):
        place.write_text(json.dumps([row]))
        with pytest.raises(ValueError, match="want a list of"):
            load_songs(place)


@pytest.mark.parametrize(
    "paths",
    [(), ("a.flac", "b.flac"), ("A/a.flac", "B/b.flac"), ("/a",), ("A/../b",), ("A", "A/b")],
)
def test_no_torrent(tmp_path: Path, paths: tuple[str, ...]) -> None:
    """Files have one root folder and stay inside it, or are one file."""
    with pytest.raises(ValueError, match="want"):
        spec_of(dict.fromkeys(paths, tmp_path / "x"))


def test_quick_has_no_downloads() -> None:
    """Without a folder the stand-in names one that does not exist."""
    assert quick().shown_path == "/downloads"
