"""Searches and tickets for albums, with one ticket for each track and with one for each album.

The torrents resemble real ones: most are a whole album, some lack a third of it, and some albums
exist as single files only. "before" is `TICKET_GROUPING=track` without the torrents' folder, as
before album tickets: a ticket that finds only an album waits for an operator.
"""

from __future__ import annotations

import time
from typing import Any

from bench.setting import services
from services.local.torrentino import Song
from tests.support.releases import ARTIST, TOLERANCE_S, Release, make_release, sees_downloads
from tests.support.world import World, eventually

_ALBUMS = 12
_TRACKS = 10
_CREATE = "POST /tickets"
_PROCESS = "POST /pipeline/process/{id}"


async def run(world: World) -> dict[str, Any]:
    """Twelve albums of ten tracks before and after; counts by album, and total seconds."""
    before = {"TICKET_GROUPING": "track", "DURATION_TOLERANCE_S": str(TOLERANCE_S)}
    result: dict[str, Any] = {"albums": _ALBUMS, "tracks_per_album": _TRACKS}
    for number, (name, settings) in enumerate(
        {"before": before, "after": sees_downloads(world)}.items()
    ):
        world.env.pop("TORRENTINO_DOWNLOADS_ROOT", None)
        world.env |= settings | {"POLL_INTERVAL_S": "1", "SWEEP_INTERVAL_S": "1"}
        measured = await _measure(world, first=1 + number * _ALBUMS)
        result |= {f"{name}: {key}": value for key, value in measured.items()}
    return result


async def _measure(world: World, *, first: int) -> dict[str, Any]:
    albums = [make_release(world, _TRACKS, number) for number in range(first, first + _ALBUMS)]
    for place, album in enumerate(albums):
        _offer(world, album, place)
    requests = world.standin.requests
    asked = {name: requests[name] for name in (_CREATE, _PROCESS)}
    started = time.monotonic()
    async with services(world) as (api, _):
        for album in albums:
            (await api.post(f"/v1/download/album/{album.id}")).raise_for_status()
        placed, waiting = await eventually(
            lambda: _ended(world, albums),
            lambda ended: sum(ended) == _ALBUMS * _TRACKS,
            within_s=300,
        )
        took_s = time.monotonic() - started
        for album in albums:
            await _withdraw(world, album, api)
    searches = requests[_CREATE] - asked[_CREATE]
    return {
        "tickets and searches per album": round(searches / _ALBUMS, 2),
        "pipeline jobs per album": round((requests[_PROCESS] - asked[_PROCESS]) / _ALBUMS, 2),
        "tracks placed": placed,
        "tracks that wait for approval": waiting,
        "seconds until nothing moves": round(took_s, 1),
    }


def _offer(world: World, album: Release, place: int) -> None:
    """Eight of twelve albums are whole folders, two lack a third, two are single files."""
    kind = place % 6
    if kind < 4:
        world.add_torrent(album.title, album.files())
        return
    there = range(1, 1 + _TRACKS * 2 // 3) if kind == 4 else range(0)
    if there:
        world.add_torrent(album.title, album.files(there), listed=False)
    world.songs += [
        Song(artist=ARTIST, title=album.name(n), path=album.tracks[album.ids[n - 1]])
        for n in range(1, _TRACKS + 1)
        if n not in there
    ]


_ENDED = """
SELECT count(*) FILTER (WHERE status = 'COMPLETED') AS placed,
       count(*) FILTER (WHERE stage = 'needs_approval') AS waiting
  FROM queue_items WHERE album_id = ANY($1)
"""


async def _ended(world: World, albums: list[Release]) -> tuple[int, int]:
    [row] = await world.rows(_ENDED, [album.id for album in albums])
    return row["placed"], row["waiting"]


async def _withdraw(world: World, album: Release, api: Any) -> None:
    """Cancel what waits for an operator, so that it does not affect the next run."""
    for row in await world.rows(
        "SELECT id FROM queue_items WHERE album_id = $1 AND completed_at IS NULL", album.id
    ):
        (await api.delete(f"/v1/download/items/{row['id']}?for_all=true")).raise_for_status()
