"""The torrents behind the info-hashes that a search found."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from services.local.torrentino.content import (
    INDEXER,
    Song,
    TorrentFile,
    TorrentSpec,
    info_hash,
    song_name,
)
from services.local.torrentino.scoring import Scored
from services.local.torrentino.states import Candidate

_SONG_SEEDERS = 25
_SONG_SCORES = (0.93, 0.87)


@dataclass(frozen=True, kw_only=True)
class Offer:
    """A torrent that can be added, as a search found it."""

    info_hash: str
    title: str  # as the search lists it
    name: str  # of the folder or file that appears
    files: tuple[TorrentFile, ...]
    size_bytes: int
    seeders: int
    score: float
    titles: tuple[str, ...] = ()  # casefolded, for `Faults`
    second: bool = False  # not the best candidate for the same content
    # Its files and their sizes, if the search knows them.
    listing: tuple[tuple[str, int], ...] = ()
    mappings: tuple[dict[str, object], ...] = ()
    indexers: tuple[str, ...] = (INDEXER,)  # each shows `seeders`
    linked: bool = True  # the indexers list a link
    redirects: bool = False  # the link leads to its magnet instead of its .torrent
    magnetic: bool = True  # the indexers list its magnet and its hash
    dead: bool = False  # no seeder, whatever the indexers show

    @property
    def folder(self) -> bool:
        """Whether its content is a directory."""
        return any("/" in file.path for file in self.files)

    @property
    def seeded(self) -> bool:
        """Whether its download can complete."""
        return self.seeders > 0 and not self.dead and bool(self.files)

    def candidate(self) -> Candidate:
        """How a ticket's state shows it."""
        return Candidate(
            title=self.title,
            info_hash=self.info_hash if self.magnetic else "",
            size_bytes=self.size_bytes,
            seeders=self.seeders,
            score=self.score,
            file_mappings=self.mappings,
        )


def offers_of_song(
    song: Song,
    path: Path,
    *,
    titles: tuple[str, ...],
    folder: bool,
    spoiler: Path | None,
) -> list[Offer]:
    """The two torrents of a song that deliver this file; with `folder`, in a directory.

    The better one delivers `spoiler` instead if that is set.

    Raises:
        OSError: a file cannot be read.
    """
    stem = song_name(song.artist, song.title)
    file = f"{stem}{path.suffix}"
    name = stem if folder else file
    size_bytes = path.stat().st_size
    best, second = (
        Offer(
            info_hash=info_hash(f"{name}\0{path}\0{bool(place)}"),
            title=f"{Path(name).stem} {'[WEB]' if place else '[FLAC]'}",
            name=name,
            files=(TorrentFile(path=f"{stem}/{file}" if folder else file, source=path),),
            size_bytes=size_bytes,
            seeders=_SONG_SEEDERS,
            score=score,
            titles=titles,
            second=bool(place),
        )
        for place, score in enumerate(_SONG_SCORES)
    )
    if spoiler is not None:
        spoiled = tuple(replace(each, source=spoiler) for each in best.files)
        best = replace(best, files=spoiled, size_bytes=spoiler.stat().st_size)
    return [best, second]


def offer_of_torrent(found: Scored, *, titles: tuple[str, ...], second: bool) -> Offer:
    """A torrent that a ticket's search found.

    Raises:
        OSError: a file cannot be read.
    """
    offer = offer_of_spec(found.spec, titles=titles, listed=found.enriched)
    mappings = tuple(mapping.json() for mapping in found.mappings)
    return replace(offer, score=found.score, second=second, mappings=mappings)


def offer_of_spec(spec: TorrentSpec, *, titles: tuple[str, ...], listed: bool = False) -> Offer:
    """A torrent; with `listed`, including its file list.

    Raises:
        OSError: a file cannot be read.
    """
    listing = tuple((file.path, file.source.stat().st_size) for file in spec.files)
    return Offer(
        info_hash=spec.info_hash,
        title=spec.title,
        name=spec.name,
        files=spec.files,
        size_bytes=sum(size_bytes for _, size_bytes in listing),
        seeders=spec.seeders,
        score=0.0,
        titles=titles,
        listing=listing if listed else (),
        indexers=spec.indexers,
        linked=spec.linked,
        redirects=spec.redirects,
        magnetic=not spec.private,
        dead=spec.dead,
    )


def unknown_offer(info_hash: str) -> Offer:
    """A magnet without seeders: it can be added, and never gets its metadata."""
    return Offer(
        info_hash=info_hash,
        title=info_hash,
        name=info_hash,
        files=(),
        size_bytes=0,
        seeders=0,
        score=0.0,
    )
