"""One torrent in the client, as each of the two clients reports it."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from enum import Enum, auto
from pathlib import Path

from services.local.torrentino.config import Client
from services.local.torrentino.offers import Offer
from services.local.torrentino.timestamps import now_ns, zulu_form


class Phase(Enum):
    """The phase of a torrent; a client need not pass through all of them."""

    WAITING = auto()  # for one of qBittorrent's active slots
    METADATA = auto()  # a magnet that does not know its files yet
    CHECKING = auto()  # the data on disk; for a new torrent nothing or zeros
    DOWNLOADING = auto()
    MOVING = auto()  # whole, and being moved to its place
    WHOLE = auto()


LOADING = frozenset({Phase.METADATA, Phase.DOWNLOADING})
_STATES = {
    Phase.WAITING: "queued",
    Phase.METADATA: "downloading",
    Phase.CHECKING: "checking",
    Phase.MOVING: "checking",
}


@dataclass(kw_only=True)
class Torrent:
    """One download; its data is at `<folder>/<offer.name>`, whatever its shown name is."""

    offer: Offer
    client: Client
    save_path: str  # as the client shows it
    folder: Path | None  # the path of that here; None: nothing is written
    checking_s: float  # how long a check takes
    phase: Phase
    kind: bool = False  # added by a ticket with `StandinConfig.kind_tickets`
    title: str | None = None  # qBittorrent's name for it, from the magnet
    metadata: bool = True
    found: bool = False  # its data was on disk when it was added
    resume: Phase | None = None  # the phase after a check that a restart caused
    spent_s: float = 0.0  # in this phase
    loaded: float = 0.0  # the downloaded share
    added_ns: int = field(default_factory=now_ns)
    speed_bps: int = 0
    completed_ns: int | None = None
    category: str | None = None
    paused: bool = False
    broken: bool = False  # in a permanent error

    @property
    def done(self) -> bool:
        """Whether all of its data is in its place."""
        return self.phase is Phase.WHOLE

    @property
    def loading(self) -> bool:
        """Whether it occupies one of qBittorrent's active slots."""
        return self.phase in LOADING and not (self.kind or self.paused or self.broken)

    @property
    def name(self) -> str:
        if not self.metadata:
            placeholder = f"torrent-{self.offer.info_hash[:8]}"
            other = self.title or self.offer.info_hash
            return placeholder if self.client == "librqbit" else other
        return self.offer.name if self.title is None else self.title

    @property
    def path(self) -> str:
        """Where Torrentino expects its file or folder."""
        return f"{self.save_path}/{self.name}"

    @property
    def state(self) -> str:
        if self.broken:
            return "error"
        if self.paused:
            return "paused"
        if self.phase in _STATES:
            return _STATES[self.phase]
        if self.done:
            # qBittorrent reports seeding without a peer as a stall too
            return "stalled" if self.client == "qbittorrent" and not self.kind else "seeding"
        return "downloading" if self.speed_bps or self.client == "librqbit" else "stalled"

    @property
    def eta_s(self) -> int | None:
        if not self.speed_bps:
            return None
        return math.ceil((1.0 - self.loaded) * self.offer.size_bytes / self.speed_bps)

    @property
    def progress(self) -> float:
        """0 to 1; during a check, the progress of the check."""
        if self.phase is Phase.CHECKING:
            return min(1.0, 2 * self.spent_s / self.checking_s) if self.checking_s > 0 else 1.0
        return self.loaded

    def enter(self, phase: Phase) -> None:
        """Begin another phase."""
        self.phase, self.spent_s = phase, 0.0

    def spend(self, elapsed: float, needed_s: float) -> float:
        """Spend time in a phase that takes `needed_s`; return the rest, negative if too little."""
        self.spent_s += max(0.0, elapsed)
        return self.spent_s - needed_s

    def json(self) -> dict[str, object]:
        """TorrentInfo, as the API shows it."""
        size = self.offer.size_bytes if self.metadata else 0
        shown: dict[str, object] = {
            "hash": self.offer.info_hash,
            "name": self.name,
            "state": self.state,
            "progress": self.progress,
            "size_bytes": size,
            "downloaded_bytes": int(size * self.progress),
            "uploaded_bytes": 0,
            "download_speed": self.speed_bps,
            "upload_speed": 0,
            "seeders": self.offer.seeders if self.offer.seeded and self.metadata else 0,
            "leechers": 1,
            "ratio": 0.0,
            "save_path": self.save_path,
            "upload_limit": 0,
            "download_limit": 0,
        }
        if self.eta_s is not None:
            shown["eta_secs"] = self.eta_s
        return shown if self.client == "librqbit" else shown | self._more()

    def row(self) -> dict[str, object]:
        """The fields to store in the database."""
        return {
            "id": self.offer.info_hash,
            "title": self.title,
            "save_path": self.save_path,
            "folder": None if self.folder is None else str(self.folder),
            "category": self.category,
            "paused": self.paused,
            "whole": self.done,
            "metadata": self.metadata,
            "lost": self.offer.dead,
            "added_ns": self.added_ns,
            "completed_ns": self.completed_ns,
        }

    def _more(self) -> dict[str, object]:
        """The fields that only qBittorrent has; its times are whole seconds."""
        more: dict[str, object] = {"added_at": _second(self.added_ns)}
        if self.completed_ns is not None:
            more["completed_at"] = _second(self.completed_ns)
        if self.category is not None:
            more["category"] = self.category
        return more


def _second(moment_ns: int) -> str:
    return zulu_form(moment_ns // 10**9 * 10**9)
