"""`pezzottify-downloads media take-over` and `nats take-over`."""

from __future__ import annotations

from shared.bus.once import once_connected
from shared.bus.streams import ensure_streams, own_streams
from shared.db.identity import installation_id
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


async def take_over_nats(settings: Settings) -> None:
    """Make the streams belong to the database of these settings; its user may have to be NATS' own.

    Raises:
        DependencyDown: PostgreSQL or NATS is away, or forbids it.
        Misconfigured: NATS refuses the user.
    """
    database = Database(settings.database_url.get_secret_value())
    try:
        async with database.connection() as connection:
            ours = await installation_id(connection)
    finally:
        await database.close()
    async with once_connected(
        settings.nats_url.get_secret_value(), ca_file=settings.nats_ca_file
    ) as client:
        await ensure_streams(client.jetstream())
        await own_streams(client.jetstream(), ours, another_s=True)
