"""The torrent client: the torrents that searches offered, and its downloads.

It continues over a restart of Torrentino, and has no notion of tickets: two tickets for one
torrent share it.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from services.local.torrentino import payload
from services.local.torrentino.config import StandinConfig
from services.local.torrentino.database import Database, Row
from services.local.torrentino.faults import Faults
from services.local.torrentino.links import Magnet
from services.local.torrentino.offers import Offer, unknown_offer
from services.local.torrentino.progress import Progress
from services.local.torrentino.torrent import Phase, Torrent

_API = "http://127.0.0.1:8081/api/v2"


class ClientError(Exception):
    """The client refuses or is unavailable; the text is Torrentino's."""


@dataclass(frozen=True, kw_only=True)
class ByHand:
    """How a torrent is added by hand, that is without a ticket."""

    magnet: Magnet | None = None  # None: by its .torrent
    download_path: str | None = None
    category: str | None = None
    paused: bool = False

    @property
    def lost(self) -> bool:
        """Whether no peer can be found for the metadata: the stand-in has no DHT."""
        return self.magnet is not None and not self.magnet.trackers


class Torrents:
    """All torrents, in the order in which they were added."""

    def __init__(self, faults: Faults, config: StandinConfig, database: Database) -> None:
        self._faults = faults
        self._config = config
        self._database = database
        self._written: dict[str, Row] = {}
        self._offers: dict[str, Offer] = {}
        self._torrents: dict[str, Torrent] = {}
        self.kept: dict[str, bool] = {}  # removed without files: whether whole
        self._advanced_at = time.monotonic()
        self._progress = Progress(faults, config)

    def require(self, what: str) -> None:
        """Return if the client is available.

        Raises:
            ClientError: it is not; the text names the call `what`.
        """
        if self._faults.client_away:
            url = f"{_API}/torrents/{what}"
            raise ClientError(f"API error: error sending request for url ({url})")

    def offer(self, offer: Offer) -> None:
        """Make a later `add` of its info-hash possible."""
        self._offers[offer.info_hash] = offer

    def offered(self, info_hash: str) -> Offer | None:
        """The offer of a ticket's search with this hash."""
        return self._offers.get(info_hash)

    def add(self, info_hash: str, *, progress: float = 0.0) -> Torrent | None:
        """Start a ticket's download, or join an existing one; None for an unknown hash.

        Raises:
            ClientError: it cannot be added.
        """
        offer = self._offers.get(info_hash)
        if offer is None:
            return None
        self.require("add")
        self.advance()
        torrent = self._torrents.get(info_hash)
        if torrent is None or (torrent.kind and torrent.done and self._progress.halted(torrent)):
            torrent = self._for_ticket(offer)
            torrent.loaded = progress
            self._torrents[info_hash] = torrent
        return torrent

    def add_by_hand(self, offer: Offer, how: ByHand) -> Torrent:
        """Start a download without a ticket; an existing one stays as it is.

        Raises:
            ClientError: it cannot be added.
        """
        self.require("add")
        self.advance()
        if offer.info_hash in self._torrents:
            return self._torrents[offer.info_hash]
        if self._faults.fate(offer.titles) == "add_failed":
            raise ClientError("API error: Failed to add torrent: it is of no use")
        if how.lost and self._config.client == "librqbit":
            raise ClientError("API error: Failed to add torrent: no known way to resolve peers")
        torrent = self._made(
            replace(offer, dead=True) if how.lost else offer,
            download_path=how.download_path,
            metadata=how.magnet is None,
            title=None if how.magnet is None else how.magnet.name,
        )
        torrent.category, torrent.paused = how.category, how.paused
        self._torrents[offer.info_hash] = torrent
        self._progress.promote(self.every())
        self._save()
        return torrent

    def get(self, info_hash: str) -> Torrent | None:
        """The torrent with that hash; for an empty hash the first of all, as in qBittorrent."""
        if info_hash == "":
            return next(iter(self._torrents.values()), None)
        return self._torrents.get(info_hash)

    def remove(self, info_hash: str, *, with_files: bool = False) -> bool:
        """Remove it, with its data if `with_files`; false if there is none.

        The songs' and torrents' source files are never touched.
        """
        torrent = self._torrents.pop(info_hash, None)
        if torrent is None:
            return False
        self._save()
        self.kept.pop(info_hash, None)
        if not with_files:
            self.kept[info_hash] = torrent.done
        elif torrent.folder is not None:
            payload.remove(torrent.offer.files, torrent.folder)
        return True

    def forget(self, info_hash: str) -> None:
        """Lose a torrent, as a client that was set up again does; its files stay.

        Raises:
            KeyError: there is none.
        """
        del self._torrents[info_hash]
        self._save()

    def break_down(self, info_hash: str) -> None:
        """Put a torrent into a permanent error.

        Raises:
            KeyError: there is none.
        """
        torrent = self._torrents[info_hash]
        torrent.broken, torrent.speed_bps = True, 0

    def every(self) -> list[Torrent]:
        return list(self._torrents.values())

    def early(self, torrent: Torrent) -> bool:
        """Whether the ticket monitor takes the check of this new torrent for its completion."""
        if torrent.done or torrent.kind:
            return False
        if self._faults.fate(torrent.offer.titles) == "zeros":
            return True
        share = int(torrent.offer.info_hash[:8], 16) / 2**32
        unkind = self._config.client == "librqbit" and not self._config.kind_tickets
        return unkind and share < self._config.early_share

    def restore(self, find: Callable[[str], Offer | None]) -> None:
        """At the start of the process: restore the torrents in the database; `find` gives offers.

        Torrents of tickets with `kind_tickets` are not stored. One that was not whole starts again.
        """
        for row in sorted(self._database.torrents(), key=lambda row: int(row["added_ns"])):
            offer = find(row["id"]) or unknown_offer(row["id"])
            torrent = Torrent(
                offer=replace(offer, dead=True) if row["lost"] else offer,
                client=self._config.client,
                save_path=row["save_path"],
                folder=None if row["folder"] is None else Path(row["folder"]),
                checking_s=self._config.checking_s,
                phase=Phase.WHOLE if row["whole"] else Phase.WAITING,
                title=row["title"],
                metadata=row["metadata"],
                loaded=float(row["whole"]),
                added_ns=row["added_ns"],
                completed_ns=row["completed_ns"],
                category=row["category"],
                paused=row["paused"],
            )
            if torrent.metadata and not torrent.done:
                self._progress.begin(torrent)
            self._torrents[offer.info_hash] = torrent
        self.restarted()
        self._save()

    def _save(self) -> None:
        """Store the changed torrents, except those that tickets restore by themselves."""
        if not self._database.durable:
            return
        rows: dict[str, Row] = {
            each.offer.info_hash: each.row() for each in self._torrents.values() if not each.kind
        }
        changed = [row for key, row in rows.items() if self._written.get(key) != row]
        gone = self._written.keys() - rows.keys()
        if changed or gone:
            self._database.save_torrents(changed, gone)
            self._written = rows

    def restarted(self) -> None:
        """After a restart of Torrentino: librqbit, a part of it, checks all torrents."""
        if self._config.client == "librqbit":
            for torrent in self._torrents.values():
                if torrent.metadata and not torrent.kind and torrent.phase is not Phase.CHECKING:
                    torrent.resume = torrent.phase
                    torrent.enter(Phase.CHECKING)

    def advance(self) -> None:
        """Advance every download by the time since the last call."""
        now = time.monotonic()
        elapsed, self._advanced_at = now - self._advanced_at, now
        if self._faults.client_away:
            return
        self._progress.advance(self.every(), elapsed)
        self._save()

    def _for_ticket(self, offer: Offer) -> Torrent:
        kind = self._config.kind_tickets
        if kind and self._faults.fate(offer.titles) != "zeros":
            self._require_room(offer, self._config.downloads)
            return Torrent(
                offer=offer,
                client=self._config.client,
                save_path=self._config.shown_path,
                folder=self._config.downloads,
                checking_s=self._config.checking_s,
                phase=Phase.DOWNLOADING,
                kind=True,
            )
        return self._made(offer, title=None if kind else offer.title)

    def _made(
        self,
        offer: Offer,
        *,
        download_path: str | None = None,
        metadata: bool = True,
        title: str | None = None,
    ) -> Torrent:
        """A new torrent; librqbit has one save path only, and always the real name."""
        config = self._config
        qbittorrent = config.client == "qbittorrent"
        other = download_path if qbittorrent else None
        torrent = Torrent(
            offer=offer,
            client=config.client,
            save_path=other or config.shown_path,
            folder=Path(other) if other and config.downloads else config.downloads,
            checking_s=config.checking_s,
            phase=Phase.WAITING,
            title=title if qbittorrent else None,
            metadata=metadata,
            found=self.kept.get(offer.info_hash, False),
        )
        if metadata or offer.seeded:
            self._require_room(offer, torrent.folder)
        if metadata:
            self._progress.begin(torrent)
        return torrent

    def _require_room(self, offer: Offer, folder: Path | None) -> None:
        """librqbit refuses a torrent whose files exist already."""
        if self._config.client != "librqbit":
            return
        if folder is not None:
            taken = payload.first_there(offer.files, folder)
        else:
            taken = Path(offer.name) if offer.info_hash in self.kept else None
        if taken is not None:
            raise ClientError(
                "API error: Failed to add torrent: error creating a new file"
                f' (because allow_overwrite = false) "{taken}"'
            )
