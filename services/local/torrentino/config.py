"""How a stand-in behaves without faults."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeAlias

Client: TypeAlias = Literal["librqbit", "qbittorrent"]


@dataclass(frozen=True, kw_only=True)
class StandinConfig:
    """The settings of one stand-in; failures are set in `Faults`."""

    host: str = "127.0.0.1"
    port: int = 0  # 0: any free port, the same after `Standin.restart`
    api_key: str | None = None  # None: auth method `none`
    database: Path | None = None  # SQLite file, so that tickets survive the process; None: memory
    client: Client = "qbittorrent"  # the client that the torrent routes simulate
    # The folder of the torrents' data, `<downloads>/<torrent's folder>`. None: the API shows
    # "/downloads", and no data is written.
    downloads: Path | None = None
    save_path: str | None = None  # the client's path for it; None: the same path
    acquire_s: float = 0.05  # one ticket at a time, as in the real server
    download_s: float = 0.2
    convert_s: float = 0.02
    place_s: float = 0.02
    tick_s: float = 0.02  # the orchestrator's poll interval; 3 to 5 s in the real one
    # How long a new torrent is checked: zeros are on disk, its progress rises to 1.0 within the
    # first half, and drops to 0 at the end. qBittorrent shows `checking` again, for as long,
    # while it moves a finished torrent to its place.
    checking_s: float = 0.05
    metadata_s: float = 0.02  # until a magnet with seeders gets its metadata
    magnet_timeout_s: float = 0.3  # how long librqbit waits for one without seeders
    active_downloads: int = 3  # in qBittorrent, dead ones included; no limit in librqbit
    # A search lists wrong releases beside each right one, with more seeders: a live version, a
    # tribute, an instrumental, a karaoke version, another volume, and a dead copy of the right one.
    # They are torrents with the same file names and other audio, so that a wrong choice is
    # detected. Where the source has no other audio, only the dead copy is listed.
    decoys: bool = True
    dead_decoys: bool = True  # False: without the dead copy, which costs a timeout
    ticket_decoys: bool = False  # the tickets' search finds them too
    # True: a torrent that a ticket added has its real name at once, is neither checked nor queued,
    # and is on disk only when it is whole. False: as in the real server, so that qBittorrent names
    # an approved torrent by its title, and it cannot be placed.
    kind_tickets: bool = True
    # With kind_tickets False and librqbit: the share of torrents whose check is taken for the end.
    early_share: float = 0.125
    max_concurrent_downloads: int = 50
    orchestrator: bool = True  # False: tickets stay pending, status says available:false
    dashboard: bool = True  # an unknown GET answers 200 text/html instead of 404

    @property
    def shown_path(self) -> str:
        """The path that the torrent client shows as its save path."""
        return self.save_path or str(self.downloads or "/downloads")
