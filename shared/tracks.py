"""A track of the catalog, and a track that a queue item wants: one type for each."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class CatalogTrack:
    """A track as the catalog describes it, wanted or not. What is not known is None."""

    id: str
    title: str
    artist: str | None = None
    disc: int | None = None
    number: int | None = None
    duration_ms: int | None = None


@dataclass(frozen=True, kw_only=True)
class WantedTrack:
    """The track of a queue item, and what the item says of its album."""

    item_id: str
    track: CatalogTrack
    album_id: str | None = None
    album: str | None = None
    album_artist: str | None = None
