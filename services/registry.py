"""The services by name, to run several of them in one process."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

from shared.settings import SERVICES, Service

# What runs a service is a second's import, which the command line does not need.
if TYPE_CHECKING:
    from shared.process import Build


def every_service(*names: Service) -> dict[Service, Build]:
    """The `build` of each named service; of all that every installation runs, if none is named."""
    return {
        name: importlib.import_module(f"services.{name}.__main__").build
        for name in names or SERVICES
    }
