"""What the stand-in's world of torrents holds: songs, and torrents as people make them."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

_NAME_BYTES = 180


@dataclass(frozen=True, kw_only=True)
class Song:
    """A single-file torrent of one track; `path` is a real audio file, delivered byte for byte."""

    artist: str
    title: str
    path: Path


@dataclass(frozen=True, kw_only=True)
class TorrentFile:
    """A file of a torrent: `path` with the root folder and forward slashes, and its bytes."""

    path: str
    source: Path


@dataclass(frozen=True, kw_only=True)
class TorrentSpec:
    """A torrent as it is found; its files have one root folder, or it is a single file.

    `listed` says that its .torrent can be fetched, so that a search learns its files. `mappings`
    are what the real server's heuristic would get wrong: {path: (ticket item id, confidence)}.
    With `seeders` 0 it can be added, and never moves.

    Raises:
        ValueError: no files, two of one path, paths without a common root folder or out of it,
            or a mapping of a file that is not there.
    """

    title: str
    files: tuple[TorrentFile, ...]
    seeders: int = 25
    listed: bool = True
    mappings: Mapping[str, tuple[str, float]] = field(default_factory=dict, hash=False)

    def __post_init__(self) -> None:
        paths = [file.path for file in self.files]
        if len({PurePosixPath(path).parts[:1] for path in paths}) != 1:
            raise ValueError(f"{self.title}: want files below one root folder, got {paths}")
        if len(paths) > 1 and not all("/" in path for path in paths):
            raise ValueError(f"{self.title}: want one file, or all of them in a folder")
        if len(set(paths)) != len(paths) or not all(map(_stays_inside, paths)):
            raise ValueError(f"{self.title}: want distinct paths inside the torrent, got {paths}")
        if unknown := set(self.mappings) - set(paths):
            raise ValueError(f"{self.title}: no such files: {sorted(unknown)}")

    @property
    def name(self) -> str:
        """The folder or file that appears where the client saves it."""
        return PurePosixPath(self.files[0].path).parts[0]

    @property
    def info_hash(self) -> str:
        """Forty hex digits, the same for the same title and files."""
        listing = [f"{file.path}\0{file.source}" for file in self.files]
        return info_hash("\0".join([self.title, *listing]))


def info_hash(seed: str) -> str:
    """A hash that looks like a torrent's."""
    return hashlib.sha1(seed.encode(), usedforsecurity=False).hexdigest()


def song_name(artist: str, title: str) -> str:
    """The name of a song's torrent, without a suffix."""
    name = f"{artist} - {title}".replace("/", "_").replace("\0", "")
    return name.encode()[:_NAME_BYTES].decode(errors="ignore")


def _stays_inside(path: str) -> bool:
    return not path.startswith("/") and not {"", ".", ".."} & set(path.split("/"))
