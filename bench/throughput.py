"""500 items at once: items a second, and the memory for them."""

from __future__ import annotations

import time
from typing import Any

from bench.setting import services
from tests.support.audio import make_audio
from tests.support.world import World, album_id, eventually

_ALBUMS = 10
_TRACKS = 50
_SECONDS = 30.0


async def run(world: World) -> dict[str, Any]:
    """Ten albums of 50, from the first request to the last file."""
    audio = make_audio(world.folder / "song.mp3", seconds=_SECONDS, codec="mp3")
    for album in range(1, _ALBUMS + 1):
        world.add_album(album, _TRACKS, seconds=_SECONDS, audio=audio)
    async with services(world) as (api, process):
        idle_mib = process.memory_info().rss / 2**20
        started = time.monotonic()
        for album in range(1, _ALBUMS + 1):
            (await api.post(f"/v1/download/album/{album_id(album)}")).raise_for_status()
        accepted_s = time.monotonic() - started
        await eventually(lambda: _open(world), lambda count: count == 0, within_s=600)
        took_s = time.monotonic() - started
        busy_mib = process.memory_info().rss / 2**20
        cpu = process.cpu_times()
    items = await world.items()
    count = _ALBUMS * _TRACKS
    assert [item["status"] for item in items] == ["COMPLETED"] * count
    assert len(world.files()) == count
    return {
        "items": count,
        "file": f"{_SECONDS:.0f} s MP3, {audio.stat().st_size} bytes",
        "all accepted after s": round(accepted_s, 2),
        "all in place after s": round(took_s, 2),
        "items per second": round(count / took_s, 1),
        "service CPU s (without ffmpeg)": round(cpu.user + cpu.system, 2),
        "ffmpeg CPU s": round(cpu.children_user + cpu.children_system, 2),
        "resident memory idle MiB": round(idle_mib, 1),
        "resident memory after MiB": round(busy_mib, 1),
    }


async def _open(world: World) -> int:
    rows = await world.rows(
        "SELECT count(*) AS open FROM queue_items WHERE status IN ('PENDING', 'DOWNLOADING')"
    )
    return int(rows[0]["open"])
