"""`python -m services`: the command line, which a Ctrl-C ends in order from its first moment on."""

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
    # What is to be imported takes half a second, in which a Ctrl-C is no error of a module. Whoever
    # has something to end in order puts a handler of his own in the place of this one.
    signal.signal(signal.SIGINT, _stopped)
    # The Makefile blocks it until here, where it can: the interpreter's own imports know no order.
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
    from services.cli import app  # noqa: PLC0415

    app()


if __name__ == "__main__":
    main()
