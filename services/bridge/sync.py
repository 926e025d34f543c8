"""One pass by hand: `pezzottify-downloads bridge sync`."""

from __future__ import annotations

from collections.abc import Mapping

from services.bridge.catalog_file import CatalogFile
from services.bridge.publisher import Counts, Publisher
from services.bridge.store import Store
from shared.clock import SystemClock
from shared.db.media_root import MediaRoot
from shared.db.pool import Database
from shared.errors import DownloadsError
from shared.health import Health
from shared.settings import Settings, load


class NothingWritten(DownloadsError):
    """The settings do not let the bridge write to the catalog."""


def settings_for_sync(environ: Mapping[str, str]) -> Settings:
    """The settings of a bridge that writes; NATS_URL may be missing.

    Raises:
        NothingWritten: BRIDGE_CATALOG_WRITE is not set.
        SettingsError: another one is missing or unusable.
    """
    environ = {"NATS_URL": "nats://unused"} | dict(environ)
    if not load([], environ).bridge_catalog_write:
        raise NothingWritten("BRIDGE_CATALOG_WRITE is not set: nothing is written to the catalog")
    return load(["bridge"], environ)


async def sync_ledger(settings: Settings) -> Counts:
    """Publish the whole ledger once, without NATS.

    Raises:
        Unavailable: PostgreSQL, the catalog or the media root cannot be used now.
        Stale: the catalog was replaced meanwhile.
    """
    assert settings.catalog_db is not None, "required where the bridge writes"
    clock = SystemClock()
    database = Database(settings.database_url.get_secret_value())
    catalog = CatalogFile(settings.catalog_db, server_stopped=settings.bridge_server_stopped)
    try:
        publisher = Publisher(
            store=Store(database, replace_broken=settings.replace_broken),
            catalog=catalog,
            root=MediaRoot(database, settings.media_root),
            health=Health(clock),
            clock=clock,
        )
        return await publisher.publish_all()
    finally:
        await catalog.close()
        await database.close()
