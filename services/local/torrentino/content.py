"""The content that the stand-in offers: songs, and torrents as uploaders make them."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any, Self

_NAME_BYTES = 180
INDEXER = "openbay"


@dataclass(frozen=True, kw_only=True)
class Song:
    """A single-file torrent of one track; `path` is a real audio file, delivered byte for byte."""

    artist: str
    title: str
    path: Path


@dataclass(frozen=True, kw_only=True)
class TorrentFile:
    """A file of a torrent: `path` with root folder and forward slashes; `source` has the bytes."""

    path: str
    source: Path


@dataclass(frozen=True, kw_only=True)
class TorrentSpec:
    """A torrent that a search can find; its files have one root folder, or it is a single file.

    The title is the tracker's and independent of the folder, which the paths name, or else
    `folder` ("": a single file without one). `listed`: its .torrent can be fetched, so that a
    search learns its files. `mappings` are errors of the real server's heuristic:
    {path: (ticket item id, confidence)}.

    Each of `indexers` shows `seeders`. With `seeders` 0 it can be added and never progresses; a
    `dead` one neither, whatever number it shows. A `private` one has no magnet and no hash in a
    search, only the link of its .torrent; a `magnet_only` one has no link. If it `redirects`, the
    link leads to its magnet, as Jackett's does for trackers without .torrent files.

    Raises:
        ValueError: no files, duplicate paths, paths without a common root folder or outside it,
            a mapping of an unknown file, no indexer, or private without a .torrent.
    """

    title: str
    files: tuple[TorrentFile, ...]
    seeders: int = 25
    listed: bool = True
    mappings: Mapping[str, tuple[str, float]] = field(default_factory=dict, hash=False)
    folder: str | None = None
    private: bool = False
    magnet_only: bool = False
    redirects: bool = False
    dead: bool = False
    indexers: tuple[str, ...] = (INDEXER,)

    def __post_init__(self) -> None:
        if self.folder is not None:
            self._move_to(self.folder)
        paths = [file.path for file in self.files]
        if len({PurePosixPath(path).parts[:1] for path in paths}) != 1:
            raise ValueError(f"{self.title}: want files below one root folder, got {paths}")
        if len(paths) > 1 and not all("/" in path for path in paths):
            raise ValueError(f"{self.title}: want one file, or all of them in a folder")
        if len(set(paths)) != len(paths) or not all(map(_stays_inside, paths)):
            raise ValueError(f"{self.title}: want distinct paths inside the torrent, got {paths}")
        if unknown := set(self.mappings) - set(paths):
            raise ValueError(f"{self.title}: no such files: {sorted(unknown)}")
        if not self.indexers or (self.private and (self.magnet_only or self.redirects)):
            raise ValueError(f"{self.title}: want an indexer that has a link or a magnet")

    @classmethod
    def of(
        cls, title: str, files: Mapping[str, Path], *, folder: str | None = None, **more: Any
    ) -> Self:
        """A torrent from its files by their paths below the folder, by default `folder_name`.

        With folder "" it is a single file.
        """
        root = folder_name(title) if folder is None else folder
        listing = tuple(
            TorrentFile(path=f"{root}/{path}" if root else path, source=source)
            for path, source in files.items()
        )
        return cls(title=title, files=listing, **more)

    @property
    def name(self) -> str:
        """The folder or file that appears in the client's save path."""
        return PurePosixPath(self.files[0].path).parts[0]

    @property
    def linked(self) -> bool:
        """Whether an indexer lists a link."""
        return (self.listed or self.private or self.redirects) and not self.magnet_only

    @property
    def fetchable(self) -> bool:
        """Whether that link gives its .torrent."""
        return self.linked and not self.redirects

    @property
    def info_hash(self) -> str:
        """Forty hex digits that depend on the title and the files."""
        listing = [f"{file.path}\0{file.source}" for file in self.files]
        return info_hash("\0".join([self.title, *listing]))

    def _move_to(self, folder: str) -> None:
        """Replace the root folder of every path."""

        def moved(path: str) -> str:
            inner = path.partition("/")[2] or path
            return f"{folder}/{inner}" if folder else inner

        files = tuple(TorrentFile(path=moved(file.path), source=file.source) for file in self.files)
        object.__setattr__(self, "files", files)
        object.__setattr__(
            self, "mappings", {moved(path): item for path, item in self.mappings.items()}
        )
        object.__setattr__(self, "folder", None)


def info_hash(seed: str) -> str:
    """A hash that looks like a torrent's."""
    return hashlib.sha1(seed.encode(), usedforsecurity=False).hexdigest()


def song_name(artist: str, title: str) -> str:
    """The name of a song's torrent, without a suffix."""
    return _short(f"{artist} - {title}".replace("/", "_").replace("\0", ""))


def folder_name(title: str) -> str:
    """A plausible folder name for a torrent of this title, never the title itself.

    "Grey Harbour - Paper Lighthouse (2004) [FLAC]": "2004 - Paper Lighthouse".
    """
    year = re.search(r"\b(?:19|20)\d\d\b", title)
    shown = year[0] if year else str(1970 + int(info_hash(title)[:4], 16) % 50)
    bare = re.sub(r"\[[^\]]*\]|\(?\b(?:19|20)\d\d\b\)?", " ", title).replace("/", "_")
    album = " ".join(bare.partition(" - ")[2].split() or bare.split())
    return _short(f"{shown} - {album}")


def _short(name: str) -> str:
    return name.encode()[:_NAME_BYTES].decode(errors="ignore").strip()


def _stays_inside(path: str) -> bool:
    return not path.startswith("/") and not {"", ".", ".."} & set(path.split("/"))
