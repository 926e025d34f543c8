"""The life of downloads: every change of `tickets.state`, in its order.

The SQL is in `download_moves.sql`. A download of either mode of acquisition is a row of `tickets`.
Each write is guarded by the states it may start from (`shared.states`); False means that another
worker was first. Call it in the transaction that moves the items, where it moves items.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

from shared.acquisition.protocol import ModeName
from shared.db.pool import Connection
from shared.db.queries import load_queries
from shared.states import (
    ACTIVE_STATUSES,
    POLLED_DOWNLOADS,
    SERVING_DOWNLOADS,
    DownloadState,
    Stage,
    allowed_from,
    values,
)

SQL = load_queries(Path(__file__).with_suffix(".sql"))


@dataclass(frozen=True, kw_only=True)
class Intent:
    """A download that is about to be started; `dest_path` is unique and finds it again."""

    id: str
    dest_path: str
    priority: int
    kind: str
    album_id: str | None


async def intend(connection: Connection, mode: ModeName, intents: Sequence[Intent]) -> None:
    """Record what is about to be started, before any call that cannot be repeated."""
    await connection.execute(
        SQL["intend"],
        mode,
        [each.id for each in intents],
        [each.dest_path for each in intents],
        [each.priority for each in intents],
        [each.kind for each in intents],
        [each.album_id for each in intents],
    )


async def open_ticket(
    connection: Connection, download_id: str, *, torrentino_id: str, priority: int
) -> bool:
    """Torrentino has made the ticket."""
    return _one(
        await connection.execute(
            SQL["open_ticket"],
            DownloadState.OPEN,
            download_id,
            torrentino_id,
            priority,
            allowed_from(DownloadState.OPEN),
        )
    )


async def open_torrent(
    connection: Connection, download_id: str, *, info_hash: str, ours: bool | None
) -> bool:
    """The torrent client has the torrent; `ours`: whether we put it there, None as recorded."""
    return _one(
        await connection.execute(
            SQL["open_torrent"],
            DownloadState.OPEN,
            download_id,
            info_hash,
            ours,
            allowed_from(DownloadState.OPEN),
        )
    )


async def close_unstarted(connection: Connection, download_id: str, *, how: str) -> bool:
    """Close an intent that certainly led to no download, unless a worker holds an item of it."""
    return _one(
        await connection.execute(
            SQL["close_unstarted"],
            DownloadState.CLOSED,
            download_id,
            how,
            DownloadState.INTENT,
            [Stage.TICKETING],
        )
    )


async def close_in_the_way(connection: Connection, download_id: str, *, path: str) -> bool:
    """The files lie at `path` in the torrent client's folder already, without a torrent."""
    return _one(
        await connection.execute(
            SQL["close_in_the_way"],
            DownloadState.CLOSED,
            download_id,
            path,
            DownloadState.INTENT,
        )
    )


async def close_ticket(
    connection: Connection,
    download_id: str,
    *,
    remote_state: str,
    reason: str | None,
    files_placed: int | None,
    final_size_bytes: int | None,
    torrent_path: str | None,
    size_bytes: int | None,
) -> bool:
    """The ticket has ended at Torrentino.

    `torrent_path`: its files are collected from there, and not from its own folder. `size_bytes`:
    of the torrent, where its client says it; None as recorded.
    """
    return _one(
        await connection.execute(
            SQL["close_ticket"],
            DownloadState.CLOSED,
            download_id,
            remote_state,
            reason,
            files_placed,
            final_size_bytes,
            torrent_path,
            size_bytes,
            values(POLLED_DOWNLOADS),
        )
    )


async def close_torrent(
    connection: Connection,
    download_id: str,
    *,
    how: str,
    reason: str | None = None,
    torrent_path: str | None = None,
) -> bool:
    """The direct download has ended; its files, if it brought any, are at `torrent_path`."""
    return _one(
        await connection.execute(
            SQL["close_torrent"],
            DownloadState.CLOSED,
            download_id,
            how,
            reason,
            torrent_path,
            values(POLLED_DOWNLOADS),
        )
    )


async def withdraw(connection: Connection, download_ids: Collection[str]) -> int:
    """End open downloads: the poller cancels them until they stay cancelled."""
    done = await connection.execute(
        SQL["withdraw"], DownloadState.WITHDRAWING, list(download_ids), DownloadState.OPEN
    )
    return _count(done)


async def withdraw_unwanted(
    connection: Connection, download_ids: Collection[str] | None, *, mode: ModeName | None = None
) -> int:
    """End those of these downloads (None: of all) that no active item waits for; how many."""
    done = await connection.execute(
        SQL["withdraw_unwanted"],
        DownloadState.WITHDRAWING,
        None if download_ids is None else list(download_ids),
        values(SERVING_DOWNLOADS),
        mode,
        list(ACTIVE_STATUSES),
    )
    return _count(done)


async def reopen(connection: Connection, dest_path: str, *, torrentino_id: str) -> bool:
    """Withdraw a ticket that lives at Torrentino although its row was closed.

    False: the row with this path is another ticket's, or is not closed.
    """
    return _one(
        await connection.execute(
            SQL["reopen"],
            DownloadState.WITHDRAWING,
            dest_path,
            torrentino_id,
            DownloadState.CLOSED,
        )
    )


async def withdraw_lost(
    connection: Connection, download_id: str, dest_path: str, *, torrentino_id: str
) -> bool:
    """Withdraw a ticket of this installation of which there is no row; call it in a transaction.

    False: there is a row by now.
    """
    await connection.execute(SQL["find_lost"], download_id, dest_path, torrentino_id)
    done = await connection.execute(
        SQL["withdraw_lost"],
        DownloadState.WITHDRAWING,
        download_id,
        torrentino_id,
        DownloadState.INTENT,
    )
    return _one(done)


@dataclass(frozen=True, kw_only=True)
class LostTorrent:
    """A torrent of this installation without a row."""

    download_id: str
    info_hash: str
    whole: bool


async def record_lost_torrents(connection: Connection, lost: Sequence[LostTorrent]) -> None:
    """Record them as done with."""
    await connection.execute(
        SQL["find_lost_torrents"],
        [each.download_id for each in lost],
        [each.info_hash for each in lost],
        [each.whole for each in lost],
        DownloadState.CLOSED,
    )


def _one(done: str) -> bool:
    return done == "UPDATE 1"


def _count(done: str) -> int:
    return int(done.rsplit(maxsplit=1)[-1])
