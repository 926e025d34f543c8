"""SIGTERM and SIGINT: the first one sets the stop, the second one ends the process at once."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Callable

import structlog

log = structlog.get_logger()

_SIGNALS = (signal.SIGTERM, signal.SIGINT)


def on_signals(
    stop: asyncio.Event,
    *,
    stopping: Callable[[], None] | None = None,
    at_once: Callable[[], None] | None = None,
) -> None:
    """Let the first signal set `stop`, and the second one end the process at once.

    `stopping` is called with the first; `at_once` before the process ends with the second.
    """
    loop = asyncio.get_running_loop()

    def first(number: signal.Signals) -> None:
        for each in _SIGNALS:
            loop.remove_signal_handler(each)
            # The default ends the process even when its threads or its event loop hang.
            signal.signal(each, second if at_once else signal.SIG_DFL)
        # Only now: a reader of this line may send the second signal.
        log.info("stopping", signal=number.name)
        stop.set()
        if stopping is not None:
            stopping()

    def second(number: int, _frame: object) -> None:
        assert at_once is not None
        at_once()
        os._exit(128 + number)

    for number in _SIGNALS:
        loop.add_signal_handler(number, first, number)
