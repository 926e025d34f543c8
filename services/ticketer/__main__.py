"""`python -m services.ticketer`."""

from collections.abc import Callable
from typing import Any

from services.ticketer.adder import Adder
from services.ticketer.attempt import Starter
from services.ticketer.direct import DirectStarter
from services.ticketer.direct_claims import DirectClaims
from services.ticketer.direct_store import DirectStore
from services.ticketer.mode_choice import ModeChoice
from services.ticketer.release_choice import Chooser
from services.ticketer.release_search import ReleaseSearch
from services.ticketer.search_turns import SearchLimits
from services.ticketer.service import Ticketer
from services.ticketer.store import Store
from services.ticketer.tickets import TicketStarter
from shared.acquisition.direct import Direct
from shared.acquisition.protocol import ModeName
from shared.acquisition.tickets import Tickets
from shared.app import App
from shared.choosing.model import Profile
from shared.db.releases import Budget
from shared.duty import Duty
from shared.leases import LeaseKeeper
from shared.process import main
from shared.settings import Settings
from shared.torrentino.client import TorrentinoClient
from shared.torrentino.wiring import torrentino_client

_HOUR_S = 3600.0


def build(app: App) -> list[Duty]:
    """The ticketer's duties, wired: a ticketer for each mode, and what keeps their leases."""
    client = torrentino_client(app.settings)
    app.closers.append(client.close)
    choice = ModeChoice(app, client)
    leases = LeaseKeeper(app.database, lease_s=app.settings.lease_s)
    ticketers = [
        Ticketer(app, make(app, client, choice), client=client, leases=leases)
        for make in STARTERS.values()
    ]
    for ticketer in ticketers:
        app.bus.listen("ticket", ticketer.loop.wake, queue="ticketer")
    return [*ticketers, leases]


def _tickets(app: App, client: TorrentinoClient, choice: ModeChoice) -> TicketStarter:
    settings = app.settings
    store = Store(
        app.database,
        dest_root=settings.torrentino_dest_root,
        grouping=settings.ticket_grouping,
        max_in_flight=settings.max_tickets_in_flight,
        lease_s=settings.lease_s,
        worker=app.worker,
    )
    mode = Tickets(client, dest_root=settings.torrentino_dest_root)
    return TicketStarter(app, mode, store, choice)


def _direct(app: App, client: TorrentinoClient, choice: ModeChoice) -> DirectStarter:
    settings = app.settings
    limits = SearchLimits(
        budget=Budget(per_hour=settings.searches_per_hour, gap_s=settings.search_gap_s),
        ttl_s=settings.releases_ttl_h * _HOUR_S,
    )
    claims = DirectClaims(
        app.database,
        max_downloads=settings.max_downloads,
        limits=limits,
        lease_s=settings.lease_s,
        worker=app.worker,
    )
    store = DirectStore(app.database)
    mode = Direct(client, downloads_root=settings.torrentino_downloads_root)
    search = ReleaseSearch(app.database, limits, client, app.health)
    return DirectStarter(
        app,
        mode,
        claims,
        store,
        choice,
        chooser=Chooser(search, _profile(settings)),
        adder=Adder(store, mode),
    )


# The modes of acquisition; a further one is a part like these two, and a line here.
STARTERS: dict[ModeName, Callable[[App, TorrentinoClient, ModeChoice], Starter[Any]]] = {
    "tickets": _tickets,
    "direct": _direct,
}


def _profile(settings: Settings) -> Profile:
    return Profile(
        prefer_lossless=settings.prefer_lossless,
        min_bitrate_kbps=settings.min_bitrate_kbps,
        max_grab_bytes=int(settings.max_grab_gb * 1e9),
        accepted=settings.accepted,
    )


if __name__ == "__main__":
    main({"ticketer": build})
