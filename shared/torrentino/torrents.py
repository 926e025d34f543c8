"""The calls about torrents in Torrentino's client and in its catalog of listings."""

from __future__ import annotations

import re
from urllib.parse import quote

from shared.errors import InvalidRequest
from shared.torrentino.answers import Answer, unreadable
from shared.torrentino.http import Http, object_of, require_not_found
from shared.torrentino.model import integer_of, mappings_of
from shared.torrentino.names import usable_name
from shared.torrentino.torrent import RemoteTorrent

# Not only hexadecimal, but long: "all" would make qBittorrent delete every torrent it has.
_INFO_HASH = re.compile(r"[0-9A-Za-z]{20,64}", re.ASCII)
# A listing beyond it is none that one could look through.
_MOST_FILES = 10_000


class TorrentCalls:
    """What is downloaded, and what a torrent holds."""

    http: Http

    async def torrent(self, info_hash: str) -> RemoteTorrent | None:
        """The torrent with this hash, or None when the client has none."""
        if not _INFO_HASH.fullmatch(info_hash):
            return None
        answer = await self.http.read(f"/torrents/{info_hash}", own={404})
        if answer.status == 404:
            require_not_found(answer, effect=False)
            return None
        return _torrent(answer, object_of(answer, effect=False))

    async def torrent_named(self, name: str) -> str | None:
        """The hash of the one torrent with exactly this name; None for none, and for several."""
        answer = await self.http.read(f"/torrents?search={quote(name, safe='')}")
        found = {
            each.get("hash")
            for each in mappings_of(object_of(answer, effect=False).get("torrents"))
            if each.get("name") == name
        }
        hashes = [each for each in found if isinstance(each, str) and _INFO_HASH.fullmatch(each)]
        return hashes[0] if len(found) == len(hashes) == 1 else None

    async def catalog_files(self, info_hash: str) -> list[tuple[str, int]] | None:
        """Path (with the torrent's root folder) and size of its files; None: not known there.

        Only files with names that one can go by, and at most 10,000.
        """
        if not _INFO_HASH.fullmatch(info_hash):
            return None
        answer = await self.http.read(f"/catalog/{info_hash}", own={404})
        if answer.status == 404:
            require_not_found(answer, effect=False)
            return None
        files = mappings_of(object_of(answer, effect=False).get("files"))
        listed = [
            (path, integer_of(each.get("size_bytes")) or 0)
            for each in files[:_MOST_FILES]
            if (path := usable_name(each.get("path"))) is not None
        ]
        return listed or None

    async def remove_torrent(self, info_hash: str, *, delete_files: bool) -> None:
        """Take a torrent out of Torrentino's client; fine when it has none with this hash.

        Raises:
            InvalidRequest: `info_hash` is not the hash of one torrent.
        """
        if not _INFO_HASH.fullmatch(info_hash):
            raise InvalidRequest(f"{info_hash[:80]!r} is not the hash of a torrent")
        path = f"/torrents/{info_hash}?delete_files={'true' if delete_files else 'false'}"
        answer = await self.http.effect("DELETE", path, body=None, own={404})
        if answer.status == 404:
            require_not_found(answer, effect=True)
        else:
            object_of(answer, effect=True)


def _torrent(answer: Answer, body: object) -> RemoteTorrent:
    try:
        return RemoteTorrent.from_json(body)
    except ValueError as exc:
        raise unreadable(answer, exc, effect=False) from exc
