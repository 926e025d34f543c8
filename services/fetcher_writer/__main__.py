"""`python -m services.fetcher_writer`."""

import asyncio
from functools import cache

from services.fetcher_writer.collecting import Collector
from services.fetcher_writer.delivery import Delivery
from services.fetcher_writer.http_files import HttpFiles
from services.fetcher_writer.service import FetcherWriter
from services.fetcher_writer.shared_folder import SharedFolder
from services.fetcher_writer.store import Store
from shared.app import App, Duty
from shared.db.installation import MediaRoot
from shared.leases import LeaseKeeper
from shared.media.tools import find_tools
from shared.runtime import every, main
from shared.settings import Settings


def delivery(settings: Settings) -> Delivery:
    """The adapter that TORRENTINO_DELIVERY names."""
    match settings.torrentino_delivery:
        case "shared":
            return SharedFolder(
                dest_root=settings.torrentino_dest_root, dest_mount=settings.dest_mount
            )
        case "http":
            assert settings.torrentino_files_url is not None, "required with http delivery"
            return HttpFiles(
                dest_root=settings.torrentino_dest_root, files_url=settings.torrentino_files_url
            )


def build(app: App) -> list[Duty]:
    """The fetcher-writer's duties, wired."""
    settings = app.settings
    leases = LeaseKeeper(app.database, lease_s=settings.lease_s)
    files = delivery(settings)
    app.closers.append(files.close)
    cleaning_wake = asyncio.Event()
    fetcher = FetcherWriter(
        store=Store(app.database, lease_s=settings.lease_s, worker=app.worker),
        collector=Collector(files),
        root=MediaRoot(app.database, settings.media_root),
        leases=leases,
        tools=cache(find_tools),
        bus=app.bus,
        relay_wake=app.relay.wake,
        health=app.health,
        retries=app.retries,
        rng=app.rng,
        concurrency=settings.fetch_concurrency,
        tolerance_s=settings.duration_tolerance_s,
        min_free_mb=settings.min_free_disk_mb,
        sweep_interval_s=settings.sweep_interval_s,
        cleaning=cleaning_wake,
    )
    app.bus.listen("fetch", fetcher.loop.wake, queue="fetcher_writer")
    cleaning = every(app, "cleaning", fetcher.clean, wake=cleaning_wake)
    return [fetcher, leases, cleaning]


if __name__ == "__main__":
    main({"fetcher_writer": build})
