"""A copy of this repository in some place, for some user, and what `make` says in it."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import ExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from types import MappingProxyType
from typing import TypeAlias

import psutil

from services.local.servers import free_port

REPOSITORY = Path(__file__).parents[2]
_END_S = 240.0
Env: TypeAlias = Mapping[str, str]
NOTHING: Env = MappingProxyType({})


class NotPossible(Exception):
    """This machine does not let us make what a case needs; the text says what."""


class Failed(Exception):
    """What was seen is not what a newcomer should see; the text has all that was said."""


@dataclass
class Said:
    """What a command printed, with the second of each line, and how it ended."""

    lines: list[tuple[float, str]] = field(default_factory=list)
    seconds: float = 0.0
    code: int | None = None

    @property
    def text(self) -> str:
        return "\n".join(line for _, line in self.lines)

    @property
    def longest_silence_s(self) -> float:
        """Between two lines, or before the first."""
        moments = [0.0, *(moment for moment, _ in self.lines)]
        return max((b - a for a, b in pairwise(moments)), default=0.0)

    def own(self) -> list[str]:
        """The lines but for those of make itself, which tells of an exit code in its own words."""
        return [line for _, line in self.lines if line.strip() and not line.startswith("make")]

    def require(self, held: bool, what: str) -> None:
        """Raise Failed with all that was said unless it held."""
        if not held:
            raise Failed(
                f"{what}; exit code {self.code} after {self.seconds:.1f} s, said:\n{self.text}"
            )


@dataclass(frozen=True, kw_only=True)
class Copy:
    """A fresh clone's files in a folder, and who works in it."""

    folder: Path
    user: str | None = None
    python: str = "python3"

    async def make(
        self,
        target: str,
        *,
        args: str = "",
        interrupt_after_s: float | None = None,
        env: Env = NOTHING,
    ) -> Said:
        """Run a target to its end; a Ctrl-C comes as from a terminal, to all that run there."""
        return await self.run(
            *self.command(target, args=args), interrupt_after_s=interrupt_after_s, env=env
        )

    def command(self, target: str, *, args: str = "") -> list[str]:
        """How this copy's user makes a target."""
        python = [f"PYTHON={self.python}"] if self.python != "python3" else []
        return [
            "make",
            "--no-print-directory",
            target,
            *python,
            *([f"ARGS={args}"] if args else []),
        ]

    async def run(
        self, *command: str, interrupt_after_s: float | None = None, env: Env = NOTHING
    ) -> Said:
        """Run a command to its end."""
        async with self.running(*command, env=env) as (process, said):
            if interrupt_after_s is not None:
                try:
                    await asyncio.wait_for(process.wait(), interrupt_after_s)
                except TimeoutError:
                    os.killpg(process.pid, signal.SIGINT)
            await asyncio.wait_for(process.wait(), _END_S)
        said.require("Traceback" not in said.text, "a traceback")
        return said

    @asynccontextmanager
    async def running(
        self, *command: str, env: Env = NOTHING
    ) -> AsyncIterator[tuple[asyncio.subprocess.Process, Said]]:
        """Run a command for the block; killed at its end if it still runs."""
        said, began = Said(), time.monotonic()
        process = await asyncio.create_subprocess_exec(
            *command,
            cwd=self.folder,
            env={**self._environment(), **env},
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
            process_group=0,
            user=self.user,
            group=self.user,
            extra_groups=[] if self.user else None,
        )
        reading = asyncio.create_task(_read(process, said, began))
        try:
            yield process, said
        finally:
            if process.returncode is None:
                os.killpg(process.pid, signal.SIGKILL)
            said.code = await process.wait()
            said.seconds = time.monotonic() - began
            await reading

    def _environment(self) -> dict[str, str]:
        """What a newcomer has, and free ports, so that copies do not meet each other."""
        kept = {
            name: value
            for name, value in os.environ.items()
            if name in ("PATH", "LANG") or name.startswith(("PIP_", "SSL_"))
        }
        home = {} if self.user else {"HOME": os.environ.get("HOME", "/")}
        return kept | home | {"PORT": str(free_port()), "OPS_PORT": str(free_port())}

    def files(self, data: str = "data") -> int:
        """How many audio files there are."""
        return sum(path.is_file() for path in (self.folder / data / "media/audio").rglob("*"))


async def _read(process: asyncio.subprocess.Process, said: Said, began: float) -> None:
    assert process.stdout is not None
    async for line in process.stdout:
        text = line.decode("utf-8", "replace").rstrip()
        said.lines.append((time.monotonic() - began, text))


def _end_left(folder: Path) -> None:
    """End the servers that a killed run left on this folder."""
    for process in psutil.process_iter():
        try:
            if str(folder) in f"{process.cwd()} {' '.join(process.cmdline())}":
                process.kill()
        except psutil.Error:
            continue


@contextmanager
def copied(name: str, *, user: str | None = None, python: str = "python3") -> Iterator[Copy]:
    """A copy in a new folder below one that only its owner may enter."""
    with tempfile.TemporaryDirectory(prefix="pezzottify-first-minute-") as made:
        top = Path(made)
        top.chmod(0o700)
        folder = copy_to(top / name)
        if user is not None:
            subprocess.run(["chown", "-R", f"{user}:", made], check=True)
        try:
            yield Copy(folder=folder, user=user, python=python)
        finally:
            _end_left(folder)


def copy_to(folder: Path) -> Path:
    """The repository's own files, as a clone of what stands here would have them."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=REPOSITORY,
        capture_output=True,
        check=True,
    ).stdout.decode()
    for name in filter(None, listed.split("\0")):
        source = REPOSITORY / name
        if source.is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(source, folder / name)
    return folder


@contextmanager
def on_a_disk_of(mib: int) -> Iterator[Copy]:
    """A copy on a filesystem of its own, of this size."""
    with tempfile.TemporaryDirectory(prefix="pezzottify-first-minute-") as made, ExitStack() as end:
        options = f"size={mib}m"
        command = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", made]
        mounted = subprocess.run(command, capture_output=True, text=True, check=False)
        if mounted.returncode:
            raise NotPossible(f"no user may mount here: {mounted.stderr.strip()}")
        end.callback(subprocess.run, ["umount", "-l", made], check=True)
        folder = copy_to(Path(made) / "clone")
        try:
            yield Copy(folder=folder)
        finally:
            _end_left(folder)
