"""The follower of our own downloads: one list of the torrent client's torrents serves them all.

What a download has come to is one question after the other: is it there, is it in error, is it
whole, does it move. The answer is one move of the download and its items.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Mapping, Sequence

import structlog

from services.poller.download_cleanup import remove
from services.poller.downloads_store import ACTOR, Download, TorrentsStore
from services.poller.followed_torrents import followed
from shared.backoff import RetryPolicy
from shared.bus.nats import Bus
from shared.crashpoints import reached
from shared.db.downloads import next_release
from shared.db.pool import Connection
from shared.errors import AttemptFailed, ErrorType, Unavailable
from shared.health import Health
from shared.metrics import ATTEMPTS_FAILED, DOWNLOADS_ENDED
from shared.states import REMOTE, Stage
from shared.torrentino.client import TorrentinoClient
from shared.torrentino.torrent import RemoteTorrent

log = structlog.get_logger()

_MOST = 500
# What was just added may be missing from a list or two, as what a restarted client reads again.
_MISSING_INTERVALS = 4
_MISSING_LEAST_S = 10.0
# Without metadata nobody has it: that shows sooner than a lack of progress.
_NO_METADATA_SHARE = 6
# For as long an add that was cut short may still be at work.
_ADDING_S = 90.0

By = Mapping[str, RemoteTorrent]


class Follower:
    """Looks at the downloads that are due, and moves their items on."""

    def __init__(
        self,
        *,
        store: TorrentsStore,
        client: TorrentinoClient,
        bus: Bus,
        relay_wake: asyncio.Event,
        health: Health,
        retries: RetryPolicy,
        rng: random.Random,
        max_grabs: int,
        poll_interval_s: float,
        stall_timeout_s: float,
    ) -> None:
        self._store = store
        self._client = client
        self._bus = bus
        self._relay_wake = relay_wake
        self._health = health
        self._retries = retries
        self._rng = rng
        self._max_grabs = max_grabs
        self._poll_interval_s = poll_interval_s
        self._stall_timeout_s = stall_timeout_s
        self._missing_s = max(_MISSING_LEAST_S, _MISSING_INTERVALS * poll_interval_s)

    async def run_once(self) -> int:
        """Look at every download that is due; returns 0, for what is due again is for later.

        Raises:
            Unavailable: Torrentino, its client or PostgreSQL; the downloads stay as they were.
        """
        await self._store.withdraw_orphans()
        if not await self._store.is_due():
            return 0
        torrents = {each.info_hash: each for each in await self._list() if each.info_hash}
        due = await self._store.claim(limit=_MOST)
        reached("torrents.listed")
        moved = False
        for place, download in enumerate(due):
            try:
                if download.withdrawing:
                    moved |= await self._let_go(download, torrents)
                else:
                    moved |= await self._look(download, torrents)
            except Unavailable:
                await self._store.put_off(due[place:], delay_s=self._poll_interval_s)
                raise
            except Exception:
                # One that we cannot cope with must not keep the others from being seen.
                log.exception("look_failed", download=download.id, info_hash=download.info_hash)
        if moved:
            self._relay_wake.set()
            await self._bus.wake("fetch")
            await self._bus.wake("ticket")
        return 0

    async def _list(self) -> Sequence[RemoteTorrent]:
        torrents = await self._client.torrents()
        self._health.up("torrentino")
        self._health.up("torrent_client")
        return torrents

    # --- downloads that items wait for

    async def _look(self, download: Download, torrents: By) -> bool:
        """Whether the download has ended."""
        torrent = torrents.get(download.info_hash or "")
        if torrent is None:
            other = _unknown(download, torrents)
            # The indexer may have told another hash than the torrent has.
            if other is not None and await self._store.identified(download, other):
                return False
            return await self._absent(download)
        if torrent.state == "error":
            if download.ours:
                await self._remove(download, torrents)
            return await self._lost(download, "error", "is in error at the torrent client")
        async with self._store.database.transaction() as connection:
            if not await self._store.observe(connection, download, torrent):
                return False
            reached("torrents.observed")
            # Seen twice: what a client says right after a check may still be of that check.
            if torrent.whole and download.whole_at is not None:
                return await self._collect(connection, download, torrent)
            await self._show(connection, download, torrent)
        return not torrent.whole and await self._stalled(download, torrent)

    async def _show(
        self, connection: Connection, download: Download, torrent: RemoteTorrent
    ) -> None:
        if torrent.size_bytes:
            stage, reason = Stage.DOWNLOADING, f"downloads {download.title}"
        else:
            stage, reason = Stage.SEARCHING, f"waits for the metadata of {download.title}"
        await self._store.move_items(connection, download, stage, reason=reason)

    async def _collect(
        self, connection: Connection, download: Download, torrent: RemoteTorrent
    ) -> bool:
        path = torrent.path or f"{torrent.save_path}/{torrent.title.replace('/', '_')}"
        if not await self._store.close(connection, download, how="completed", torrent_path=path):
            return False
        await self._store.move_items(
            connection, download, Stage.READY, reason="the download is whole"
        )
        reached("torrents.collected")
        DOWNLOADS_ENDED.labels("whole").inc()
        return True

    async def _absent(self, download: Download) -> bool:
        missing_s = 0.0
        if download.missing_at is not None:
            missing_s = (download.now - download.missing_at).total_seconds()
        if missing_s < self._missing_s:
            async with self._store.database.transaction() as connection:
                await self._store.missing(connection, download)
            return False
        return await self._lost(download, "gone", "is gone from the torrent client")

    async def _lost(self, download: Download, how: str, told: str) -> bool:
        """Add it again, once; then it is the next release's turn."""
        async with self._store.database.transaction() as connection:
            again = not await self._store.ended_so_before(connection, download, how=how)
            failure = AttemptFailed(ErrorType.STALLED, f"{download.title} {told}")
            if again:
                reason = f"{failure.message}: is added again"
                await self._store.move_items(connection, download, Stage.QUEUED, reason=reason)
            else:
                await self._next(connection, download, failure)
            await self._store.close(connection, download, how=how, reason=told)
            reached("torrents.lost")
        DOWNLOADS_ENDED.labels(how).inc()
        return True

    async def _stalled(self, download: Download, torrent: RemoteTorrent) -> bool:
        allowed_s = self._stall_timeout_s
        told = "makes no progress"
        if not torrent.size_bytes:
            allowed_s, told = allowed_s / _NO_METADATA_SHARE, "has no metadata, so nobody has it"
        if download.idle_s < allowed_s or torrent.state in ("queued", "checking"):
            return False
        failure = AttemptFailed(
            ErrorType.STALLED, f"{download.title} {told}, for {download.idle_s:.0f} s"
        )
        async with self._store.database.transaction() as connection:
            await self._next(connection, download, failure)
            await self._store.close(connection, download, how="stalled", reason=told)
            reached("torrents.stalled")
        DOWNLOADS_ENDED.labels("stalled").inc()
        return True

    async def _next(
        self, connection: Connection, download: Download, failure: AttemptFailed
    ) -> None:
        for item_id in await self._store.items_of(connection, download):
            await next_release(
                connection,
                item_id,
                failure,
                why="stalled",
                stages=sorted(REMOTE),
                fence=None,
                max_grabs=self._max_grabs,
                policy=self._retries,
                rng=self._rng,
                actor=ACTOR,
            )
            ATTEMPTS_FAILED.labels(failure.error_type).inc()

    # --- downloads that nobody waits for any more

    async def _let_go(self, download: Download, torrents: By) -> bool:
        """Remove what a withdrawn download has put there, if that is ours to do."""
        info_hash = download.info_hash or _unknown(download, torrents)
        if info_hash is None or info_hash not in torrents:
            if self._may_still_be_added(download):
                async with self._store.database.transaction() as connection:
                    await self._store.missing(connection, download)
                return False
        elif download.info_hash is None:
            await self._store.identified(download, info_hash)
        async with self._store.database.transaction() as connection:
            # What becomes of the torrent the sweep of leftovers decides.
            await self._store.close(connection, download, how="withdrawn")
        reached("torrents.let_go")
        DOWNLOADS_ENDED.labels("withdrawn").inc()
        return True

    def _may_still_be_added(self, download: Download) -> bool:
        if download.adding_at is None or download.state is not None:
            return False
        return (download.now - download.adding_at).total_seconds() < _ADDING_S

    async def _remove(self, download: Download, torrents: By) -> None:
        """Take what is in error out of the client, unless others need it."""
        info_hash = download.info_hash or ""
        if await self._store.is_needed(info_hash, but=download.id):
            return
        if not await followed(self._client, [info_hash], but=None):
            await remove(self._client, torrents[info_hash], torrents.values())


def _unknown(download: Download, torrents: By) -> str | None:
    """The torrent of a release that did not tell its hash, if one can be told to be it."""
    if download.hashes_before is None or not download.size_bytes:
        return None
    new = [
        info_hash
        for info_hash, torrent in torrents.items()
        if info_hash not in download.hashes_before and torrent.size_bytes == download.size_bytes
    ]
    return new[0] if len(new) == 1 else None
