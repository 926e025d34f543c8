"""The command line as a process, as a user at a terminal has it."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, kw_only=True)
class Said:
    """How a command ended, and what it printed."""

    code: int
    out: str
    err: str

    @property
    def lines(self) -> list[str]:
        return self.out.splitlines()


async def start(
    *args: str, env: Mapping[str, str] | None = None, cwd: Path | None = None
) -> asyncio.subprocess.Process:
    """Start `pezzottify-downloads` with these arguments, in an environment of nothing but `env`."""
    root = Path(__file__).parents[2]
    return await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "services", *args),
        env={"PATH": os.environ["PATH"], "PYTHONPATH": str(root), **(env or {})},
        cwd=cwd or root,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )


async def end(process: asyncio.subprocess.Process) -> Said:
    """Its end, and all that it has printed."""
    out, err = await asyncio.wait_for(process.communicate(), 60)
    assert process.returncode is not None
    return Said(code=process.returncode, out=out.decode(), err=err.decode())


async def command(
    *args: str, env: Mapping[str, str] | None = None, cwd: Path | None = None
) -> Said:
    """Run it to its end."""
    return await end(await start(*args, env=env, cwd=cwd))
