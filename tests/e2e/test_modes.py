"""UMASK of a service process, whatever umask it was started with."""

from __future__ import annotations

import os
import uuid

import pytest

from shared.bus.subjects import REQUEST_ALBUM
from shared.media.paths import source_uri
from tests.support.world import World, album_id


@pytest.mark.parametrize(
    ("started_with", "given", "file", "folder"),
    [(0o022, "002", 0o664, 0o775), (0o077, "", 0o644, 0o755)],
)
async def test_umask_decides_whatever_the_process_was_started_with(
    started_with: int, given: str, file: int, folder: int, world: World
) -> None:
    """What was converted and what was collected, in new folders; by default all may read it."""
    (track,) = world.add_album(1, 1)
    before = os.umask(started_with)
    try:
        await world.spawn(UMASK=given, AUDIO_FORMAT="opus", AUDIO_KEEP_SOURCE="true")
    finally:
        os.umask(before)
    request = {"v": 1, "request_id": str(uuid.uuid4()), "user_id": "1", "album_id": album_id(1)}
    await world.publish(REQUEST_ALBUM, request)
    (item,) = await world.until_ended(1)
    assert item["status"] == "COMPLETED"
    assert world.files()[track].suffix == ".opus"
    assert (world.media / source_uri(track, "flac")).is_file()
    found = {path: path.stat().st_mode & 0o777 for path in world.media.rglob("*")}
    assert found == {path: folder if path.is_dir() else file for path in found}
