"""The state that the parts of one stand-in share."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

from services.local.torrentino.audit import Audit
from services.local.torrentino.catalog import Catalog
from services.local.torrentino.config import StandinConfig
from services.local.torrentino.database import Database
from services.local.torrentino.faults import Faults
from services.local.torrentino.hub import Hub
from services.local.torrentino.search import Search
from services.local.torrentino.shelf import Shelf
from services.local.torrentino.source import Source
from services.local.torrentino.tickets import Ticket, Tickets
from services.local.torrentino.torrents import Torrents


@dataclass(frozen=True, kw_only=True)
class Core:
    """The parts that every handler and loop uses; made by `make_core`."""

    config: StandinConfig
    source: Source
    faults: Faults
    database: Database
    hub: Hub
    audit: Audit
    tickets: Tickets
    torrents: Torrents
    shelf: Shelf
    search: Search
    catalog: Catalog
    requests: Counter[str] = field(default_factory=Counter)
    searches: list[str] = field(default_factory=list)

    @property
    def user(self) -> str:
        """The user name that the server gives to every caller."""
        return "anonymous" if self.config.api_key is None else "api_key_user"

    def fate(self, ticket: Ticket) -> str:
        """The fate that is set for an acquired ticket."""
        return self.faults.fate(tuple(ticket.titles))


def make_core(config: StandinConfig, source: Source, faults: Faults) -> Core:
    """Open the database and build all parts."""
    database = Database(config.database)
    hub, audit = Hub(), Audit(database)
    shelf, catalog = Shelf(source, faults, config), Catalog()
    torrents = Torrents(faults, config, database)
    torrents.restore(shelf.of_hash)
    return Core(
        config=config,
        source=source,
        faults=faults,
        database=database,
        hub=hub,
        audit=audit,
        tickets=Tickets(database, hub, audit),
        torrents=torrents,
        shelf=shelf,
        search=Search(shelf=shelf, faults=faults, catalog=catalog),
        catalog=catalog,
    )
