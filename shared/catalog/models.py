"""The parts of the catalog that are read."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, kw_only=True)
class Track:
    """One track. None stands for a value, or a column, that the catalog does not have."""

    id: str
    name: str
    artists: tuple[str, ...]
    """The main artists in the catalog's order, then the featured ones; each once."""
    album_id: str | None
    album_name: str | None
    album_artist: str | None
    """The primary artists of the album, joined by ', '."""
    disc_number: int | None
    track_number: int | None
    duration_ms: int | None
    isrc: str | None
    popularity: int | None
    audio_uri: str | None = None
    """Where the catalog server looks for the file, relative to its media root; not checked.

    It begins with NUL if the catalog has something else than a text there.
    """


@dataclass(frozen=True, kw_only=True)
class Album:
    """One album with its tracks, by disc and number."""

    id: str
    name: str
    artist: str | None
    tracks: tuple[Track, ...]
    year: int | None = None
    kind: str | None = None
    """`album`, `single` (EPs as well) or `compilation`."""


@dataclass(frozen=True, kw_only=True)
class PageAlbum:
    """An album of which a page has a track; `named`: one of its tracks has an `audio_uri`."""

    rowid: int
    id: str
    named: bool


@dataclass(frozen=True, kw_only=True)
class AlbumUris:
    """The `audio_uri` of an album's tracks by id; `whole` is false if there are more tracks."""

    uris: Mapping[str, str | None]
    whole: bool


@dataclass(frozen=True, kw_only=True)
class Scope:
    """Which tracks a scan checks.

    `min_popularity` narrows every kind; it leaves out tracks of unknown popularity. Which albums
    are partial depends on their files, which the catalog does not know.
    """

    kind: Literal["all", "partial_albums", "album"] = "all"
    album_id: str | None = None
    min_popularity: int | None = None
