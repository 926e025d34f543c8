"""Searching, adding and following without tickets, as the real server was seen to do it.

The numbers are those of the page of facts: 3.1 to 3.6, and 2.1 to 2.7 where tickets meet them.
"""

from __future__ import annotations

import asyncio
import json
from dataclasses import replace
from pathlib import Path

import pytest

from services.local.torrentino import SECRET_KEY, Song, TorrentSpec, folder_name
from services.local.torrentino.config import Client
from services.local.torrentino.source import load_songs
from tests.support.standin_albums import album_body
from tests.support.standin_direct import (
    FOLDER,
    TITLE,
    TRACKS,
    album,
    both_clients,
    bytes_of,
    magnet,
    sounds,
    world,
)
from tests.support.standin_helpers import JSON, create, eventually, reaching, track_body

OVERWRITE = "error creating a new file (because allow_overwrite = false)"
AWAY = "API error: error sending request for url (http://127.0.0.1:8081/api/v2/"


@both_clients
async def test_a_search(tmp_path: Path, kind: Client) -> None:
    """3.1: seeders are added up over the indexers; each has its own magnet and link."""
    spec = album(tmp_path, seeders=7, indexers=("openbay", "tidelist"))
    async with world(tmp_path, kind, [spec]) as it:
        categories = ["audio", "music"]
        answer = await it.api.post(
            "/search", json={"query": "grey HARBOUR a lighthouse", "categories": categories}
        )
        body = answer.json()
        base = it.standin.url.removesuffix("/api/v1")
        assert it.standin.searches == ["grey HARBOUR a lighthouse"]
    (found,) = body["candidates"]
    assert (found["title"], found["info_hash"]) == (TITLE, spec.info_hash)
    assert (found["seeders"], found["leechers"], found["from_cache"]) == (14, 2, False)
    assert found["size_bytes"] == sum(map(len, bytes_of(spec)))
    assert found["publish_date"].endswith("Z")
    assert "files" not in found
    assert [each["indexer"] for each in found["sources"]] == ["openbay", "tidelist"]
    for source in found["sources"]:
        assert source["seeders"] == 7
        assert source["magnet_uri"] == magnet(spec.info_hash, name=TITLE)
        assert source["torrent_url"].startswith(f"{base}/dl/")
        assert source["torrent_url"].endswith(f".torrent?apikey={SECRET_KEY}")
    assert body["query"] == {"query": "grey HARBOUR a lighthouse", "categories": categories}
    assert (body["cache_hits"], body["external_hits"]) == (0, 1)
    assert "indexer_errors" not in body


@both_clients
async def test_every_word_has_to_be_there(tmp_path: Path, kind: Client) -> None:
    """3.1: as trackers do; nothing found is 200 and an empty list."""
    async with world(tmp_path, kind, [album(tmp_path)]) as it:
        for query in ("Grey Harbour Paper Lighthouse", "lighthouse", "2004 flac"):
            assert len(await it.search(query)) == 1, query
        for query in ("Grey Harbour Lighthouses", "Grey Harbour Live", "", "a"):
            assert await it.search(query, mode="external_only") == [], query
        movies = await it.search("lighthouse", categories=["movies"], mode="external_only")
        assert movies == []
        assert len(it.standin.searches) == 8


@both_clients
async def test_a_private_tracker(tmp_path: Path, kind: Client) -> None:
    """2.4, 3.1: no hash and no magnet, so that two indexers list the same cannot be seen."""
    private = album(tmp_path, private=True, indexers=("one", "two"))
    open_ = album(tmp_path, "Grey Harbour - Ebb", magnet_only=True)
    async with world(tmp_path, kind, [private, open_]) as it:
        found = await it.search("grey harbour lighthouse")
        (ebb,) = await it.search("ebb")
        assert await it.search("grey harbour", mode="cache_only") == [
            {key: value for key, value in ebb.items() if key != "publish_date"}
            | {"from_cache": True}
        ]
        await it.add_link(found[0]["sources"][0]["torrent_url"])
        await it.whole(private.info_hash)
    assert [(c["info_hash"], len(c["sources"])) for c in found] == [("", 1), ("", 1)]
    assert all(
        set(c["sources"][0]) & {"magnet_uri", "torrent_url"} == {"torrent_url"} for c in found
    )
    assert set(ebb["sources"][0]) & {"magnet_uri", "torrent_url"} == {"magnet_uri"}


@both_clients
async def test_the_cache(tmp_path: Path, kind: Client) -> None:
    """3.1: earlier results with their links, without a question; only words as they stand."""
    spec = album(tmp_path)
    async with world(tmp_path, kind, [spec]) as it:
        assert await it.search(TITLE, mode="cache_only") == []
        (found,) = await it.search("lighthouse")
        (again,) = await it.search("paper lighthouse", mode="cache_only")
        assert again["from_cache"]
        assert again["sources"] == found["sources"]
        assert await it.search("grey harbour paper lighthouse", mode="cache_only") == []
        it.standin.faults.fates["paper lighthouse"] = "not_found"
        assert await it.search("lighthouse", mode="external_only") == []
        (stale,) = await it.search("lighthouse")
        assert (stale["info_hash"], stale["from_cache"]) == (spec.info_hash, True)
        await it.api.delete("/catalog")
        assert await it.search("lighthouse") == []
        assert len(it.standin.searches) == 4


@both_clients
async def test_the_indexer_is_away(tmp_path: Path, kind: Client) -> None:
    """3.1: 500 also in mode `both`; it stays configured, and what is cached can be had."""
    async with world(tmp_path, kind, [album(tmp_path)]) as it:
        (found,) = await it.search("lighthouse")
        url = found["sources"][0]["torrent_url"]
        it.standin.faults.searcher_away = True
        for mode in ("both", "external_only"):
            answer = await it.api.post("/search", json={"query": "lighthouse", "mode": mode})
            assert answer.status_code == 500
            assert answer.json()["error"].startswith("Search backend API error: ")
            assert SECRET_KEY in answer.json()["error"]
        answer = await it.add_link(url)
        assert answer.status_code == 502
        assert url in answer.json()["error"]
        assert len(await it.search("lighthouse", mode="cache_only")) == 1
        status = (await it.api.get("/searcher/status")).json()
        assert (status["backend"], status["configured"]) == ("jackett", True)
        ticket = await create(it.api, album_body(tmp_path / "d"))
        state = (await reaching(it.api, ticket["id"], "acquisition_failed"))["state"]
        assert state["reason"].startswith("Search failed: ")


@both_clients
async def test_some_indexers_fail(tmp_path: Path, kind: Client) -> None:
    """Their errors are told, what they list is not there; all of them failing is a 500."""
    spec = album(tmp_path, indexers=("openbay", "tidelist"))
    async with world(tmp_path, kind, [spec]) as it:
        it.standin.faults.indexer_errors = {"tidelist": "Too many requests"}
        body = (await it.api.post("/search", json={"query": "lighthouse"})).json()
        assert body["indexer_errors"] == {"tidelist": "Too many requests"}
        assert [each["indexer"] for each in body["candidates"][0]["sources"]] == ["openbay"]
        it.standin.faults.indexer_errors["openbay"] = "down"
        answer = await it.api.post("/search", json={"query": "lighthouse"})
        assert (answer.status_code, answer.json()) == (500, {"error": "All indexers failed"})


@both_clients
async def test_nothing_is_configured(tmp_path: Path, kind: Client) -> None:
    """Without a searcher or a client their calls are 503, and no ticket moves."""
    async with world(tmp_path, kind, [album(tmp_path)]) as it:
        status = (await it.api.get("/torrents/status")).json()
        assert status == {"backend": kind, "configured": True}
        it.standin.faults.client_configured = False
        it.standin.faults.searcher_configured = False
        for path in ("/torrents", f"/torrents/{'ab' * 20}", "/searcher/indexers"):
            assert (await it.api.get(path)).status_code == 503
        assert (await it.add_magnet(magnet("ab" * 20))).status_code == 503
        assert (await it.api.post("/search", json={"query": "x"})).status_code == 503
        for path in ("/torrents/status", "/searcher/status"):
            status = (await it.api.get(path)).json()
            assert (status["backend"], status["configured"]) == ("none", False)
        assert (await it.api.get("/orchestrator/status")).json()["available"] is False


@both_clients
async def test_decoys(tmp_path: Path, kind: Client) -> None:
    """2.3: wrong releases with more seeders, under the names of the right one's files."""
    spec = album(tmp_path, seeders=5)
    async with world(tmp_path, kind, [spec], decoys=True) as it:
        found = await it.search("grey harbour paper lighthouse")
        titles = [each["title"] for each in found]
        assert titles[-1] == TITLE
        assert {each.replace(TITLE[:-7], "~") for each in titles[:-1]} == {
            "~ (Live) [FLAC]",
            "A Tribute to ~ [FLAC]",
            "~ (Instrumental) [FLAC]",
            "~ (Karaoke Version) [FLAC]",
            "~ Vol. 2 [FLAC]",
            "~ [FLAC] [24bit]",
        }
        for wrong in found[:-1]:
            assert wrong["seeders"] > 5
            answer = await it.add_link(wrong["sources"][0]["torrent_url"])
            assert answer.status_code == 200, answer.text
            if "24bit" in wrong["title"]:
                await it.until(wrong["info_hash"], "stalled", "downloading", progress=0.0)
                continue
            torrent = await it.whole(wrong["info_hash"])
            folder = it.downloads / torrent["name"]
            assert {each.name for each in folder.iterdir()} == set(TRACKS)
            right = {file.path.partition("/")[2]: file.source for file in spec.files}
            for each in folder.iterdir():
                assert each.read_bytes() != right[each.name].read_bytes()
        it.standin.faults.fates["paper lighthouse"] = "not_found"
        assert await it.search("grey harbour", mode="external_only") == []


async def test_decoys_without_the_dead(tmp_path: Path) -> None:
    """On demand every wrong release can at least be had."""
    async with world(
        tmp_path, "qbittorrent", [album(tmp_path)], decoys=True, dead_decoys=False
    ) as it:
        titles = [each["title"] for each in await it.search("lighthouse")]
    assert len(titles) == 6
    assert not any("24bit" in title for title in titles)


@both_clients
async def test_decoys_for_tickets(tmp_path: Path, kind: Client) -> None:
    """2.3: on demand what chooses for the tickets takes a wrong one, and thinks it good."""
    spec = album(tmp_path, "The Band - Harbour [FLAC]", seeders=5)
    async with world(tmp_path, kind, [spec], ticket_decoys=True, download_s=60) as it:
        ticket = await create(it.api, album_body(tmp_path / "d", titles=()))
        state = (await reaching(it.api, ticket["id"], "downloading"))["state"]
        assert state["info_hash"] != spec.info_hash
        assert state["candidates"][0]["title"] != spec.title


@both_clients
async def test_songs_are_listed(tmp_path: Path, kind: Client) -> None:
    """A song is two torrents of one file without a folder, as it is for tickets."""
    path = sounds(tmp_path, "song.flac")["song.flac"]
    song = Song(artist="Grey Harbour", title="Low Tide", path=path)
    async with world(tmp_path, kind, [], songs=[song]) as it:
        found = await it.search("Grey Harbour Low Tide")
        assert [each["title"] for each in found] == [
            "Grey Harbour - Low Tide [FLAC]",
            "Grey Harbour - Low Tide [WEB]",
        ]
        await it.add_link(found[0]["sources"][0]["torrent_url"])
        torrent = await it.whole(found[0]["info_hash"])
        assert torrent["name"] == "Grey Harbour - Low Tide.flac"
        assert (it.downloads / torrent["name"]).read_bytes() == path.read_bytes()
        other = tmp_path / "spoiled.flac"
        other.write_bytes(b"broken")
        it.standin.faults.spoiled["low tide"] = other
        sizes = {each["title"][-5:]: each["size_bytes"] for each in await it.search("low tide")}
        assert sizes == {"FLAC]": 6, "[WEB]": path.stat().st_size}


@both_clients
async def test_added_by_its_link(tmp_path: Path, kind: Client) -> None:
    """3.2: the real name is there at once; only librqbit tells the hash."""
    spec = album(tmp_path)
    async with world(tmp_path, kind, [spec]) as it:
        (found,) = await it.search("lighthouse")
        url = found["sources"][0]["torrent_url"]
        assert (await it.api.get(url)).content.startswith(b"d8:announce")
        answers = [await it.add_link(url) for _ in range(2)]
        told = {"hash": spec.info_hash, "name": FOLDER} if kind == "librqbit" else {"hash": ""}
        assert [(each.status_code, each.json()) for each in answers] == [(200, told)] * 2
        new = [hash_ for hash_, each in (await it.torrents()).items()]
        assert new == [spec.info_hash]
        torrent = await it.whole(spec.info_hash)
        assert (torrent["name"], torrent["size_bytes"]) == (FOLDER, found["size_bytes"])
        assert it.on_disk(spec) == bytes_of(spec)


@both_clients
async def test_links_that_lead_nowhere(tmp_path: Path, kind: Client) -> None:
    """3.2: 502 when the link is gone, 500 when it gives no torrent; neither adds anything."""
    async with world(tmp_path, kind, [album(tmp_path)]) as it:
        (found,) = await it.search("lighthouse")
        url = found["sources"][0]["torrent_url"]
        for bad, status in (
            (url.replace("/dl/", "/dl/9"), "404 Not Found"),
            (url.replace(SECRET_KEY, "x"), "302 Found"),
        ):
            answer = await it.add_link(bad)
            assert (answer.status_code, answer.json()) == (
                502,
                {"error": f"URL returned status: {status}"},
            )
        faults = it.standin.faults
        faults.fates["paper lighthouse"] = "dead_link"
        assert (await it.add_link(url)).status_code == 502
        assert (await it.api.get(url)).status_code == 404
        faults.fates["paper lighthouse"] = "no_torrent"
        answer = await it.add_link(url)
        assert answer.status_code == 500
        assert answer.json()["error"].startswith("API error: ")
        faults.fates["paper lighthouse"] = "add_failed"
        assert (await it.add_link(url)).status_code == 500
        faults.fates.clear()
        faults.dead_links = True
        assert (await it.add_link(url)).status_code == 502
        assert (await it.add_link("x", paused="x")).status_code == 422
        assert await it.torrents() == {}


@both_clients
async def test_added_by_its_magnet(tmp_path: Path, kind: Client) -> None:
    """2.2, 3.2: qBittorrent calls it by the magnet's name for ever, wherever its files lie."""
    spec = album(tmp_path)
    async with world(tmp_path, kind, [spec]) as it:
        name = "Paper/Lighthouse [tracker]"
        answer = await it.add_magnet(magnet(spec.info_hash.upper(), name=name))
        assert answer.status_code == 200
        assert answer.json()["hash"] == spec.info_hash
        torrent = await it.whole(spec.info_hash)
        assert torrent["size_bytes"] == sum(map(len, bytes_of(spec)))
        if kind == "librqbit":
            assert answer.json()["name"] == torrent["name"] == FOLDER
        else:
            assert (torrent["name"], "name" in answer.json()) == (name, False)
            assert not (it.downloads / name).exists()
        assert it.on_disk(spec) == bytes_of(spec)
        again = await it.add_magnet(magnet(spec.info_hash, name="other"))
        assert (again.status_code, again.json()["hash"]) == (200, spec.info_hash)
        assert (await it.torrent(spec.info_hash))["name"] == torrent["name"]


@both_clients
async def test_a_link_to_a_magnet(tmp_path: Path, kind: Client) -> None:
    """3.2: Torrentino follows it, and then all is as with the magnet: hash, name and all."""
    spec = album(tmp_path, redirects=True)
    async with world(tmp_path, kind, [spec]) as it:
        (found,) = await it.search("lighthouse")
        (source,) = found["sources"]
        shown = await it.api.get(source["torrent_url"])
        assert (shown.status_code, shown.headers["location"]) == (302, source["magnet_uri"])
        answer = await it.add_link(source["torrent_url"])
        assert (answer.status_code, answer.json()["hash"]) == (200, spec.info_hash)
        torrent = await it.whole(spec.info_hash)
        assert torrent["name"] == (FOLDER if kind == "librqbit" else TITLE)


@both_clients
async def test_a_magnet_before_its_metadata(tmp_path: Path, kind: Client) -> None:
    """3.2, 3.3: a dead one is taken too, and its size stays 0; librqbit makes one wait."""
    dead = album(tmp_path, dead=True)
    async with world(tmp_path, kind, [dead], magnet_timeout_s=0.05) as it:
        for info_hash in (dead.info_hash, "ab" * 20):
            answer = await it.add_magnet(magnet(info_hash, name="told"))
            assert (answer.status_code, answer.json()) == (200, {"hash": info_hash})
            torrent = await it.torrent(info_hash)
            assert (torrent["size_bytes"], torrent["progress"]) == (0, 0.0)
            assert torrent["state"] == "downloading"
            name = f"torrent-{info_hash[:8]}" if kind == "librqbit" else "told"
            assert torrent["name"] == name
        await it.api.delete(f"/torrents/{dead.info_hash}?delete_files=true")
    assert not it.downloads.exists()


@both_clients
async def test_a_bare_magnet(tmp_path: Path, kind: Client) -> None:
    """2.3: without a tracker no peer can be found, as there is no DHT."""
    spec = album(tmp_path)
    async with world(tmp_path, kind, [spec], metadata_s=0.0) as it:
        answer = await it.add_magnet(magnet(spec.info_hash, tracker=False))
        if kind == "librqbit":
            assert answer.status_code == 500
            assert "no known way to resolve peers" in answer.json()["error"]
            assert await it.torrents() == {}
        else:
            assert answer.json() == {"hash": spec.info_hash}
            torrent = await it.torrent(spec.info_hash)
            assert (torrent["size_bytes"], torrent["progress"]) == (0, 0.0)
        for uri in ("magnet:?dn=x", "x", "magnet:?xt=urn:btih:short"):
            answer = await it.add_magnet(uri)
            assert answer.status_code == (500 if kind == "librqbit" else 200), uri


@both_clients
async def test_what_the_list_shows(tmp_path: Path, kind: Client) -> None:
    """3.3: moments and categories with qBittorrent only; the client's own view of the place."""
    spec = album(tmp_path)
    async with world(tmp_path, kind, [spec], save_path="/in/the/container") as it:
        await it.add(spec, category="music")
        torrent = await it.whole(spec.info_hash)
        assert (await it.torrents())[spec.info_hash] == torrent
        assert torrent["save_path"] == "/in/the/container"
        own = {"added_at", "completed_at", "category"}
        assert own & set(torrent) == (own if kind == "qbittorrent" else set())
        assert torrent["state"] == ("stalled" if kind == "qbittorrent" else "seeding")
        assert it.on_disk(spec) == bytes_of(spec)
        answer = await it.api.get(f"/torrents/{'cd' * 20}")
        assert (answer.status_code, answer.json()) == (
            404,
            {"error": f"Torrent not found: {'cd' * 20}"},
        )


@both_clients
async def test_complete_before_it_is_complete(tmp_path: Path, kind: Client) -> None:
    """2.1, 3.3: the check of a new torrent runs up to 1.0, over zeros of the right sizes."""
    spec = album(tmp_path)
    async with world(tmp_path, kind, [spec], checking_s=0.6, download_s=60) as it:
        torrent = await it.add(spec)
        assert torrent["state"] == "checking"
        torrent = await it.until(spec.info_hash, "checking", progress=1.0)
        assert torrent["size_bytes"] == sum(map(len, bytes_of(spec)))
        assert it.on_disk(spec) == [bytes(len(each)) for each in bytes_of(spec)]

        async def dropped() -> JSON | None:
            torrent = await it.torrent(spec.info_hash)
            return torrent if torrent["progress"] < 1.0 else None

        await it.until(spec.info_hash, "downloading", "stalled")
        assert (await eventually(dropped))["progress"] < 0.5


@both_clients
async def test_collected_too_early(tmp_path: Path, kind: Client) -> None:
    """3.3: while it is downloaded every file has its size, and zeros at its end."""
    spec = album(tmp_path)
    async with world(tmp_path, kind, [spec], download_s=60) as it:
        await it.add(spec)
        await it.until(spec.info_hash, "downloading")
        for have, want in zip(it.on_disk(spec), bytes_of(spec), strict=True):
            assert (len(have), have[:40]) == (len(want), want[:40])
            assert have.endswith(bytes(len(want) // 2))


async def test_moved_when_it_is_finished(tmp_path: Path) -> None:
    """3.3: qBittorrent says `checking` at 1.0 while it moves what is not all there yet."""
    spec = album(tmp_path)
    async with world(tmp_path, "qbittorrent", [spec], checking_s=0.6, download_s=0.0) as it:
        await it.add(spec)

        async def moving() -> bool:
            torrent = await it.torrent(spec.info_hash)
            half = it.on_disk(spec)[0].startswith(bytes_of(spec)[0][:40])
            return torrent["state"] == "checking" and torrent["progress"] == 1.0 and half

        await eventually(moving)
        assert it.on_disk(spec) != bytes_of(spec)
        await it.whole(spec.info_hash)
        assert it.on_disk(spec) == bytes_of(spec)


@both_clients
async def test_three_at_once(tmp_path: Path, kind: Client) -> None:
    """3.3: with qBittorrent the dead hold their places, and the others are queued at 0."""
    specs = [
        album(tmp_path, f"Grey Harbour - Vol {number}", dead=number < 4) for number in range(1, 6)
    ]
    async with world(tmp_path, kind, specs, checking_s=0.0) as it:
        for spec in specs:
            await it.add(spec)
        if kind == "librqbit":
            for spec in specs[3:]:
                await it.whole(spec.info_hash)
            states = [each["state"] for each in (await it.torrents()).values()]
            assert states[:3] == ["downloading"] * 3
            return
        states = [(each["state"], each["progress"]) for each in (await it.torrents()).values()]
        assert states == [("stalled", 0.0)] * 3 + [("queued", 0.0)] * 2
        await it.api.delete(f"/torrents/{specs[0].info_hash}?delete_files=true")
        await it.whole(specs[3].info_hash)
        await it.whole(specs[4].info_hash)


@both_clients
async def test_a_dead_one(tmp_path: Path, kind: Client) -> None:
    """It claims seeders, is checked like any other, and never moves."""
    spec = album(tmp_path, dead=True, seeders=90)
    async with world(tmp_path, kind, [spec], download_s=0.0) as it:
        assert (await it.search("lighthouse"))[0]["seeders"] == 90
        await it.add(spec)
        state = "downloading" if kind == "librqbit" else "stalled"
        torrent = await it.until(spec.info_hash, state, progress=0.0)
        assert torrent["seeders"] == 0
        assert it.on_disk(spec) == [bytes(len(each)) for each in bytes_of(spec)]


@both_clients
async def test_removed_with_its_files(tmp_path: Path, kind: Client) -> None:
    """3.4: the files go, and the empty folder; qBittorrent says 200 to an unknown hash."""
    spec = album(tmp_path)
    async with world(tmp_path, kind, [spec]) as it:
        await it.add(spec)
        await it.whole(spec.info_hash)
        path = f"/torrents/{spec.info_hash}?delete_files=true"
        assert (await it.api.delete(path)).status_code == 200
        assert [*it.downloads.iterdir()] == []
        assert await it.torrents() == {}
        unknown = await it.api.delete(path)
        assert unknown.status_code == (404 if kind == "librqbit" else 200)
        await it.add(spec)
        await it.whole(spec.info_hash)


@both_clients
async def test_added_again_over_its_files(tmp_path: Path, kind: Client) -> None:
    """3.4: librqbit never takes it again while they are there; qBittorrent finds it whole."""
    spec = album(tmp_path)
    async with world(tmp_path, kind, [spec], checking_s=0.6) as it:
        await it.add(spec)
        await it.whole(spec.info_hash)
        await it.api.delete(f"/torrents/{spec.info_hash}")
        assert it.on_disk(spec) == bytes_of(spec)
        (found,) = await it.search("lighthouse")
        answer = await it.add_link(found["sources"][0]["torrent_url"])
        if kind == "librqbit":
            assert answer.status_code == 500
            assert OVERWRITE in answer.json()["error"]
            assert (await it.add_magnet(magnet(spec.info_hash))).status_code == 500
            for file in spec.files:
                (it.downloads / file.path).unlink()
            assert (await it.add_link(found["sources"][0]["torrent_url"])).status_code == 200
        else:
            assert (await it.torrent(spec.info_hash))["state"] == "checking"
            await it.whole(spec.info_hash)
            assert it.on_disk(spec) == bytes_of(spec)


@both_clients
async def test_foreign_files_in_its_place(tmp_path: Path, kind: Client) -> None:
    """3.4: librqbit writes over no other file; qBittorrent makes them its own."""
    spec = album(tmp_path)
    async with world(tmp_path, kind, [spec]) as it:
        place = it.downloads / spec.files[1].path
        place.parent.mkdir(parents=True)
        place.write_bytes(b"another program's")
        (found,) = await it.search("lighthouse")
        answer = await it.add_link(found["sources"][0]["torrent_url"])
        if kind == "librqbit":
            assert OVERWRITE in answer.json()["error"]
            assert place.read_bytes() == b"another program's"
        else:
            await it.whole(spec.info_hash)
            assert it.on_disk(spec) == bytes_of(spec)


@both_clients
async def test_after_a_restart(tmp_path: Path, kind: Client) -> None:
    """3.5: both have their torrents again; librqbit checks them first."""
    spec = album(tmp_path)
    async with world(tmp_path, kind, [spec], checking_s=0.6) as it:
        await it.add(spec)
        await it.whole(spec.info_hash)
        await it.standin.restart()
        state = (await it.torrent(spec.info_hash))["state"]
        assert state == ("checking" if kind == "librqbit" else "stalled")
        await it.whole(spec.info_hash)
        assert it.on_disk(spec) == bytes_of(spec)


@both_clients
async def test_another_process(tmp_path: Path, kind: Client) -> None:
    """3.5: with a database the torrents outlive the process, and begin again if not whole."""
    specs = [album(tmp_path, f"Grey Harbour - {name}") for name in ("Ebb", "Flow", "Tide")]
    names = [each.info_hash for each in specs[:2]]
    database = tmp_path / "torrentino.db"
    async with world(tmp_path, kind, specs, database=database) as it:
        for spec in specs:
            await it.add(spec, category="music")
            await it.whole(spec.info_hash)
        it.standin.forget_torrent(specs[2].info_hash)
        before = await it.torrents()
    async with world(tmp_path, kind, specs, database=database, checking_s=0.6) as it:
        states = {each["state"] for each in (await it.torrents()).values()}
        assert states == ({"checking"} if kind == "librqbit" else {"stalled"})
        for each in names:
            await it.whole(each)
        assert await it.torrents() == before
        lost = await it.add_magnet(magnet("ab" * 20, name="nobody"))
        assert lost.status_code == 200
        assert (await it.api.delete(f"/torrents/{names[0]}")).status_code == 200
    async with world(tmp_path, kind, specs, database=database) as it:
        assert list(await it.torrents()) == [names[1], "ab" * 20]


@both_clients
async def test_a_magnet_for_what_is_there(tmp_path: Path, kind: Client) -> None:
    """3.4: by its magnet qBittorrent finds the files just as well."""
    spec = album(tmp_path)
    async with world(tmp_path, kind, [spec], download_s=60) as it:
        for file in spec.files:
            place = it.downloads / file.path
            place.parent.mkdir(parents=True, exist_ok=True)
            place.write_bytes(file.source.read_bytes())
        answer = await it.add_magnet(magnet(spec.info_hash))
        if kind == "librqbit":
            assert OVERWRITE in answer.json()["error"]
        else:
            await it.whole(spec.info_hash)
        assert it.on_disk(spec) == bytes_of(spec)


@both_clients
async def test_the_catalog_after_a_search(tmp_path: Path, kind: Client) -> None:
    """3.6: a search alone fetches no file list; a ticket's does."""
    spec = album(tmp_path, "The Band - Harbour [FLAC]")
    async with world(tmp_path, kind, [spec]) as it:
        await it.search("the band harbour")
        path = f"/catalog/{spec.info_hash}"
        assert "files" not in (await it.api.get(path)).json()
        ticket = await create(it.api, album_body(tmp_path / "d", titles=()))
        await reaching(it.api, ticket["id"], "failed")
        assert len((await it.api.get(path)).json()["files"]) == 3
        (found,) = await it.search("harbour", mode="cache_only")
        assert len(found["files"]) == 3


@both_clients
async def test_the_client_is_away(tmp_path: Path, kind: Client) -> None:
    """2.5: an outage in the same words everywhere; nothing is lost, and nothing moves."""
    spec, other = album(tmp_path), album(tmp_path, "The Band - Harbour")
    async with world(tmp_path, kind, [spec, other], download_s=60) as it:
        (found,) = await it.search("lighthouse")
        url = found["sources"][0]["torrent_url"]
        await it.add(spec)
        await it.until(spec.info_hash, "downloading")
        it.standin.faults.client_away = True
        path = f"/torrents/{spec.info_hash}"
        for answer in (
            await it.api.get("/torrents"),
            await it.api.get(path),
            await it.api.delete(path),
            await it.api.post(f"{path}/pause"),
            await it.add_link(url),
            await it.add_magnet(magnet(spec.info_hash)),
        ):
            assert answer.status_code == 500
            assert answer.json()["error"].startswith(AWAY)
        assert (await it.api.get("/torrents/status")).json()["configured"] is True
        ticket = await create(it.api, album_body(tmp_path / "d", titles=()))
        state = (await reaching(it.api, ticket["id"], "failed"))["state"]
        start = "All 1 candidates failed to add. Last error: "
        assert state["error"].startswith(start + AWAY)
        it.standin.faults.client_away = False
        assert spec.info_hash in await it.torrents()


@both_clients
async def test_lost_and_broken(tmp_path: Path, kind: Client) -> None:
    """A client may lose a torrent, or have it in error; also over the wire."""
    specs = [album(tmp_path, f"Grey Harbour - {name}") for name in ("Ebb", "Flow")]
    ebb, flow = specs
    async with world(tmp_path, kind, specs) as it:
        for spec in specs:
            await it.add(spec)
            await it.whole(spec.info_hash)
        it.standin.forget_torrent(ebb.info_hash)
        it.standin.break_torrent(flow.info_hash)
        assert [each["state"] for each in (await it.torrents()).values()] == ["error"]
        assert it.on_disk(ebb) == bytes_of(ebb)
        with pytest.raises(KeyError):
            it.standin.forget_torrent(ebb.info_hash)
        root = it.standin.url.replace("/api/v1", "/_standin")
        path = f"{root}/torrents/{flow.info_hash}"
        for sent, status in (({"do": "x"}, 422), ({"do": "break"}, 200), ({"do": "forget"}, 200)):
            assert (await it.api.post(path, json=sent)).status_code == status
        assert (await it.api.post(path, json={"do": "forget"})).status_code == 404
        assert (await it.api.post(f"{root}/faults", json={"client_away": True})).status_code == 200
        assert it.standin.faults.client_away
        assert (await it.api.get(f"{root}/state")).json()["searches"] == it.standin.searches


@both_clients
async def test_a_ticket_that_believes_the_check(tmp_path: Path, kind: Client) -> None:
    """2.1: completed with one file of the right size, all zeros; the torrent continues."""
    spec = TorrentSpec.of(
        "The Band - Harbour", sounds(tmp_path, "harbour.flac"), folder="", seeders=30
    )
    async with world(tmp_path, kind, [spec], download_s=0.2) as it:
        it.standin.faults.fates["harbour"] = "zeros"
        ticket = await create(it.api, album_body(tmp_path / "d", titles=()))
        done = (await reaching(it.api, ticket["id"], "completed"))["state"]
        (placed,) = (tmp_path / "d").iterdir()
        assert placed.read_bytes() == bytes(len(bytes_of(spec)[0]))
        assert done["stats"]["files_placed"] == 1
        assert done["stats"]["final_size_bytes"] == placed.stat().st_size
        await it.whole(spec.info_hash)
        assert it.on_disk(spec) == bytes_of(spec)


async def test_some_tickets_believe_it_by_themselves(tmp_path: Path) -> None:
    """2.1: with librqbit it happens to a share of them; here to all."""
    spec = TorrentSpec.of("The Band - Harbour", sounds(tmp_path, "harbour.flac"), folder="")
    async with world(
        tmp_path, "librqbit", [spec], kind_tickets=False, early_share=1.0, download_s=60
    ) as it:
        ticket = await create(it.api, album_body(tmp_path / "d", titles=()))
        await reaching(it.api, ticket["id"], "completed")
        (placed,) = (tmp_path / "d").iterdir()
    assert placed.read_bytes() == bytes(len(bytes_of(spec)[0]))


async def test_an_unkind_ticket_with_qbittorrent(tmp_path: Path) -> None:
    """2.2: the torrent is called by its title, so that Torrentino finds no file to place."""
    spec = TorrentSpec.of("The Band - Harbour [x]", sounds(tmp_path, "harbour.flac"), folder="")
    async with world(tmp_path, "qbittorrent", [spec], kind_tickets=False) as it:
        ticket = await create(it.api, album_body(tmp_path / "d", titles=()))
        failed = (await reaching(it.api, ticket["id"], "failed"))["state"]
        wanted = f"{it.downloads}/{spec.title}"
        assert failed["error"] == f"Placement failed: Source file not found: {wanted}"
        assert failed["retryable"] is False
        assert (await it.whole(spec.info_hash))["name"] == spec.title
        assert it.on_disk(spec) == bytes_of(spec)


@both_clients
async def test_tickets_for_a_private_tracker(tmp_path: Path, kind: Client) -> None:
    """2.4: no hash, no magnet: each client fails in its own words."""
    spec = album(tmp_path, "The Band - Harbour [FLAC]", private=True)
    async with world(tmp_path, kind, [spec]) as it:
        ticket = await create(it.api, album_body(tmp_path / "d", titles=()))
        failed = (await reaching(it.api, ticket["id"], "failed"))["state"]
        assert (await it.api.get("/catalog")).json()["total"] == 0
    if kind == "librqbit":
        assert failed["error"].endswith("provided path is not a valid magnet URL")
    else:
        assert failed["error"].startswith("Download stalled: ")


@both_clients
async def test_a_removal_hurts_a_ticket(tmp_path: Path, kind: Client) -> None:
    """2.7: every ticket that follows it takes its next candidate."""
    path = sounds(tmp_path, "song.flac")["song.flac"]
    song = Song(artist="The Band", title="Low Tide", path=path)
    async with world(tmp_path, kind, [], songs=[song], download_s=60) as it:
        ticket = await create(it.api, track_body("Low Tide", tmp_path / "d"))
        first = (await reaching(it.api, ticket["id"], "downloading"))["state"]
        await it.api.delete(f"/torrents/{first['info_hash']}?delete_files=true")

        async def failed_over() -> bool:
            state = (await it.api.get(f"/tickets/{ticket['id']}")).json()["state"]
            return bool(state["candidate_idx"] == 1 and state["info_hash"] != first["info_hash"])

        await eventually(failed_over)


@both_clients
async def test_a_discography(tmp_path: Path, kind: Client) -> None:
    """One torrent of several albums, each in a folder of its own."""
    files = {
        f"{name}/01 - Intro.flac": source
        for name, source in sounds(tmp_path, "Ebb", "Flow").items()
    }
    spec = TorrentSpec.of("Grey Harbour - Discography [FLAC]", files, folder="Grey Harbour")
    async with world(tmp_path, kind, [spec]) as it:
        await it.add(spec)
        torrent = await it.whole(spec.info_hash)
        assert torrent["name"] == "Grey Harbour"
        assert (it.downloads / "Grey Harbour" / "Flow" / "01 - Intro.flac").is_file()


@both_clients
async def test_paused_and_limited(tmp_path: Path, kind: Client) -> None:
    """A paused torrent stands still; an unknown hash matters to librqbit alone."""
    spec = album(tmp_path)
    async with world(tmp_path, kind, [spec]) as it:
        torrent = await it.add(spec, paused=True)
        assert (torrent["state"], torrent["progress"]) == ("paused", 0.0)
        await it.api.post(f"/torrents/{spec.info_hash}/resume")
        await it.whole(spec.info_hash)
        limit = f"/torrents/{spec.info_hash}/upload-limit"
        assert (await it.api.post(limit, json={"limit": 5})).status_code == 200
        unknown = await it.api.post(f"/torrents/{'ab' * 20}/pause")
        assert unknown.status_code == (500 if kind == "librqbit" else 200)


async def test_the_new_fields_in_json(tmp_path: Path) -> None:
    """`make run` reads them as they stand in `TorrentSpec`."""
    (tmp_path / "a.flac").write_bytes(b"a")
    row: JSON = {
        "title": "Grey Harbour - Ebb",
        "files": [{"path": "Grey Harbour - Ebb/a.flac", "source": "a.flac"}],
        "folder": "1999 - Ebb",
        "private": True,
        "dead": True,
        "seeders": 3,
        "indexers": ["one", "two"],
        "mappings": {"Grey Harbour - Ebb/a.flac": ["track-1", 0.5]},
    }
    place = tmp_path / "list.json"
    place.write_text(json.dumps([row, row | {"private": False, "magnet_only": True}]))
    source = await asyncio.to_thread(load_songs, place)
    _, (private, open_) = source.offered()
    assert (private.name, private.files[0].path) == ("1999 - Ebb", "1999 - Ebb/a.flac")
    assert private.mappings == {"1999 - Ebb/a.flac": ("track-1", 0.5)}
    assert (private.private, private.dead, private.seeders) == (True, True, 3)
    assert (private.indexers, private.linked) == (("one", "two"), True)
    assert (open_.magnet_only, open_.linked) == (True, False)


@pytest.mark.parametrize(
    ("title", "folder"),
    [
        (TITLE, FOLDER),
        ("Grey Harbour - Ebb [2001] [MP3]", "2001 - Ebb"),
        ("Grey Harbour - Ebb/Flow (1999)", "1999 - Ebb_Flow"),
        ("Discography 1990", "1990 - Discography"),
    ],
)
def test_folders_are_not_called_like_torrents(tmp_path: Path, title: str, folder: str) -> None:
    """2.2: the title is the tracker's, the folder has another name."""
    assert folder_name(title) == folder
    assert album(tmp_path, title).name == folder


def test_no_release(tmp_path: Path) -> None:
    """An indexer lists it, with a link that leads to it."""
    spec = album(tmp_path)
    for wrong in (
        {"indexers": ()},
        {"private": True, "magnet_only": True},
        {"private": True, "redirects": True},
    ):
        with pytest.raises(ValueError, match="want an indexer"):
            replace(spec, **wrong)


@both_clients
async def test_two_adds_at_once(tmp_path: Path, kind: Client) -> None:
    """Seen with librqbit 8.1.1: the second is told the hash of the first, and is not added."""
    sources = sounds(tmp_path, *TRACKS)
    specs = [TorrentSpec.of(f"Grey Harbour - {name} [FLAC]", sources) for name in ("Fog", "Salt")]
    # Long enough for the second add to come while the first is at work, on a busy machine too.
    async with world(tmp_path, kind, specs, metadata_s=1.0) as it:
        links = [(await it.search(spec.title))[0]["sources"][0]["torrent_url"] for spec in specs]
        answers = await asyncio.gather(*(it.add_link(link) for link in links))
        assert [each.status_code for each in answers] == [200, 200]
        told = {each.json()["hash"] for each in answers}
        there = set(await it.torrents())
        if kind == "librqbit":
            assert told == there
            assert len(there) == 1
        else:
            assert told == {""}
            assert there == {spec.info_hash for spec in specs}
