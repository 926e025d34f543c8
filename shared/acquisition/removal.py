"""The one place that removes anything at Torrentino: torrents with their data, and tickets' rows.

Who else may need a torrent is known in two places. What lives at Torrentino is read here: tickets
of others, and torrents that have their files at the same path. What is recorded, and what the
settings allow, is answered by `Rules`. Nothing is removed without both.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Protocol

import structlog

from shared.acquisition.followed_torrents import followed
from shared.acquisition.protocol import ModeName
from shared.errors import Dependency
from shared.torrentino.client import TorrentinoClient
from shared.torrentino.torrent import RemoteTorrent

log = structlog.get_logger()


class Ground(StrEnum):
    """Why a torrent is to be removed."""

    UNWANTED = "unwanted"  # no item waits for its download any more
    FAILED = "failed"  # it is in error at the client, and its release is added again
    BAD = "bad"  # it is blocked, and Torrentino would choose it again
    COLLECTED = "collected"  # all that was wanted of it is collected


class Standing(StrEnum):
    """What is known of a torrent that is to be removed."""

    FREE = "free"  # ours, and no download needs it
    NEEDED = "needed"  # ours, but not now
    FOREIGN = "foreign"  # it was there before us: never


@dataclass(frozen=True, kw_only=True)
class Case:
    """A torrent that is to be removed, and for which of our downloads."""

    info_hash: str
    ground: Ground
    mode: ModeName
    # Of our row, and the remote's id of its ticket: the one download that may follow the torrent.
    download_id: str = ""
    ticket_id: str | None = None
    keeps_files: bool = False


class Rules(Protocol):
    """What is recorded about a torrent, and what the settings allow."""

    def allow(self, case: Case) -> bool:
        """Whether the settings let anything be removed on this ground."""
        ...

    def undisturbed(
        self, case: Case, *, added_at: datetime | None
    ) -> AbstractAsyncContextManager[Standing]:
        """Whose it is, and whether a download needs it; for the block no new download takes it.

        `added_at`: when the torrent client got it, if it tells.

        Raises:
            Conflict: it is being added or removed just now; nothing is known.
            Unavailable: PostgreSQL is away.
        """
        ...


class Permit:
    """Whether a torrent may go, for as long as the block lasts."""

    def __init__(
        self, client: TorrentinoClient, case: Case, standing: Standing, *, with_files: bool
    ) -> None:
        self.standing = standing
        self._client = client
        self._case = case
        self._with_files = with_files

    async def use(self) -> bool:
        """Remove the torrent; False: it stays.

        Raises:
            OutcomeUnknown, Refused: it may be there still.
            Unavailable: Torrentino or its torrent client is away.
        """
        case = self._case
        if self.standing is not Standing.FREE:
            return False
        await self._client.remove_torrent(case.info_hash, delete_files=self._with_files)
        log.info(
            "torrent_removed",
            info_hash=case.info_hash,
            ground=case.ground,
            with_files=self._with_files,
        )
        return True


# Between two questions about one torrent that follow each other.
_VALID_S = 1.0


@dataclass(frozen=True, kw_only=True)
class _Look:
    """What lives at Torrentino beside a torrent."""

    case: Case
    at: float
    followed: bool
    added_at: datetime | None
    shares_files: bool


class Removal:
    """Removes what the rules allow, and nothing else does."""

    def __init__(
        self,
        client: TorrentinoClient,
        rules: Rules,
        *,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        self._client = client
        self._rules = rules
        self._now = now
        self._last: _Look | None = None

    @asynccontextmanager
    async def of(self, case: Case, *, asks_only: bool = False) -> AsyncIterator[Permit]:
        """What removes the torrent with its data, to be used within the block.

        Raises:
            Conflict: it is being added or removed just now.
            Unavailable: Torrentino, its torrent client or PostgreSQL is away.
        """
        if not self._rules.allow(case):
            yield self._permit(case, Standing.NEEDED)
            return
        look = await self._look(case, keep=asks_only)
        if look.followed:
            log.info("torrent_kept", info_hash=case.info_hash, why="another ticket follows it")
            yield self._permit(case, Standing.NEEDED)
            return
        async with self._rules.undisturbed(case, added_at=look.added_at) as standing:
            if standing is not Standing.FREE:
                log.info("torrent_kept", info_hash=case.info_hash, why=standing)
            with_files = not (look.shares_files or case.keeps_files)
            yield self._permit(case, standing, with_files=with_files)

    async def _look(self, case: Case, *, keep: bool) -> _Look:
        """What lives at Torrentino; a refusal asks a moment before it is carried out.

        `keep`: for that moment.
        """
        known, self._last = self._last, None
        now = self._now()
        if known is not None and known.case == case and now - known.at < _VALID_S:
            return known
        torrents, following = await asyncio.gather(
            self._client.torrents(),
            followed(self._client, [case.info_hash], but=case.ticket_id),
        )
        mine = next((each for each in torrents if each.info_hash == case.info_hash.lower()), None)
        look = _Look(
            case=case,
            at=now,
            followed=bool(following),
            added_at=None if mine is None else mine.added_at,
            shares_files=mine is not None and _shares_files(mine, torrents),
        )
        if keep:
            self._last = look
        return look

    def _permit(self, case: Case, standing: Standing, *, with_files: bool = False) -> Permit:
        return Permit(self._client, case, standing, with_files=with_files)

    async def torrent(self, case: Case) -> Standing:
        """Remove the torrent with its data if it is FREE.

        Raises:
            OutcomeUnknown, Refused: it may be there still.
            Unavailable: as `of`.
        """
        async with self.of(case) as permit:
            await permit.use()
            return permit.standing

    async def may_go(self, case: Case) -> bool:
        """Whether `torrent` would remove it now.

        Raises:
            Conflict, Unavailable: as `of`.
        """
        async with self.of(case, asks_only=True) as permit:
            return permit.standing is Standing.FREE

    async def works(self, dependency: Dependency) -> bool:
        """See `TorrentinoClient.works`: whether a removal that failed did so alone."""
        return await self._client.works(dependency)

    async def ticket(self, ticket_id: str) -> None:
        """Remove the row of our ticket, which has ended.

        Raises:
            OutcomeUnknown: it may be gone.
            Unavailable: Torrentino does not answer.
        """
        await self._client.delete_ticket(ticket_id)


def _shares_files(mine: RemoteTorrent, torrents: Sequence[RemoteTorrent]) -> bool:
    """Whether another torrent may have its data in the same files.

    qBittorrent lets two torrents write to one path, and deletes the data of both. What it names
    after a magnet link has another name on disk: of those, folder and size tell.
    """
    others = (each for each in torrents if each.info_hash != mine.info_hash)
    return any(
        (each.path is not None and each.path == mine.path)
        or (
            # Only qBittorrent tells this time; with librqbit all names are those on disk.
            mine.added_at is not None
            and each.save_path == mine.save_path
            and bool(mine.size_bytes)
            and each.size_bytes == mine.size_bytes
        )
        for each in others
    )
