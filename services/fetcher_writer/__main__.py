"""`python -m services.fetcher_writer`."""

import asyncio
from collections.abc import Awaitable, Callable
from functools import cache, partial

import structlog

from services.fetcher_writer.delivery.base import Delivery, DeliveryName
from services.fetcher_writer.delivery.collector import Collector
from services.fetcher_writer.delivery.download_folder import DownloadFolder
from services.fetcher_writer.delivery.http_downloads import HttpDownloads
from services.fetcher_writer.delivery.http_folder import HttpFolder
from services.fetcher_writer.delivery.shared_folder import SharedFolder
from services.fetcher_writer.disk_budget import MediaRoom
from services.fetcher_writer.finish import Converter
from services.fetcher_writer.incoming_cleanup import Cleaner
from services.fetcher_writer.kept_files import Keeper
from services.fetcher_writer.media import Media
from services.fetcher_writer.outcomes import Outcomes
from services.fetcher_writer.places import Places
from services.fetcher_writer.preconditions import Preconditions
from services.fetcher_writer.publish import Publisher
from services.fetcher_writer.recipe import Recipe
from services.fetcher_writer.second_look import SecondLook
from services.fetcher_writer.service import FetcherWriter
from services.fetcher_writer.store import Store
from shared.app import App
from shared.catalog.sqlite import Catalog
from shared.db.media_root import MediaRoot
from shared.duty import Duty, PeriodicDuty
from shared.errors import Dependency
from shared.leases import LeaseKeeper
from shared.media.encoders import Target
from shared.media.memory import share
from shared.media.tools import AudioTools, find_tools
from shared.process import main
from shared.readiness import Check, first_checks
from shared.settings import Settings

log = structlog.get_logger()


def deliveries(settings: Settings) -> dict[DeliveryName, Delivery]:
    """The adapter that TORRENTINO_DELIVERY names, and one for the download folder if it is set."""
    found: dict[DeliveryName, Delivery] = {"incoming": _incoming(settings)}
    root, mount = settings.torrentino_downloads_root, settings.downloads_mount
    if root is not None and settings.torrentino_downloads_url is not None:
        url = settings.torrentino_downloads_url
        found["torrent"] = HttpDownloads(dest_root=root, files_url=url)
    elif root is not None and mount is not None:
        found["torrent"] = DownloadFolder(
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
            return HttpFolder(
                dest_root=settings.torrentino_dest_root, files_url=settings.torrentino_files_url
            )


def build(
    app: App,
    *,
    tools: Callable[[], AudioTools] | None = None,
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
) -> list[Duty]:
    """The fetcher-writer's duties, wired; tests pass `tools` and `sleep` of their own."""
    settings = app.settings
    adapters = deliveries(settings)
    app.closers.extend(adapter.close for adapter in adapters.values())
    collector = Collector(adapters, accepted=settings.accepted, sleep=sleep)
    store = Store(
        app.database, lease_s=settings.lease_s, worker=app.worker, deliveries=tuple(adapters)
    )
    cleanup_wake = asyncio.Event()
    leases = LeaseKeeper(app.database, lease_s=settings.lease_s)
    memory = share(settings.fetch_concurrency)
    media = Media(
        root=MediaRoot(app.database, settings.media_root),
        find_tools=tools or cache(partial(find_tools, memory_bytes=memory.memory_bytes)),
        tolerance_s=settings.duration_tolerance_s,
        catalog=_catalog(app),
        replace_broken=settings.replace_broken,
    )
    publisher = Publisher(
        database=app.database, media=media, announcer=app.announcer, cleanup_wake=cleanup_wake
    )
    if memory.at_once < settings.fetch_concurrency:
        log.warning("fewer_at_once", wanted=settings.fetch_concurrency, **vars(memory))
    places = Places(store, collector, app.health, now_s=app.clock.monotonic)
    fetcher = _fetcher_writer(
        app, leases, store=store, places=places, publisher=publisher, concurrency=memory.at_once
    )
    app.bus.listen("fetch", fetcher.loop.wake, queue="fetcher_writer")
    clean = Cleaner(store, collector).clean
    cleaning = PeriodicDuty.of(app, "cleaning", clean, wake=cleanup_wake)
    first: dict[Dependency, Check] = {
        "media": media.root.look,
        "media_write": media.check_writing,
        "incoming": places.check,
    }
    if media.catalog is not None:
        first["catalog"] = media.catalog.check
    checks = first_checks(app, first)
    return [fetcher, leases, cleaning, *checks]


def _catalog(app: App) -> Catalog | None:
    path = app.settings.catalog_db
    if path is None:
        return None
    catalog = Catalog(path)
    app.closers.append(catalog.close)
    return catalog


def _fetcher_writer(
    app: App,
    leases: LeaseKeeper,
    *,
    store: Store,
    places: Places,
    publisher: Publisher,
    concurrency: int,
) -> FetcherWriter:
    settings, media, collector = app.settings, publisher.media, places.collector
    converter = Converter(
        store,
        Target(
            format=settings.audio_format,
            quality=settings.audio_quality,
            playable=settings.audio_playable,
        ),
        keep_originals=settings.audio_keep_source,
        media=media,
        announcer=app.announcer,
    )
    recipe = Recipe(
        store=store,
        collector=collector,
        converter=converter,
        publisher=publisher,
        media=media,
        announcer=app.announcer,
        places=places,
        concurrency=concurrency,
        keeper=Keeper(
            media,
            keep_days=settings.refused_keep_days,
            keep_bytes=settings.refused_keep_bytes,
        ),
    )
    outcomes = Outcomes(
        store,
        announcer=app.announcer,
        retries=app.retries,
        grouping=settings.ticket_grouping,
        max_grabs=settings.max_grabs,
        keeper=recipe.keeper,
        releases=recipe.releases,
    )
    preconditions = Preconditions(
        store=store,
        places=places,
        converter=converter,
        media=media,
        room=MediaRoom(settings.media_root, min_free_mb=settings.min_free_disk_mb),
        health=app.health,
    )
    return FetcherWriter(
        app,
        store=store,
        preconditions=preconditions,
        recipe=recipe,
        second_look=SecondLook(places, media),
        outcomes=outcomes,
        leases=leases,
        concurrency=concurrency,
    )


if __name__ == "__main__":
    main({"fetcher_writer": build})
