"""Items whose files wait to be collected, put there without Torrentino: many in a moment."""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from shared.states import Stage
from tests.support.audio import make_audio
from tests.support.stages import put_at, queue
from tests.support.world import Row, World

SECONDS = 1.0


@dataclass(frozen=True, kw_only=True)
class Ready:
    """An item of a finished ticket, and the ticket's folder."""

    track: str
    item_id: str
    ticket_id: str
    folder: Path

    @property
    def file(self) -> Path:
        """What was placed."""
        return self.folder / "song.flac.converted"

    async def item(self, world: World) -> Row:
        """Its row."""
        [row] = await world.rows("SELECT * FROM queue_items WHERE id = $1", self.item_id)
        return row


_TICKET = """
INSERT INTO tickets
       (id, dest_path, state, priority, files_placed, final_size_bytes, kind, closed_at)
VALUES ($1, $2, 'closed', 2, $3, $4, $5, now())
"""


async def ready(world: World, count: int, *, first: int = 1, placed: bool = True) -> list[Ready]:
    """So many items, oldest first, each with a ticket and a file of its own."""
    found = []
    for number in range(first, first + count):
        track = f"T{number:021d}"
        await queue(world, [track], seconds=SECONDS)
        [row] = await world.rows("SELECT id FROM queue_items WHERE track_id = $1", track)
        ticket_id = str(uuid.uuid4())
        folder = world.incoming / f"ticket-{number}"
        each = Ready(track=track, item_id=row["id"], ticket_id=ticket_id, folder=folder)
        size = 0
        if placed:
            size = make_audio(each.file, seconds=SECONDS, frequency=300 + number).stat().st_size
        await world.execute(_TICKET, ticket_id, str(folder), 1, size or 1000, "track")
        await put_at(world, row["id"], Stage.READY, ticket_id=ticket_id)
        found.append(each)
    return found


async def ready_album(world: World, count: int, *, first: int) -> list[Ready]:
    """Items of one ticket, which are told apart by the titles of their files."""
    tracks = [f"T{number:021d}" for number in range(first, first + count)]
    await queue(world, tracks, seconds=SECONDS, album=first)
    folder, ticket_id = world.incoming / f"album-{first}", str(uuid.uuid4())
    files = [
        make_audio(folder / f"Song {number}.flac", seconds=SECONDS, frequency=300 + number)
        for number in range(first, first + count)
    ]
    size = sum(file.stat().st_size for file in files)
    await world.execute(_TICKET, ticket_id, str(folder), count, size, "album")
    found = []
    for track in tracks:
        [row] = await world.rows("SELECT id FROM queue_items WHERE track_id = $1", track)
        await put_at(world, row["id"], Stage.READY, ticket_id=ticket_id)
        found.append(Ready(track=track, item_id=row["id"], ticket_id=ticket_id, folder=folder))
    return found


async def arrived(world: World, items: Sequence[Ready]) -> int:
    """How many of the items are completed."""
    [row] = await world.rows(
        "SELECT count(*) AS n FROM queue_items WHERE stage = 'completed' AND id = ANY($1)",
        [each.item_id for each in items],
    )
    return int(row["n"])
