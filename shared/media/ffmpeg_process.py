"""ffmpeg and ffprobe as child processes with limits, which end with the call."""

from __future__ import annotations

import asyncio
import resource
import signal
import sys
from asyncio.subprocess import DEVNULL, PIPE, Process
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from pathlib import Path

from shared.media.memory import MOST_BYTES
from shared.media.tools import child_environment, missing_tools

# Of address space: glibc reserves 64 MiB for each thread, and a distribution's build has 300 MB of
# libraries. What is written to has a limit of its own.
ADDRESS_BYTES = 2 * 1024**3
# Holds also when the caller is killed, and its deadline with it.
CPU_S = 600
# Of the kernel's scale up to 1,000: where memory runs out, the child is ended and not the service.
_OOM_SCORE = 800
_OPEN_FILES = 64

# An operator, or a stop. ffmpeg exits with 255 after them, and with other numbers when it rejects a
# file.
STOPPED = frozenset({-signal.SIGTERM, -signal.SIGINT, 255})
# By the kernel, for its memory; we kill only what we do not wait for any more.
KILLED = -signal.SIGKILL
KILLED_TWICE = "the program was killed twice: the file probably needs more memory than there is"


@asynccontextmanager
async def child_of(
    command: Sequence[str],
    *,
    memory_bytes: int = MOST_BYTES,
    file_bytes: int = 0,
    cpu_s: int | None = None,
) -> AsyncIterator[Process]:
    """The started program, with pipes for its output; killed when the block is left early.

    It may use `memory_bytes` of memory and `cpu_s` (by default `CPU_S`) of processor time, and may
    write files of up to `file_bytes`, by default none. It does not see our environment, which
    contains passwords.

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
        _limit(
            child.pid,
            memory_bytes=memory_bytes,
            file_bytes=file_bytes,
            cpu_s=CPU_S if cpu_s is None else cpu_s,
        )
        yield child
    finally:
        if child.returncode is None:
            # It may have ended at this moment.
            with suppress(ProcessLookupError):
                child.kill()
            await asyncio.shield(child.wait())


def _limit(pid: int, *, memory_bytes: int, file_bytes: int, cpu_s: int) -> None:
    """Limit what a process may use.

    From outside, right after the start: code between fork and exec is not safe in a process with
    threads, and a launcher would be another process for each file. What the child used before
    counts as well.
    """
    if sys.platform != "linux":
        return
    limits = {
        resource.RLIMIT_AS: ADDRESS_BYTES,
        resource.RLIMIT_DATA: memory_bytes,
        resource.RLIMIT_CPU: cpu_s,
        resource.RLIMIT_FSIZE: file_bytes,
        resource.RLIMIT_NOFILE: _OPEN_FILES,
        resource.RLIMIT_CORE: 0,
    }
    # The child may have ended, and a system without /proc has no such score.
    with suppress(OSError):
        Path(f"/proc/{pid}/oom_score_adj").write_text(f"{_OOM_SCORE}", encoding="ascii")
    with suppress(ProcessLookupError):
        for kind, most in limits.items():
            _, hard = resource.prlimit(pid, kind)
            bound = most if hard == resource.RLIM_INFINITY else min(most, hard)
            # At the hard limit of processor time SIGKILL follows, as when memory runs out.
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
