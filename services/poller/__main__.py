"""`python -m services.poller`."""

from collections.abc import Callable
from functools import partial

from services.poller.blocked_torrents import BlockedTorrents
from services.poller.direct import DownloadFollower
from services.poller.download_cleanup import Leftovers
from services.poller.downloads_store import TorrentsStore
from services.poller.hints import Hints
from services.poller.removal_rules import RemovalRules
from services.poller.service import Poller
from services.poller.store import Store
from services.poller.stray_store import StrayStore
from services.poller.stray_tickets import StraySweep
from services.poller.ticket_cleanup import Tidier
from services.poller.ticket_facts import Asked
from services.poller.tickets import TicketFollower
from services.poller.torrent_client import TorrentClient
from shared.acquisition.direct import Direct
from shared.acquisition.protocol import ModeName
from shared.acquisition.removal import Removal
from shared.acquisition.tickets import Tickets
from shared.app import App
from shared.duty import Duty, PeriodicDuty
from shared.health import Health
from shared.process import main
from shared.torrentino.client import TorrentinoClient
from shared.torrentino.wiring import torrentino_client

# Strays are rare, and a sweep for them reads every live ticket.
_STRAYS_EVERY = 12


def build(app: App) -> list[Duty]:
    """The poller's duties, wired: for each mode what follows its downloads, and its sweeps."""
    client = torrentino_client(app.settings)
    app.closers.append(client.close)
    client.look_ups.tell = partial(_tell, app.health)
    return [duty for make in FOLLOWED.values() for duty in make(app, client)]


def _tell(health: Health, missing: str | None) -> None:
    """Show in the statistics what Torrentino does not tell; nothing waits for it."""
    if missing is None:
        health.up("look_ups")
    else:
        health.down("look_ups", missing)


def _tickets(app: App, client: TorrentinoClient) -> list[Duty]:
    """What follows tickets, cancels strays and cleans up after tickets; and Torrentino's hints."""
    settings = app.settings
    rules = RemovalRules(app.database, settings)
    removal = Removal(client, rules)
    tickets = Tickets(
        client,
        dest_root=settings.torrentino_dest_root,
        downloads_root=settings.torrentino_downloads_root,
        removal=removal,
    )
    store = Store(app.database, poll_interval_s=settings.poll_interval_s)
    asked = Asked(
        tickets=tickets,
        store=store,
        blocked_torrents=BlockedTorrents(app.database, removal, rules),
        torrent_client=TorrentClient(client, app.health),
        settings=settings,
    )
    poller = Poller(app, TicketFollower(app, asked))
    app.bus.listen("poll", poller.loop.wake, queue="poller")
    sweep = StraySweep(StrayStore(app.database), tickets, removal, app.health)
    tidier = Tidier(
        app.database,
        removal,
        policy=settings.torrentino_cleanup,
        keep_days=settings.ticket_keep_days,
    )
    strays_s = _STRAYS_EVERY * settings.sweep_interval_s
    return [
        poller,
        PeriodicDuty.of(app, "strays", sweep.run_once, interval_s=strays_s, needs=tickets.needs),
        PeriodicDuty.of(app, "tidying", tidier.run_once, needs=tickets.needs),
        Hints(settings=settings, store=store, wake=poller.loop.wake, health=app.health),
    ]


def _direct(app: App, client: TorrentinoClient) -> list[Duty]:
    """What follows direct downloads, and removes what is left of them."""
    settings = app.settings
    removal = Removal(client, RemovalRules(app.database, settings))
    mode = Direct(client, downloads_root=settings.torrentino_downloads_root, removal=removal)
    store = TorrentsStore(app.database, poll_interval_s=settings.poll_interval_s)
    poller = Poller(app, DownloadFollower(app, mode, store))
    app.bus.listen("poll", poller.loop.wake, queue="poller")
    leftovers = Leftovers(store, mode, removal, policy=settings.download_cleanup)
    return [poller, PeriodicDuty.of(app, "leftovers", leftovers.run_once, needs=mode.needs)]


# The modes of acquisition; a further one is a part like these two, and a line here.
FOLLOWED: dict[ModeName, Callable[[App, TorrentinoClient], list[Duty]]] = {
    "tickets": _tickets,
    "direct": _direct,
}


if __name__ == "__main__":
    main({"poller": build})
