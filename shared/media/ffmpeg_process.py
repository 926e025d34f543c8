"""ffmpeg and ffprobe as child processes with limits, which end with the call."""

from __future__ import annotations

import asyncio
import resource
import signal
import sys
from asyncio.subprocess import DEVNULL, PIPE, Process
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress

from shared.media.tools import child_environment, missing_tools

# Measured with the static build: 60 MB of address space at any length (96 kHz, 24 bit FLAC). glibc
# reserves 64 MiB for each thread, and a distribution's build has 300 MB of libraries.
MEMORY_BYTES = 2 * 1024**3
# Holds also when the caller is killed, and its deadline with it.
CPU_S = 600
_OPEN_FILES = 64

# Signals from outside: an operator, a stop, the out-of-memory killer.
STOPPED = frozenset({-signal.SIGKILL, -signal.SIGTERM, -signal.SIGINT})


@asynccontextmanager
async def child_of(
    command: Sequence[str], *, file_bytes: int = 0, cpu_s: int | None = None
) -> AsyncIterator[Process]:
    """The started program, with pipes for its output; killed when the block is left early.

    It may use `MEMORY_BYTES` of address space and `cpu_s` (by default `CPU_S`) of processor time,
    and may write files of up to `file_bytes`, by default none. It does not see our environment,
    which contains passwords.

    Raises:
        Misconfigured: it does not start.
    """
    try:
        # Its own session: Ctrl-C in a terminal must not end it like a damaged file.
        child = await asyncio.create_subprocess_exec(
            *command,
            stdin=DEVNULL,
            stdout=PIPE,
            stderr=PIPE,
            start_new_session=True,
            env=child_environment(),
        )
    except OSError as exc:
        raise missing_tools(f"{command[0]} does not start ({exc.strerror})") from exc
    try:
        _limit(child.pid, file_bytes=file_bytes, cpu_s=CPU_S if cpu_s is None else cpu_s)
        yield child
    finally:
        if child.returncode is None:
            # It may have ended at this moment.
            with suppress(ProcessLookupError):
                child.kill()
            await asyncio.shield(child.wait())


def _limit(pid: int, *, file_bytes: int, cpu_s: int) -> None:
    """Limit what a process may use.

    From outside, right after the start: code between fork and exec is not safe in a process with
    threads, and a launcher would be another process for each file. What the child used before
    counts as well.
    """
    if sys.platform != "linux":
        return
    limits = {
        resource.RLIMIT_AS: MEMORY_BYTES,
        resource.RLIMIT_CPU: cpu_s,
        resource.RLIMIT_FSIZE: file_bytes,
        resource.RLIMIT_NOFILE: _OPEN_FILES,
        resource.RLIMIT_CORE: 0,
    }
    with suppress(ProcessLookupError):
        for kind, most in limits.items():
            _, hard = resource.prlimit(pid, kind)
            bound = most if hard == resource.RLIM_INFINITY else min(most, hard)
            # At the hard limit of processor time SIGKILL follows, which an operator may send too.
            beyond = hard if kind == resource.RLIMIT_CPU else bound
            resource.prlimit(pid, kind, (bound, beyond))


async def first_bytes(
    child: Process, stream: asyncio.StreamReader | None, *, most_bytes: int
) -> tuple[bytes, bool]:
    """The beginning of the child's output, and whether there was more: then it is killed."""
    assert stream is not None
    kept = b""
    while block := await stream.read(65536):
        kept += block
        if len(kept) > most_bytes:
            with suppress(ProcessLookupError):
                child.kill()
            while await stream.read(65536):
                pass
            return kept[:most_bytes], True
    return kept, False
