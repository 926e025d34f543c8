"""A torrent in Torrentino's client."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from shared.torrentino.model import integer_of, mapping_of, number_of, redact
from shared.torrentino.names import usable_name, usable_path

_MAX_TITLE_CHARS = 500
_MAX_STATE_CHARS = 40


@dataclass(frozen=True, kw_only=True)
class RemoteTorrent:
    """A torrent as Torrentino's client last told it."""

    # For a person: redacted and bounded.
    title: str
    # Of its data, a folder or the only file, as Torrentino sees it; None: it says none that one
    # could go by.
    path: str | None
    # The folder that file names of the torrent, root folder included, are relative to.
    save_path: str | None
    progress: float
    size_bytes: int | None
    state: str

    @property
    def complete(self) -> bool:
        """Whether all of its data is there."""
        return self.progress >= 1.0

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
            title=redact(name)[:_MAX_TITLE_CHARS],
            path=None if folder is None or plain is None else f"{folder}/{plain}",
            save_path=folder,
            progress=progress,
            size_bytes=integer_of(torrent.get("size_bytes")),
            state=redact(str(torrent.get("state")))[:_MAX_STATE_CHARS],
        )
