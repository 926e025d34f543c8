"""Torrentino's cache of the torrents that its searches found (reference, 1.5).

The reference specifies the file list and little else of an entry; the rest is our assumption.
The cache lives as long as this object: it survives `Standin.restart`, but not the process.
"""

from __future__ import annotations

from services.local.torrentino.offers import Offer
from services.local.torrentino.timestamps import zulu_now


class Catalog:
    """The torrents found, by info-hash; with files where the listing was fetched."""

    def __init__(self) -> None:
        self._entries: dict[str, dict[str, object]] = {}

    def saw(self, offer: Offer) -> None:
        """Record a search result; a fetched listing is kept, a result without a hash is not."""
        if not offer.magnetic:
            return
        known = self._entries.get(offer.info_hash, {})
        entry = {
            "info_hash": offer.info_hash,
            "title": offer.title,
            "size_bytes": offer.size_bytes,
            "category": "music",
            "first_seen_at": known.get("first_seen_at", zulu_now()),
            "last_seen_at": zulu_now(),
            "seen_count": int(str(known.get("seen_count", 0))) + 1,
        }
        if offer.listing:
            entry["files"] = [{"path": path, "size_bytes": size} for path, size in offer.listing]
        elif "files" in known:
            entry["files"] = known["files"]
        self._entries[offer.info_hash] = entry

    def get(self, info_hash: str) -> dict[str, object] | None:
        """One entry, or None if no search found it."""
        return self._entries.get(info_hash)

    def query(self, words: str) -> list[dict[str, object]]:
        """The entries whose title has all of these words."""
        wanted = words.casefold().split()
        return [
            entry
            for entry in self._entries.values()
            if all(word in str(entry["title"]).casefold() for word in wanted)
        ]

    def remove(self, info_hash: str) -> bool:
        """Remove one entry; false if it does not exist."""
        return self._entries.pop(info_hash, None) is not None

    def clear(self) -> None:
        """Remove all entries."""
        self._entries.clear()

    def stats(self) -> dict[str, object]:
        """The number of torrents and of known files."""
        listings = [entry["files"] for entry in self._entries.values() if "files" in entry]
        return {
            "total_torrents": len(self._entries),
            "total_files": sum(len(files) for files in listings if isinstance(files, list)),
        }
