"""`python -m services.watchdog`."""

from services.watchdog.commands import DURABLE, FILTERS, ScanCommands
from services.watchdog.service import Watchdog
from services.watchdog.store import Store
from shared.app import App, Duty
from shared.bus.consumer import Consumer
from shared.catalog.sqlite import Catalog
from shared.db.media_root import MediaRoot
from shared.readiness import first_looks
from shared.runtime import every, main


def build(app: App) -> list[Duty]:
    """The watchdog's duties, wired."""
    settings = app.settings
    assert settings.catalog_db is not None, "required by the watchdog"
    catalog = Catalog(settings.catalog_db)
    app.closers.append(catalog.close)
    root = MediaRoot(app.database, settings.media_root)
    watchdog = Watchdog(
        store=Store(app.database, lease_s=settings.lease_s),
        catalog=catalog,
        root=root,
        announcer=app.announcer,
        health=app.health,
    )
    loop = every(app, "watchdog", watchdog.run_once)
    app.bus.listen("scan", loop.wake, queue="watchdog")
    commands = Consumer(
        bus=app.bus,
        durable=DURABLE,
        filters=FILTERS,
        handle=ScanCommands(app.database, loop.wake, app.announcer).handle,
        health=app.health,
    )
    return [loop, commands, *first_looks(app, {"catalog": catalog.check, "media": root.look})]


if __name__ == "__main__":
    main({"watchdog": build})
