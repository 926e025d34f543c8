"""How a process ends for an error that we raise on purpose."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager

from shared.errors import DownloadsError


@contextmanager
def errors_in_lines() -> Iterator[None]:
    """End the process with a line for each error that we raise on purpose; a bug passes through."""
    try:
        yield
    except DownloadsError as error:
        sys.exit(str(error))
    except BaseExceptionGroup as group:
        # Not `except*`: Python before 3.11.4 wraps an exit in it, and shows it as a bug.
        _, bugs = group.split(DownloadsError)
        if bugs is not None:
            raise
        sys.exit("\n".join(str(error) for error in _leaves(group)))


def _leaves(group: BaseExceptionGroup[BaseException]) -> Iterator[BaseException]:
    for error in group.exceptions:
        if isinstance(error, BaseExceptionGroup):
            yield from _leaves(error)
        else:
            yield error
