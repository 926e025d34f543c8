"""`python -m services.ingest`."""

from functools import cache

from services.ingest.auth import Keys
from services.ingest.availability import Availability
from services.ingest.consumer import DURABLE, FILTERS, RequestMessages
from services.ingest.decisions import Decisions
from services.ingest.http import Api
from services.ingest.items import Items
from services.ingest.limits import Policy
from services.ingest.retry import Retries
from services.ingest.scans import Scans
from services.ingest.service import Requests
from services.ingest.stats import Bounds
from services.ingest.withdrawals import Withdrawals
from shared.app import App
from shared.bus.consumer import Consumer
from shared.catalog.sqlite import Catalog
from shared.db.health_reports import Conditions
from shared.db.media_root import MediaRoot
from shared.duty import Duty
from shared.media.tools import find_tools
from shared.process import main
from shared.readiness import first_checks
from shared.web import WebServer


def build(app: App) -> list[Duty]:
    """Ingest's duties, wired: the HTTP API and the consumer of requests."""
    settings = app.settings
    assert settings.catalog_db is not None, "required by ingest"
    catalog = Catalog(settings.catalog_db)
    app.closers.append(catalog.close)
    policy = Policy(
        max_per_day=settings.user_max_requests_per_day, max_queue=settings.user_max_queue_size
    )
    root = MediaRoot(app.database, settings.media_root)
    availability = Availability(
        database=app.database,
        root=root,
        tools=cache(find_tools),
        tolerance_s=settings.duration_tolerance_s,
    )
    withdrawals = Withdrawals(database=app.database, bus=app.bus, relay_wake=app.relay.wake)
    requests = Requests(
        database=app.database,
        catalog=catalog,
        availability=availability,
        bus=app.bus,
        relay_wake=app.relay.wake,
        policy=policy,
        health=app.health,
    )
    key = settings.bootstrap_admin_key
    api = Api(
        keys=Keys(key.get_secret_value() if key else None),
        requests=requests,
        items=Items(app.database, stall_timeout_s=settings.stall_timeout_s),
        withdrawals=withdrawals,
        retries=Retries(
            database=app.database,
            availability=availability,
            bus=app.bus,
            relay_wake=app.relay.wake,
            policy=policy,
            health=app.health,
        ),
        decisions=Decisions(
            database=app.database,
            bus=app.bus,
            relay_wake=app.relay.wake,
            retries=app.retries,
            rng=app.rng,
        ),
        scans=Scans(app.database, app.bus),
        database=app.database,
        root=root,
        health=app.health,
        conditions=Conditions(app.database, app.health, worker=app.worker),
        policy=policy,
        bounds=Bounds(
            tickets=settings.max_tickets_in_flight,
            downloads=settings.max_downloads,
            searches_per_hour=settings.searches_per_hour,
        ),
    )
    messages = RequestMessages(requests, withdrawals)
    return [
        WebServer(
            "http",
            api.app(),
            host=settings.host,
            port=settings.port,
            variable="PORT",
            grace_s=settings.shutdown_grace_s,
        ),
        Consumer(
            bus=app.bus,
            durable=DURABLE,
            filters=FILTERS,
            handle=messages.handle,
            health=app.health,
        ),
        *first_checks(app, {"catalog": catalog.check, "media": root.look}),
    ]


if __name__ == "__main__":
    main({"ingest": build})
