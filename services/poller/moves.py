"""The moves of the items that a ticket serves; each in the transaction that changes the ticket."""

from __future__ import annotations

from collections.abc import Sequence

from services.poller.store import ACTOR, OpenTicket
from shared.db import moves
from shared.db.pool import Connection
from shared.states import REMOTE, Stage

_DETOURS = "SELECT coalesce(max(detours), 0) FROM queue_items WHERE ticket_id = $1"

_ASK_BY_ALBUM = "UPDATE queue_items SET ask_next = 'album' WHERE id = ANY($1) AND stage = $2"

# The last one decides when. Those that another worker moves just now are left out.
_MEET = """
WITH waiting AS (
    SELECT q.id, q.album_id, q.due_at FROM queue_items q
     WHERE q.album_id IN (SELECT f.album_id FROM queue_items f WHERE f.id = ANY($1))
       AND q.stage = $3 AND q.error_type = 'not_found'
       AND ($2 OR q.ask_next = 'album')
       FOR NO KEY UPDATE OF q SKIP LOCKED
), last AS (
    SELECT album_id, max(due_at) AS due_at FROM waiting GROUP BY album_id
)
UPDATE queue_items q SET due_at = last.due_at
  FROM waiting JOIN last USING (album_id)
 WHERE q.id = waiting.id AND q.due_at < last.due_at
"""

_ITEMS = "SELECT id FROM queue_items WHERE ticket_id = $1 AND stage = ANY($2) ORDER BY seq"


async def move_items(
    connection: Connection, ticket: OpenTicket, stage: Stage, *, reason: str, tell: bool = False
) -> None:
    """Move those of the ticket's items that Torrentino has.

    `tell`: those that are in the stage already get the reason, which tells more than the stage.
    """
    await moves.follow(connection, stage, {ticket.id: reason}, actor=ACTOR, retell=tell)


async def ask_again(
    connection: Connection, ticket: OpenTicket, *, reason: str, delay_s: float
) -> None:
    """Queue the ticket's items for another one: a detour more, no attempt less."""
    await moves.requeue(connection, {ticket.id: reason}, actor=ACTOR, delay_s=delay_s, detour=True)


async def go_on(
    connection: Connection, ticket: OpenTicket, *, ask_next: str, reason: str, once: bool
) -> None:
    """Queue the ticket's items at once for the other kind of ticket; burns no attempt.

    `once`: not those whose own ticket has found nothing before. They stay as they are.
    """
    await moves.requeue(connection, {ticket.id: reason}, actor=ACTOR, ask_next=ask_next, once=once)


async def meet(
    connection: Connection, item_ids: Sequence[str], *, again: bool, always: bool
) -> None:
    """Make the items of an album that wait to ask for it due together, so that they share a ticket.

    The latest of them decides when. `again`: of these items the album is asked for next,
    as it was now. `always`: where nothing but albums is asked for.
    """
    if again:
        await connection.execute(_ASK_BY_ALBUM, item_ids, Stage.RETRY_WAIT)
    await connection.execute(_MEET, item_ids, always, Stage.RETRY_WAIT)


async def detours(connection: Connection, ticket: OpenTicket) -> int:
    """How many tickets in a row have led its items nowhere before this one."""
    return int(await connection.fetchval(_DETOURS, ticket.id))


async def items_of(connection: Connection, ticket: OpenTicket) -> list[str]:
    """The items that wait for this ticket."""
    rows = await connection.fetch(_ITEMS, ticket.id, sorted(REMOTE))
    return [row["id"] for row in rows]
