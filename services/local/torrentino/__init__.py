"""A stand-in for Quentin Torrentino: the same HTTP API, with its flaws, over made-up torrents.

It serves the routes, states, bodies and races of the real server's reference, and behaves like
either of its torrent clients. `make run` shows it to newcomers; the tests use it to provoke the
real server's failures. It does not

* convert by itself: `output_constraints` are validated and echoed, but the automatic pipeline
  delivers every file byte for byte (`/pipeline/process` converts, with ffmpeg);
* have text analysis, external catalogs, `/torrents/add/file` or `/torrents/{hash}/recheck`: these
  routes are unknown;
* time out a stalled download by itself (the fates `failover` and `download_stalled` do that).

Times are scaled: what takes the real server minutes takes `StandinConfig`'s fractions of a second.
"""

from __future__ import annotations

from services.local.torrentino.config import StandinConfig
from services.local.torrentino.content import Song, TorrentFile, TorrentSpec, folder_name
from services.local.torrentino.faults import FATES, Faults
from services.local.torrentino.links import SECRET_KEY
from services.local.torrentino.server import Standin
from services.local.torrentino.source import SongList, Source

__all__ = [
    "FATES",
    "SECRET_KEY",
    "Faults",
    "Song",
    "SongList",
    "Source",
    "Standin",
    "StandinConfig",
    "TorrentFile",
    "TorrentSpec",
    "folder_name",
]
