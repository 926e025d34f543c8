"""What the bridge does at a running catalog server: requests, availability, what plays."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from services.bridge.announcements import Announcements
from services.bridge.availability import Availability
from services.bridge.catalog_server import CatalogServer
from services.bridge.endings import Endings
from services.bridge.endings_store import EndingsStore
from services.bridge.intake import Intake
from services.bridge.playable import Playable
from services.bridge.receipt import Receipts
from services.bridge.requests_store import RequestsStore
from services.bridge.server_http import Account, Session
from services.bridge.server_store import ServerStore
from shared.app import App
from shared.duty import Duty, PeriodicDuty

# A request is to be seen within BRIDGE_POLL_S of its making, the reading included.
_POLL_SHARE = 0.8
# Reads PostgreSQL alone while nothing is due.
_LOOK_S = 0.5
_PRUNE_S = 3600.0
_DAY_S = 86_400.0


def duties(app: App) -> list[Duty]:
    """The duties that talk to the catalog server, wired."""
    store = ServerStore(app.database)
    session = _session(app, store)
    app.closers.append(session.close)
    server = CatalogServer(session)
    playable = Playable(server=server, store=store, clock=app.clock)
    made: list[Duty] = [_asking(app, "what plays", playable.run_once)]
    availability = None
    if app.settings.bridge_availability:
        availability = Availability(server=server, store=store, clock=app.clock)
        made.append(_asking(app, "availability", availability.run_once))
    if app.settings.bridge_requests:
        made += _requests(app, server, store, playable, availability)
    return made


def _session(app: App, store: ServerStore) -> Session:
    settings = app.settings
    url, user = settings.catalog_server_url, settings.catalog_server_user
    password = settings.catalog_server_password
    assert url is not None, "the bridge's duties at the server are built with an address"
    assert user is not None, "an address goes with a user"
    assert password is not None, "a user goes with a password"

    async def account() -> Account:
        device = await store.device_uuid(url=url, user=user)
        return Account(user=user, password=password.get_secret_value(), device_uuid=device)

    return Session(base_url=url, account=account, health=app.health, clock=app.clock)


def _requests(
    app: App,
    server: CatalogServer,
    store: ServerStore,
    playable: Playable,
    availability: Availability | None,
) -> list[Duty]:
    requests = RequestsStore(app.database)
    announcing = PeriodicDuty.of(
        app,
        "announcements",
        Announcements(store=requests, bus=app.bus).run_once,
        interval_s=_LOOK_S,
        needs=["nats"],
    )
    intake = Intake(server=server, store=requests, wake=announcing.wake.set)
    ending = EndingsStore(app.database)
    receipts = Receipts(server=server, requests=ending, store=store, availability=availability)
    endings = Endings(
        server=server,
        requests=ending,
        store=store,
        playable=playable,
        receipts=receipts,
        close=app.settings.bridge_close,
        rng=app.rng,
    )
    taking = PeriodicDuty.of(
        app,
        "server requests",
        intake.run_once,
        interval_s=_POLL_SHARE * app.settings.bridge_poll_s,
        needs=["catalog_server"],
    )
    kept_s = app.settings.history_retention_days * _DAY_S

    async def prune() -> int:
        return await requests.prune(older_than_s=kept_s)

    pruning = PeriodicDuty.of(app, "server requests pruning", prune, interval_s=_PRUNE_S)
    return [taking, announcing, _asking(app, "endings", endings.run_once), pruning]


def _asking(app: App, name: str, run_once: Callable[[], Awaitable[int]]) -> PeriodicDuty:
    return PeriodicDuty.of(app, name, run_once, interval_s=_LOOK_S, needs=["catalog_server"])
