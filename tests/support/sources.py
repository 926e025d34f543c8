"""The repository's own modules, parsed once for all the checks that read them."""

from __future__ import annotations

import ast
from functools import cache
from pathlib import Path


@cache
def tree(path: Path) -> ast.Module:
    """What the module is made of; not to be changed."""
    return ast.parse(path.read_text(encoding="utf-8"))
