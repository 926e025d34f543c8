"""`python -m services.bridge`."""

from services.bridge import figures, publish, server
from shared.app import App
from shared.duty import Duty
from shared.process import main


def build(app: App) -> list[Duty]:
    """The bridge's duties, wired: those that its settings switch on."""
    duties = figures.duties(app)
    if app.settings.bridge_catalog_write:
        duties += publish.duties(app)
    if app.settings.catalog_server_url is not None:
        duties += server.duties(app)
    return duties


if __name__ == "__main__":
    main({"bridge": build})
