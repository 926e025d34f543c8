"""The sample of `make run`: a small catalog, and its songs.

`python -m services.local.sample FOLDER` only makes the sample, for a stand-in in its own container.
"""

from __future__ import annotations

import json
import sqlite3
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from threading import Event
from typing import Any
from urllib.parse import quote

from services.local.audio import ToneCodec, make_tone
from shared.media.tools import AudioTools, find_tools

_SCHEMA = Path(__file__).with_name("catalog.sql")
_EXT: dict[ToneCodec, str] = {
    "flac": "flac",
    "mp3": "mp3",
    "opus": "opus",
    "vorbis": "ogg",
    "aac": "m4a",
    "alac": "m4a",
    "wav": "wav",
}
_FORMATS: tuple[ToneCodec, ...] = ("flac", "mp3", "opus", "aac", "vorbis", "alac")

ALBUM_ID = "1KitesOverTheHarbour00"
SECOND_ALBUM_ID = "2NightTrainToOstuni000"


@dataclass(frozen=True, kw_only=True)
class Sample:
    """The paths of the sample.

    Each song is {"artist", "title", "path"}, each torrent {"title", "files": [{"path", "source"}]}.
    """

    catalog: Path
    album_id: str
    second_album_id: str
    songs: list[dict[str, str]]
    torrents: list[dict[str, Any]]


@dataclass(frozen=True, kw_only=True)
class _Song:
    album_id: str
    artist: str
    title: str
    disc: int
    number: int
    seconds: int
    codec: ToneCodec
    frequency: int

    @property
    def id(self) -> str:
        return f"{self.album_id[0]}SampleTrack{self.disc}{self.number:09d}"

    @property
    def file_name(self) -> str:
        return f"{self.artist} - {self.title}.{_EXT[self.codec]}"


_ALBUMS = (
    (
        ALBUM_ID,
        "Kites over the Harbour",
        "The Lantern Coast",
        (
            (
                *("Low Tide", "Paper Sails", "The Ferryman's Ledger", "Salt on the Strings"),
                *("Gulls at Noon", "Rope and Tar", "A Light on the Mole", "Kites over the Harbour"),
                *("Anchor Song", "Fog Signal", "The Last Boat In", "High Tide"),
            ),
        ),
    ),
    (
        SECOND_ALBUM_ID,
        "Night Train to Ostuni",
        "Mirella Quattrocchi",
        (("Binario Sette", "Ulivi", "Finestrino"), ("Luna di Latta", "Arrivo")),
    ),
)


def write_sample(folder: Path, *, stopped: Event | None = None) -> Sample:
    """Make or complete the sample in `folder`; existing files stay as they are.

    Every file has exactly the catalog's length. The first call takes a few seconds; once `stopped`
    is set it ends soon, with an incomplete sample. Blocks.

    Raises:
        Misconfigured: ffmpeg was not found.
        ToneFailed: a song could not be made.
    """
    folder.mkdir(parents=True, exist_ok=True)
    catalog = folder / "catalog.db"
    if not catalog.exists():
        _write_catalog(catalog)
    songs = _write_songs(folder / "songs", stopped or Event())
    torrents = [
        _torrent(songs, ALBUM_ID),
        _torrent(songs, SECOND_ALBUM_ID, lacks=2),
        *_others(songs),
    ]
    offered = json.dumps([*songs, *torrents], indent=2, ensure_ascii=False)
    (folder / "songs.json").write_text(offered + "\n")
    return Sample(
        catalog=catalog,
        album_id=ALBUM_ID,
        second_album_id=SECOND_ALBUM_ID,
        songs=songs,
        torrents=torrents,
    )


def _others(songs: Sequence[dict[str, str]]) -> list[dict[str, Any]]:
    """Decoys that indexers list with more seeders: other audio with these names."""
    found = []
    for id_, name, artist, _ in _ALBUMS:
        right = _torrent(songs, id_)
        paths = [file["source"] for file in right["files"]]
        for title in (f"{artist} - {name} (Live) [FLAC]", f"A Tribute to {artist} - {name} [FLAC]"):
            files = [
                {"path": file["path"].replace(right["title"], title), "source": source}
                for file, source in zip(right["files"], [*paths[1:], paths[0]], strict=True)
            ]
            found.append({"title": title, "files": files, "seeders": 900})
    return found


def _torrent(songs: Sequence[dict[str, str]], album_id: str, *, lacks: int = 0) -> dict[str, Any]:
    """An album's torrent without its last `lacks` tracks, which have their own torrents."""
    [(name, artist)] = [(name, artist) for id_, name, artist, _ in _ALBUMS if id_ == album_id]
    title = f"{artist} - {name} [FLAC]"
    mine = [(s, song["path"]) for s, song in zip(_songs(), songs, strict=True)]
    there = [(s, path) for s, path in mine if s.album_id == album_id]
    return {
        "title": title,
        # If it were listed, Torrentino would require approval because of the missing tracks.
        "listed": not lacks,
        "files": [
            {
                "path": f"{title}/{song.number:02d} - {song.title}{Path(path).suffix}",
                "source": path,
            }
            for song, path in there[: len(there) - lacks]
        ],
    }


def create_catalog(path: Path) -> None:
    """Write an empty catalog with the upstream schema, in WAL mode like the catalog server's."""
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA journal_mode = WAL")
        connection.executescript(_SCHEMA.read_text())


def audio_uris(path: Path) -> dict[str, str | None]:
    """What a catalog says of each track's file, by track id."""
    with closing(sqlite3.connect(f"file:{quote(str(path))}?mode=ro", uri=True)) as connection:
        return dict(connection.execute("SELECT id, audio_uri FROM tracks"))


def add_album(
    path: Path, *, album_id: str, name: str, artist: str, tracks: Sequence[dict[str, Any]]
) -> None:
    """Add an album, and its artist unless the catalog has one of that name.

    A track is {"id", "name", "duration_ms"} and optionally "disc_number", "track_number" (else
    1 and its place), "artists" (names, the first one main; else the album's), "isrc",
    "popularity".
    """
    with closing(sqlite3.connect(path)) as connection, connection:
        album_rowid = connection.execute(
            "INSERT INTO albums (id, name, album_type, label, popularity, release_date,"
            " release_date_precision, track_count, total_duration_ms)"
            " VALUES (?, ?, 'album', 'Sample', 50, '2024-05-15', 'day', ?, ?)",
            (album_id, name, len(tracks), sum(track["duration_ms"] or 0 for track in tracks)),
        ).lastrowid
        connection.execute(
            "INSERT INTO artist_albums (artist_rowid, album_rowid, is_appears_on,"
            " is_implicit_appears_on, index_in_album) VALUES (?, ?, 0, 0, 0)",
            (_artist(connection, artist), album_rowid),
        )
        for place, track in enumerate(tracks, start=1):
            _add_track(connection, album_rowid, place, {"artists": [artist], **track})


def _add_track(
    connection: sqlite3.Connection, album_rowid: int | None, place: int, track: dict[str, Any]
) -> None:
    track_rowid = connection.execute(
        "INSERT INTO tracks (id, name, album_rowid, track_number, external_id_isrc, popularity,"
        " disc_number, duration_ms, explicit, language) VALUES (?, ?, ?, ?, ?, ?, ?, ?, 0, 'zxx')",
        (
            track["id"],
            track["name"],
            album_rowid,
            track.get("track_number", place),
            track.get("isrc"),
            track.get("popularity", 50),
            track.get("disc_number", 1),
            track["duration_ms"],
        ),
    ).lastrowid
    for position, name in enumerate(track["artists"]):
        connection.execute(
            "INSERT INTO track_artists (track_rowid, artist_rowid, role) VALUES (?, ?, ?)",
            (track_rowid, _artist(connection, name), min(position, 1)),
        )


def _artist(connection: sqlite3.Connection, name: str) -> int:
    row = connection.execute("SELECT rowid FROM artists WHERE name = ?", (name,)).fetchone()
    if row is not None:
        return int(row[0])
    (last,) = connection.execute("SELECT coalesce(max(rowid), 0) FROM artists").fetchone()
    rowid = connection.execute(
        "INSERT INTO artists (id, name, followers_total, popularity) VALUES (?, ?, 0, 50)",
        (f"3SampleArtist{last + 1:09d}", name),
    ).lastrowid
    return int(rowid or 0)


def _songs() -> list[_Song]:
    return [
        _Song(
            album_id=album_id,
            artist=artist,
            title=title,
            disc=disc,
            number=number,
            # 8 to 25 seconds; neighbours differ.
            seconds=8 + (number * 7 + disc * 5) % 18,
            codec=_FORMATS[(number + disc) % len(_FORMATS)],
            frequency=220 + 40 * number + 300 * disc,
        )
        for album_id, _, artist, discs in _ALBUMS
        for disc, titles in enumerate(discs, start=1)
        for number, title in enumerate(titles, start=1)
    ]


def _write_catalog(path: Path) -> None:
    # Under another name until it is complete, so that the next run repairs an interruption.
    temp = path.with_suffix(".new")
    for left in (temp, Path(f"{temp}-wal"), Path(f"{temp}-shm")):
        left.unlink(missing_ok=True)
    create_catalog(temp)
    for album_id, name, artist, _ in _ALBUMS:
        tracks = [
            {
                "id": song.id,
                "name": song.title,
                "duration_ms": song.seconds * 1000,
                "disc_number": song.disc,
                "track_number": song.number,
            }
            for song in _songs()
            if song.album_id == album_id
        ]
        add_album(temp, album_id=album_id, name=name, artist=artist, tracks=tracks)
    temp.rename(path)


def sample_track_ids(album_id: str) -> list[str]:
    """The track ids of one of the sample's albums, in order."""
    return [song.id for song in _songs() if song.album_id == album_id]


def _write_songs(folder: Path, stopped: Event) -> list[dict[str, str]]:
    folder.mkdir(exist_ok=True)
    tools = find_tools()
    songs = _songs()

    def write(song: _Song) -> Path:
        path = folder / song.file_name
        if not path.exists() and not stopped.is_set():
            _write_song(path, song, tools)
        return path

    with ThreadPoolExecutor(max_workers=4) as pool:
        paths = list(pool.map(write, songs))
    return [
        {"artist": song.artist, "title": song.title, "path": str(path)}
        for song, path in zip(songs, paths, strict=True)
    ]


def _write_song(path: Path, song: _Song, tools: AudioTools) -> None:
    temp = path.with_name(f".{song.file_name}.part")
    make_tone(
        temp,
        seconds=song.seconds,
        codec=song.codec,
        frequency=song.frequency,
        tools=tools,
        cover=song.codec in ("flac", "mp3"),
        tags={"artist": song.artist, "title": song.title, "track": str(song.number)},
    )
    temp.rename(path)


if __name__ == "__main__":
    write_sample(Path(sys.argv[1]))
