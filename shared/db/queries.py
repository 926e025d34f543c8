"""SQL files of named queries: each begins with a line `-- name: …`."""

from __future__ import annotations

import re
from pathlib import Path

_NAME = re.compile(r"^-- name: (\w+)\n", re.MULTILINE)


def load_queries(path: Path) -> dict[str, str]:
    """The queries of a file by name, with the comments that stand in front of each."""
    _, *parts = _NAME.split(path.read_text(encoding="utf-8"))
    names, texts = parts[::2], parts[1::2]
    assert len(set(names)) == len(names), f"{path.name}: a name stands twice"
    return dict(zip(names, (text.strip() for text in texts), strict=True))
