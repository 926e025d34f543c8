"""Which torrents the tickets at Torrentino follow that have not ended, ours and others'.

To remove a torrent under a ticket hurts the ticket: Torrentino takes it for "deleted externally",
and tries the next candidate, which may be another song.
"""

from __future__ import annotations

import asyncio
from collections.abc import Collection

from shared.torrentino.client import TorrentinoClient
from shared.torrentino.look_ups import MISSING, Missing
from shared.torrentino.model import RemoteState, RemoteTicket

# These tell the hash that they download, or are about to.
_TELLING = (RemoteState.DOWNLOADING, RemoteState.AUTO_APPROVED, RemoteState.APPROVED)
# These do not any more, but the audit tells what their pipeline began with.
_IN_PIPELINE = (RemoteState.CONVERTING, RemoteState.PLACING)


async def followed(
    client: TorrentinoClient, info_hashes: Collection[str], *, but: str | None
) -> frozenset[str]:
    """Those of these torrents that a ticket other than `but` (Torrentino's id) follows.

    Raises:
        Unavailable: Torrentino, or its torrent client, does not answer.
    """
    if not info_hashes:
        return frozenset()
    wanted = {each.lower(): each for each in info_hashes}
    shown = {
        remote.info_hash
        for remote in await _in_states(client, _TELLING, but=but)
        if remote.info_hash is not None
    }
    found = {wanted[each] for each in shown & wanted.keys()}
    return frozenset(found | await _in_pipeline(client, set(info_hashes) - found, but=but))


async def _in_states(
    client: TorrentinoClient, states: Collection[RemoteState], *, but: str | None
) -> list[RemoteTicket]:
    """The tickets in any of these states, read at once: a refusal must not come too late."""

    async def listed(state: RemoteState) -> list[RemoteTicket]:
        return [remote async for remote in client.list(state=state)]

    found = await asyncio.gather(*(listed(state) for state in states))
    return [remote for tickets in found for remote in tickets if remote.id != but]


async def _in_pipeline(
    client: TorrentinoClient, info_hashes: Collection[str], *, but: str | None
) -> set[str]:
    """Those of the torrents that the pipeline reads from, by its audit; without it all may be."""
    paths = await _pipeline_inputs(client, but=but) if info_hashes else []
    if paths is MISSING:
        return set(info_hashes)
    found = set()
    for info_hash in info_hashes if paths else ():
        torrent = await client.torrent(info_hash)
        path = None if torrent is None else torrent.path
        if path is not None and any(f"{each}/".startswith(f"{path}/") for each in paths):
            found.add(info_hash)
    return found


async def _pipeline_inputs(client: TorrentinoClient, *, but: str | None) -> list[str] | Missing:
    waiting = [remote.id for remote in await _in_states(client, _IN_PIPELINE, but=but)]
    # What a restart left in such a state reads nothing any more.
    at_work = await client.look_ups.pipeline() if waiting else None
    paths: list[str] = []
    for ticket_id in waiting:
        if at_work is None or at_work is MISSING or ticket_id in at_work:
            path = await client.look_ups.conversion_input(ticket_id)
            if path is MISSING:
                return MISSING
            if path is not None:
                paths.append(path)
    return paths
