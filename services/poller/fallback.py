"""Whether a track's ticket should serve what its album's did not bring, or the other way round."""

from __future__ import annotations

from services.poller.file_choice import bears_name, only_albums
from services.poller.items import share_due_time
from services.poller.store import OpenTicket
from services.poller.ticket_facts import Grouping, TicketFacts
from services.poller.ticket_verdict import AskOtherKind, GiveUp, is_nothing_found
from shared.db.pool import Connection
from shared.errors import AttemptFailed, ErrorType
from shared.torrentino.model import RemoteState

_BY_ALBUM = AskOtherKind(
    ask_next="album", reason="Torrentino found only albums: asks for the album"
)


async def other_kind(facts: TicketFacts) -> AskOtherKind | None:
    """The other kind of ticket, if there is one and this one leads nowhere; else None.

    Candidates that wait for approval are judged when they are first seen only: an administrator who
    chooses among them is not interrupted.

    Raises:
        Unavailable: Torrentino or PostgreSQL is away.
    """
    if facts.ticket.is_album:
        return await _of_album(facts)
    return await _of_track(facts) if facts.grouping == "auto" and _is_new(facts) else None


def _is_new(facts: TicketFacts) -> bool:
    return not facts.same_state and facts.remote.state == RemoteState.NEEDS_APPROVAL


async def _of_album(facts: TicketFacts) -> AskOtherKind | None:
    if facts.grouping == "album":
        return None
    failure = None
    if is_nothing_found(facts.remote):
        failure = facts.verdict.failure if isinstance(facts.verdict, GiveUp) else None
    elif _is_new(facts) and await _is_another(facts):
        message = "no torrent found: none of the candidates bears the album's name"
        failure = AttemptFailed(ErrorType.NOT_FOUND, message)
    if failure is None:
        return None
    reason = "no torrent of the album: asks by track"
    return AskOtherKind(ask_next="track", reason=reason, failure=failure)


async def _is_another(facts: TicketFacts) -> bool:
    """Whether none of the candidates bears the album's name: Torrentino shows any it finds."""
    album = await facts.album_name()
    titles = [title for title, _ in facts.remote.choices]
    return album is not None and not any(bears_name(title, album) for title in titles)


async def _of_track(facts: TicketFacts) -> AskOtherKind | None:
    names = await facts.album_to_ask_for()
    if names is None:
        return None
    offered = [(title, await facts.files_of(hash_)) for title, hash_ in facts.remote.choices]
    return _BY_ALBUM if only_albums(offered, title=names[0], album=names[1]) else None


async def wait_together(
    connection: Connection,
    ticket: OpenTicket,
    failed: list[str],
    failure: AttemptFailed,
    *,
    grouping: Grouping,
) -> None:
    """Let the tracks of one album that were not found become due together, for one ticket.

    `failed` are the items whose attempt has just ended in this transaction.
    """
    if failure.error_type is ErrorType.NOT_FOUND and grouping != "track":
        # An item that asked alone turns to the other kind, which costs as much.
        again = ticket.is_album and len(failed) > 1
        await share_due_time(connection, failed, again=again, always=grouping == "album")
