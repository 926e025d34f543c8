"""Files of the ledger that a catalog is to name, and what has to be true of those that it names."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path

from shared.media.paths import audio_uri
from tests.support.catalog_server import create_server_catalog
from tests.support.waits import eventually
from tests.support.world import World

_LEDGER = """
INSERT INTO media_files (track_id, audio_uri, ext, size_bytes, sha256, duration_ms, codec,
                         bitrate_kbps)
SELECT f.id, f.uri, 'ogg', $3, 'x', 1000, 'vorbis', 320
  FROM unnest($1::text[], $2::text[]) AS f (id, uri)
"""
_ROWS = "SELECT track_id, audio_uri, size_bytes, published_at FROM media_files"
CONTENT = b"a whole file, as far as its size says"


def with_server_catalog(world: World) -> None:
    """Give the world a catalog with the server's whole schema, empty."""
    world.catalog.unlink()
    create_server_catalog(world.catalog)


async def place_files(world: World, ids: Sequence[str]) -> list[str]:
    """Files under our paths with their ledger rows, as if items had placed them; the paths."""
    uris = [audio_uri(id_, "ogg") for id_ in ids]
    for uri in uris:
        path = world.media / uri
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(CONTENT)
    await world.execute(_LEDGER, list(ids), uris, len(CONTENT))
    return uris


def named(catalog: Path) -> dict[str, str | None]:
    """What the catalog says of each track, by id."""
    with closing(sqlite3.connect(f"file:{catalog}?mode=ro", uri=True)) as connection:
        return dict(connection.execute("SELECT id, audio_uri FROM tracks"))


def set_uri(catalog: Path, track_id: str, uri: str | None) -> None:
    """Let the catalog say something of a track, as an import or the server does."""
    with closing(sqlite3.connect(catalog)) as connection, connection:
        connection.execute("UPDATE tracks SET audio_uri = ? WHERE id = ?", (uri, track_id))


async def named_files_are_whole(world: World) -> None:
    """Each audio_uri that we may have written leads to the ledger's file, as it was verified.

    Those are the ledger's paths, and paths by our rule; other programs name theirs.
    """
    files = {row["track_id"]: row for row in await world.rows(_ROWS)}
    wrong = []
    for id_, uri in named(world.catalog).items():
        file = files.get(id_)
        recorded = file is not None and file["audio_uri"] == uri
        if uri is None or not (recorded or uri == audio_uri(id_, uri.rpartition(".")[2])):
            continue
        if file is None or not recorded or not _is_whole(world.media / uri, file["size_bytes"]):
            wrong.append(uri)
    assert wrong == [], f"named by the catalog, and not whole: {wrong}"


async def all_are_named(world: World) -> None:
    """Soon each file of the ledger is named and published, or the catalog names another one."""

    async def waiting() -> list[str]:
        uris = named(world.catalog)
        rows = await world.rows(_ROWS)
        return [
            row["track_id"]
            for row in rows
            if row["published_at"] is None
            or not _leads_to(world.media, uris.get(row["track_id"]), row["audio_uri"])
        ]

    await eventually(waiting, lambda left: left == [], within_s=30)
    await named_files_are_whole(world)


def _leads_to(media: Path, uri: str | None, ours: str) -> bool:
    """Whether the catalog names our file, or another that exists, which we leave."""
    return uri is not None and (uri == ours or (media / uri).is_file())


def _is_whole(path: Path, size_bytes: int | None) -> bool:
    return path.is_file() and path.stat().st_size == size_bytes
