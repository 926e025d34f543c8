"""Torrents that our own downloads have put at the client, and that nobody needs any more.

Removed as DOWNLOAD_CLEANUP says. What was there before us is never touched.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Literal

import structlog

from services.poller.downloads_store import TorrentsStore
from services.poller.followed_torrents import followed
from shared.crashpoints import reached
from shared.errors import OutcomeUnknown, Refused
from shared.torrentino.client import TorrentinoClient
from shared.torrentino.torrent import RemoteTorrent

log = structlog.get_logger()


class Leftovers:
    """Removes them, as far as no ticket at Torrentino follows them.

    With their files, unless another torrent has its files there.
    """

    def __init__(
        self,
        store: TorrentsStore,
        client: TorrentinoClient,
        *,
        policy: Literal["keep", "wrong", "all"],
    ) -> None:
        self._store = store
        self._client = client
        self._policy = policy

    async def run_once(self) -> int:
        """Remove at most 20 torrents; returns how many.

        Raises:
            Unavailable: Torrentino or its client does not answer; what is left is removed later.
        """
        if self._policy == "keep":
            return 0
        done_with = await self._store.done_with(also_brought=self._policy == "all")
        if not done_with:
            return 0
        torrents = await self._client.torrents()
        # Somebody's ticket would be told that it was deleted, and take another torrent.
        others = await followed(self._client, done_with, but=None)
        removed = 0
        for info_hash in done_with:
            if info_hash in others:
                continue
            removed += await self._remove(info_hash, torrents)
        return removed

    async def _remove(self, info_hash: str, torrents: Collection[RemoteTorrent]) -> bool:
        mine = next((each for each in torrents if each.info_hash == info_hash), None)
        if mine is not None:
            if not await remove(self._client, mine, torrents):
                return False
            reached("leftovers.removed")
        await self._store.removed(info_hash)
        reached("leftovers.noted")
        return True


async def remove(
    client: TorrentinoClient, mine: RemoteTorrent, torrents: Collection[RemoteTorrent]
) -> bool:
    """Take a torrent out of the client, with its files where they are its alone.

    `torrents` are all that the client has. False: it may be there still.

    Raises:
        Unavailable: Torrentino or its client does not answer.
    """
    assert mine.info_hash is not None, "a list has none without"
    # qBittorrent lets two torrents write to one folder, and would delete both their files.
    alone = not any(each.path == mine.path for each in torrents if each.info_hash != mine.info_hash)
    try:
        await client.remove_torrent(mine.info_hash, delete_files=alone)
    except (OutcomeUnknown, Refused) as error:
        log.info("removal_unsettled", info_hash=mine.info_hash, detail=str(error))
        return False
    log.info("download_removed", info_hash=mine.info_hash, title=mine.title, with_files=alone)
    return True
