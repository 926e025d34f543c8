"""A stand-in for Quentin Torrentino: the same HTTP API, flaws included, over made-up torrents.

It serves the routes, states, bodies and races that are written down in the reference of the real
server; `make run` uses it for newcomers, the tests use it to provoke what the real one does on
bad days. What it does not do:

* convert: `output_constraints` are validated and echoed, but every file is delivered byte for byte;
* search, text analysis, catalogs, adding torrents, `/pipeline/process`: unknown routes here;
* time out a stalled download by itself (the fates `failover` and `download_stalled` do that).

Times are scaled: what takes the real server minutes takes `StandinConfig`'s fractions of a second.
"""

from __future__ import annotations

from shared.local.torrentino.config import Song, SongList, Source, StandinConfig
from shared.local.torrentino.faults import FATES, Faults
from shared.local.torrentino.server import Standin

__all__ = ["FATES", "Faults", "Song", "SongList", "Source", "Standin", "StandinConfig"]
