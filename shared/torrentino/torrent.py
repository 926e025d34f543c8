"""A torrent in Torrentino's client."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

from shared.redaction import redact
from shared.torrentino.model import integer_of, mapping_of, number_of, timestamp_of
from shared.untrusted import usable_name, usable_path

_MAX_TITLE_CHARS = 500
_MAX_STATE_CHARS = 40

# Not only hexadecimal, but long: "all" would make qBittorrent delete every torrent it has.
INFO_HASH = re.compile(r"[0-9A-Za-z]{20,64}", re.ASCII)
# Reference (live, 3.3): in any other state a progress of 1.0 may be that of a check.
_WHOLE_STATES = frozenset({"seeding", "stalled", "paused", "queued"})


@dataclass(frozen=True, kw_only=True)
class RemoteTorrent:
    """A torrent as Torrentino's client last showed it."""

    # In small letters; None: none that can be used.
    info_hash: str | None
    # To be shown: redacted and bounded.
    title: str
    # Of its data, a folder or the only file, as Torrentino sees it; None: it shows none that can
    # be used. What qBittorrent took from a magnet link may have another name on disk.
    path: str | None
    # The folder that file names of the torrent, root folder included, are relative to.
    save_path: str | None
    progress: float
    # None, and 0 before its metadata is there.
    size_bytes: int | None
    state: str
    speed_bps: int | None = None
    eta_s: int | None = None
    seeders: int | None = None
    # When the client got it, in whole seconds; None with librqbit, which does not tell.
    added_at: datetime | None = None

    @property
    def whole(self) -> bool:
        """Whether all of its data is there, by this one answer."""
        return self.progress >= 1.0 and self.state in _WHOLE_STATES

    @classmethod
    def from_json(cls, data: object) -> RemoteTorrent:
        """Read a torrent of an answer.

        Raises:
            ValueError: it has no name or no progress.
        """
        torrent: Mapping[str, object] = mapping_of(data)
        name, progress = torrent.get("name"), number_of(torrent.get("progress"))
        if not isinstance(name, str) or progress is None:
            raise ValueError("a torrent without a name or progress")
        folder, plain = usable_path(torrent.get("save_path")), usable_name(name)
        if plain is None or "/" in plain:
            plain = None
        return cls(
            info_hash=info_hash_of(torrent.get("hash")),
            title=redact(name)[:_MAX_TITLE_CHARS],
            path=None if folder is None or plain is None else f"{folder}/{plain}",
            save_path=folder,
            progress=progress,
            size_bytes=integer_of(torrent.get("size_bytes")),
            state=redact(str(torrent.get("state")))[:_MAX_STATE_CHARS],
            speed_bps=integer_of(torrent.get("download_speed")),
            eta_s=integer_of(torrent.get("eta_secs")),
            seeders=integer_of(torrent.get("seeders")),
            added_at=timestamp_of(torrent.get("added_at")),
        )


def info_hash_of(value: object) -> str | None:
    """The hash of one torrent in small letters, or None where it is none."""
    if not isinstance(value, str) or not INFO_HASH.fullmatch(value):
        return None
    return value.lower()
