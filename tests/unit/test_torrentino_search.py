"""Search and adding at Torrentino, against answers as the real one gave them."""

from __future__ import annotations

import json
from typing import Any

import httpx
import pytest

from shared.errors import DependencyDown, DownloadsError, OutcomeUnknown
from shared.torrentino.torrents import NotAdded
from tests.unit.test_torrentino_client import HASH, always, client_of

LINK = "http://jackett:9117/dl/lab/?jackett_apikey=SECRET&path=Zm9v"


def source(**more: Any) -> dict[str, Any]:
    return {"indexer": "lab", "torrent_url": LINK, "seeders": 12, "leechers": 2} | more


def candidate(**more: Any) -> dict[str, Any]:
    return {
        "title": "Kestrel Union - Paper Lighthouse (2004) [FLAC]",
        "info_hash": HASH.upper(),
        "size_bytes": 176_009,
        "seeders": 24,
        "sources": [source()],
    } | more


def found(*candidates: object, **more: object) -> httpx.Response:
    return httpx.Response(200, json={"candidates": list(candidates), **more})


async def test_only_the_indexers_are_asked() -> None:
    """Its cache would hide that they are away, and knows no private releases."""
    asked: list[object] = []

    def handler(request: httpx.Request) -> httpx.Response:
        asked.append(json.loads(request.content))
        return found(candidate())

    async with client_of(handler) as client:
        [release] = (await client.search("Kestrel Union Paper Lighthouse")).releases
    assert asked == [
        {
            "query": "Kestrel Union Paper Lighthouse",
            "categories": ["audio", "music"],
            "mode": "external_only",
        }
    ]
    assert (release.info_hash, release.size_bytes, release.torrent_url) == (HASH, 176_009, LINK)
    assert "SECRET" not in repr(release)


async def test_seeders_are_those_of_the_best_source() -> None:
    """Torrentino adds them up; a link of a worse source is better than none."""
    worse = source(seeders=3, magnet_uri="magnet:?xt=urn:btih:x")
    best = source(seeders=9, torrent_url=None)
    async with client_of(always(found(candidate(sources=[worse, best])))) as client:
        [release] = (await client.search("x")).releases
    assert release.seeders == 9
    assert release.torrent_url == LINK
    assert release.magnet_uri is not None


@pytest.mark.parametrize(
    "broken",
    [
        {"title": ""},
        {"title": None},
        {"sources": []},
        {"sources": [source(torrent_url="file:///etc/passwd")]},
        {"sources": [source(torrent_url="http://x/" + "a" * 9000)]},
    ],
)
async def test_what_cannot_be_taken_is_left_out(broken: dict[str, Any]) -> None:
    async with client_of(always(found(candidate(**broken), candidate()))) as client:
        assert len((await client.search("x")).releases) == 1


async def test_a_private_release_tells_no_hash() -> None:
    async with client_of(always(found(candidate(info_hash="")))) as client:
        [release] = (await client.search("x")).releases
    assert release.info_hash == ""


async def test_indexers_that_failed_are_named() -> None:
    answer = found(candidate(), indexer_errors={"lab": "429"})
    async with client_of(always(answer)) as client:
        assert (await client.search("x")).failed == ("lab",)


@pytest.mark.parametrize(
    "text",
    [
        "Search backend API error: HTTP 500 Internal Server Error: indexer away",
        (
            "Search backend connection failed: error sending request for url"
            " (http://jackett:9117/api/v2.0/indexers/all/results?apikey=SECRET&Query=x)"
        ),
    ],
)
async def test_indexers_that_are_away_are_an_outage(text: str) -> None:
    async with client_of(always(httpx.Response(500, json={"error": text}))) as client:
        with pytest.raises(DependencyDown) as caught:
            await client.search("x")
    assert caught.value.dependency == "searcher"
    assert "SECRET" not in str(caught.value)


CLIENT_AWAY = "API error: error sending request for url (http://qb:8081/api/v2/torrents/add)"
OVERWRITE = (
    "API error: Failed to add torrent: error creating a new file (because allow_overwrite = false)"
    ' "/downloads/2004 - Paper Lighthouse/cover.jpg"'
)


@pytest.mark.parametrize(
    ("status", "text", "error", "dependency"),
    [
        (500, CLIENT_AWAY, DependencyDown, "torrent_client"),
        (500, "Connection failed: error sending request for url (x)", DependencyDown, None),
        (503, "Torrent client not configured", DependencyDown, "torrent_client"),
        (503, "upstream", DependencyDown, "torrentino"),
        (502, f"Failed to fetch URL: error sending request for url ({LINK})", DependencyDown, None),
        (502, "URL returned status: 503 Service Unavailable", DependencyDown, "searcher"),
        (502, "URL returned status: 404 Not Found", NotAdded, None),
        (502, "Failed to fetch URL: builder error", NotAdded, None),
        (500, "API error: Failed to add torrent: error decoding torrent", NotAdded, None),
        (500, "API error: Timed out waiting for torrent metadata (60s).", NotAdded, None),
        (500, OVERWRITE, NotAdded, None),
    ],
)
async def test_what_an_add_that_fails_means(
    status: int, text: str, error: type[DownloadsError], dependency: str | None
) -> None:
    """A link that is gone is another release's turn; what is away is waited for."""
    async with client_of(always(httpx.Response(status, json={"error": text}))) as client:
        with pytest.raises(error) as caught:
            await client.add_torrent(LINK, folder="/downloads/ours")
    assert "SECRET" not in str(caught.value)
    if isinstance(caught.value, DependencyDown) and dependency is not None:
        assert caught.value.dependency == dependency
    if isinstance(caught.value, NotAdded):
        lies_at = "/downloads/2004 - Paper Lighthouse/cover.jpg" if text is OVERWRITE else None
        assert caught.value.lies_at == lies_at


async def test_a_proxy_that_lost_torrentino_says_nothing_of_the_add() -> None:
    async with client_of(always(httpx.Response(502, text="bad gateway"))) as client:
        with pytest.raises(OutcomeUnknown):
            await client.add_torrent(LINK, folder="/downloads/ours")


@pytest.mark.parametrize(("told", "hash_"), [(HASH.upper(), HASH), ("", None)])
async def test_the_hash_of_what_was_added_as_far_as_it_is_told(
    told: str, hash_: str | None
) -> None:
    """qBittorrent tells none for a .torrent link."""
    async with client_of(always(httpx.Response(200, json={"hash": told}))) as client:
        assert await client.add_torrent(LINK, folder="/downloads/ours") == hash_


@pytest.mark.parametrize(
    ("state", "progress", "whole"),
    [
        ("seeding", 1.0, True),
        ("stalled", 1.0, True),
        ("paused", 1.0, True),
        ("queued", 1.0, True),
        ("checking", 1.0, False),
        ("downloading", 1.0, False),
        ("error", 1.0, False),
        ("stalled", 0.99, False),
    ],
)
async def test_whole_is_what_is_so_in_a_state_of_rest(
    state: str, progress: float, whole: bool
) -> None:
    torrent = {"hash": HASH, "name": "An Album", "state": state, "progress": progress}
    answer = httpx.Response(200, json={"torrents": [torrent, {"name": 1}], "count": 2})
    async with client_of(always(answer)) as client:
        [found] = await client.torrents()
    assert found.whole is whole
