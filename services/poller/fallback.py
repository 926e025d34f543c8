"""Whether a track's ticket should serve what its album's did not bring, or the other way round."""

from __future__ import annotations

from typing import Literal

from services.poller.file_choice import bears_name, only_albums
from services.poller.moves import meet
from services.poller.store import OpenTicket, Store
from services.poller.verdicts import GiveUp, GoOn, action_for, is_nothing_found
from shared.db.pool import Connection
from shared.errors import AttemptFailed, ErrorType
from shared.torrentino.client import TorrentinoClient
from shared.torrentino.model import RemoteState, RemoteTicket

_BY_ALBUM = GoOn(ask_next="album", reason="Torrentino found only albums: asks for the album")


class OtherKind:
    """Looks at what a search has come to."""

    def __init__(
        self,
        client: TorrentinoClient,
        store: Store,
        *,
        grouping: Literal["auto", "track", "album"],
    ) -> None:
        self._client = client
        self._store = store
        self._grouping = grouping

    async def instead_of(self, ticket: OpenTicket, remote: RemoteTicket) -> GoOn | None:
        """The other kind of ticket, if there is one and this one leads nowhere; else None.

        Candidates that wait for a person are judged when they are first seen only: whoever looks
        at them is not interrupted.

        Raises:
            Unavailable: Torrentino or PostgreSQL is away.
        """
        new = ticket.remote_state != RemoteState.NEEDS_APPROVAL == remote.state
        if ticket.is_album:
            return await self._of_album(ticket, remote, new=new)
        if self._grouping != "auto" or not new:
            return None
        return await self._of_track(ticket, remote)

    async def _of_album(
        self, ticket: OpenTicket, remote: RemoteTicket, *, new: bool
    ) -> GoOn | None:
        if self._grouping == "album":
            return None
        failure = None
        if is_nothing_found(remote):
            nothing = action_for(remote)
            failure = nothing.failure if isinstance(nothing, GiveUp) else None
        elif new and await self._is_another(ticket, remote):
            message = "no torrent found: none of the candidates bears the album's name"
            failure = AttemptFailed(ErrorType.NOT_FOUND, message)
        if failure is None:
            return None
        reason = "no torrent of the album: asks by track"
        return GoOn(ask_next="track", reason=reason, failure=failure)

    async def meet(
        self, connection: Connection, ticket: OpenTicket, failed: list[str], failure: AttemptFailed
    ) -> None:
        """Let the tracks of one album that were not found come back together, as one ticket.

        `failed` are the items whose attempt has just ended in this transaction.
        """
        if failure.error_type is ErrorType.NOT_FOUND and self._grouping != "track":
            # Whoever asked for it alone turns to the other kind, which costs as much.
            again = ticket.is_album and len(failed) > 1
            await meet(connection, failed, again=again, always=self._grouping == "album")

    async def _is_another(self, ticket: OpenTicket, remote: RemoteTicket) -> bool:
        """Whether none of the candidates bears the album's name: Torrentino shows any it finds."""
        album = await self._store.album_name(ticket)
        titles = [title for title, _ in remote.choices]
        return album is not None and not any(bears_name(title, album) for title in titles)

    async def _of_track(self, ticket: OpenTicket, remote: RemoteTicket) -> GoOn | None:
        names = await self._store.album_to_ask_for(ticket)
        if names is None:
            return None
        offered = [(title, await self._files(info_hash)) for title, info_hash in remote.choices]
        return _BY_ALBUM if only_albums(offered, title=names[0], album=names[1]) else None

    async def _files(self, info_hash: str | None) -> list[str] | None:
        files = None if info_hash is None else await self._client.catalog_files(info_hash)
        return None if files is None else [path for path, _ in files]
