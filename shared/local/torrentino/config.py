"""How a stand-in behaves when nothing is wrong."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, kw_only=True)
class StandinConfig:
    """The settings of one stand-in; `Faults` holds what goes wrong."""

    host: str = "127.0.0.1"
    port: int = 0  # 0: a free one, kept over `Standin.restart`
    api_key: str | None = None  # None: auth method `none`
    database: Path | None = None  # SQLite file, so that tickets survive the process; None: memory
    # Where finished torrents lie, as `<downloads>/<torrent's name>`. None: they say "/downloads",
    # and lie nowhere.
    downloads: Path | None = None
    acquire_s: float = 0.05  # one ticket at a time, as the real one
    download_s: float = 0.2
    convert_s: float = 0.02
    place_s: float = 0.02
    tick_s: float = 0.02  # the orchestrator's beat: the real one's 3 to 5 s polls
    max_concurrent_downloads: int = 50
    orchestrator: bool = True  # False: tickets stay pending, status says available:false
    dashboard: bool = True  # an unknown GET answers 200 text/html instead of 404

    @property
    def save_path(self) -> str:
        """Where the torrent client says that it saves."""
        return str(self.downloads or "/downloads")
