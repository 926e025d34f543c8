"""A request as ingest decides it: the order, what it wants of the catalog, and what came of it."""

from __future__ import annotations

import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from services.ingest.limits import Caller
from shared.catalog.models import Album, Track
from shared.db.enqueue import Source
from shared.events import ContentKind


@dataclass(frozen=True, kw_only=True)
class Order:
    """A request before it is decided."""

    caller: Caller
    kind: ContentKind
    content_id: str
    source: Source
    priority: int = 2
    request_id: str = field(default_factory=lambda: str(uuid.uuid4()))

    @property
    def visitor(self) -> str | None:
        """The user that waits for the answer; a request over NATS has time."""
        return self.caller.user_id if self.source == "http" else None


@dataclass(frozen=True, kw_only=True)
class Wanted:
    """What an order asks for, with the catalog's data."""

    name: str
    artist: str | None
    tracks: Sequence[Track]
    # Torrents are mostly albums: the album's other tracks help to find these in one.
    album: Album | None


@dataclass(frozen=True, kw_only=True)
class Accepted:
    """What a request led to: item ids by track id."""

    request_id: str
    queued: Mapping[str, str] = field(default_factory=dict)
    joined: Mapping[str, str] = field(default_factory=dict)
    # Available tracks; the id is None for a file that no item brought.
    available: Mapping[str, str | None] = field(default_factory=dict)
    # Tracks of an album for which the catalog names a broken file that is not to be replaced.
    broken: Sequence[str] = ()
    # The same request came before; nothing was done now.
    repeated: bool = False
