"""Which torrents the tickets at Torrentino follow that have not ended, ours and others'.

To remove a torrent under a ticket hurts the ticket: Torrentino takes it for "deleted externally",
and tries the next candidate, which may be another song.
"""

from __future__ import annotations

from collections.abc import Collection
from contextlib import aclosing

from shared.torrentino.client import TorrentinoClient
from shared.torrentino.model import RemoteState

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
    shown: set[str] = set()
    for state in _TELLING:
        async with aclosing(client.list(state=state)) as tickets:
            async for remote in tickets:
                if remote.id != but and remote.info_hash is not None:
                    shown.add(remote.info_hash.lower())
    found = {wanted[each] for each in shown & wanted.keys()}
    return frozenset(found | await _in_pipeline(client, set(info_hashes) - found, but=but))


async def _in_pipeline(
    client: TorrentinoClient, info_hashes: Collection[str], *, but: str | None
) -> set[str]:
    """Those of the torrents that the pipeline reads from, by its audit."""
    paths = await _pipeline_inputs(client, but=but) if info_hashes else []
    found = set()
    for info_hash in info_hashes if paths else ():
        torrent = await client.torrent(info_hash)
        path = None if torrent is None else torrent.path
        if path is not None and any(f"{each}/".startswith(f"{path}/") for each in paths):
            found.add(info_hash)
    return found


async def _pipeline_inputs(client: TorrentinoClient, *, but: str | None) -> list[str]:
    waiting = [
        remote.id
        for state in _IN_PIPELINE
        async for remote in client.list(state=state)
        if remote.id != but
    ]
    # What a restart left in such a state reads nothing any more.
    at_work = await client.pipeline() if waiting else None
    inputs = [
        await client.conversion_input(each)
        for each in waiting
        if at_work is None or each in at_work
    ]
    return [path for path in inputs if path is not None]
