"""Repeated wishes: a user asks again for what the same user waits for already, or has.

Over HTTP nothing is written for one: no request, and no event. Over NATS every request has an id
under which it is answered and may be withdrawn, so each is recorded.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass

from services.ingest.store import repetitions as store
from shared.db.pool import Connection
from shared.events import ContentKind


@dataclass(frozen=True, kw_only=True)
class Waited:
    """An item that a user waits for."""

    item_id: str
    priority: int


async def waited_for(
    connection: Connection, user_id: str | None, track_ids: Collection[str]
) -> dict[str, Waited]:
    """The active items that this user waits for, of these tracks, by track id."""
    if user_id is None or not track_ids:
        return {}
    rows = await store.waited_for(connection, user_id, track_ids)
    return {row["track_id"]: Waited(item_id=row["id"], priority=row["priority"]) for row in rows}


async def earlier_request(
    connection: Connection,
    user_id: str,
    *,
    kind: ContentKind,
    content_id: str,
    priority: int,
    missing: Collection[str],
) -> tuple[str, Mapping[str, str]] | None:
    """The request that this one repeats, with the item ids by track id; None: it repeats none.

    `missing` are the tracks of it without a file. Call it under the user's lock.
    """
    if not missing:
        found = await store.answered(connection, user_id, kind=kind, content_id=content_id)
        return None if found is None else (found, {})
    waited = await waited_for(connection, user_id, missing)
    if len(waited) < len(missing) or any(each.priority > priority for each in waited.values()):
        return None
    items = {track_id: each.item_id for track_id, each in waited.items()}
    request_id = await store.of_items(
        connection, user_id, items.values(), content_id=content_id if kind == "album" else None
    )
    return None if request_id is None else (request_id, items)
