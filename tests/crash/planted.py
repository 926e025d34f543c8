"""Mistakes that the crash search has to find: a search that cannot fail proves nothing."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Any

from services.fetcher_writer import publish as publisher
from services.fetcher_writer.collected_files import CollectedFiles
from services.fetcher_writer.finish import Collected, Finished
from services.fetcher_writer.matched import Found
from services.fetcher_writer.media import Media
from services.fetcher_writer.recipe import Recipe
from services.fetcher_writer.store import hold
from services.fetcher_writer.work import ACTOR, Work
from services.ticketer.direct_claims import DirectClaims
from services.ticketer.direct_claims import Work as Downloading
from services.ticketer.direct_store import DirectStore
from shared.acquisition.tickets import Tickets
from shared.db.ledger import complete
from shared.db.presence import Known
from shared.media.paths import audio_uri
from shared.media.place import publish


def _complete_before_placing() -> None:
    """COMPLETED is committed first, and the file gets its name after it."""

    async def place(self: Recipe, work: Work, finished: Finished) -> None:
        async with self.publisher.database.transaction() as connection:
            await hold(connection, work.claim)
            await complete(
                connection,
                work.claim.item_id,
                finished.facts,
                fence=work.claim.fence,
                reason="too early",
                actor=ACTOR,
            )
        final = self.media.root.path / audio_uri(work.track_id, finished.facts.ext)
        await asyncio.to_thread(publish, finished.path, final)

    Recipe.publish = place  # type: ignore[method-assign]


def _place_before_verifying() -> None:
    """What was delivered gets its final name as soon as it is there."""
    collected = Recipe.collect

    async def collect(self: Recipe, work: Work, found: Found, files: CollectedFiles) -> Collected:
        temp, final = self.media.temp(work.claim), audio_uri(work.track_id, "flac")
        await asyncio.to_thread(temp.parent.mkdir, exist_ok=True)
        await self.collector.collect(work.ticket, found.file, temp)
        await asyncio.to_thread(publish, temp, self.media.root.path / final)
        return await collected(self, work, found, files)

    Recipe.collect = collect  # type: ignore[method-assign]


def _forget_intents() -> None:
    """No ticketer looks for the ticket of an earlier try before it asks for another."""

    async def find(_self: Tickets, _begun: object) -> dict[str, object]:
        return {}

    Tickets.find = find  # type: ignore[method-assign,assignment]


def _forget_other_files() -> None:
    """A file is placed whatever the ledger and the catalog have."""

    async def nothing(_connection: object, _track_ids: object) -> Known:
        return Known(ledger={}, problems={})

    async def no_path(_self: Media, _track_id: str) -> None:
        return None

    publisher.known = nothing  # type: ignore[attr-defined,assignment]
    Media.uri_of = no_path  # type: ignore[method-assign,assignment]


def _take_all_for_ours() -> None:
    """A torrent that another client has added is removed as if we had added it."""

    async def is_ours(_self: DirectStore, _info_hash: str, **_: object) -> bool:
        return True

    DirectStore.is_ours = is_ours  # type: ignore[method-assign,assignment]


def _forget_what_was_begun() -> None:
    """An intent whose torrent may be there is begun again."""
    DirectClaims.mark = _as_if_new(DirectClaims.mark)  # type: ignore[method-assign]


def _as_if_new(mark: Callable[..., Awaitable[list[Downloading]]]) -> Any:
    async def forgetful(*args: Any, **named: Any) -> list[Downloading]:
        return [replace(work, begun=None) for work in await mark(*args, **named)]

    return forgetful


BUGS: dict[str, Callable[[], None]] = {
    "complete before placing": _complete_before_placing,
    "place before verifying": _place_before_verifying,
    "forget intents": _forget_intents,
    "forget other files": _forget_other_files,
    "take all for ours": _take_all_for_ours,
    "forget what was begun": _forget_what_was_begun,
}
