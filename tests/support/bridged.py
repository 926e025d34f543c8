"""A world with a catalog server beside it, and a bridge between the two."""

from __future__ import annotations

import sqlite3
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing
from dataclasses import dataclass
from typing import Any

import httpx

from shared.media.paths import audio_uri
from shared.settings import Service
from tests.support.catalog_server_api import LISTENER, CatalogServerStandin
from tests.support.waits import eventually
from tests.support.world import Row, Running, World, album_id

PRESSES = {"BRIDGE_POLL_S": "1"}


@dataclass(kw_only=True)
class Bridged:
    """The world, the stand-in of its catalog server, and a listener who presses Request."""

    world: World
    server: CatalogServerStandin
    token: str = ""
    listener: str = ""

    async def run(self, *services: Service, **settings: str) -> Running:
        """Run a bridge, and these services, in this process."""
        return await self.world.run(*services, "bridge", **settings)

    async def press(self, number: int) -> str:
        """A listener requests an album at the server; the server's id of the request."""
        async with httpx.AsyncClient(base_url=self.server.url, trust_env=False) as client:
            if not self.token:
                body = {"user_handle": "ann", "password": "pw-ann", "device_type": "web"}
                said = await client.post("/v1/auth/login", json=body | {"device_uuid": "of-ann-1"})
                self.token = said.json()["token"]
            answer = await client.post(
                "/v1/download/request/album",
                json={"album_id": album_id(number)},
                headers={"Authorization": self.token},
            )
        assert answer.status_code == 200, answer.text
        return str(answer.json()["request_id"])

    async def request(self, remote_id: str) -> Row | None:
        """The bridge's row of a request."""
        sql = "SELECT * FROM bridge_requests WHERE remote_id = $1"
        return next(iter(await self.world.rows(sql, remote_id)), None)

    async def until_state(self, remote_id: str, *states: str, within_s: float = 20) -> Row:
        """The bridge's row, once it is in one of these states."""

        def there(row: Row | None) -> bool:
            return row is not None and row["state"] in states

        row = await eventually(lambda: self.request(remote_id), there, within_s=within_s)
        assert row is not None
        return row

    async def until_items(self, count: int, *, within_s: float = 20) -> list[Row]:
        """Our items, once there are so many."""
        return await eventually(
            self.world.items, lambda items: len(items) == count, within_s=within_s
        )

    async def place(self, *track_ids: str) -> None:
        """Complete these tracks' items as a fetcher-writer does, with small files."""
        for track_id in track_ids:
            uri = audio_uri(track_id, "flac")
            path = self.world.media / uri
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(b"fLaC" + track_id.encode())
            await self.world.execute(
                "INSERT INTO media_files (track_id, audio_uri, ext, size_bytes, sha256,"
                " duration_ms, codec, bitrate_kbps) VALUES ($1, $2, 'flac', 1, '', 1, 'flac', 1)"
                " ON CONFLICT DO NOTHING",
                track_id,
                uri,
            )
        await self.world.execute(
            "UPDATE queue_items SET stage = 'completed', completed_at = 1, lease_until = NULL"
            " WHERE track_id = ANY($1)",
            list(track_ids),
        )

    async def publish(self, *track_ids: str) -> None:
        """Set `audio_uri` of placed files, and record it, as the publishing bridge does."""
        rows = await self.world.rows(
            "SELECT track_id, audio_uri FROM media_files WHERE track_id = ANY($1)",
            list(track_ids),
        )
        with closing(sqlite3.connect(self.world.catalog, timeout=5)) as connection, connection:
            connection.executemany(
                "UPDATE tracks SET audio_uri = :audio_uri WHERE id = :track_id", rows
            )
        await self.world.execute(
            "UPDATE media_files SET published_at = now(), not_playable = NULL"
            " WHERE track_id = ANY($1)",
            list(track_ids),
        )

    def flags(self, number: int) -> tuple[str, int]:
        """The server's flag of an album, and how many of its tracks it shows as available."""
        with closing(sqlite3.connect(self.world.catalog)) as connection:
            row: Any = connection.execute(
                "SELECT album_availability, (SELECT sum(track_available) FROM tracks t"
                " WHERE t.album_rowid = a.rowid) FROM albums a WHERE a.id = ?",
                (album_id(number),),
            ).fetchone()
        return row[0], row[1]


@asynccontextmanager
async def bridged(world: World, **settings: str) -> AsyncIterator[Bridged]:
    """A catalog server for this world; its account `bridge` may do everything."""
    server = CatalogServerStandin(catalog=world.catalog, media=world.media)
    server.add_user("bridge")
    ann = server.add_user("ann", LISTENER)
    world.env |= {
        "CATALOG_SERVER_URL": server.url,
        "CATALOG_SERVER_USER": "bridge",
        "CATALOG_SERVER_PASSWORD": "pw-bridge",
        **PRESSES,
        **settings,
    }
    async with server:
        yield Bridged(world=world, server=server, listener=str(ann.id))
