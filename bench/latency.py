"""One track at a time on an idle system: the latency of each hand-over."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from bench.setting import milliseconds, services
from tests.support.audio import make_audio
from tests.support.world import World, track_id

_TRACKS = 100
_SECONDS = 240.0


async def run(world: World) -> dict[str, Any]:
    """Request to ticket, finished ticket to placed file, for four-minute FLACs."""
    audio = make_audio(world.folder / "four-minutes.flac", seconds=_SECONDS)
    world.add_album(1, _TRACKS, seconds=_SECONDS, audio=audio)
    async with services(world) as (api, _):
        for number in range(1, _TRACKS + 1):
            answer = await api.post(f"/v1/download/track/{track_id(1000 + number)}")
            answer.raise_for_status()
            await world.until_ended(number)
    stages = await world.rows(
        "SELECT item_id, stage, extract(epoch FROM at)::float8 AS at FROM events"
        " WHERE kind = 'item'"
    )
    at = {(row["item_id"], row["stage"]): row["at"] for row in stages}
    items = await world.items()
    finished = {
        str(ticket["id"]): datetime.fromisoformat(ticket["state"]["completed_at"]).timestamp()  # type: ignore[index]
        for ticket in world.standin.tickets()
    }
    to_ticket = [at[i["id"], "searching"] - at[i["id"], "queued"] for i in items]
    to_file = [at[i["id"], "completed"] - finished[i["torrentino_ticket_id"]] for i in items]
    noticed = [at[i["id"], "ready"] - finished[i["torrentino_ticket_id"]] for i in items]
    return {
        "tracks": _TRACKS,
        "file": f"{_SECONDS:.0f} s FLAC, {audio.stat().st_size} bytes",
        "request to ticket": milliseconds(to_ticket),
        "finished ticket to placed file": milliseconds(to_file),
        "  of which until we know that it is finished": milliseconds(noticed),
    }
