"""`pezzottify-downloads media take-over`."""

from __future__ import annotations

from shared.db.media_root import MediaRoot
from shared.db.pool import Database
from shared.settings import Settings, SettingsError


async def take_over_media(settings: Settings) -> None:
    """Make the media root belong to the database of these settings.

    Raises:
        SettingsError: MEDIA_PATH is not set.
        DependencyDown: PostgreSQL is away, or the folder is not there or cannot be written.
    """
    if settings.media_path is None:
        raise SettingsError("MEDIA_PATH is not set")
    database = Database(settings.database_url.get_secret_value())
    try:
        await MediaRoot(database, settings.media_path).take_over()
    finally:
        await database.close()
