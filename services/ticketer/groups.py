"""Which items share a ticket.

A track's own ticket finds it when a torrent has its name; most torrents have an album's. So the
tracks of an album that wait at the same time share a ticket, and what one kind of ticket did not
bring is asked for by the other (`ask_next`). Tracks that were not found become due at the same
time, so that one ticket of their album serves all of them.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

from shared.db.pool import Row

Grouping: TypeAlias = Literal["auto", "track", "album"]
Kind: TypeAlias = Literal["track", "album"]
# A row of {"id", "album_id" (None: it cannot be asked for as an album), "ask_next"}.
Due: TypeAlias = Row


@dataclass(frozen=True, kw_only=True)
class Group:
    """Items for one ticket, the most urgent first."""

    kind: Kind
    album_id: str | None
    item_ids: tuple[str, ...]


def may_share(due: Due, grouping: Grouping) -> bool:
    """Whether a ticket of its album may serve this item now."""
    if grouping == "track" or due["album_id"] is None:
        return False
    return grouping == "album" or due["ask_next"] != "track"


def grouped(due: Sequence[Due], of_albums: Sequence[Due], grouping: Grouping) -> list[Group]:
    """The tickets to ask for, in the order of `due`.

    `of_albums` are all due items of the albums that occur in `due`, those in it among them. Two
    tracks share a ticket of their album; one has its own, unless that has failed before.
    """
    members: defaultdict[str, list[Due]] = defaultdict(list)
    for each in of_albums:
        if each["album_id"] is not None and may_share(each, grouping):
            members[each["album_id"]].append(each)
    groups: list[Group] = []
    taken: set[str] = set()
    for each in due:
        item_id, album_id = each["id"], each["album_id"]
        if item_id in taken:
            continue
        group = Group(kind="track", album_id=None, item_ids=(item_id,))
        if may_share(each, grouping) and album_id is not None:
            together = members[album_id]
            failed = any(one["ask_next"] == "album" for one in together)
            if len(together) > 1 or failed or grouping == "album":
                ids = tuple(one["id"] for one in together)
                group = Group(kind="album", album_id=album_id, item_ids=ids)
        groups.append(group)
        taken.update(group.item_ids)
    return groups
