"""The calls about torrents in Torrentino's client and in its catalog of listings."""

from __future__ import annotations

import json
import re

from shared.errors import (
    AttemptFailed,
    DependencyDown,
    DownloadsError,
    ErrorType,
    InvalidRequest,
)
from shared.torrentino.answers import Answer, refused, unreadable
from shared.torrentino.http import Http, object_of, require_not_found
from shared.torrentino.model import integer_of, mappings_of
from shared.torrentino.torrent import INFO_HASH, RemoteTorrent, info_hash_of
from shared.untrusted import usable_name, usable_path

# A magnet link may be resolved for a minute before librqbit answers.
_ADD_PATIENCE_S = 75.0
# Torrentino's texts when its client does not answer, and when none is configured.
_CLIENT_AWAY = ("error sending request", "connection failed", "request timeout", "not configured")
# Asked about a torrent that it does not have, a client answers at once, however many it has.
_NO_TORRENT = "0" * 40
_LINK = re.compile(r"(?:https?|magnet):\S+")
_INDEXER_AWAY = re.compile(r"error sending request|status: (?:408|429|5\d\d)")
# librqbit does not write over files of a torrent that was removed without them.
_IN_THE_WAY = re.compile(r'allow_overwrite = false\) "([^"]+)"')
# A longer listing is cut.
_MOST_FILES = 10_000


class NotAdded(AttemptFailed):
    """The torrent client does not take this torrent; another one may do.

    `lies_at`: the first of its files that lies there already, and is not written over.
    """

    def __init__(self, message: str, *, lies_at: str | None) -> None:
        super().__init__(ErrorType.REJECTED, message)
        self.lies_at = lies_at


class TorrentCalls:
    """What is downloaded, and what a torrent holds."""

    http: Http

    async def downloads(self) -> bool:
        """Whether a torrent client is configured at Torrentino; it may be away all the same."""
        answer = await self.http.read("/torrents/status")
        return object_of(answer, effect=False).get("configured") is True

    async def torrents(self) -> list[RemoteTorrent]:
        """All torrents that the client has, except those without a usable hash.

        Raises:
            DependencyDown: Torrentino does not answer, or (`torrent_client`) its client does not.
        """
        answer = await self.http.read("/torrents", own={500, 503})
        if answer.status != 200:
            raise _client_error(answer)
        found = []
        for each in mappings_of(object_of(answer, effect=False).get("torrents")):
            try:
                found.append(RemoteTorrent.from_json(each))
            except ValueError:
                continue
        return [torrent for torrent in found if torrent.info_hash is not None]

    async def add_torrent(self, link: str, *, folder: str) -> str | None:
        """Add what an `http` or `magnet` link leads to; None: the client does not tell its hash.

        `folder` is where it is to be saved, as the client sees it; librqbit takes no notice of it.
        Adding what is there already changes nothing, so it may be repeated.

        Raises:
            NotAdded: the link is dead, or the client does not take what it leads to.
            DependencyDown: Torrentino does not answer, or its client (`torrent_client`) or the
                indexer (`searcher`) does not.
            OutcomeUnknown: it may have been added.
        """
        if link.startswith("magnet:"):
            path, body = "/torrents/add/magnet", {"uri": link, "download_path": folder}
        else:
            path, body = "/torrents/add/url", {"url": link, "download_path": folder}
        answer = await self.http.effect(
            "POST",
            path,
            body=json.dumps(body).encode("ascii"),
            own={400, 500, 502, 503},
            patience_s=_ADD_PATIENCE_S,
        )
        if answer.status == 200:
            return info_hash_of(object_of(answer, effect=True).get("hash"))
        # A link's host that is away (502) has a text of the same kind.
        if answer.status in (500, 503) and _is_away(answer):
            raise _client_error(answer)
        if answer.status == 503 or answer.error is None:
            raise refused(answer, effect=True)
        # The link itself is a secret, whatever it is made of.
        text = _LINK.sub("(the link)", answer.text)
        if answer.status == 502 and _INDEXER_AWAY.search(text):
            raise DependencyDown("searcher", f"an indexer gives out no .torrent: {text}")
        lies_at = _IN_THE_WAY.search(text)
        raise NotAdded(
            f"the torrent client does not take it: {text}",
            lies_at=lies_at and usable_path(lies_at[1]),
        )

    async def torrent(self, info_hash: str) -> RemoteTorrent | None:
        """The torrent with this hash, or None when the client has none."""
        if not INFO_HASH.fullmatch(info_hash):
            return None
        answer = await self.http.read(f"/torrents/{info_hash}", own={404, 500, 503})
        if answer.status == 404:
            require_not_found(answer, effect=False)
            return None
        if answer.status != 200:
            raise _client_error(answer)
        return _torrent(answer, object_of(answer, effect=False))

    async def client_answers(self) -> None:
        """Return when the torrent client answers.

        Raises:
            DependencyDown: Torrentino does not answer, or (`torrent_client`) its client does not.
        """
        await self.torrent(_NO_TORRENT)

    async def client_works(self) -> None:
        """As `client_answers`, and its torrents can be listed.

        Raises:
            DependencyDown: as `client_answers`.
        """
        await self.client_answers()
        await self.torrents()

    async def catalog_files(self, info_hash: str) -> list[tuple[str, int]] | None:
        """Path (with the torrent's root folder) and size of its files; None: not known there.

        Only files with usable names, and at most 10,000.
        """
        if not INFO_HASH.fullmatch(info_hash):
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
            DependencyDown: Torrentino does not answer, or (`torrent_client`) its client does not.
        """
        if not INFO_HASH.fullmatch(info_hash):
            raise InvalidRequest(f"{info_hash[:80]!r} is not the hash of a torrent")
        path = f"/torrents/{info_hash}?delete_files={'true' if delete_files else 'false'}"
        answer = await self.http.effect("DELETE", path, body=None, own={404, 500, 503})
        if answer.status == 404:
            require_not_found(answer, effect=True)
        elif answer.status in (500, 503) and _is_away(answer):
            raise _client_error(answer)
        elif answer.status in (500, 503):
            raise refused(answer, effect=True)
        else:
            object_of(answer, effect=True)


def _is_away(answer: Answer) -> bool:
    text = answer.text.lower()
    return any(words in text for words in _CLIENT_AWAY)


def _client_error(answer: Answer) -> DownloadsError:
    """What a call about torrents means that did not succeed; a 503 may be of Torrentino itself."""
    if answer.status == 503 and not _is_away(answer):
        return refused(answer, effect=False)
    return DependencyDown("torrent_client", f"does not answer: {answer.text}")


def _torrent(answer: Answer, body: object) -> RemoteTorrent:
    try:
        return RemoteTorrent.from_json(body)
    except ValueError as exc:
        raise unreadable(answer, exc, effect=False) from exc
