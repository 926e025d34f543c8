"""What a stand-in is made of: its settings, and the songs that its torrent world knows."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

_AUDIO_SUFFIXES = frozenset(
    {".flac", ".mp3", ".m4a", ".aac", ".ogg", ".opus", ".wav", ".aif", ".aiff", ".wma", ".webm"}
)


@dataclass(frozen=True, kw_only=True)
class Song:
    """One thing that can be found; `path` is a real audio file, delivered byte for byte."""

    artist: str
    title: str
    path: Path


class Source(Protocol):
    """How the stand-in finds content."""

    def find(self, query_context: Mapping[str, object]) -> Song | None:
        """The song that a ticket's `query_context` asks for, or None; it must not block."""
        ...


@dataclass(frozen=True, kw_only=True)
class StandinConfig:
    """How the stand-in behaves when nothing is wrong; `Faults` holds what goes wrong."""

    host: str = "127.0.0.1"
    port: int = 0  # 0: a free one, kept over `Standin.restart`
    api_key: str | None = None  # None: auth method `none`
    database: Path | None = None  # SQLite file, so that tickets survive the process; None: memory
    acquire_s: float = 0.05  # one ticket at a time, as the real one
    download_s: float = 0.2
    convert_s: float = 0.02
    place_s: float = 0.02
    tick_s: float = 0.02  # the orchestrator's beat: the real one's 3 to 5 s polls
    max_concurrent_downloads: int = 50
    orchestrator: bool = True  # False: tickets stay pending, status says available:false
    dashboard: bool = True  # an unknown GET answers 200 text/html instead of 404


class SongList:
    """A `Source` over a fixed list.

    An expected track is matched by title and artist without regard to case, where one artist may
    be the beginning of the other ("A" and "A, B") and a missing one matches any. Without
    `expected`, every word of the title has to stand in the description; the longest title wins.
    An expected album, film or episode is never found: this world has single-file torrents only.
    """

    def __init__(self, songs: Iterable[Song]) -> None:
        self._songs = tuple(songs)

    def find(self, query_context: Mapping[str, object]) -> Song | None:
        expected = query_context.get("expected")
        if expected is None:
            return self._described(str(query_context.get("description", "")))
        if not isinstance(expected, Mapping) or expected.get("type") != "track":
            return None
        return self._track(str(expected["title"]), str(expected.get("artist") or ""))

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
    """Songs from a JSON list of {artist, title, path}, or from a folder of audio files.

    A file is named `Artist - Title.ext`; without ` - ` its whole stem is the title. Relative
    paths in the JSON are relative to it.

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
            Song(artist=row["artist"], title=row["title"], path=place.parent / row["path"])
            for row in rows
        )
    except (KeyError, TypeError) as exc:
        raise ValueError(f"{place}: want a list of {{artist, title, path}}, got {exc!r}") from exc


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
