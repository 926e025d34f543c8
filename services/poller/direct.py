"""The poller's part of the mode `direct`: one list of torrents serves all downloads."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import assert_never

from services.poller.download_verdict import (
    Action,
    Collect,
    DownloadFacts,
    Identified,
    LetGo,
    Lost,
    Missing,
    Observed,
    Progress,
    Stalled,
    decide,
)
from services.poller.downloads_store import ACTOR, Download, TorrentsStore
from services.poller.items import items_of
from shared.acquisition.direct import Direct
from shared.acquisition.protocol import Begun, Location, ModeName, Seen
from shared.app import App
from shared.bus.subjects import Wake
from shared.crashpoints import reached
from shared.db import moves
from shared.db.pool import Connection
from shared.errors import AttemptFailed, Dependency, ErrorType, Unavailable
from shared.metrics import ATTEMPTS_FAILED, DOWNLOADS_ENDED
from shared.states import REMOTE, Stage
from shared.torrentino.torrent import RemoteTorrent

Woken = Collection[Wake]
_ENDED: Woken = ("fetch", "ticket")


@dataclass(frozen=True, kw_only=True)
class Read:
    """What the client shows of a download; `found`: the torrent that it is known by instead."""

    seen: Seen[RemoteTorrent]
    found: str | None
    at: Location | None


class DownloadFollower:
    """`Follower[Download, Read]`."""

    name = "torrents"

    def __init__(self, app: App, mode: Direct, store: TorrentsStore) -> None:
        self.mode: ModeName = mode.name
        self.needs: Collection[Dependency] = mode.needs
        self.remote = mode
        self._app = app
        self._store = store

    async def prepare(self) -> None:
        """Return when the client answers, if anything is due."""
        await self._store.withdraw_orphans()
        if await self._store.is_due():
            await self.remote.ready()

    async def claim(self, limit: int) -> Sequence[Download]:
        """Take the downloads that are due."""
        return await self._store.claim(limit=limit)

    async def read(self, rows: Sequence[Download]) -> Mapping[str, Read]:
        """The client's torrents; what is not among them is looked for by its size."""
        begun = {download.id: _begun(download) for download in rows}
        seen = await self.remote.follow(begun.values())
        absent = [begun[id_] for id_, each in seen.items() if each.remote is None]
        found = await self.remote.find(absent)
        self._app.health.up("torrent_client")
        reached("torrents.listed")
        return {
            id_: Read(
                seen=each,
                found=found[id_].remote_id if id_ in found else None,
                at=self.remote.location(each),
            )
            for id_, each in seen.items()
        }

    async def act(self, row: Download, seen: Read) -> Woken:
        """Take the first answer of the list of questions, and carry it out."""
        settings = self._app.settings
        facts = DownloadFacts(
            download=row,
            seen=seen.seen,
            found=seen.found,
            at=seen.at,
            stall_timeout_s=settings.stall_timeout_s,
            poll_interval_s=settings.poll_interval_s,
        )
        return await self._carry_out(facts, decide(facts))

    async def put_off(self, rows: Collection[Download], *, delay_s: float) -> None:
        """Make these due later."""
        await self._store.put_off(rows, delay_s=delay_s)

    async def is_at_fault(self, away: Unavailable) -> bool:
        """See `Follower`."""
        return await self.remote.client.works(away.dependency)

    async def failed(self, row: Download, seen: Read, away: Unavailable) -> Woken:  # noqa: ARG002
        """See `Follower`. What was read of it counts as far as it goes."""
        await self._store.failed(row, reason=str(away))
        return ()

    async def _carry_out(self, facts: DownloadFacts, action: Action) -> Woken:
        download = facts.download
        match action:
            case Identified(info_hash=info_hash, otherwise=otherwise):
                if await self._store.identified(download, info_hash):
                    return ()
                return await self._carry_out(facts, otherwise)
            case Missing():
                async with self._store.database.transaction() as connection:
                    await self._store.missing(connection, download)
                return ()
            case Lost():
                return await self._lose(download, action)
            case LetGo():
                return await self._let_go(download, action)
            case Progress() | Stalled() | Collect():
                return await self._observe(facts, action)
            case _:
                assert_never(action)

    # --- downloads that items wait for

    async def _observe(self, facts: DownloadFacts, action: Observed) -> Woken:
        download = facts.download
        async with self._store.database.transaction() as connection:
            if not await self._store.observe(connection, download, facts.torrent):
                return ()
            reached("torrents.observed")
            if isinstance(action, Collect):
                return await self._collect(connection, download, action)
            shown = action.shown if isinstance(action, Stalled) else action
            await _follow(connection, download, shown.stage, shown.reason)
            if isinstance(action, Stalled):
                return await self._give_up(connection, download, action)
        return ()

    async def _collect(self, connection: Connection, download: Download, collect: Collect) -> Woken:
        path = collect.at.path
        if not await self._store.close(connection, download, how="completed", torrent_path=path):
            return ()
        await _follow(connection, download, Stage.READY, "the download is whole")
        reached("torrents.collected")
        DOWNLOADS_ENDED.labels("whole").inc()
        return _ENDED

    async def _give_up(self, connection: Connection, download: Download, stalled: Stalled) -> Woken:
        message = f"{download.title} {stalled.reason}, for {stalled.idle_s:.0f} s"
        await self._next(connection, download, AttemptFailed(ErrorType.STALLED, message))
        await self._store.close(connection, download, how="stalled", reason=stalled.reason)
        reached("torrents.stalled")
        DOWNLOADS_ENDED.labels("stalled").inc()
        return _ENDED

    async def _lose(self, download: Download, lost: Lost) -> Woken:
        """Add it again, once; then the next release is tried.

        What is in error has to leave the client before, or it would be found there and taken for
        the new one.
        """
        if lost.how == "error" and download.ours:
            begun = _begun(download)
            if not await self.remote.take_out(begun, reason="it is in error"):
                return ()
        async with self._store.database.transaction() as connection:
            again = not await self._store.ended_so_before(connection, download, how=lost.how)
            failure = AttemptFailed(ErrorType.STALLED, f"{download.title} {lost.reason}")
            if again:
                reason = f"{failure.message}: is added again"
                await _follow(connection, download, Stage.QUEUED, reason)
            else:
                await self._next(connection, download, failure)
            await self._store.close(connection, download, how=lost.how, reason=lost.reason)
            reached("torrents.lost")
        DOWNLOADS_ENDED.labels(lost.how).inc()
        return _ENDED

    async def _next(
        self, connection: Connection, download: Download, failure: AttemptFailed
    ) -> None:
        ended = await moves.try_next_release(
            connection,
            await items_of(connection, download.id),
            failure,
            why="stalled",
            stages=REMOTE,
            max_grabs=self._app.settings.max_grabs,
            policy=self._app.retries,
            actor=ACTOR,
        )
        ATTEMPTS_FAILED.labels(failure.error_type).inc(len(ended))

    # --- downloads that no item waits for any more

    async def _let_go(self, download: Download, let_go: LetGo) -> Woken:
        """Close it; whether its torrent is removed, the sweep of leftovers decides."""
        if let_go.info_hash is not None:
            await self._store.identified(download, let_go.info_hash)
        async with self._store.database.transaction() as connection:
            await self._store.close(connection, download, how="withdrawn")
        reached("torrents.let_go")
        DOWNLOADS_ENDED.labels("withdrawn").inc()
        return _ENDED


def _begun(download: Download) -> Begun:
    return Begun(
        id=download.id,
        remote_id=download.info_hash,
        folder="",
        info_hash=download.info_hash,
        size_bytes=download.size_bytes,
        before=download.hashes_before,
    )


async def _follow(connection: Connection, download: Download, stage: Stage, reason: str) -> None:
    await moves.follow(connection, stage, {download.id: reason}, actor=ACTOR, retell=True)
