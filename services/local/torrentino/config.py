"""How a stand-in behaves when nothing is wrong."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeAlias

Client: TypeAlias = Literal["librqbit", "qbittorrent"]


@dataclass(frozen=True, kw_only=True)
class StandinConfig:
    """The settings of one stand-in; `Faults` holds what goes wrong."""

    host: str = "127.0.0.1"
    port: int = 0  # 0: a free one, kept over `Standin.restart`
    api_key: str | None = None  # None: auth method `none`
    database: Path | None = None  # SQLite file, so that tickets survive the process; None: memory
    client: Client = "qbittorrent"  # whose dialect the torrent routes speak
    # Where torrents lie, as `<downloads>/<torrent's folder>`. None: they say "/downloads", and
    # lie nowhere.
    downloads: Path | None = None
    save_path: str | None = None  # how the client calls that place; None: by its name
    acquire_s: float = 0.05  # one ticket at a time, as the real one
    download_s: float = 0.2
    convert_s: float = 0.02
    place_s: float = 0.02
    tick_s: float = 0.02  # the orchestrator's beat: the real one's 3 to 5 s polls
    # A new torrent is checked for so long: zeros lie on disk, its progress runs up to 1.0 within
    # the first half, and drops to 0 at the end. qBittorrent says `checking` once more, and as
    # long, while it moves what is finished to its place.
    checking_s: float = 0.05
    metadata_s: float = 0.02  # until a magnet that has seeders gets its metadata
    magnet_timeout_s: float = 0.3  # how long librqbit waits for that of one that has none
    active_downloads: int = 3  # qBittorrent's, dead ones included; librqbit has no such limit
    # A search lists wrong releases beside each right one, with more seeders: a live version, a
    # tribute, an instrumental, a karaoke version, another volume, and a dead seed of the same.
    # They are torrents like any other, with the same file names and other audio of this world
    # in them, so that a wrong choice shows. Where there is no other audio only the dead is there.
    decoys: bool = True
    dead_decoys: bool = True  # False: all of these but the dead seed, which takes patience
    ticket_decoys: bool = False  # what chooses for the tickets sees them too
    # True: what tickets add is shown by its real name at once, is neither checked nor queued, and
    # is not on disk before it is whole. False: as it really is, so that an approved torrent of
    # qBittorrent is called by its title and cannot be placed.
    kind_tickets: bool = True
    # Of the torrents that unkind tickets add to librqbit, those whose check is taken for the end.
    early_share: float = 0.125
    max_concurrent_downloads: int = 50
    orchestrator: bool = True  # False: tickets stay pending, status says available:false
    dashboard: bool = True  # an unknown GET answers 200 text/html instead of 404

    @property
    def shown_path(self) -> str:
        """Where the torrent client says that it saves."""
        return self.save_path or str(self.downloads or "/downloads")
