"""`python -m services`: the command line. Ctrl-C ends it in order, also while it is imported."""

import os
import signal
import sys
from types import FrameType

_STOPPED = 128 + signal.SIGINT


def _stopped(_number: int, _frame: FrameType | None) -> None:
    sys.stdout.write("stopped\n")
    sys.stdout.flush()
    os._exit(_STOPPED)


def main() -> None:
    """The console script."""
    # The imports take half a second, in which Ctrl-C must not look like an error of a module. A
    # command that has to stop something in order sets its own handler.
    signal.signal(signal.SIGINT, _stopped)
    # The Makefile blocks the signal until here: the interpreter's own imports have no handler.
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
    from services.cli import app  # noqa: PLC0415

    app()


if __name__ == "__main__":
    main()
