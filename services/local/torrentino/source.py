"""The source of the stand-in's content: songs and torrents."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from services.local.torrentino.content import INDEXER, Song, TorrentFile, TorrentSpec
from services.local.torrentino.scoring import Scored, ranked

_AUDIO_SUFFIXES = frozenset(
    {".flac", ".mp3", ".m4a", ".aac", ".ogg", ".opus", ".wav", ".aif", ".aiff", ".wma", ".webm"}
)


class Source(Protocol):
    """A source of content; neither call may block."""

    def find(self, query_context: Mapping[str, object]) -> Song | None:
        """The song that a ticket's `query_context` asks for, or None."""
        ...

    def search(self, query_context: Mapping[str, object]) -> Sequence[Scored]:
        """The torrents that a search for `query_context` finds, best first."""
        ...


@runtime_checkable
class Stock(Protocol):
    """A source that can list its content; `/search` finds nothing in any other."""

    def offered(self) -> tuple[Sequence[Song], Sequence[TorrentSpec]]:
        """Its songs and its torrents."""
        ...


class SongList:
    """A `Source` over fixed lists of songs and torrents.

    An expected track is matched by title and artist, case-insensitively; one artist may be a
    prefix of the other ("A" and "A, B"), and a missing one matches any. Without `expected`, the
    description must have every word of the title; the longest title wins. An expected album, film
    or episode matches no song. `scoring` finds and scores torrents.
    """

    def __init__(self, songs: Iterable[Song], torrents: Iterable[TorrentSpec] = ()) -> None:
        self._songs = tuple(songs)
        self._torrents = tuple(torrents)

    def find(self, query_context: Mapping[str, object]) -> Song | None:
        expected = query_context.get("expected")
        if expected is None:
            return self._described(str(query_context.get("description", "")))
        if not isinstance(expected, Mapping) or expected.get("type") != "track":
            return None
        return self._track(str(expected["title"]), str(expected.get("artist") or ""))

    def search(self, query_context: Mapping[str, object]) -> Sequence[Scored]:
        return ranked(self._torrents, query_context)

    def offered(self) -> tuple[Sequence[Song], Sequence[TorrentSpec]]:
        return self._songs, self._torrents

    def _track(self, title: str, artist: str) -> Song | None:
        named = [song for song in self._songs if song.title.casefold() == title.casefold()]
        exact = [song for song in named if song.artist.casefold() == artist.casefold()]
        close = [song for song in named if _artist_matches(song.artist, artist)]
        return next(iter([*exact, *close]), None)

    def _described(self, description: str) -> Song | None:
        words = _words(description)
        hits = [song for song in self._songs if _words(song.title) <= words and _words(song.title)]
        return max(hits, key=lambda song: _closeness(song, words), default=None)


def load_songs(place: Path) -> SongList:
    """Songs and torrents from a JSON list, or songs from a folder of audio files.

    A song in the list is {artist, title, path}, a torrent {title, files: [{path, source}]} and
    optionally folder, seeders, listed, private, magnet_only, redirects, dead, indexers,
    mappings: {path: [item id, confidence]}, all as in `TorrentSpec`; relative paths and sources
    are relative to the JSON file's folder. A file in a folder is named `Artist - Title.ext`;
    without ` - ` the whole stem is the title.

    Raises:
        ValueError: the JSON is not such a list.
        OSError: `place` cannot be read.
    """
    if place.is_dir():
        files = sorted(path for path in place.rglob("*") if path.suffix.lower() in _AUDIO_SUFFIXES)
        return SongList(_song_of_file(path) for path in files)
    try:
        rows = json.loads(place.read_text("utf-8"))
        return SongList(
            [_song_of_row(row, place.parent) for row in rows if "files" not in row],
            [_torrent_of_row(row, place.parent) for row in rows if "files" in row],
        )
    except (AttributeError, KeyError, TypeError) as exc:
        want = "{artist, title, path} or {title, files: [{path, source}]}"
        raise ValueError(f"{place}: want a list of {want}, got {exc!r}") from exc


def _song_of_row(row: Mapping[str, str], folder: Path) -> Song:
    return Song(artist=row["artist"], title=row["title"], path=folder / row["path"])


def _torrent_of_row(row: Mapping[str, Any], folder: Path) -> TorrentSpec:
    files = tuple(
        TorrentFile(path=str(file["path"]), source=folder / file["source"]) for file in row["files"]
    )
    wrong = {
        str(path): (str(item_id), float(confidence))
        for path, (item_id, confidence) in row.get("mappings", {}).items()
    }
    return TorrentSpec(
        title=str(row["title"]),
        files=files,
        seeders=int(row.get("seeders", 25)),
        listed=bool(row.get("listed", True)),
        mappings=wrong,
        folder=None if row.get("folder") is None else str(row["folder"]),
        private=bool(row.get("private", False)),
        magnet_only=bool(row.get("magnet_only", False)),
        redirects=bool(row.get("redirects", False)),
        dead=bool(row.get("dead", False)),
        indexers=tuple(str(each) for each in row.get("indexers", [INDEXER])),
    )


def _song_of_file(path: Path) -> Song:
    artist, separator, title = path.stem.partition(" - ")
    if not separator:
        artist, title = "", path.stem
    return Song(artist=artist.strip(), title=title.strip(), path=path)


def _artist_matches(have: str, want: str) -> bool:
    mine, asked = have.casefold(), want.casefold()
    return mine.startswith(asked) or asked.startswith(mine)


def _words(text: str) -> frozenset[str]:
    return frozenset(re.findall(r"\w+", text.casefold()))


def _closeness(song: Song, words: frozenset[str]) -> tuple[int, int]:
    return len(_words(song.title)), len(_words(song.artist) & words)
