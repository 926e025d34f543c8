"""The progress of torrents over time: their phases, and their data on disk."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence

from services.local.torrentino import payload
from services.local.torrentino.config import StandinConfig
from services.local.torrentino.faults import Faults
from services.local.torrentino.timestamps import now_ns
from services.local.torrentino.torrent import Phase, Torrent

_LOG = logging.getLogger(__name__)
_HALF_WAY = 0.5
_HALTED = frozenset({"stuck_downloading", "download_stalled", "failover"})


class Progress:
    """Advances torrents; a step takes the seconds it may use, and returns the rest."""

    def __init__(self, faults: Faults, config: StandinConfig) -> None:
        self._faults = faults
        self._config = config
        self._steps: dict[Phase, Callable[[Torrent, float], float]] = {
            Phase.WAITING: lambda _torrent, _elapsed: 0.0,
            Phase.METADATA: self._resolve,
            Phase.CHECKING: self._check,
            Phase.DOWNLOADING: self._load,
            Phase.MOVING: self._move,
            Phase.WHOLE: lambda _torrent, _elapsed: 0.0,
        }

    def begin(self, torrent: Torrent) -> None:
        """Start with a check of the data on disk: complete, or zeros from now on."""
        if torrent.folder is not None:
            torrent.found = payload.is_whole(torrent.offer.files, torrent.folder)
        if not torrent.found:
            self._on_disk(torrent, share=0.0)
        torrent.enter(Phase.CHECKING)

    def halted(self, torrent: Torrent) -> bool:
        """Whether a fate stops it half-way."""
        fate = self._faults.fate(torrent.offer.titles)
        return fate in _HALTED and not (fate == "failover" and torrent.offer.second)

    def advance(self, torrents: Sequence[Torrent], elapsed: float) -> None:
        """Advance all torrents by `elapsed` seconds."""
        for torrent in torrents:
            self._advance(torrent, elapsed)
        self.promote(torrents)

    def _advance(self, torrent: Torrent, elapsed: float) -> None:
        """Advance one torrent, through as many phases as the time suffices for."""
        phase = None
        while phase is not torrent.phase and not (torrent.paused or torrent.broken):
            phase = torrent.phase
            elapsed = self._steps[phase](torrent, elapsed)

    def promote(self, torrents: Sequence[Torrent]) -> None:
        """Start waiting torrents in free slots, the oldest first."""
        free = self._config.active_downloads
        unlimited = self._config.client == "librqbit"
        free -= sum(torrent.loading for torrent in torrents)
        for torrent in torrents:
            if (
                torrent.phase is Phase.WAITING
                and not (torrent.paused or torrent.broken)
                and (unlimited or free > 0)
            ):
                free -= 1
                torrent.enter(Phase.DOWNLOADING if torrent.metadata else Phase.METADATA)
                if torrent.metadata:
                    self._on_disk(torrent, share=_HALF_WAY if torrent.offer.seeded else 0.0)

    def _resolve(self, torrent: Torrent, elapsed: float) -> float:
        if not torrent.offer.seeded:
            return 0.0
        left_s = torrent.spend(elapsed, self._config.metadata_s)
        if left_s >= 0:
            torrent.metadata = True
            self.begin(torrent)
        return left_s

    def _check(self, torrent: Torrent, elapsed: float) -> float:
        left_s = torrent.spend(elapsed, self._config.checking_s)
        if left_s < 0:
            return left_s
        if torrent.resume is not None:
            torrent.enter(torrent.resume)
            torrent.resume = None
        elif torrent.found:
            torrent.loaded = 1.0
            self._end(torrent)
        else:
            torrent.enter(Phase.WAITING)
        return left_s

    def _load(self, torrent: Torrent, elapsed: float) -> float:
        download_s = self._config.download_s
        before = torrent.loaded
        share = elapsed / download_s if download_s > 0 else 1.0
        reached = max(before, min(self._limit(torrent), before + share))
        moving = before < reached < 1.0
        rate = torrent.offer.size_bytes / download_s if download_s > 0 else 0.0
        torrent.speed_bps = max(1, int(rate)) if moving else 0
        torrent.loaded = reached if reached < 1.0 else before
        if reached < 1.0:
            return 0.0
        if self._config.client == "qbittorrent" and not torrent.kind:
            torrent.loaded = 1.0
            torrent.enter(Phase.MOVING)
        elif self._saved(torrent):
            torrent.loaded = 1.0
            self._end(torrent)
        return max(0.0, elapsed - (1.0 - before) * download_s)

    def _move(self, torrent: Torrent, elapsed: float) -> float:
        left_s = torrent.spend(elapsed, self._config.checking_s)
        if left_s >= 0 and self._saved(torrent):
            self._end(torrent)
        return left_s

    def _end(self, torrent: Torrent) -> None:
        torrent.enter(Phase.WHOLE)
        torrent.speed_bps, torrent.completed_ns = 0, now_ns()

    def _limit(self, torrent: Torrent) -> float:
        if not torrent.offer.seeded:
            return 0.0
        return _HALF_WAY if self.halted(torrent) else 1.0

    def _on_disk(self, torrent: Torrent, *, share: float) -> None:
        if torrent.folder is not None:
            folder = torrent.folder
            self._write(torrent, lambda: payload.begin(torrent.offer.files, folder, share=share))

    def _saved(self, torrent: Torrent) -> bool:
        """Write its data to its save path; false if that fails."""
        if torrent.folder is not None:
            folder = torrent.folder
            self._write(torrent, lambda: payload.write(torrent.offer.files, folder))
        return not torrent.broken

    def _write(self, torrent: Torrent, writing: Callable[[], None]) -> None:
        try:
            writing()
        except OSError as exc:
            _LOG.warning("the torrent %s cannot be written: %s", torrent.offer.name, exc)
            torrent.broken, torrent.speed_bps = True, 0
