"""`python -m services.ingest`."""

from functools import cache, partial

from starlette.applications import Starlette

from services.ingest.admin_routes import AdminRoutes
from services.ingest.auth import Keys
from services.ingest.availability import Availability
from services.ingest.blocked_sources import BlockedSources
from services.ingest.consumer import DURABLE, FILTERS, RequestMessages
from services.ingest.decisions import Decisions
from services.ingest.http import make_api
from services.ingest.items import Items
from services.ingest.limits import Limits
from services.ingest.presence_problems import PresenceProblems
from services.ingest.refused_downloads import RefusedDownloads
from services.ingest.retries import Retries
from services.ingest.scans import Scans
from services.ingest.service import Requests
from services.ingest.stats import Bounds, Statistics
from services.ingest.user_routes import UserRoutes
from services.ingest.verdicts import DECODES_AT_ONCE
from services.ingest.withdrawals import Withdrawals
from shared.app import App
from shared.bus.consumer import Consumer
from shared.catalog.sqlite import Catalog
from shared.db.health_reports import Conditions
from shared.db.media_root import MediaRoot
from shared.duty import Duty
from shared.media.memory import share
from shared.media.tools import find_tools
from shared.process import main
from shared.readiness import first_checks
from shared.rejections import Rejections
from shared.web import WebServer


def build(app: App) -> list[Duty]:
    """Ingest's duties, wired: the HTTP API and the consumer of requests."""
    settings = app.settings
    assert settings.catalog_db is not None, "required by ingest"
    catalog = Catalog(settings.catalog_db)
    app.closers.append(catalog.close)
    root = MediaRoot(app.database, settings.media_root)
    limits = Limits(
        app.database,
        max_per_day=settings.user_max_requests_per_day,
        max_queue=settings.user_max_queue_size,
    )
    memory = share(DECODES_AT_ONCE)
    availability = Availability(
        database=app.database,
        catalog=catalog,
        root=root,
        tools=cache(partial(find_tools, memory_bytes=memory.memory_bytes)),
        decodes_at_once=memory.at_once,
        tolerance_s=settings.duration_tolerance_s,
        replace_broken=settings.replace_broken,
    )
    requests = Requests(
        database=app.database,
        catalog=catalog,
        availability=availability,
        limits=limits,
        announcer=app.announcer,
        health=app.health,
        apart=settings.ticket_grouping == "track" and settings.acquisition != "direct",
    )
    withdrawals = Withdrawals(database=app.database, announcer=app.announcer)
    retries = Retries(
        database=app.database,
        availability=availability,
        limits=limits,
        announcer=app.announcer,
        health=app.health,
    )
    keys, items = _keys(app), Items(app.database, stall_timeout_s=settings.stall_timeout_s)
    users = UserRoutes(
        keys=keys,
        requests=requests,
        items=items,
        withdrawals=withdrawals,
        retries=retries,
        limits=limits,
    )
    admins = _admin_routes(app, keys, items, root)
    # Of all services this one has the right to change streams.
    app.bus.owns_streams = True
    return [
        _server(app, make_api([*users.routes(), *admins.routes()], app.health, keys.principal)),
        Consumer(
            bus=app.bus,
            durable=DURABLE,
            filters=FILTERS,
            handle=RequestMessages(requests, withdrawals).handle,
            rejections=Rejections(app.database, app.announcer, actor="ingest"),
            health=app.health,
        ),
        *first_checks(app, {"catalog": catalog.check, "media": root.look}),
    ]


def _keys(app: App) -> Keys:
    key = app.settings.bootstrap_admin_key
    return Keys(key.get_secret_value() if key else None)


def _admin_routes(app: App, keys: Keys, items: Items, root: MediaRoot) -> AdminRoutes:
    settings = app.settings
    return AdminRoutes(
        keys=keys,
        items=items,
        decisions=Decisions(database=app.database, announcer=app.announcer, retries=app.retries),
        scans=Scans(app.database, app.announcer),
        problems=PresenceProblems(app.database),
        refused=RefusedDownloads(app.database, app.announcer, keep_days=settings.refused_keep_days),
        blocked=BlockedSources(app.database, app.announcer),
        statistics=Statistics(
            database=app.database,
            root=root,
            health=app.health,
            conditions=Conditions(app.database, app.health, worker=app.worker),
            bounds=Bounds(
                tickets=settings.max_tickets_in_flight,
                downloads=settings.max_downloads,
                searches_per_hour=settings.searches_per_hour,
            ),
        ),
    )


def _server(app: App, api: Starlette) -> WebServer:
    settings = app.settings
    return WebServer(
        "http",
        api,
        host=settings.host,
        port=settings.port,
        variable="PORT",
        grace_s=settings.shutdown_grace_s,
    )


if __name__ == "__main__":
    main({"ingest": build})
