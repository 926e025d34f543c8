"""A stand-in for Quentin Torrentino: the same HTTP API, flaws included, over made-up torrents.

It serves the routes, states, bodies and races that are written down in the reference of the real
server, in the dialect of either of its torrent clients; `make run` uses it for newcomers, the
tests use it to provoke what the real one does on bad days. What it does not do:

* convert by itself: `output_constraints` are validated and echoed, but the automatic pipeline
  delivers every file byte for byte (`/pipeline/process` does convert, with ffmpeg);
* text analysis, external catalogs, `/torrents/add/file`, `/torrents/{hash}/recheck`: unknown
  routes here;
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
