"""`python -m services.watchdog`."""

from functools import cache, partial

from services.watchdog.adoption import Adoption
from services.watchdog.commands import DURABLE, FILTERS, ScanCommands
from services.watchdog.service import Watchdog
from services.watchdog.store import Store
from shared.app import App
from shared.bus.consumer import Consumer
from shared.catalog.sqlite import Catalog
from shared.db.media_root import MediaRoot
from shared.duty import Duty, PeriodicDuty
from shared.media.memory import share
from shared.media.tools import find_tools
from shared.process import main
from shared.readiness import first_checks
from shared.rejections import Rejections


def build(app: App) -> list[Duty]:
    """The watchdog's duties, wired."""
    settings = app.settings
    assert settings.catalog_db is not None, "required by the watchdog"
    catalog = Catalog(settings.catalog_db)
    app.closers.append(catalog.close)
    root = MediaRoot(app.database, settings.media_root)
    store = Store(app.database, lease_s=settings.lease_s)
    watchdog = Watchdog(
        store=store,
        catalog=catalog,
        root=root,
        announcer=app.announcer,
        health=app.health,
        adoption=Adoption(
            store=store,
            root=root,
            announcer=app.announcer,
            tools=cache(partial(find_tools, memory_bytes=share(1).memory_bytes)),
            tolerance_s=settings.duration_tolerance_s,
        ),
        replace_broken=settings.replace_broken,
    )
    scanning = PeriodicDuty.of(app, "watchdog", watchdog.run_once)
    app.bus.listen("scan", scanning.wake, queue="watchdog")
    commands = Consumer(
        bus=app.bus,
        durable=DURABLE,
        filters=FILTERS,
        handle=ScanCommands(app.database, scanning.wake, app.announcer).handle,
        rejections=Rejections(app.database, app.announcer, actor="watchdog"),
        health=app.health,
    )
    checks = first_checks(app, {"catalog": catalog.check, "media": root.look})
    return [scanning, commands, *checks]


if __name__ == "__main__":
    main({"watchdog": build})
