"""A real nginx with the configuration that we ship, on a loopback port and a folder of the test's.

The binary is Debian's. Where it is missing the tests are skipped, except in CI.
"""

from __future__ import annotations

import asyncio
import os
import pwd
import re
import shutil
import sys
import tempfile
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from services.local.servers import free_port
from tests.support.programs import debian_program
from tests.support.world import eventually

SHIPPED = Path(__file__).parents[2] / "deploy" / "nginx" / "nginx.conf"

_START_S = 20.0
_STOP_S = 10.0
_LOGGED = re.compile(r'\S+ \S+ "(?P<request>.*)" (?P<status>\d{3}) (?P<sent>\d+) "(?P<range>.*)"')


@dataclass(frozen=True, kw_only=True)
class Answered:
    """A request as nginx has logged it: what was sent of the answer, and the range asked for."""

    request: str
    status: int
    sent_bytes: int
    range: str | None


def nginx_binary() -> str:
    """Where nginx is; ends the test when it is nowhere."""
    return debian_program("nginx", package="nginx-light")


class Nginx:
    """Serves `root` below `url`; started by root, as `nobody`, which must be able to read it."""

    def __init__(self, root: Path, own: Path) -> None:
        self.root = root
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}/files"
        self._own = own
        self._errors, self._access = own / "error.log", own / "access.log"
        self._user = "nobody" if os.geteuid() == 0 else None

    def errors(self) -> str:
        """Everything in its error log."""
        return self._errors.read_text(encoding="utf-8", errors="replace")

    def answered(self) -> list[Answered]:
        """Every request for a file or a folder that it has done with, in this order."""
        lines = self._access.read_text(encoding="utf-8").splitlines()
        matches = [_LOGGED.fullmatch(line) for line in lines]
        return [
            Answered(
                request=match["request"],
                status=int(match["status"]),
                sent_bytes=int(match["sent"]),
                range=None if match["range"] == "-" else match["range"],
            )
            for match in matches
            if match is not None
        ]

    async def start(self, binary: str) -> None:
        """Start it and wait until it answers."""
        configuration = self._own / "nginx.conf"
        configuration.write_text(self._configuration(), encoding="utf-8")
        if self._user is not None:
            shutil.chown(self._own, self._user)
        with self._errors.open("wb") as log:
            self._process = await asyncio.create_subprocess_exec(
                *(binary, "-e", "stderr", "-c", str(configuration)),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                user=self._user,
                group=pwd.getpwnam(self._user).pw_gid if self._user else None,
                extra_groups=[] if self._user else None,
                start_new_session=True,
            )
        try:
            await eventually(self._answers, within_s=_START_S)
        except BaseException:
            await self.stop()
            raise

    async def _answers(self) -> bool:
        assert self._process.returncode is None, "nginx ended at once"
        try:
            reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        except OSError:
            return False
        try:
            writer.write(b"GET /healthz HTTP/1.0\r\n\r\n")
            return b" 200 " in await reader.readline()
        except OSError:
            return False
        finally:
            writer.close()

    def _configuration(self) -> str:
        return shipped_with(
            {
                "listen 8080;": f"listen 127.0.0.1:{self.port};",
                "alias /incoming/;": f'alias "{self.root}/";',
                "access_log /dev/stdout files;": f'access_log "{self._access}" files;',
                " /tmp/nginx": f" {self._own}/nginx",
            }
        )

    async def stop(self) -> None:
        """End it at once, whatever it is sending."""
        if self._process.returncode is None:
            self._process.terminate()
        try:
            await asyncio.wait_for(self._process.wait(), _STOP_S)
        except TimeoutError:
            self._process.kill()
            await self._process.wait()
        # pytest shows it with a test that has failed.
        sys.stderr.write(f"nginx's error log:\n{self.errors()}\n")


@asynccontextmanager
async def nginx(root: Path) -> AsyncIterator[Nginx]:
    """A server of `root` for the block."""
    binary = nginx_binary()
    with tempfile.TemporaryDirectory(prefix="pezzottify-nginx-") as name:
        server = Nginx(root, Path(name))
        await server.start(binary)
        try:
            yield server
        finally:
            await server.stop()


def shipped_with(changes: Mapping[str, str]) -> str:
    """The configuration that we ship, with each of these texts, which it must have, replaced."""
    text = SHIPPED.read_text(encoding="utf-8")
    for shipped, ours in changes.items():
        assert shipped in text, f"{SHIPPED.name} has no {shipped!r} any more"
        text = text.replace(shipped, ours)
    return text
