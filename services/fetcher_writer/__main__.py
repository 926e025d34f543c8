"""`python -m services.fetcher_writer`."""

import asyncio
from functools import cache

from services.fetcher_writer.converting import Converter
from services.fetcher_writer.delivery.base import Delivery, DeliveryName
from services.fetcher_writer.delivery.collector import Collector
from services.fetcher_writer.delivery.download_folder import TorrentFolder
from services.fetcher_writer.delivery.http_downloads import HttpTorrents
from services.fetcher_writer.delivery.http_folder import HttpFiles
from services.fetcher_writer.delivery.shared_folder import SharedFolder
from services.fetcher_writer.incoming_cleanup import Cleaner
from services.fetcher_writer.outcomes import ACTOR, Outcomes
from services.fetcher_writer.service import FetcherWriter
from services.fetcher_writer.store import Store
from shared.app import App
from shared.db.media_root import MediaRoot
from shared.duty import Duty, PeriodicDuty
from shared.leases import LeaseKeeper
from shared.media.encoders import Target
from shared.media.tools import find_tools
from shared.process import main
from shared.readiness import first_checks
from shared.settings import Settings


def deliveries(settings: Settings) -> dict[DeliveryName, Delivery]:
    """The adapter that TORRENTINO_DELIVERY names, and the torrents' own folder if we see it."""
    found: dict[DeliveryName, Delivery] = {"incoming": _incoming(settings)}
    root, mount = settings.torrentino_downloads_root, settings.downloads_mount
    if root is not None and settings.torrentino_downloads_url is not None:
        found["torrent"] = HttpTorrents(dest_root=root, files_url=settings.torrentino_downloads_url)
    elif root is not None and mount is not None:
        found["torrent"] = TorrentFolder(
            dest_root=root, dest_mount=mount, file_mode=settings.file_mode
        )
    return found


def _incoming(settings: Settings) -> Delivery:
    match settings.torrentino_delivery:
        case "shared":
            return SharedFolder(
                dest_root=settings.torrentino_dest_root,
                dest_mount=settings.dest_mount,
                file_mode=settings.file_mode,
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
    ways = deliveries(settings)
    app.closers.extend(way.close for way in ways.values())
    store = Store(app.database, lease_s=settings.lease_s, worker=app.worker, deliveries=tuple(ways))
    collector = Collector(ways)
    target = Target(format=settings.audio_format, quality=settings.audio_quality)
    cleaning_wake = asyncio.Event()
    root = MediaRoot(app.database, settings.media_root)
    fetcher = FetcherWriter(
        store=store,
        collector=collector,
        converter=Converter(store, target, actor=ACTOR),
        outcomes=Outcomes(
            store,
            bus=app.bus,
            retries=app.retries,
            rng=app.rng,
            grouping=settings.ticket_grouping,
            max_grabs=settings.max_grabs,
        ),
        keep_source=settings.audio_keep_source,
        root=root,
        leases=leases,
        tools=cache(find_tools),
        relay_wake=app.relay.wake,
        health=app.health,
        rng=app.rng,
        concurrency=settings.fetch_concurrency,
        tolerance_s=settings.duration_tolerance_s,
        min_free_mb=settings.min_free_disk_mb,
        sweep_interval_s=settings.sweep_interval_s,
        cleaning=cleaning_wake,
    )
    app.bus.listen("fetch", fetcher.loop.wake, queue="fetcher_writer")
    clean = Cleaner(store, collector).clean
    cleaning = PeriodicDuty.of(app, "cleaning", clean, wake=cleaning_wake)
    checks = first_checks(app, {"media": root.look, "incoming": collector.check})
    return [fetcher, leases, cleaning, *checks]


if __name__ == "__main__":
    main({"fetcher_writer": build})
