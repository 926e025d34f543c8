"""The SQL of the catalog, built for the columns that this catalog has.

Joins use rowids, as the catalog server does. `user_version` says nothing: it is 0 in raw dumps, and
columns were added and removed without a change of it.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping
from dataclasses import dataclass

from shared.errors import DependencyDown, InvalidRequest

# Without these columns no track can be read.
REQUIRED: Mapping[str, frozenset[str]] = {
    "tracks": frozenset({"id", "name", "album_rowid"}),
    "albums": frozenset({"id", "name"}),
    "artists": frozenset({"id", "name"}),
    "track_artists": frozenset({"track_rowid", "artist_rowid"}),
    "artist_albums": frozenset({"artist_rowid", "album_rowid"}),
}

# Table alias and column; a missing column reads as NULL.
_TRACK_COLUMNS = (
    ("t", "id"),
    ("t", "name"),
    ("al", "id"),
    ("al", "name"),
    ("t", "disc_number"),
    ("t", "track_number"),
    ("t", "duration_ms"),
    ("t", "external_id_isrc"),
    ("t", "popularity"),
    ("t", "audio_uri"),
)

# So many tracks of an album are read to tell whether it is partial.
MOST_OF_AN_ALBUM = 2000

_AUDIO_URIS = "SELECT id, audio_uri FROM tracks WHERE id IN (SELECT value FROM json_each(?))"

LAST_ROWID = "SELECT max(rowid) FROM tracks"
# The end of a page does not depend on the filter, so that no query reads more than one page.
PAGE_END = """
SELECT max(rowid) FROM (
    SELECT rowid FROM tracks WHERE rowid > :after ORDER BY rowid LIMIT :limit
)
"""
ALBUM_TRACK_COUNT = """
SELECT count(*) FROM tracks WHERE album_rowid = (SELECT rowid FROM albums WHERE id = ?)
"""


@dataclass(frozen=True, kw_only=True)
class Queries:
    """The statements for one catalog. Rows of tracks are (rowid, album_rowid, *columns)."""

    track: str
    album: str
    """Parameter: its id. Rows: rowid, id, name, release date, type."""
    album_tracks: str
    page: str
    """Parameters: after, end (rowids), and those of the filter."""
    page_albums: str
    """The albums of a page. Parameters as `page`. Rows: rowid, id, whether a track has a file."""
    page_of_albums: str
    """A page of these albums only. Parameters: `albums`, a JSON array of rowids, and as `page`."""
    album_uris: str
    """Parameters: an album's rowid, the most rows. Rows: track id, audio_uri."""
    audio_uris: str | None
    """Parameter: a JSON array of track ids. Rows: track id, audio_uri. None without the column."""
    album_page: str
    """Parameters: album_id, after, limit, and those of the filter."""
    track_artists: str
    """Parameter: a JSON array of track rowids. Rows: track rowid, name."""
    album_artists: str
    """Parameter: a JSON array of album rowids. Rows: album rowid, name."""
    columns: Mapping[str, frozenset[str]]

    def require(self, table: str, column: str, purpose: str) -> None:
        """Raise InvalidRequest when a scope needs a column that this catalog does not have."""
        if column not in self.columns[table]:
            raise InvalidRequest(
                f"this catalog has no {table}.{column}, so it cannot {purpose}:"
                " choose another scope, or upgrade the catalog server"
            )


def probe(connection: sqlite3.Connection) -> Queries:
    """Read which columns the tables have, and build the statements for them.

    Raises:
        DependencyDown: a table or a column of `REQUIRED` is missing.
    """
    columns = {table: _columns(connection, table) for table in REQUIRED}
    missing = [
        f"{table}.{column}" if columns[table] else f"the table {table}"
        for table, needed in REQUIRED.items()
        for column in sorted(needed - columns[table])
    ]
    if missing:
        lacks = ", ".join(dict.fromkeys(missing))
        raise DependencyDown(
            "catalog", f"it lacks {lacks}: CATALOG_DB must name the catalog server's catalog.db"
        )
    return _build(columns)


def _columns(connection: sqlite3.Connection, table: str) -> frozenset[str]:
    found = connection.execute("SELECT name FROM pragma_table_info(?)", (table,))
    return frozenset(str(name) for (name,) in found)


def _build(columns: Mapping[str, frozenset[str]]) -> Queries:
    tables = {"t": "tracks", "al": "albums"}
    selected = ", ".join(
        f"{alias}.{name}" if name in columns[tables[alias]] else "NULL"
        for alias, name in _TRACK_COLUMNS
    )
    # The text is built from constants of this module only; values are parameters.
    head = (
        f"SELECT t.rowid, t.album_rowid, {selected} FROM tracks t"  # noqa: S608
        " LEFT JOIN albums al ON al.rowid = t.album_rowid WHERE"
    )
    kept = _filter(columns)
    between = f"t.rowid > :after AND t.rowid <= :end AND {kept}"
    has_uri = "audio_uri" in columns["tracks"]
    uri = "audio_uri" if has_uri else "NULL"
    disc, number = (
        f"t.{name}" if name in columns["tracks"] else "NULL"
        for name in ("disc_number", "track_number")
    )
    date, kind = (
        name if name in columns["albums"] else "NULL" for name in ("release_date", "album_type")
    )
    return Queries(
        track=f"{head} t.id = ?",
        album=f"SELECT rowid, id, name, {date}, {kind} FROM albums WHERE id = ?",  # noqa: S608
        album_tracks=f"{head} t.album_rowid = ? ORDER BY {disc}, {number}, t.rowid",
        page=f"{head} {between} ORDER BY t.rowid",
        page_albums=_page_albums(between, uri),
        page_of_albums=(
            f"{head} {between}"  # noqa: S608
            " AND t.album_rowid IN (SELECT value FROM json_each(:albums)) ORDER BY t.rowid"
        ),
        album_uris=f"SELECT id, {uri} FROM tracks WHERE album_rowid = ? LIMIT ?",  # noqa: S608
        audio_uris=_AUDIO_URIS if has_uri else None,
        album_page=(
            f"{head} t.album_rowid = (SELECT rowid FROM albums WHERE id = :album_id)"  # noqa: S608
            f" AND t.rowid > :after AND {kept} ORDER BY t.rowid LIMIT :limit"
        ),
        track_artists=_track_artists("role" in columns["track_artists"]),
        album_artists=_album_artists(columns["artist_albums"]),
        columns=columns,
    )


def _filter(columns: Mapping[str, frozenset[str]]) -> str:
    """The conditions of a scope, each of which a parameter turns off."""
    clauses = []
    if "popularity" in columns["tracks"]:
        clauses.append("(:min_popularity IS NULL OR t.popularity >= :min_popularity)")
    return " AND ".join(clauses) or "1"


def _page_albums(between: str, uri: str) -> str:
    # The LIMIT bounds the work for an album of any number of tracks.
    return (
        "SELECT al.rowid, al.id, EXISTS (SELECT 1 FROM"  # noqa: S608
        f" (SELECT {uri} AS uri FROM tracks WHERE album_rowid = al.rowid LIMIT {MOST_OF_AN_ALBUM})"
        " WHERE uri <> '')"
        f" FROM albums al WHERE al.rowid IN (SELECT t.album_rowid FROM tracks t WHERE {between})"
    )


def _track_artists(has_role: bool) -> str:
    # 0 main, 1 featured; other roles (composer, conductor) do not help to find a recording. A raw
    # dump has no roles: all its artists count as main artists.
    role = "coalesce(ta.role, 0)" if has_role else "(0 + 0)"  # a bare 0 would name a column
    return (
        "SELECT ta.track_rowid, a.name FROM track_artists ta"  # noqa: S608
        " JOIN artists a ON a.rowid = ta.artist_rowid"
        f" WHERE ta.track_rowid IN (SELECT value FROM json_each(?)) AND {role} IN (0, 1)"
        f" ORDER BY ta.track_rowid, {role}, ta.rowid"
    )


def _album_artists(columns: frozenset[str]) -> str:
    primary = "aa.is_appears_on = 0" if "is_appears_on" in columns else "1"
    place = "aa.index_in_album" if "index_in_album" in columns else "aa.rowid"
    return (
        "SELECT aa.album_rowid, a.name FROM artist_albums aa"  # noqa: S608
        " JOIN artists a ON a.rowid = aa.artist_rowid"
        f" WHERE aa.album_rowid IN (SELECT value FROM json_each(?)) AND {primary}"
        f" ORDER BY aa.album_rowid, {place} IS NULL, {place}, aa.rowid"
    )
