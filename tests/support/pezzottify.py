"""The real catalog server, where PEZZOTTIFY_BINARY names one that was built, in a folder.

Its accounts are written into its database: it has no route that makes one. It binds all
interfaces, which no setting of it changes; its ports are random.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sqlite3
import subprocess
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import httpx

from services.local.servers import end_process, free_port
from tests.support.waits import eventually

BINARY = "PEZZOTTIFY_BINARY"
PASSWORD = "pw-bridge"
# Argon2 of that password, as `cli-auth add-login` wrote it.
_SALT = "BVYB7iR9WGyFzhwEAitKzg"
_HASH = (
    "$argon2id$v=19$m=19456,t=2,p=1$BVYB7iR9WGyFzhwEAitKzg$"
    "LGKMw/asHhl8TFcEqOhucS/2i/fG/vokd3yKN0UGNPI"
)
_NUMBERS = {
    "AccessCatalog": 1,
    "EditCatalog": 4,
    "ServerAdmin": 7,
    "ViewAnalytics": 8,
    "RequestContent": 9,
}
_START_S = 30.0

_CONFIG = """db_dir = "{db}"
media_path = "{media}"
port = {port}
metrics_port = {metrics_port}
frontend_dir_path = "{folder}/web"
content_cache_age_sec = 60
[download_manager]
[search]
engine = "noop"
[ingestion]
enabled = {ingestion}
"""


def binary() -> Path | None:
    """The program that was built; None where none is named."""
    named = os.environ.get(BINARY, "")
    return Path(named) if named else None


@dataclass(kw_only=True)
class Pezzottify:
    """A catalog server of its own, between `start` and `stop`."""

    program: Path
    folder: Path
    media: Path
    ingestion: bool = False
    # Where its databases are; by default below its folder.
    databases: Path | None = None
    port: int = 0
    _process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        """CATALOG_SERVER_URL."""
        return f"http://127.0.0.1:{self.port}"

    @property
    def catalog(self) -> Path:
        """Its catalog.db, made at its first start."""
        return self.db / "catalog.db"

    @property
    def db(self) -> Path:
        """Where its databases are."""
        return self.databases or self.folder / "db"

    async def start(self) -> None:
        """Start it, and wait until it answers."""
        self.port = self.port or free_port()
        for folder in (self.db, self.folder / "web", self.media):
            folder.mkdir(parents=True, exist_ok=True)
        (self.folder / "web/index.html").write_text("<html>the web app</html>")
        config = self.folder / "config.toml"
        config.write_text(
            _CONFIG.format(
                folder=self.folder,
                db=self.db,
                media=self.media,
                port=self.port,
                metrics_port=free_port(),
                ingestion=str(self.ingestion).lower(),
            )
        )
        with (self.folder / "pezzottify.log").open("ab") as log:
            self._process = await asyncio.to_thread(
                subprocess.Popen,
                [str(self.program), "--config", str(config)],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        await eventually(self._answers, within_s=_START_S)

    async def _answers(self) -> bool:
        assert self._process is not None
        assert self._process.poll() is None, f"it ended; see {self.folder}/pezzottify.log"
        async with httpx.AsyncClient(trust_env=False, verify=False) as client:
            try:
                await client.get(self.url)
            except httpx.TransportError:
                return False
        return True

    async def stop(self) -> None:
        """End it in order."""
        process, self._process = self._process, None
        await end_process(process, signal.SIGTERM)

    def add_user(self, handle: str, permissions: Sequence[str]) -> str:
        """An account with the password `PASSWORD`; its number as text."""
        with closing(sqlite3.connect(self.db / "user.db", timeout=10)) as db, db:
            number = db.execute("INSERT INTO user (handle) VALUES (?)", (handle,)).lastrowid
            db.execute(
                "INSERT INTO user_password_credentials (user_id, salt, hash, hasher)"
                " VALUES (?, ?, ?, 'argon2')",
                (number, _SALT, _HASH),
            )
            db.executemany(
                "INSERT INTO user_extra_permission (user_id, permission, start_time)"
                " VALUES (?, ?, 0)",
                [(number, _NUMBERS[each]) for each in permissions],
            )
        return str(number)

    def bells(self) -> list[tuple[str, str]]:
        """Every notification: whose, and its title."""
        with closing(sqlite3.connect(self.db / "user.db", timeout=10)) as db:
            rows = db.execute("SELECT user_id, title FROM user_notifications").fetchall()
        return [(str(user_id), title) for user_id, title in rows]
