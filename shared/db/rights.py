"""What each service may do with each table: the rights of its role, which `roles.py` gives.

A new table needs a line here, and a statement on another table a letter. A right is taken away one
release after its last use: a worker of the release before may still run while the new one migrates.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from typing import NamedTuple

from shared.settings import EVERY_SERVICE, Service

# The letters are PostgreSQL's, as psql's \dp prints them: r SELECT, a INSERT, w UPDATE, d DELETE,
# and U USAGE, which a sequence needs.
_RIGHTS = """
                   ingest  ticketer  poller  fetcher_writer  watchdog  reaper  bridge
acquisition        r       raw       -       -               -         -       -
albums             raw     r         -       r               raw       rwd     -
bad_sources        rad     r         raw     raw             -         rd      -
blocklist          rd      raw       raw     raw             -         rd      -
bridge_requests    r       -         -       -               -         -       rawd
bridge_server      r       -         -       -               -         -       raw
catalog_used       -       -         -       -               -         -       raw
conditions         rawd    rawd      rawd    rawd            rawd      rawd    rawd
events             raw     raw       raw     raw             raw       rwd     rw
file_verdicts      raw     -         -       -               -         rd      -
identity           r       r         r       r               r         r       r
installation       ra      r         r       ra              ra        ra      ra
item_counts        r       -         -       -               -         rawd    -
item_requesters    raw     r         r       r               ra        r       r
media_files        raw     -         -       raw             raw       -       rw
not_found          rw      rawd      -       -               -         rwd     -
places             -       -         -       raw             -         -       -
presence_problems  rawd    -         -       rawd            rawd      -       r
queue_items        raw     rw        rw      rw              raw       rwd     r
refused_files      rwd     r         r       rad             -         rd      -
releases           -       rad       -       -               -         -       -
requests           raw     rw        rw      rw              raw       rd      r
scans              raw     -         -       -               raw       rwd     -
searches           -       raw       -       -               -         rd      -
searches_made      r       rad       -       -               -         rd      -
tickets            rw      raw       raw     rw              rw        rd      -
torrents_seen      -       raw       rd      -               -         -       -
transitions        r       r         r       r               r         r       r
turns              r       rw        r       r               r         r       r
queue_seq          U       -         -       -               U         -       -
fence_seq          U       U         U       U               U         U       -
"""

# Of these tables a service changes these columns only.
_CHANGED: Mapping[tuple[str, Service], tuple[str, ...]] = {
    # The history cannot be rewritten.
    **{("events", service): ("published_at",) for service in EVERY_SERVICE},
    **{
        ("requests", service): ("settled_at",)
        for service in ("ticketer", "poller", "fetcher_writer")
    },
    ("media_files", "bridge"): ("published_at", "playable_at", "not_playable"),
    ("refused_files", "ingest"): ("released_by", "released_at"),
    # To lock a row is to be allowed to change it.
    ("albums", "reaper"): ("seen_at",),
}

# Secrets of the indexers: only the ticketer reads them.
_SECRET_COLUMNS: Mapping[str, tuple[str, ...]] = {"tickets": ("links",)}
_READS_SECRETS: Service = "ticketer"

# What writes the history runs with the rights of its owner, as no service that moves an item may
# write what it wants there.
DEFINER_FUNCTIONS = ("record_moves", "record_arrivals", "record_removals")

_PRIVILEGES = {"r": "SELECT", "a": "INSERT", "w": "UPDATE", "d": "DELETE", "U": "USAGE"}


class Right(NamedTuple):
    """One privilege of one service; without a column it is for all of the relation."""

    service: Service
    relation: str
    column: str | None
    privilege: str


def relations() -> dict[str, dict[Service, str]]:
    """The letters of each service, by table or sequence."""
    head, *lines = _RIGHTS.strip().splitlines()
    services = head.split()
    assert services == list(EVERY_SERVICE), services
    rows = [line.split() for line in lines]
    return {
        name: dict(zip(EVERY_SERVICE, (letters.strip("-") for letters in cells), strict=True))
        for name, *cells in rows
    }


def rights(columns: Mapping[str, Collection[str]]) -> set[Right]:
    """All rights on the relations that a schema has, given the columns of each."""
    return {
        right
        for relation, by_service in relations().items()
        if relation in columns
        for service, letters in by_service.items()
        for letter in letters
        for right in _of(service, relation, _PRIVILEGES[letter], columns[relation])
    }


def _of(
    service: Service, relation: str, privilege: str, columns: Collection[str]
) -> Iterator[Right]:
    only: Collection[str] | None = None
    if privilege == "UPDATE":
        only = _CHANGED.get((relation, service))
    elif privilege == "SELECT" and service != _READS_SECRETS and relation in _SECRET_COLUMNS:
        only = set(columns) - set(_SECRET_COLUMNS[relation])
    if only is None:
        yield Right(service, relation, None, privilege)
    else:
        yield from (Right(service, relation, column, privilege) for column in only)
