"""The installation as it is seen from outside: the API, the files, and what NATS tells."""

from __future__ import annotations

import asyncio
import json
import sqlite3
import time
from collections.abc import Callable, Iterable
from contextlib import closing
from functools import partial
from pathlib import Path

from services.local.sample import ALBUM_ID, SECOND_ALBUM_ID
from shared.media.tools import find_tools
from shared.media.verify import verify
from shared.states import Stage
from tests.compose.lab import Failed, Json, Lab, until

_CATALOG_SERVER = Path(__file__).with_name("catalog_server.py")
_TRACKS = "SELECT t.id, t.duration_ms FROM tracks t JOIN albums a ON a.rowid = t.album_rowid"


class Seen:
    """What can be seen, and what must be true of it."""

    def __init__(self, lab: Lab) -> None:
        self.lab = lab
        self.library = lab.storage / "library"

    def healthy(self) -> None:
        """Every container that can be, within two minutes."""
        until(self.lab.healthy, what="every container is healthy")
        until(self.api_answers, what="ingest answers")

    def api_answers(self) -> bool:
        """Whether ingest is there, and can use its database."""
        return "by_status" in self.lab.ask("GET", "admin/stats")

    def ask_anew(self) -> None:
        """Lose all files, and ask for both albums."""
        self.forget_files()
        for album_id in (ALBUM_ID, SECOND_ALBUM_ID):
            until(partial(self.lab.ask, "POST", f"album/{album_id}"), what="a request is taken")

    def forget_files(self) -> None:
        """As if a user had deleted them: the next request brings them again."""
        for path in (self.library / "audio").rglob("*.*"):
            path.unlink()

    def reached(self, stage: Stage) -> bool:
        """Whether an item is, or has just been, in a stage."""
        items = self.lab.ask("GET", "my-requests?limit=17")["items"]
        order = list(Stage)
        return any(
            order.index(Stage(item["stage"])) >= order.index(stage) and item["status"] != "FAILED"
            for item in items
            if item["status"] in ("PENDING", "DOWNLOADING")
        )

    def completed(self) -> set[str]:
        """The ids of all completed items."""
        items: list[Json] = []
        while True:
            page = self.lab.ask("GET", f"my-requests?limit=200&offset={len(items)}")
            items += page["items"]
            if not page["has_more"]:
                break
        return {item["id"] for item in items if item["status"] == "COMPLETED"}

    def arrives(self, album_ids: Iterable[str], *, linked: bool = False) -> str:
        """Every track has its file, seen from outside: whole, right, and of the right owner."""
        tracks = self.tracks(album_ids)
        began = time.monotonic()
        until(lambda: all(self.files(t) for t in tracks), what=f"{len(tracks)} files")
        until(lambda: not self.active(), what="nothing is left to do")
        took = time.monotonic() - began
        asyncio.run(self.check_files(tracks, linked=linked))
        return f"{len(tracks)} files in place after {took:.1f} s, decoded on the host"

    def active(self) -> list[str]:
        """The items that are on their way."""
        stats = self.lab.ask("GET", "admin/stats")["by_stage"]
        return [s for s, count in stats.items() if count and s not in ("completed", "failed")]

    async def check_files(self, tracks: dict[str, int], *, linked: bool) -> None:
        """Decode each to its end, and look at who may do what with it."""
        tools, copies = find_tools(), []
        for track_id, duration_ms in tracks.items():
            [path] = self.files(track_id)
            await verify(path, expected_ms=duration_ms, tolerance_s=1, tools=tools)
            found, folder = path.stat(), path.parent.stat()
            require(
                (found.st_uid, found.st_gid) == (self.lab.uid, self.lab.gid), f"owner of {path}"
            )
            require(folder.st_mode & 0o777 == 0o775, f"{path.parent} is {folder.st_mode:o}")
            if found.st_nlink == 1:
                copies.append(path.name)
            if not linked:
                require(found.st_mode & 0o777 == 0o664, f"{path} is {found.st_mode:o}")
        if linked:
            # Two songs of the sample are ALAC, which browsers do not play.
            require(len(copies) == 2, f"converted or copied: {copies}")

    def files(self, track_id: str) -> list[Path]:
        """The files that have this track's name, at the place that the contract names."""
        folder = self.library / "audio" / track_id[:2] / track_id[2:4] / track_id[4:6]
        return list(folder.glob(f"{track_id}.*"))

    def tracks(self, album_ids: Iterable[str]) -> dict[str, int]:
        """The lengths in milliseconds of the albums' tracks, by their ids, from the catalog."""
        catalog = self.lab.storage / "catalog/catalog.db"
        with closing(sqlite3.connect(f"file:{catalog}?mode=ro", uri=True)) as connection:
            return {
                track_id: duration_ms
                for album_id in album_ids
                for track_id, duration_ms in connection.execute(
                    f"{_TRACKS} WHERE a.id = ?", (album_id,)
                )
            }

    def named(self) -> dict[str, str]:
        """The catalog's `audio_uri` of each track that has one."""
        catalog = self.lab.storage / "catalog/catalog.db"
        with closing(sqlite3.connect(f"file:{catalog}?mode=ro", uri=True)) as connection:
            return dict(connection.execute("SELECT id, audio_uri FROM tracks WHERE audio_uri > ''"))

    # --- the catalog server

    def heard(self) -> list[Json]:
        """Every audio.ready that NATS has."""
        return [json.loads(line) for line in self.as_catalog_server("ready").splitlines()]

    def as_catalog_server(
        self, *arguments: str, url: str | None = None, trusts: Path | None = None
    ) -> str:
        """Run catalog_server.py on the network of clients; what it prints."""
        url = url or self.lab.secret("nats_url_catalog")
        mounts = (
            [] if trusts is None else ["-v", f"{trusts}:/ca.crt:ro", "-e", "SSL_CERT_FILE=/ca.crt"]
        )
        return self.lab.run(
            *("docker", "run", "--rm", "-i", "--network", f"{self.lab.name}-clients", *mounts),
            *("-e", f"NATS_URL={url}", self.lab.image, "python", "-", *arguments),
            text=_CATALOG_SERVER.read_text(encoding="utf-8"),
        ).strip()


def require(holds: object, otherwise: object) -> None:
    """Raises `Failed` with the words if it does not hold."""
    if not holds:
        raise Failed(str(otherwise))


def require_refused(call: Callable[[], object], what: str) -> None:
    """Raises `Failed` if the call succeeds."""
    try:
        call()
    except Failed:
        return
    raise Failed(f"{what} still works")
