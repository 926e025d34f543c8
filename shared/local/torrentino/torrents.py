"""The torrent client: what has been offered by searches, and what is being downloaded.

It is another process than Torrentino in the real world, so it goes on over a restart, and it
knows nothing of tickets: two tickets for one torrent share it.
"""

from __future__ import annotations

import logging
import math
import time
from dataclasses import dataclass, field
from pathlib import Path

from shared.local.torrentino import payload
from shared.local.torrentino.config import StandinConfig
from shared.local.torrentino.faults import Faults
from shared.local.torrentino.offers import Offer
from shared.local.torrentino.timestamps import now_ns, zulu_form

_LOG = logging.getLogger(__name__)
_HALF_WAY = 0.5
_HALTED = frozenset({"stuck_downloading", "download_stalled", "failover"})


@dataclass(kw_only=True)
class Torrent:
    """One download; its data lie at `<save_path>/<name>` when it is done."""

    offer: Offer
    save_path: str
    added_ns: int = field(default_factory=now_ns)
    progress: float = 0.0  # 0 to 1
    speed_bps: int = 0
    completed_ns: int | None = None
    category: str | None = None
    paused: bool = False
    broken: bool = False  # its data could not be written: it stays where it is

    @property
    def done(self) -> bool:
        return self.progress >= 1.0

    @property
    def path(self) -> str:
        """Where its file or folder is, by what the API tells."""
        return f"{self.save_path}/{self.offer.name}"

    @property
    def state(self) -> str:
        if self.broken:
            return "error"
        if self.paused:
            return "paused"
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
            "seeders": self.offer.seeders,
            "leechers": 1,
            "ratio": 0.0,
            "added_at": zulu_form(self.added_ns),
            "save_path": self.save_path,
            "upload_limit": 0,
            "download_limit": 0,
        }
        if self.eta_s is not None:
            shown["eta_secs"] = self.eta_s
        if self.completed_ns is not None:
            shown["completed_at"] = zulu_form(self.completed_ns)
        if self.category is not None:
            shown["category"] = self.category
        return shown


class Torrents:
    """All torrents, in the order in which they were added."""

    def __init__(self, faults: Faults, config: StandinConfig) -> None:
        self._faults = faults
        self._config = config
        self._offers: dict[str, Offer] = {}
        self._torrents: dict[str, Torrent] = {}
        self._looked = time.monotonic()

    def offer(self, offer: Offer) -> None:
        """Make a later `add` of its info-hash possible."""
        self._offers[offer.info_hash] = offer

    def offered(self, info_hash: str) -> Offer | None:
        """What a search has found under this hash."""
        return self._offers.get(info_hash)

    def add(self, info_hash: str, *, progress: float = 0.0) -> Torrent | None:
        """Start a download, or join one that is there; None when nobody seeds that hash."""
        offer = self._offers.get(info_hash)
        if offer is None:
            return None
        self.advance()
        torrent = self._torrents.get(info_hash)
        if torrent is None or (torrent.done and self._halted(torrent)):
            torrent = Torrent(offer=offer, save_path=self._config.save_path, progress=progress)
            self._torrents[info_hash] = torrent
        return torrent

    def add_by_hand(
        self, offer: Offer, *, save_path: str | None, category: str | None, paused: bool
    ) -> None:
        """Start a download that no ticket asked for; one that is there stays as it is."""
        self.advance()
        made = Torrent(
            offer=offer,
            save_path=save_path or self._config.save_path,
            category=category,
            paused=paused,
        )
        self._torrents.setdefault(offer.info_hash, made)

    def get(self, info_hash: str) -> Torrent | None:
        """The torrent of that hash; with an empty hash the first of all, as qBittorrent does."""
        if info_hash == "":
            return next(iter(self._torrents.values()), None)
        return self._torrents.get(info_hash)

    def remove(self, info_hash: str, *, with_files: bool = False) -> bool:
        """Forget it; false when there is none. `with_files`: and its data, where they lie.

        The songs' and torrents' source files are never touched.
        """
        torrent = self._torrents.pop(info_hash, None)
        if torrent is None:
            return False
        if with_files and torrent.done and self._config.downloads is not None:
            payload.remove(torrent.offer.files, Path(torrent.save_path))
        return True

    def every(self) -> list[Torrent]:
        return list(self._torrents.values())

    def advance(self) -> None:
        """Let the time since the last call count for every download."""
        now = time.monotonic()
        elapsed, self._looked = now - self._looked, now
        for torrent in self._torrents.values():
            if not torrent.done and not torrent.broken:
                self._advance(torrent, elapsed)

    def _advance(self, torrent: Torrent, elapsed: float) -> None:
        download_s = self._config.download_s
        share = elapsed / download_s if download_s > 0 else 1.0
        before = torrent.progress
        reached = max(before, min(self._limit(torrent), before + share))
        if reached >= 1.0 and not self._saved(torrent):
            return
        torrent.progress = reached
        moving = before < reached < 1.0
        rate = torrent.offer.size_bytes / download_s if download_s > 0 else 0.0
        torrent.speed_bps = max(1, int(rate)) if moving else 0
        if torrent.done:
            torrent.completed_ns = now_ns()

    def _limit(self, torrent: Torrent) -> float:
        if torrent.paused or torrent.offer.seeders == 0:
            return 0.0
        return _HALF_WAY if self._halted(torrent) else 1.0

    def _saved(self, torrent: Torrent) -> bool:
        """Put its data where it says that they lie; false when that cannot be done."""
        if self._config.downloads is None:
            return True
        try:
            payload.write(torrent.offer.files, Path(torrent.save_path))
        except OSError as exc:
            _LOG.warning("the torrent %s cannot be saved: %s", torrent.offer.name, exc)
            torrent.broken, torrent.speed_bps = True, 0
        return not torrent.broken

    def _halted(self, torrent: Torrent) -> bool:
        fate = self._faults.fate(torrent.offer.titles)
        return fate in _HALTED and not (fate == "failover" and torrent.offer.second)
