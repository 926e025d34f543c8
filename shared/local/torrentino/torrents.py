"""The torrent client: what has been offered by searches, and what is being downloaded.

It is another process than Torrentino in the real world, so it goes on over a restart, and it
knows nothing of tickets: two tickets for one song share a torrent.
"""

from __future__ import annotations

import hashlib
import math
import time
from dataclasses import dataclass, field
from pathlib import Path

from shared.local.torrentino.faults import Faults
from shared.local.torrentino.states import Candidate
from shared.local.torrentino.timestamps import now_ns, zulu_form

SAVE_PATH = "/downloads"  # as shown; the bytes stay where the song's own file is
_NAME_BYTES = 180
_HALF_WAY = 0.5
_HALTED = frozenset({"stuck_downloading", "download_stalled", "failover"})


@dataclass(frozen=True, kw_only=True)
class Offer:
    """What stands behind an info-hash: a name, and the file whose bytes it delivers."""

    info_hash: str
    name: str
    path: Path
    size_bytes: int
    titles: tuple[str, ...]
    second: bool  # the second-best candidate for the same content

    def candidate(self, score: float) -> Candidate:
        label = "[WEB]" if self.second else "[FLAC]"
        return Candidate(
            title=f"{Path(self.name).stem} {label}",
            info_hash=self.info_hash,
            size_bytes=self.size_bytes,
            score=score,
        )


@dataclass(kw_only=True)
class Torrent:
    """One download."""

    offer: Offer
    added_ns: int = field(default_factory=now_ns)
    progress: float = 0.0  # 0 to 1
    speed_bps: int = 0
    completed_ns: int | None = None

    @property
    def done(self) -> bool:
        return self.progress >= 1.0

    @property
    def state(self) -> str:
        if self.done:
            return "seeding"
        return "downloading" if self.speed_bps else "stalled"

    @property
    def eta_s(self) -> int | None:
        if not self.speed_bps:
            return None
        return math.ceil((1.0 - self.progress) * self.offer.size_bytes / self.speed_bps)

    def json(self) -> dict[str, object]:
        """TorrentInfo, as the API shows it."""
        size = self.offer.size_bytes
        shown: dict[str, object] = {
            "hash": self.offer.info_hash,
            "name": self.offer.name,
            "state": self.state,
            "progress": self.progress,
            "size_bytes": size,
            "downloaded_bytes": int(size * self.progress),
            "uploaded_bytes": 0,
            "download_speed": self.speed_bps,
            "upload_speed": 0,
            "seeders": 25,
            "leechers": 1,
            "ratio": 0.0,
            "added_at": zulu_form(self.added_ns),
            "save_path": SAVE_PATH,
            "upload_limit": 0,
            "download_limit": 0,
        }
        if self.eta_s is not None:
            shown["eta_secs"] = self.eta_s
        if self.completed_ns is not None:
            shown["completed_at"] = zulu_form(self.completed_ns)
        return shown


class Torrents:
    """All torrents, in the order in which they were added."""

    def __init__(self, faults: Faults, download_s: float) -> None:
        self._faults = faults
        self._download_s = download_s
        self._offers: dict[str, Offer] = {}
        self._torrents: dict[str, Torrent] = {}
        self._looked = time.monotonic()

    def offer(self, offer: Offer) -> None:
        """Make a later `add` of its info-hash possible."""
        self._offers[offer.info_hash] = offer

    def add(self, info_hash: str, *, progress: float = 0.0) -> Torrent | None:
        """Start a download, or join one that is there; None when nobody seeds that hash."""
        self.advance()
        offer = self._offers.get(info_hash)
        if offer is None:
            return None
        torrent = self._torrents.get(info_hash)
        if torrent is None or (torrent.done and self._halted(torrent)):
            torrent = self._torrents[info_hash] = Torrent(offer=offer, progress=progress)
        return torrent

    def get(self, info_hash: str) -> Torrent | None:
        """The torrent of that hash; with an empty hash the first of all, as qBittorrent does."""
        if info_hash == "":
            return next(iter(self._torrents.values()), None)
        return self._torrents.get(info_hash)

    def remove(self, info_hash: str) -> bool:
        """Forget it; false when there is none. The song's own file is never touched."""
        return self._torrents.pop(info_hash, None) is not None

    def every(self) -> list[Torrent]:
        return list(self._torrents.values())

    def advance(self) -> None:
        """Let the time since the last call count for every download."""
        now = time.monotonic()
        elapsed, self._looked = now - self._looked, now
        for torrent in self._torrents.values():
            if not torrent.done:
                self._advance(torrent, elapsed)

    def _advance(self, torrent: Torrent, elapsed: float) -> None:
        share = elapsed / self._download_s if self._download_s > 0 else 1.0
        limit = _HALF_WAY if self._halted(torrent) else 1.0
        before = torrent.progress
        torrent.progress = max(before, min(limit, before + share))
        moving = before < torrent.progress < 1.0
        rate = torrent.offer.size_bytes / self._download_s if self._download_s > 0 else 0.0
        torrent.speed_bps = max(1, int(rate)) if moving else 0
        if torrent.done:
            torrent.completed_ns = now_ns()

    def _halted(self, torrent: Torrent) -> bool:
        fate = self._faults.fate(torrent.offer.titles)
        return fate in _HALTED and not (fate == "failover" and torrent.offer.second)


def offers_for(
    *, artist: str, title: str, path: Path, titles: tuple[str, ...], folder: bool
) -> list[Offer]:
    """The two torrents with this file's content; with `folder` their content is a directory.

    Raises:
        OSError: the file cannot be looked at.
    """
    suffix = "" if folder else path.suffix
    name = f"{artist} - {title}".replace("/", "_").replace("\0", "")
    name = name.encode()[:_NAME_BYTES].decode(errors="ignore") + suffix
    size = path.stat().st_size
    return [
        Offer(
            info_hash=_info_hash(f"{name}\0{path}\0{second}"),
            name=name,
            path=path,
            size_bytes=size,
            titles=titles,
            second=second,
        )
        for second in (False, True)
    ]


def _info_hash(seed: str) -> str:
    return hashlib.sha1(seed.encode(), usedforsecurity=False).hexdigest()
