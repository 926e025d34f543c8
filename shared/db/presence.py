"""Which file a track has: of the ledger, of the catalog's `audio_uri`, or under its own name.

`Known.look` compares the three by their status alone, for any number of tracks; `shared.present`
decodes what is not recorded. `note` writes what an operator has to know into `presence_problems`.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from shared.db.ledger import Placed, placed, unreadable
from shared.db.pool import Connection
from shared.media.paths import find_audio, is_own
from shared.media.presence import NamedFile, Outside, is_of_one_file, named_file

Kind = Literal["outside", "broken", "second"]

_MOST_TEXT = 1000


@dataclass(frozen=True, kw_only=True)
class Problem:
    """A row of `presence_problems`; `size_bytes` and `modified_ns` are the broken file's."""

    track_id: str
    audio_uri: str
    kind: Kind
    detail: str
    size_bytes: int | None = None
    modified_ns: int | None = None

    def is_of(self, file: NamedFile) -> bool:
        """Whether this file was found broken, and has not changed since."""
        found = (_text(file.uri), file.size_bytes, file.modified_ns)
        told = (self.audio_uri, self.size_bytes, self.modified_ns)
        return self.kind == "broken" and found == told


@dataclass(frozen=True, kw_only=True)
class Seen:
    """What there is for one track.

    `recorded`: the ledger's file, in place. Otherwise `candidates` may be the track's file, from
    the most to the least likely, and `own` says whether a file has the track's own name;
    `unrecorded` leaves out a recorded file whose size has changed. `broken`: what the catalog names
    is known to be broken. `problem` is what the operator has to know. `unpublished`: the catalog
    names no file any more, although it did when the bridge checked last. `unreadable`: the
    file of `broken` may be whole, and cannot be read.
    """

    track_id: str
    recorded: Placed | None = None
    candidates: tuple[NamedFile, ...] = ()
    own: bool = False
    unrecorded: bool = False
    broken: Problem | None = None
    problem: Problem | None = None
    unpublished: bool = False
    unreadable: bool = False


@dataclass(frozen=True, kw_only=True)
class Known:
    """The rows of some tracks, by track id."""

    ledger: Mapping[str, Placed]
    problems: Mapping[str, Problem]

    def look(
        self, root: Path, uris: Mapping[str, str | None], *, trusted: bool = True
    ) -> dict[str, Seen]:
        """What there is for each of these tracks, with its `audio_uri`. Blocks.

        Without `trusted` a recorded file is a candidate like any other, to be decoded again. A
        track whose folder or file cannot be read, while the root can, has a problem of its own.

        Raises:
            DependencyDown: the disk cannot be read.
        """
        found = {}
        for id_, uri in uris.items():
            try:
                found[id_] = self._look(root, id_, uri, trusted)
            except OSError as error:
                if not is_of_one_file(error, root):
                    raise unreadable(error, "checking for files") from error
                why = f"it cannot be read: {error.strerror}"
                told = problem(id_, uri or str(error.filename or ""), "broken", why)
                found[id_] = Seen(track_id=id_, broken=told, problem=told, unreadable=True)
        return found

    def _look(self, root: Path, track_id: str, uri: str | None, trusted: bool) -> Seen:
        row, told = self.ledger.get(track_id), self.problems.get(track_id)
        found = named_file(root, uri)
        named = found if isinstance(found, NamedFile) else None
        # Mostly the catalog names the ledger's file: its status is read once.
        same = row is not None and row.audio_uri == uri
        lies = found if same or row is None else named_file(root, row.audio_uri)
        file = lies if isinstance(lies, NamedFile) else None
        whole = row is not None and file is not None and file.size_bytes == row.size_bytes
        if trusted and whole:
            assert row is not None
            assert file is not None
            return Seen(
                track_id=track_id,
                recorded=row,
                problem=_outside(track_id, found)
                or _still_broken(told, named)
                or _second(track_id, named, file, root),
                unpublished=row.published_at is not None and found is None,
            )
        ours = row is not None and not row.adopted
        possible = _candidates(track_id, named, file, ours=ours, whole=whole)
        broken = next((told for each in possible if told and told.is_of(each)), None)
        own = find_audio(root, track_id)
        return Seen(
            track_id=track_id,
            candidates=tuple(each for each in possible if not (told and told.is_of(each))),
            own=bool(own),
            unrecorded=any(file is None or path != root / file.uri for path in own),
            broken=broken,
            problem=_outside(track_id, found) or broken,
        )


def _candidates(
    track_id: str, named: NamedFile | None, file: NamedFile | None, *, ours: bool, whole: bool
) -> list[NamedFile]:
    """The file that the catalog names, and that of the ledger: first if it has its size."""
    others = [named] if named and (file is None or named.inode != file.inode) else []
    if file is None:
        return others
    if whole:
        return [file, *others]
    if ours and is_own(track_id, file.uri):
        # It is checked under the track's own name; a damaged one is replaced in any case.
        return others
    return [*others, file]


def _outside(track_id: str, found: NamedFile | Outside | None) -> Problem | None:
    if not isinstance(found, Outside):
        return None
    return problem(track_id, found.uri, "outside", found.why)


def _still_broken(told: Problem | None, named: NamedFile | None) -> Problem | None:
    return told if told is not None and named is not None and told.is_of(named) else None


def _second(track_id: str, named: NamedFile | None, file: NamedFile, root: Path) -> Problem | None:
    """The other file of a track that has one in the ledger."""
    if named is not None and named.inode != file.inode:
        why = f"the ledger has {file.uri}, and the catalog names another file"
        return problem(track_id, named.uri, "second", why)
    if is_own(track_id, file.uri):
        return None
    for path in find_audio(root, track_id):
        status = path.stat()
        if (status.st_dev, status.st_ino) != file.inode:
            why = f"the ledger has {file.uri}, and another file has the track's own name"
            return problem(track_id, str(path.relative_to(root)), "second", why)
    return None


def problem(
    track_id: str, uri: str, kind: Kind, detail: str, file: NamedFile | None = None
) -> Problem:
    """A problem, with texts that PostgreSQL can store."""
    return Problem(
        track_id=track_id,
        audio_uri=_text(uri),
        kind=kind,
        detail=_text(detail),
        size_bytes=file.size_bytes if file else None,
        modified_ns=file.modified_ns if file else None,
    )


def _text(value: str) -> str:
    return value.replace("\0", "\\0")[:_MOST_TEXT]


_PROBLEMS = """
SELECT track_id, audio_uri, kind, detail, size_bytes, modified_ns FROM presence_problems
 WHERE track_id = ANY($1)
"""


async def known(connection: Connection, track_ids: Collection[str]) -> Known:
    """What the ledger and `presence_problems` have of these tracks."""
    ids = list(track_ids)
    rows = await connection.fetch(_PROBLEMS, ids)
    return Known(
        ledger=await placed(connection, ids),
        problems={row["track_id"]: Problem(**dict(row)) for row in rows},
    )


@dataclass(frozen=True, kw_only=True)
class Notes:
    """What to write of tracks that were checked: see `notes`."""

    forgotten: Sequence[str] = ()
    problems: Sequence[Problem] = ()
    unpublished: Sequence[Placed] = ()
    # Album ids by track id, of ledger rows without one.
    albums: Mapping[str, str] = field(default_factory=dict)

    def __bool__(self) -> bool:
        return bool(self.forgotten or self.problems or self.unpublished or self.albums)


def notes(
    before: Known,
    seen: Iterable[Seen],
    *,
    found: Mapping[str, Problem] | None = None,
    albums: Mapping[str, str | None],
) -> Notes:
    """What differs from what the database has; `found` are problems that a decode has shown."""
    checked = list(seen)
    now = {each.track_id: each.problem for each in checked if each.problem} | dict(found or {})
    return Notes(
        forgotten=[
            each.track_id
            for each in checked
            if each.track_id in before.problems and each.track_id not in now
        ],
        problems=[each for each in now.values() if before.problems.get(each.track_id) != each],
        unpublished=[each.recorded for each in checked if each.recorded and each.unpublished],
        albums={
            track_id: album_id
            for track_id, row in before.ledger.items()
            if row.album_id is None and (album_id := albums.get(track_id)) is not None
        },
    )


_FORGET = "DELETE FROM presence_problems WHERE track_id = ANY($1)"

_TELL = """
INSERT INTO presence_problems AS p (track_id, audio_uri, kind, detail, size_bytes, modified_ns)
SELECT * FROM unnest($1::text[], $2::text[], $3::text[], $4::text[], $5::bigint[], $6::bigint[])
ON CONFLICT (track_id) DO UPDATE
   SET audio_uri = excluded.audio_uri, kind = excluded.kind, detail = excluded.detail,
       size_bytes = excluded.size_bytes, modified_ns = excluded.modified_ns, seen_at = now()
"""

# A file that the bridge has published since the check stays published.
_UNPUBLISH = """
UPDATE media_files f SET published_at = NULL, playable_at = NULL, not_playable = NULL
  FROM unnest($1::text[], $2::timestamptz[]) AS s (track_id, published_at)
 WHERE f.track_id = s.track_id AND f.published_at = s.published_at
"""

_ALBUMS = """
UPDATE media_files f SET album_id = s.album_id
  FROM unnest($1::text[], $2::text[]) AS s (track_id, album_id)
 WHERE f.track_id = s.track_id AND f.album_id IS NULL
"""


async def note(connection: Connection, what: Notes) -> None:
    """Write it, in the order of the track ids, so that two transactions do not block."""
    if what.forgotten:
        await connection.execute(_FORGET, sorted(what.forgotten))
    if what.problems:
        rows = sorted(what.problems, key=lambda each: each.track_id)
        names = ("track_id", "audio_uri", "kind", "detail", "size_bytes", "modified_ns")
        await connection.execute(_TELL, *([getattr(row, name) for row in rows] for name in names))
    if what.unpublished:
        files = sorted(what.unpublished, key=lambda each: each.track_id)
        ids, times = [each.track_id for each in files], [each.published_at for each in files]
        await connection.execute(_UNPUBLISH, ids, times)
    if what.albums:
        ids = sorted(what.albums)
        await connection.execute(_ALBUMS, ids, [what.albums[each] for each in ids])
