"""Torrentino's tickets as we see them: strict in what we send, tolerant in what we read.

Names and units are those of the JSON of `/api/v1/tickets` in Quentin Torrentino 0.1.0 (14df78d).
Fields that we do not know are ignored, and so is a state type that a newer server invents.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from enum import StrEnum

from shared.redaction import redact
from shared.untrusted import printable, usable_name

_MAX_REASON_CHARS = 2_000
_MAX_TITLE_CHARS = 500
_MAX_NAME_CHARS = 200
# An administrator chooses from the best few; Torrentino keeps all that its indexers gave.
_MOST_CANDIDATES = 50
# In hexadecimal (v1, v2) or base 32. It becomes a part of a path, and is shown.
_INFO_HASH = re.compile(r"[0-9A-Za-z]{1,64}", re.ASCII)
_ITEM_ID = re.compile(r"track-[0-9]{1,6}", re.ASCII)
_MOST_MAPPINGS = 2_000
# What PostgreSQL keeps in a bigint; a count beyond it is no count.
_TOO_MUCH = 2**63
_MOST_FILES = 2**31 - 1


class RemoteState(StrEnum):
    """The state types of a ticket; a server may have others."""

    PENDING = "pending"
    ACQUIRING = "acquiring"
    ACQUISITION_FAILED = "acquisition_failed"
    NEEDS_APPROVAL = "needs_approval"
    AUTO_APPROVED = "auto_approved"
    APPROVED = "approved"
    REJECTED = "rejected"
    DOWNLOADING = "downloading"
    CONVERTING = "converting"
    PLACING = "placing"
    COMPLETED = "completed"
    PENDING_RETRY = "pending_retry"
    FAILED = "failed"
    CANCELLED = "cancelled"


# The states that Torrentino calls terminal. A cancel may still be overwritten by its loops.
ENDED: frozenset[str] = frozenset(
    {RemoteState.COMPLETED, RemoteState.FAILED, RemoteState.REJECTED, RemoteState.CANCELLED}
)

# Of an entry of a list whose own state cannot be read.
UNREADABLE = "unreadable"

# Where each state keeps the text that tells why.
_REASON_FIELD: Mapping[str, str] = {
    RemoteState.ACQUISITION_FAILED: "reason",
    RemoteState.FAILED: "error",
    RemoteState.PENDING_RETRY: "error",
    RemoteState.CANCELLED: "reason",
    RemoteState.REJECTED: "reason",
}


@dataclass(frozen=True, kw_only=True)
class ExpectedTrack:
    """A track of the album that is asked for; `number` counts from 1 on each disc."""

    number: int
    title: str
    disc: int | None = None
    duration_ms: int | None = None

    def to_json(self) -> dict[str, object]:
        """As Torrentino takes it; it compares whole seconds."""
        shown: dict[str, object] = {"number": self.number, "title": self.title}
        if self.disc is not None:
            shown["disc_number"] = self.disc
        if self.duration_ms is not None:
            shown["duration_ms"] = self.duration_ms
            shown["duration_secs"] = round(self.duration_ms / 1000)
        return shown


@dataclass(frozen=True, kw_only=True)
class TicketRequest:
    """What we ask Torrentino to find, and the folder (as Torrentino sees it) to put it in.

    `description` drives the search and should be "artist title" and nothing else. `dest_path`
    must be ours alone: it is the only value by which a ticket can be found again after an
    unknown outcome. No output is asked for: the original is converted on our side, if at all.
    With `tracks` it asks for an album, whose title is `title`.

    Raises:
        ValueError: the priority is outside 0 to 65535.
    """

    description: str
    artist: str | None
    title: str
    dest_path: str
    priority: int
    # Never an id in here: Torrentino finds quality words ("320", "ape") inside tags.
    tags: tuple[str, ...] = ("music",)
    # Of an album, all of them; None asks for one track.
    tracks: tuple[ExpectedTrack, ...] | None = None

    def __post_init__(self) -> None:
        if not 0 <= self.priority <= 65_535:
            raise ValueError(f"priority {self.priority} is outside 0 to 65535")

    def to_json(self) -> bytes:
        """The body of `POST /tickets`, in ASCII for any names."""
        kind = "track" if self.tracks is None else "album"
        expected: dict[str, object] = {"type": kind, "artist": self.artist, "title": self.title}
        if self.artist is None:
            del expected["artist"]
        if self.tracks is not None:
            expected["tracks"] = [track.to_json() for track in self.tracks]
        context = {
            "tags": list(self.tags),
            "description": self.description,
            "expected": expected,
        }
        return json.dumps(
            {"priority": self.priority, "query_context": context, "dest_path": self.dest_path}
        ).encode("ascii")


@dataclass(frozen=True, kw_only=True)
class RemoteTicket:
    """A ticket as Torrentino last showed it.

    `state` is the raw type, perhaps one that `RemoteState` lacks. `raw_state` may hold tracker
    passkeys: it stays out of `repr`, and must not be logged or shown.
    """

    id: str
    dest_path: str
    state: str
    raw_state: Mapping[str, object] = field(repr=False, hash=False)
    priority: int
    updated_at: datetime | None
    # The same as Torrentino wrote it, to be compared and never read.
    updated: str

    @classmethod
    def from_json(cls, data: object) -> RemoteTicket:
        """Read one ticket of an answer.

        Raises:
            ValueError: it lacks an id, a destination or a state.
        """
        ticket = mapping_of(data)
        state = mapping_of(ticket.get("state"))
        return cls(
            id=_ticket_id(ticket),
            # Only ever compared with ours, which has no such characters.
            dest_path=printable(_required(ticket, "dest_path")),
            state=redact(_required(state, "type"))[:_MAX_NAME_CHARS],
            raw_state=state,
            priority=integer_of(ticket.get("priority")) or 0,
            updated_at=timestamp_of(ticket.get("updated_at")),
            updated=printable(str(ticket.get("updated_at") or ""))[:_MAX_NAME_CHARS],
        )

    @classmethod
    def from_list(cls, data: object) -> RemoteTicket | None:
        """Read an entry of a list; None for one that cannot be ours by its id or destination.

        One without a usable state is UNREADABLE: only its own answer can tell more.
        """
        try:
            return cls.from_json(data)
        except ValueError:
            pass
        try:
            return cls.from_json({**mapping_of(data), "state": {"type": UNREADABLE}})
        except ValueError:
            return None

    @property
    def progress_pct(self) -> float | None:
        """Of the download, 0 to 100. Falls back to 0 whenever Torrentino changes candidates."""
        value = number_of(self.raw_state.get("progress_pct"))
        return None if value is None else min(max(value, 0.0), 100.0)

    @property
    def speed_bps(self) -> int | None:
        """Bytes a second, while downloading."""
        return integer_of(self.raw_state.get("speed_bps"))

    @property
    def eta_s(self) -> int | None:
        """Seconds that the download still needs, as Torrentino estimates."""
        return integer_of(self.raw_state.get("eta_secs"))

    @property
    def info_hash(self) -> str | None:
        """Of the torrent being downloaded, or selected for it.

        None also when Torrentino has an empty one (`empty_hash`).
        """
        if self.empty_hash:
            return None
        return _hash(self.raw_state) or _hash(self._selected())

    @property
    def empty_hash(self) -> bool:
        """Whether it downloads without a hash.

        Torrentino then watches an arbitrary torrent, so nothing about the download can be trusted.
        """
        return self.state == RemoteState.DOWNLOADING and self.raw_state.get("info_hash") == ""

    @property
    def torrent_title(self) -> str | None:
        """Of the candidate that is selected or being downloaded; redacted and bounded."""
        title = self._selected().get("title")
        return redact(title)[:_MAX_TITLE_CHARS] if isinstance(title, str) and title else None

    @property
    def file_mappings(self) -> list[dict[str, object]]:
        """Which of the selected torrent's files Torrentino takes for which track, as it guesses.

        Each {"path", "item_id", "confidence"}: the path with the torrent's root folder, the
        item_id `track-<number>`, the confidence 0 to 1; at most 2,000. Empty where it has no idea.
        """
        entries = mappings_of(self._selected().get("file_mappings"))[:_MOST_MAPPINGS]
        read = (_file_mapping(entry) for entry in entries)
        return [mapping for mapping in read if mapping is not None]

    @property
    def offered(self) -> frozenset[str]:
        """The info-hashes of its candidates, those that it shows."""
        hashes = (_hash(each) for each in mappings_of(self.raw_state.get("candidates")))
        return frozenset(each for each in hashes if each is not None)

    @property
    def size_bytes(self) -> int | None:
        """Of the whole torrent that is selected or being downloaded."""
        return integer_of(self._selected().get("size_bytes"))

    @property
    def files_placed(self) -> int | None:
        """How many files a completed ticket says it has placed."""
        count = integer_of(self._stats().get("files_placed"))
        return None if count is None else min(count, _MOST_FILES)

    @property
    def final_size_bytes(self) -> int | None:
        """How many bytes a completed ticket says it has placed."""
        return integer_of(self._stats().get("final_size_bytes"))

    @property
    def reason(self) -> str | None:
        """Why it failed, waits, or was cancelled or rejected; redacted and bounded."""
        name = _REASON_FIELD.get(self.state)
        value = self.raw_state.get(name) if name else None
        return redact(value)[:_MAX_REASON_CHARS] if isinstance(value, str) and value else None

    @property
    def candidates(self) -> list[dict[str, object]]:
        """What an administrator may choose from while it needs approval, in Torrentino's order."""
        if self.state != RemoteState.NEEDS_APPROVAL:
            return []
        known = mappings_of(self.raw_state.get("candidates"))
        return [_summary(candidate) for candidate in known[:_MOST_CANDIDATES]]

    @property
    def titles(self) -> Mapping[str, str]:
        """The titles of its candidates that it shows, by info-hash; redacted and bounded."""
        known = mappings_of(self.raw_state.get("candidates"))[:_MOST_CANDIDATES]
        found = {_hash(each): str(each.get("title") or "") for each in known}
        return {hash_: redact(t)[:_MAX_TITLE_CHARS] for hash_, t in found.items() if hash_}

    @property
    def choices(self) -> list[tuple[str, str | None]]:
        """Title and info-hash of the same; None where it has none."""
        if self.state != RemoteState.NEEDS_APPROVAL:
            return []
        known = mappings_of(self.raw_state.get("candidates"))[:_MOST_CANDIDATES]
        return [(redact(str(each.get("title") or "")), _hash(each)) for each in known]

    def _selected(self) -> Mapping[str, object]:
        selected = self.raw_state.get("selected")
        if isinstance(selected, Mapping):
            return selected
        index = integer_of(self.raw_state.get("candidate_idx"))
        known = mappings_of(self.raw_state.get("candidates"))
        return known[index] if index is not None and index < len(known) else {}

    def _stats(self) -> Mapping[str, object]:
        stats = self.raw_state.get("stats")
        return stats if isinstance(stats, Mapping) else {}


def _summary(candidate: Mapping[str, object]) -> dict[str, object]:
    title = candidate.get("title")
    return {
        "title": redact(title)[:_MAX_TITLE_CHARS] if isinstance(title, str) else None,
        "size_bytes": integer_of(candidate.get("size_bytes")),
        "seeders": integer_of(candidate.get("seeders")),
        "score": number_of(candidate.get("score")),
    }


def _hash(entry: Mapping[str, object]) -> str | None:
    value = entry.get("info_hash")
    usable = isinstance(value, str) and _INFO_HASH.fullmatch(value)
    return str(value).lower() if usable else None


def _file_mapping(entry: Mapping[str, object]) -> dict[str, object] | None:
    path = usable_name(entry.get("torrent_file_path"))
    item_id, confidence = entry.get("ticket_item_id"), number_of(entry.get("confidence"))
    if path is None or not isinstance(item_id, str) or confidence is None:
        return None
    if not _ITEM_ID.fullmatch(item_id):
        return None
    return {"path": path, "item_id": item_id, "confidence": min(max(confidence, 0.0), 1.0)}


def mapping_of(value: object) -> Mapping[str, object]:
    """`value` as an object of JSON.

    Raises:
        ValueError: it is none.
    """
    if not isinstance(value, dict):
        raise ValueError(f"expected an object, got {type(value).__name__}")  # noqa: TRY004
    return value


def mappings_of(value: object) -> list[Mapping[str, object]]:
    """The objects of a list; none where it is no list."""
    return [entry for entry in value if isinstance(entry, dict)] if isinstance(value, list) else []


def _required(values: Mapping[str, object], name: str) -> str:
    value = values.get(name)
    if not isinstance(value, str) or not value:
        raise ValueError(f"{name!r} is missing or not a text")
    return value


def _ticket_id(ticket: Mapping[str, object]) -> str:
    """The id, which goes into paths, rows and logs: Torrentino makes a UUID."""
    value = _required(ticket, "id")
    if len(value) > _MAX_NAME_CHARS or not (value.isascii() and value.isprintable()):
        raise ValueError("'id' is no id")
    return value


def number_of(value: object) -> float | None:
    """A finite number; None for anything else."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        return None
    return float(value)


def integer_of(value: object) -> int | None:
    """A count or a size; None for anything that cannot be one."""
    number = number_of(value)
    return int(number) if number is not None and 0 <= number < _TOO_MUCH else None


def timestamp_of(value: object) -> datetime | None:
    """A moment in ISO 8601; None for anything else. Without an offset it is UTC."""
    try:
        moment = datetime.fromisoformat(value) if isinstance(value, str) else None
    except ValueError:
        return None
    if moment is None or moment.tzinfo is not None:
        return moment
    return moment.replace(tzinfo=UTC)
