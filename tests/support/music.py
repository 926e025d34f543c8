"""The music of a test's world: albums in its catalog, songs and torrents at its stand-in."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from services.local.sample import add_album
from services.local.torrentino import Song, SongList, TorrentFile, TorrentSpec
from services.local.torrentino.scoring import Scored
from tests.support.audio import make_audio


def track_id(number: int, prefix: str = "T") -> str:
    """A 22-character id, as Spotify's are."""
    return f"{prefix}{number:021d}"


def album_id(number: int) -> str:
    """The id of an album."""
    return track_id(number, "A")


@dataclass(kw_only=True)
class Music:
    """A catalog, and what Torrentino can find; tests add to both at any time."""

    folder: Path
    songs: list[Song]
    torrents: list[TorrentSpec] = field(default_factory=list)
    # What each track of an album sounds like, by its id.
    audio: dict[str, Path] = field(default_factory=dict)

    @property
    def catalog(self) -> Path:
        return self.folder / "catalog.db"

    def add_album(
        self,
        number: int,
        count: int = 0,
        *,
        artist: str = "The Testers",
        seconds: float = 8.0,
        audio: Path | None = None,
        first: int | None = None,
        songs: bool = True,
        tracks: Sequence[Mapping[str, Any]] | None = None,
    ) -> list[str]:
        """An album in the catalog, its songs at the stand-in; returns the track ids.

        All songs are copies of one file (`audio`, made when not given) unless a test substitutes
        others. With `tracks` each has a tone of its own instead: {"name", "seconds", "number",
        "disc"}, all optional. `self.audio` has every track's file; without `songs` no torrent
        offers it.
        """
        start = number * 1000 if first is None else first
        wanted: Sequence[Mapping[str, Any]] = [{}] * count if tracks is None else tracks
        rows = [
            {
                "id": track_id(start + place),
                "name": str(track.get("name", f"Song {start + place}")),
                "duration_ms": int(track.get("seconds", seconds) * 1000),
                "disc_number": track.get("disc", 1),
                "track_number": track.get("number", place),
            }
            for place, track in enumerate(wanted, start=1)
        ]
        add_album(
            self.catalog,
            album_id=album_id(number),
            name=f"Album {number}",
            artist=artist,
            tracks=rows,
        )
        if tracks is None or audio is not None:
            one = audio or make_audio(self.folder / f"song-{seconds:g}.flac", seconds=seconds)
            sources = [one] * len(rows)
        else:
            sources = self._tones([row["duration_ms"] / 1000 for row in rows], first=start)
        ids = [str(row["id"]) for row in rows]
        self.audio |= dict(zip(ids, sources, strict=True))
        if songs:
            self.songs.extend(
                Song(artist=artist, title=str(row["name"]), path=source)
                for row, source in zip(rows, sources, strict=True)
            )
        return ids

    def _tones(self, lengths_s: Sequence[float], *, first: int) -> list[Path]:
        """Files of these lengths, no two of them of one sound."""

        def tone(place: int) -> Path:
            path = self.folder / f"tone-{first + place}.flac"
            return make_audio(path, seconds=lengths_s[place - 1], frequency=200 + 40 * place)

        with ThreadPoolExecutor(max_workers=2) as pool:
            return list(pool.map(tone, range(1, len(lengths_s) + 1)))

    def add_torrent(self, title: str, files: Mapping[str, Path], **spec: Any) -> TorrentSpec:
        """A torrent of these files (by their path in it); `spec` as in `TorrentSpec`."""
        made = TorrentSpec(
            title=title,
            files=tuple(TorrentFile(path=path, source=source) for path, source in files.items()),
            **spec,
        )
        self.torrents.append(made)
        return made


class Growing:
    """Read at every search, so that a test may add to the lists while the stand-in runs."""

    def __init__(self, songs: list[Song], torrents: list[TorrentSpec]) -> None:
        self._songs, self._torrents = songs, torrents

    def find(self, query_context: Any) -> Song | None:
        return SongList(self._songs).find(query_context)

    def offered(self) -> tuple[Sequence[Song], Sequence[TorrentSpec]]:
        return self._songs, self._torrents

    def search(self, query_context: Any) -> Sequence[Scored]:
        return SongList((), self._torrents).search(query_context)
