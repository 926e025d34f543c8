"""Files that the verification has to judge, each with the right verdict, by subject."""

from __future__ import annotations

import pkgutil
from importlib import import_module

from tests.corpus.case import Case


def cases() -> list[Case]:
    """The cases of all modules of this folder that have some."""
    names = (found.name for found in pkgutil.iter_modules(__path__) if found.name != "__main__")
    modules = [import_module(f"{__name__}.{name}") for name in names]
    return [case for module in modules for case in getattr(module, "CASES", ())]
