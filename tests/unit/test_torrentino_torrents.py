"""The client's calls about torrents, files and the pipeline, against prepared answers."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable

import httpx
import pytest

from shared.errors import (
    Conflict,
    DependencyDown,
    DownloadsError,
    InvalidRequest,
    Misconfigured,
    OutcomeUnknown,
    Unknown,
)
from shared.torrentino.client import TorrentinoClient
from shared.torrentino.engine import SourceFile
from shared.torrentino.model import RemoteTicket
from tests.unit.test_torrentino_client import HASH, always, client_of, error, ticket_json

TORRENT = {"hash": HASH, "name": "An Album", "progress": 1.0, "save_path": "/downloads"}
FILES = [SourceFile(path="/downloads/R/1.flac", item_id="f0001", dest_filename="0001.flac")]


def answer(body: object, status: int = 200) -> Callable[[httpx.Request], httpx.Response]:
    return always(httpx.Response(status, json=body))


async def test_a_torrent_tells_where_its_data_lie() -> None:
    """Folder and name are joined; what is not there yet is not complete."""
    async with client_of(answer(TORRENT | {"size_bytes": 7, "state": "seeding"})) as client:
        torrent = await client.torrent(HASH)
    assert torrent is not None
    assert (torrent.path, torrent.save_path) == ("/downloads/An Album", "/downloads")
    assert (torrent.whole, torrent.size_bytes, torrent.state) == (True, 7, "seeding")
    async with client_of(answer(TORRENT | {"progress": 0.999})) as client:
        torrent = await client.torrent(HASH)
    assert torrent is not None
    assert not torrent.whole


@pytest.mark.parametrize(
    "changes",
    [
        {"name": "../etc"},
        {"name": ".."},
        {"name": "a/b"},
        {"name": "a\nb"},
        {"name": "a\0b"},
        {"name": ""},
        {"save_path": None},
        {"save_path": "downloads"},
        {"save_path": "/downloads/../etc"},
        {"save_path": "/downloads//x"},
        {"save_path": "/"},
    ],
)
async def test_a_path_that_leads_elsewhere_is_none(changes: dict[str, object]) -> None:
    """Names that strangers chose: one cannot go by "..", control characters or relative paths."""
    async with client_of(answer(TORRENT | changes)) as client:
        torrent = await client.torrent(HASH)
    assert torrent is not None
    assert torrent.path is None


async def test_no_torrent_is_none_and_a_strangers_404_is_not() -> None:
    """Only Torrentino's own 404 says that there is none; no hash is asked for that is none."""
    async with client_of(always(error(404, "Torrent not found"))) as client:
        assert await client.torrent(HASH) is None
        assert await client.catalog_files(HASH) is None
    async with client_of(always(httpx.Response(404, text="nginx"))) as client:
        for call in (client.torrent, client.catalog_files):
            with pytest.raises(Misconfigured):
                await call(HASH)
        assert await client.torrent("all") is None
        assert await client.catalog_files("../tickets") is None
    async with client_of(answer({"hash": HASH})) as client:
        with pytest.raises(Misconfigured):
            await client.torrent(HASH)


async def test_the_files_of_a_listing_are_bounded_and_sane() -> None:
    """A path that leads out of the torrent is none of its files."""
    files = [
        {"path": "R/1.flac", "size_bytes": 5},
        {"path": "R/../../x", "size_bytes": 5},
        {"path": "/etc/passwd", "size_bytes": 5},
        {"path": "R/a\rb", "size_bytes": 5},
        {"path": 7},
        {"path": "R/2.flac", "size_bytes": None},
    ]
    async with client_of(answer({"files": files})) as client:
        assert await client.catalog_files(HASH) == [("R/1.flac", 5), ("R/2.flac", 0)]
    many = [{"path": f"R/{n}", "size_bytes": 1} for n in range(10_001)]
    async with client_of(answer({"files": many})) as client:
        assert len(await client.catalog_files(HASH) or []) == 10_000
    async with client_of(answer({"files": None})) as client:
        assert await client.catalog_files(HASH) is None


def process(client: TorrentinoClient) -> Awaitable[None]:
    return client.process("t1", FILES, dest_dir="/in/t1", output_format="flac", bitrate_kbps=320)


async def test_process_sends_exactly_the_documented_json() -> None:
    """Each file with its path, its id and its name."""
    requests: list[httpx.Request] = []

    def handler(request: httpx.Request) -> httpx.Response:
        requests.append(request)
        return httpx.Response(202, json={"success": True, "message": "", "ticket_id": "t1"})

    async with client_of(handler) as client:
        await process(client)
    assert requests[0].url.path.endswith("/pipeline/process/t1")
    assert json.loads(requests[0].content) == {
        "source_files": [
            {"path": "/downloads/R/1.flac", "item_id": "f0001", "dest_filename": "0001.flac"}
        ],
        "dest_dir": "/in/t1",
        "output_format": "flac",
        "bitrate_kbps": 320,
    }


def refusal(status: int, message: str) -> httpx.Response:
    return httpx.Response(status, json={"success": False, "message": message, "ticket_id": "t1"})


@pytest.mark.parametrize(
    ("response", "expected"),
    [
        (refusal(500, "Failed to submit job: Job already exists for ticket: t1"), None),
        (refusal(404, "Ticket not found: t1"), Unknown),
        (httpx.Response(404, text="nginx"), Misconfigured),
        (refusal(400, "Unsupported output format: x"), InvalidRequest),
        (httpx.Response(422, text="missing field"), InvalidRequest),
        (refusal(503, "Pipeline not initialized"), Conflict),
        (refusal(500, "Failed to submit job: Pipeline is not running"), Conflict),
        (error(500, "Database error"), OutcomeUnknown),
        (httpx.Response(503, text="no back end"), DependencyDown),
        (httpx.Response(401), Misconfigured),
        (httpx.Response(200, text="<html>", headers={"content-type": "text/html"}), Misconfigured),
    ],
)
async def test_what_an_answer_to_process_means(
    response: httpx.Response, expected: type[DownloadsError] | None
) -> None:
    """Under way is fine; a pipeline that does not run is no outage of all of Torrentino."""
    async with client_of(always(response)) as client:
        if expected is None:
            await process(client)
        else:
            with pytest.raises(expected):
                await process(client)


async def test_the_newest_conversion_tells_its_input() -> None:
    """None where there is no such event, or where its path is none that one can go by."""
    newest = {"data": {"type": "conversion_started", "input_path": "/downloads/An Album"}}
    for events, expected in (
        ([newest, {"data": {"input_path": "/old"}}], "/downloads/An Album"),
        ([], None),
        ([{"data": None}], None),
        ([{"data": {}}], None),
        ([{"data": {"input_path": "relative"}}], None),
    ):
        async with client_of(answer({"events": events, "total": 9})) as client:
            assert await client.conversion_input("t1") == expected


async def test_a_ticket_is_deleted_for_good_and_only_confirmed() -> None:
    """One that is gone already is fine; a proxy's 404 is not Torrentino's."""
    seen: list[str] = []

    def handler(request: httpx.Request) -> httpx.Response:
        seen.append(f"{request.method} {request.url.path}?{request.url.query.decode()}")
        return httpx.Response(200, json=ticket_json())

    async with client_of(handler) as client:
        await client.delete_ticket("t1")
    assert seen == ["POST /api/v1/tickets/t1/delete?confirm=true"]
    async with client_of(always(error(404, "Ticket not found"))) as client:
        await client.delete_ticket("t1")
    async with client_of(always(httpx.Response(404, text="nginx"))) as client:
        with pytest.raises(Misconfigured):
            await client.delete_ticket("t1")


def downloading(**fields: object) -> RemoteTicket:
    return RemoteTicket.from_json(ticket_json(state={"type": "downloading", **fields}))


def test_an_empty_hash_is_told_from_none() -> None:
    """Only a download without a hash is a red flag; the candidate's hash does not stand in."""
    flagged = downloading(info_hash="", candidate_idx=0, candidates=[{"info_hash": HASH}])
    assert (flagged.empty_hash, flagged.info_hash) == (True, None)
    assert not downloading(info_hash=HASH).empty_hash
    assert not downloading().empty_hash


def test_mappings_are_believed_only_where_they_make_sense() -> None:
    """Of the selected candidate; bounded; without paths that lead elsewhere."""

    def entry(path: object, item: object = "track-1", confidence: object = 0.5) -> object:
        return {"torrent_file_path": path, "ticket_item_id": item, "confidence": confidence}

    mappings = [
        entry("R/1.flac"),
        entry("R/2.flac", "track-2", 7),
        entry("../x"),
        entry("R/3.flac", "main"),
        entry("R/4.flac", "track-4", "high"),
        entry("R/5.flac", "track-5", float("nan")),
        None,
    ]
    selected = {"title": "A apikey=0123456789", "info_hash": HASH, "file_mappings": mappings}
    remote = downloading(info_hash=HASH, candidate_idx=1, candidates=[{}, selected])
    assert remote.file_mappings == [
        {"path": "R/1.flac", "item_id": "track-1", "confidence": 0.5},
        {"path": "R/2.flac", "item_id": "track-2", "confidence": 1.0},
    ]
    assert remote.torrent_title == "A apikey=***"
    many = {"file_mappings": [entry(f"R/{n}") for n in range(3_000)]}
    remote = downloading(info_hash=HASH, candidate_idx=0, candidates=[many])
    assert len(remote.file_mappings) == 2_000
