"""Publishing: `tracks.audio_uri` of the catalog names the files that lie in the media root."""

from __future__ import annotations

from services.bridge.catalog_file import CatalogFile
from services.bridge.publisher import Publisher
from services.bridge.store import Store
from shared.app import App
from shared.bus.subjects import event_subject
from shared.db.media_root import MediaRoot
from shared.duty import Duty, PeriodicDuty
from shared.errors import Dependency
from shared.readiness import first_checks

_NEEDS: tuple[Dependency, ...] = ("catalog_write", "media")
_READY = event_subject("audio.ready")
# What is placed while the catalog cannot be written to; the sweep finds the rest.
_MOST_PLACED = 10_000


def duties(app: App) -> list[Duty]:
    """The duties that write to the catalog, wired."""
    settings = app.settings
    assert settings.catalog_db is not None, "required where the bridge writes"
    catalog = CatalogFile(settings.catalog_db, server_stopped=settings.bridge_server_stopped)
    app.closers.append(catalog.close)
    root = MediaRoot(app.database, settings.media_root)
    publisher = Publisher(
        store=Store(app.database, replace_broken=settings.replace_broken),
        catalog=catalog,
        root=root,
        health=app.health,
        clock=app.clock,
    )
    publishing = PeriodicDuty.of(app, "publish", publisher.run_once, needs=_NEEDS)

    def heard(subject: str) -> None:
        if len(publisher.placed) < _MOST_PLACED:
            publisher.placed.add(subject.rpartition(".")[2])
        publishing.wake.set()

    app.bus.hear(f"{_READY}.*", heard)
    checks = first_checks(app, {"catalog_write": catalog.check, "media": root.look})
    return [publishing, *checks]
