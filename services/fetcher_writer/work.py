"""The work: items whose file is ready, and the tickets that brought the files."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from services.fetcher_writer.delivery.base import DeliveryName
from shared.db.claims import Claim
from shared.db.pool import Row
from shared.tracks import CatalogTrack

# The service's name in histories.
ACTOR = "fetcher_writer"


@dataclass(frozen=True, kw_only=True)
class Ticket:
    """What a ticket says of where its files are, and which of them is which track."""

    id: str
    path: str
    """The folder, or the file of a torrent without a folder, as Torrentino sees it."""
    kind: Literal["track", "album"] = "track"
    delivery: DeliveryName = "incoming"
    info_hash: str | None = None
    torrent_title: str | None = None
    files_placed: int | None = None
    final_size_bytes: int | None = None
    file_mappings: Sequence[Mapping[str, object]] = ()
    mode: Literal["tickets", "direct"] = "tickets"
    """How the download was acquired."""
    size_bytes: int | None = None
    """The size of the whole torrent, as its client reports it."""
    in_the_way: bool = False
    """Files lay there before the torrent was added, and may be another torrent's."""
    processed_files: Mapping[str, str] = field(default_factory=dict)
    """What the pipeline was asked to place: the path in the torrent by the placed name."""


@dataclass(frozen=True, kw_only=True)
class Other:
    """Another download whose files should be in the same place, and their bytes."""

    path: str
    size_bytes: int | None


@dataclass(frozen=True, kw_only=True)
class Competing:
    """The tracks that a ticket's files may be, and the name of their album, if it is one."""

    tracks: Sequence[CatalogTrack]
    album: str | None


@dataclass(frozen=True, kw_only=True)
class Released:
    """A kept file that an administrator has released for the item."""

    file_id: str
    by: str


@dataclass(frozen=True, kw_only=True)
class Work:
    """An item whose file is ready to be collected."""

    claim: Claim
    track_id: str
    duration_ms: int | None
    ticket: Ticket
    album_id: str | None = None
    chosen_file: str | None = None
    hand_backs: int = 0
    """How often it was handed back in a row although what it needs works."""
    released: Released | None = None
    """What is placed instead of a file of the ticket."""


def works(rows: Sequence[Row]) -> list[Work]:
    """The claimed items of these rows; items of one ticket share the object."""
    tickets = {row["ticket_id"]: _ticket(row) for row in rows}
    return [
        Work(
            claim=Claim(item_id=row["id"], fence=row["fence"]),
            track_id=row["track_id"],
            duration_ms=row["duration_ms"],
            album_id=row["album_id"],
            chosen_file=row["chosen_file"],
            hand_backs=row["hand_backs"],
            ticket=tickets[row["ticket_id"]],
            released=_released(row),
        )
        for row in rows
    ]


def _released(row: Row) -> Released | None:
    if row["released_file"] is None:
        return None
    return Released(file_id=row["released_file"], by=row["released_by"] or "unknown")


def _ticket(row: Row) -> Ticket:
    # What Torrentino placed says nothing about the files in the torrent's own folder.
    placed = row["delivery"] == "incoming"
    return Ticket(
        id=row["ticket_id"],
        path=row["path"],
        kind=row["kind"],
        delivery=row["delivery"],
        info_hash=row["info_hash"],
        torrent_title=row["torrent_title"],
        files_placed=row["files_placed"] if placed else None,
        final_size_bytes=row["final_size_bytes"] if placed else None,
        file_mappings=row["file_mappings"] or (),
        mode=row["way"],
        size_bytes=row["size_bytes"],
        in_the_way=row["remote_state"] == "in_the_way",
        processed_files=row["processed_files"] or {} if placed else {},
    )
