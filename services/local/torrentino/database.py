"""The database in which tickets, audit events and torrents survive the process."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, TypeAlias

_SCHEMA = """
CREATE TABLE IF NOT EXISTS tickets (id TEXT PRIMARY KEY, body TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS events (id INTEGER PRIMARY KEY, body TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS torrents (id TEXT PRIMARY KEY, body TEXT NOT NULL);
"""

_TICKETS_MAX = _TORRENTS_MAX = 1_000_000
Row: TypeAlias = Mapping[str, object]


class Database:
    """JSON rows in SQLite; a write that has returned survives a kill of the process.

    Without a path there is no file, and nothing is stored.
    """

    def __init__(self, path: Path | None) -> None:
        self._connection: sqlite3.Connection | None = None
        if path is not None:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._connection = sqlite3.connect(path, isolation_level=None)
            self._connection.execute("PRAGMA journal_mode=WAL").fetchall()
            self._connection.execute("PRAGMA synchronous=OFF")
            self._connection.executescript(_SCHEMA)

    @property
    def durable(self) -> bool:
        """Whether there is a file."""
        return self._connection is not None

    def tickets(self) -> list[dict[str, Any]]:
        return self._bodies("SELECT body FROM tickets LIMIT ?", _TICKETS_MAX)

    def events(self, *, limit: int) -> list[dict[str, Any]]:
        """The newest `limit` events, oldest first."""
        return self._bodies("SELECT body FROM events ORDER BY id DESC LIMIT ?", limit)[::-1]

    def torrents(self) -> list[dict[str, Any]]:
        return self._bodies("SELECT body FROM torrents LIMIT ?", _TORRENTS_MAX)

    def save_torrents(self, rows: Iterable[Row], gone: Iterable[str]) -> None:
        """Insert or replace the rows by id and remove those in `gone`, in one transaction."""
        if self._connection is None:
            return
        self._connection.execute("BEGIN")
        self._connection.executemany(
            "INSERT OR REPLACE INTO torrents (id, body) VALUES (:id, :body)", _texts(rows)
        )
        self._connection.executemany(
            "DELETE FROM torrents WHERE id = ?", [(each,) for each in gone]
        )
        self._connection.execute("COMMIT")

    def save(self, tickets: Iterable[Row], events: Iterable[Row]) -> None:
        """Insert or replace these by id, in one transaction."""
        if self._connection is None:
            return
        self._connection.execute("BEGIN")
        self._connection.executemany(
            "INSERT OR REPLACE INTO tickets (id, body) VALUES (:id, :body)", _texts(tickets)
        )
        self._connection.executemany(
            "INSERT OR REPLACE INTO events (id, body) VALUES (:id, :body)", _texts(events)
        )
        self._connection.execute("COMMIT")

    def delete_ticket(self, ticket_id: str) -> None:
        if self._connection is not None:
            self._connection.execute("DELETE FROM tickets WHERE id = ?", (ticket_id,))

    def close(self) -> None:
        if self._connection is not None:
            self._connection.close()

    def _bodies(self, query: str, limit: int) -> list[dict[str, Any]]:
        if self._connection is None:
            return []
        rows = self._connection.execute(query, (limit,)).fetchall()
        return [json.loads(body) for (body,) in rows]


def _texts(rows: Iterable[Row]) -> list[dict[str, object]]:
    return [{"id": row["id"], "body": json.dumps(row)} for row in rows]
