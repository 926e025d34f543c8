"""The product in a trial: its services as one process, asked over HTTP, seen in its database."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeAlias

import asyncpg
import httpx

from shared.states import Stage
from tests.live.programs import Failed, Program, client, until

Row: TypeAlias = dict[str, Any]

_ADMIN_KEY = "key-of-the-trials"
_ASK_S = 60.0
_LOOK_S = 0.3
_ENDED = (Stage.COMPLETED, Stage.FAILED)


@dataclass(kw_only=True)
class Product:
    """All services in one process, which a trial may kill."""

    folder: Path
    database_url: str
    port: int
    env: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.program = Program(
            name="services",
            folder=self.folder,
            command=[sys.executable, "-m", "services", "run", "all"],
            url=f"http://127.0.0.1:{self.port}/",
            env={
                **self.env,
                "DATABASE_URL": self.database_url,
                "CATALOG_DB": str(self.catalog),
                "MEDIA_PATH": str(self.media),
                "BOOTSTRAP_ADMIN_KEY": _ADMIN_KEY,
                "PORT": str(self.port),
                "OPS_PORT": "0",
                "POLL_INTERVAL_S": "0.5",
                "SWEEP_INTERVAL_S": "0.5",
                "LEASE_S": "5",
                "RETRY_INITIAL_S": "1",
                "RETRY_MULTIPLIER": "1",
                "MAX_RETRIES": "3",
                "SEARCH_GAP_S": "0",
                "SEARCHES_PER_HOUR": "100000",
                "DURATION_TOLERANCE_S": "0.4",
                "MIN_FREE_DISK_MB": "0",
                "USER_MAX_REQUESTS_PER_DAY": "100000",
                "USER_MAX_QUEUE_SIZE": "100000",
            },
        )

    @property
    def catalog(self) -> Path:
        """The catalog's database."""
        return self.folder / "catalog.db"

    @property
    def media(self) -> Path:
        """The media root."""
        return self.folder / "media"

    async def ask(self, kind: str, id_: str) -> None:
        """Ask for an album or a track, again and again while the services are away.

        Raises:
            Failed: the request is refused, or nobody answers for long.
        """
        async with self._api() as api:

            async def was_taken() -> bool:
                try:
                    answer = await api.post(f"/v1/download/{kind}/{id_}")
                except httpx.TransportError:
                    return False
                if answer.is_client_error:
                    raise Failed(f"the request for {kind} {id_} was refused: {answer.text}")
                return answer.is_success

            await until(was_taken, f"nobody took the request for {kind} {id_}", within_s=_ASK_S)

    async def waiting_for_a_person(self) -> int:
        """How many items do."""
        async with self._api() as api:
            answer = await api.get("/v1/download/admin/attention")
            return int(answer.raise_for_status().json()["total"])

    async def answers(self) -> str:
        """All that the API tells of the items, as text."""
        paths = ("my-requests", "admin/stats", "admin/failed", "admin/items", "admin/attention")
        async with self._api() as api:
            told = [(await api.get(f"/v1/download/{path}?limit=200")).text for path in paths]
        return "\n".join(told)

    def _api(self) -> httpx.AsyncClient:
        return client(f"http://127.0.0.1:{self.port}", timeout_s=20, key=_ADMIN_KEY)

    async def rows(self, sql: str, *args: object) -> list[Row]:
        """Rows of its database."""
        connection = await asyncpg.connect(self.database_url)
        try:
            return [dict(row) for row in await connection.fetch(sql, *args)]
        finally:
            await connection.close()

    async def items(self) -> list[Row]:
        """What became of every item."""
        return await self.rows(
            "SELECT id, track_id, stage, retry_count, error_type, error_message, reason"
            " FROM queue_items ORDER BY seq"
        )

    async def until_ended(
        self, count: int, *, limit_s: float, quiet_s: float, trouble: asyncio.Task[None]
    ) -> Sequence[Row]:
        """The items when `count` of them have ended, nothing moves any more, or time is up."""
        loop = asyncio.get_running_loop()
        began = moved = loop.time()
        last: Sequence[Row] = ()
        while loop.time() - began < limit_s:
            items = await self.items()
            now = loop.time()
            if items != last or not trouble.done():
                last, moved = items, now
            ended = sum(item["stage"] in _ENDED for item in items)
            if trouble.done() and (ended == len(items) == count or now - moved > quiet_s):
                break
            await asyncio.sleep(_LOOK_S)
        return last

    def placed(self) -> dict[str, list[Path]]:
        """The files in the media root, by the track that each is for."""
        found: dict[str, list[Path]] = {}
        for path in sorted((self.media / "audio").rglob("*")):
            if path.is_file():
                found.setdefault(path.stem, []).append(path)
        return found
