"""A ticket's files as `shared.matching` wants them: by their paths in the torrent."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import replace

from services.fetcher_writer.delivery.base import DeliveredFile
from services.fetcher_writer.work import Ticket
from shared.matching.model import Offered
from shared.media.extensions import without_appended
from shared.media.probe import ProbeResult

_ITEM = re.compile(r"track-(\d{1,4})")
_NUMBER = re.compile(r"\s*0*(\d{1,3})(?!\d)")


def offers(ticket: Ticket, files: Iterable[DeliveredFile]) -> dict[str, DeliveredFile]:
    """The files by their paths in the torrent, its root folder included, as far as it is known."""
    return {_path_in_torrent(ticket, file.name): file for file in files}


def _path_in_torrent(ticket: Ticket, name: str) -> str:
    if ticket.delivery == "torrent":
        root = ticket.path.rstrip("/").rpartition("/")[2]
        # The file of a torrent that is one file has no folder.
        return name if name == root else f"{root}/{name}"
    return ticket.processed_files.get(name) or without_appended(name)


def offered(ticket: Ticket, name: str, file: DeliveredFile) -> Offered:
    """The file before anybody has looked at it, with Torrentino's opinion of it."""
    return Offered(name=name, size_bytes=file.size_bytes, mapped=_mapped(ticket, name))


def _mapped(ticket: Ticket, name: str) -> dict[int, float]:
    found: dict[int, float] = {}
    for mapping in ticket.file_mappings:
        number = _ITEM.fullmatch(str(mapping.get("item_id")))
        confidence = mapping.get("confidence")
        if mapping.get("path") == name and number and isinstance(confidence, int | float):
            found[int(number[1])] = min(1.0, max(0.0, float(confidence)))
    return found


def with_measure(offer: Offered, claims: ProbeResult, duration_s: float | None) -> Offered:
    """The file after a look: with its length, and what its tags say."""
    return replace(
        offer,
        duration_s=duration_s,
        title=claims.tags.get("title"),
        disc=_number(claims.tags, "disc"),
        number=_number(claims.tags, "track"),
    )


def _number(tags: Mapping[str, str], name: str) -> int | None:
    """Of "3", "03" or "3/12"; 0 is how some say that they do not know."""
    match = _NUMBER.match(tags.get(name, ""))
    return int(match[1]) or None if match else None
