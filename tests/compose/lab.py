"""A checkout of its own with its own project, network and folders, on the Docker engine at hand."""

from __future__ import annotations

import json
import os
import re
import secrets
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeAlias, TypeVar

import httpx

Json: TypeAlias = dict[str, Any]
T = TypeVar("T")

REPOSITORY = Path(__file__).parents[2]
# Of the loopback network, but not where an installation of this machine would be.
ADDRESS = "127.0.0.77"
SERVICES = ("ingest", "ticketer", "poller", "fetcher-writer", "watchdog", "reaper")
_INSTALLED_FROM = ("docker-compose.yml", "deploy/secrets.sh", "deploy/nats/nats-server.conf")
_LOOK_S = 0.1
_COMMAND_S = 900
_BLOCK = re.compile(r"<!-- run: ([\w-]+) -->\n```sh\n(.*?)^```", re.M | re.S)
_CONNECT = (
    *("python3", "-IS", "-c"),
    "import socket, sys; socket.create_connection((sys.argv[1], int(sys.argv[2])), 2).close()",
)
_SHIM = """#!/bin/sh
# `docker compose` by docker-compose, where the engine's client has no such plugin.
if [ "$1" = compose ]; then shift; exec docker-compose "$@"; fi
exec {docker} "$@"
"""


class Failed(Exception):
    """Something is not as it must be; the text says what."""


def documented(page: str) -> dict[str, str]:
    """The commands of a page by the names of their blocks."""
    return dict(_BLOCK.findall((REPOSITORY / page).read_text(encoding="utf-8")))


# README.md has those for who only tries it.
COMMANDS = {**documented("docs/operations.md"), **documented("README.md")}


class Away(Failed):
    """No server answers at ingest's address."""


class Lab:
    """One installation from an empty folder; `close` removes all of it."""

    def __init__(self) -> None:
        self.name = f"pdmtest{secrets.token_hex(3)}"
        # Not below a folder that only we may enter: the containers' user must be able to enter it.
        self.folder = Path(tempfile.mkdtemp(prefix="pezzottify-compose-"))
        self.folder.chmod(0o755)
        self.checkout = self.folder / "checkout"
        self.storage = self.folder / "storage"
        self.uid = os.getuid() or 1234
        self.gid = os.getgid() or 1235
        self.image = f"{self.name}/downloads"
        self.environ = self._environ()
        self._images_before = self._dangling()

    # --- commands

    def run(
        self,
        *command: str,
        cwd: Path | None = None,
        text: str | None = None,
        environ: Mapping[str, str] | None = None,
    ) -> str:
        """What a command prints, with `environ` added to the lab's own.

        Raises:
            Failed: it ends with another code than 0.
        """
        done = subprocess.run(
            command,
            cwd=cwd or self.checkout,
            env={**self.environ, **(environ or {})},
            input=text,
            stdin=None if text is not None else subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=_COMMAND_S,
            check=False,
        )
        if done.returncode:
            said = (done.stdout + done.stderr)[-4000:]
            raise Failed(f"{' '.join(command)[:500]} ended with {done.returncode}:\n{said}")
        return done.stdout

    def compose(self, *arguments: str, **environ: str) -> str:
        """`docker compose …` in the checkout."""
        return self.run("docker", "compose", *arguments, environ=environ)

    def as_documented(self, name: str, **environ: str) -> str:
        """Run a block of docs/operations.md or README.md, as it stands there."""
        return self.run("sh", "-euc", COMMANDS[name], environ=environ)

    # --- making and removing

    def check_out(self) -> None:
        """Copy the repository's files as they are now."""
        self.checkout.mkdir()
        names = self.run(
            *("git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"),
            cwd=REPOSITORY,
        ).split("\0")
        for name in names:
            source = REPOSITORY / name
            if name and source.is_file():
                target = self.checkout / name
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(source, target)

    def fill_in(self) -> None:
        """Make folders, and .env as its comments say."""
        for folder in ("library", "incoming", "downloads", "catalog"):
            self.make_folder(self.storage / folder)
        self.as_documented("env")
        self.change(
            TORRENTINO_URL="http://torrentino-standin:8080/api/v1",
            INCOMING_DIR=str(self.storage / "incoming"),
            DOWNLOADS_DIR=str(self.storage / "downloads"),
            TORRENTINO_DOWNLOADS_ROOT="/media/downloads",
            MEDIA_DIR=str(self.storage / "library"),
            CATALOG_DIR=str(self.storage / "catalog"),
            PUID=str(self.uid),
            PGID=str(self.gid),
            UMASK="002",
            BIND_ADDRESS=ADDRESS,
            # What trying it needs: deploy/compose/try.env has them too.
            POLL_INTERVAL_S="1",
            SWEEP_INTERVAL_S="1",
            LEASE_S="10",
            STALL_TIMEOUT_S="20",
            RETRY_INITIAL_S="2",
            SEARCH_GAP_S="0",
        )

    def make_folder(self, folder: Path) -> Path:
        """A folder that belongs to PUID and PGID."""
        folder.mkdir(parents=True)
        if os.getuid() == 0:
            os.chown(folder, self.uid, self.gid)
        return folder

    def change(self, **values: str) -> None:
        """Change .env: each of these variables has its line there, and gets its value."""
        path = self.checkout / ".env"
        text = path.read_text(encoding="utf-8")
        for name, value in values.items():
            text, count = re.subn(rf"^{name}=.*$", f"{name}={value}", text, flags=re.M)
            if count != 1:
                raise Failed(f".env has {count} lines for {name}, not one")
        path.write_text(text, encoding="utf-8")

    def build_commit(self, commit: str, image: str) -> None:
        """Build the image of an earlier commit."""
        tree = self.folder / "earlier"
        tree.mkdir()
        archive = self.folder / "earlier.tar"
        self.run("git", "archive", "-o", str(archive), commit, cwd=REPOSITORY)
        self.run("tar", "-xf", str(archive), "-C", str(tree))
        base = self.environ.get("PYTHON_IMAGE", "python:3.13-slim")
        self.run(
            *("docker", "build", "-q", "--network=host", "--build-arg", f"PYTHON_IMAGE={base}"),
            *("-f", "deploy/docker/Dockerfile", "-t", image, "."),
            cwd=tree,
        )

    @contextmanager
    def files_of(self, commit: str) -> Iterator[None]:
        """What an earlier commit installs from, in the place of today's files, for the block."""
        today = {name: (self.checkout / name).read_text() for name in _INSTALLED_FROM}
        for name in today:
            earlier = self.run("git", "show", f"{commit}:{name}", cwd=REPOSITORY)
            (self.checkout / name).write_text(earlier)
        try:
            yield
        finally:
            for name, text in today.items():
                (self.checkout / name).write_text(text)

    def close(self, *, keep_images: bool) -> None:
        """Remove containers, volumes, network, images and folders."""
        self.remove()
        if not keep_images:
            # By their tags: another installation may have the same image.
            tags = ("docker", "images", "--format", "{{.Repository}}:{{.Tag}}", f"{self.name}/*")
            if made := self.run(*tags, cwd=self.folder).split():
                self.run("docker", "rmi", *made, cwd=self.folder)
            # The stages of the builds. One may stand on another, so a stage without one goes first.
            while left := self._removable(self._dangling() - self._images_before):
                self.run("docker", "rmi", *left, cwd=self.folder)
        shutil.rmtree(self.folder)

    def remove(self) -> None:
        """The containers with their volumes and network, whatever state they are in."""
        of_ours = f"label=com.docker.compose.project={self.name}"
        for kind, remove in (("ps", "rm"), ("volume", "volume"), ("network", "network")):
            listing = ["ps", "-aq"] if kind == "ps" else [kind, "ls", "-q"]
            found = self.run("docker", *listing, "--filter", of_ours, cwd=self.folder).split()
            if found:
                how = ["rm", "-fv"] if remove == "rm" else [remove, "rm"]
                self.run("docker", *how, *found, cwd=self.folder)

    def _removable(self, images: set[str]) -> list[str]:
        if not images:
            return []
        found = json.loads(self.run("docker", "inspect", *sorted(images), cwd=self.folder))
        parents = {image["Parent"] for image in found}
        return [image["Id"] for image in found if image["Id"] not in parents]

    def _dangling(self) -> set[str]:
        of_ours = ("--filter", "dangling=true", "--filter", "label=pezzottify.stage")
        listing = ("docker", "images", "-q", "--no-trunc", *of_ours)
        return set(self.run(*listing, cwd=self.folder).split())

    def _environ(self) -> dict[str, str]:
        docker = shutil.which("docker")
        if docker is None:
            raise Failed("there is no `docker`: install Docker, and Compose with it")
        # The files of .env.example, unless docker-compose 1.29 runs them.
        environ = {name: value for name, value in os.environ.items() if name != "COMPOSE_FILE"}
        plugin = subprocess.run(
            [docker, "compose", "version"], capture_output=True, check=False, timeout=60
        )
        if plugin.returncode:
            shim = self.folder / "bin" / "docker"
            shim.parent.mkdir()
            shim.write_text(_SHIM.format(docker=docker))
            shim.chmod(0o755)
            environ["PATH"] = f"{shim.parent}:{environ['PATH']}"
            environ["COMPOSE_FILE"] = "docker-compose.yml"
        return environ | {
            "COMPOSE_PROJECT_NAME": self.name,
            "PEZZOTTIFY_NETWORK": self.name,
            "CLIENTS_NETWORK": f"{self.name}-clients",
            "DATA_NETWORK": f"{self.name}-data",
            "DOWNLOADS_IMAGE": self.image,
            "FILES_IMAGE": f"{self.name}/files",
            "BUILD_NETWORK": "host",
            # Only in these are the stand-ins for Torrentino and the profile of the web server.
            "COMPOSE_PROFILES": "torrentino-standin",
        }

    # --- looking

    def containers(self, service: str | None = None) -> list[Json]:
        """What `docker inspect` says of the project's containers, jobs that have ended included."""
        filters = ["--filter", f"label=com.docker.compose.project={self.name}"]
        if service:
            filters += ["--filter", f"label=com.docker.compose.service={service}"]
        ids = self.run("docker", "ps", "-aq", *filters).split()
        found: list[Json] = json.loads(self.run("docker", "inspect", *ids)) if ids else []
        return found

    def healthy(self, service: str | None = None, *, count: int | None = None) -> bool:
        """Whether every container passes its health check now, and there are so many.

        Docker's own word for it may be as late as the check's interval.
        """
        found = [c for c in self.containers(service) if self._check(c)]
        good = [c for c in found if c["State"]["Running"] and self._passes(c)]
        return len(good) == len(found) and (len(good) == count if count else bool(good))

    def said_healthy(self) -> bool:
        """Whether Docker has said it of every container."""
        states = [c["State"].get("Health") for c in self.containers() if self._check(c)]
        return bool(states) and all(state["Status"] == "healthy" for state in states)

    def _passes(self, container: Json) -> bool:
        try:
            self.run("docker", "exec", container["Id"], *self._check(container))
        except Failed:
            return False
        return True

    def _check(self, container: Json) -> list[str]:
        """The command of the container's health check; none for a job."""
        match (container["Config"].get("Healthcheck") or {"Test": ["NONE"]})["Test"]:
            case ["CMD", *command]:
                return [str(word) for word in command]
            case ["CMD-SHELL", command]:
                return ["/bin/sh", "-c", str(command)]
            case _:
                return []

    def ready(self) -> bool:
        """Whether each service says so on its /readyz."""
        ask = ("python", "-IS", "/app/healthcheck.py", "9091", "/readyz")
        try:
            for service in SERVICES:
                for container in self.containers(service):
                    self.run("docker", "exec", container["Id"], *ask)
        except Failed:
            return False
        return True

    def address(self, service: str, network: str) -> str:
        """The address of a service's only container on a network; empty if it is not there."""
        [container] = self.containers(service)
        found = container["NetworkSettings"]["Networks"].get(network, {})
        return str(found.get("IPAddress", ""))

    def connects(self, service: str, host: str, port: int) -> bool:
        """Whether a connection from a service's container to this address is accepted."""
        [container] = self.containers(service)
        try:
            self.run("docker", "exec", container["Id"], *_CONNECT, host, str(port))
        except Failed:
            return False
        return True

    def secret(self, name: str) -> str:
        """What is in a file of secrets/ now."""
        return (self.checkout / "secrets" / name).read_text(encoding="ascii").strip()

    def kill(self, service: str) -> str:
        """End the first process of a container as a crash would; returns when it was started."""
        [container] = self.containers(service)
        state = container["State"]
        os.kill(state["Pid"], signal.SIGKILL)
        return str(state["StartedAt"])

    def back(self, service: str, started_at: str) -> bool:
        """Whether a killed container has been started again, and is healthy."""
        [container] = self.containers(service)
        return container["State"]["StartedAt"] != started_at and self.healthy(service)

    def logs(self) -> str:
        """The ends of all logs, for a failure; also where Compose itself is what fails."""
        try:
            return self.compose("logs", "--no-color", "--tail", "40")
        except Failed as error:
            return str(error)

    # --- the API

    def ask(self, method: str, path: str, body: Json | None = None) -> Json:
        """An answer of ingest, with the administrator's key.

        Raises:
            Failed: it refuses.
            Away: no server is there.
        """
        key = self.secret("admin_key")
        try:
            answer = httpx.request(
                method,
                f"http://{ADDRESS}:3002/v1/download/{path}",
                headers={"Authorization": f"Bearer {key}"},
                json=body,
                timeout=20,
                trust_env=False,
            )
        except httpx.TransportError as error:
            raise Away(f"{method} {path}: {error!r}") from error
        if answer.is_error:
            raise Failed(f"{method} {path}: {answer.status_code} {answer.text[:500]}")
        found: Json = answer.json()
        return found


def until(look: Callable[[], T], *, what: str, within_s: float = 120) -> T:
    """What `look` gives as soon as it is true; ingest may be away meanwhile.

    Raises:
        Failed: it was not, within the time.
    """
    deadline = time.monotonic() + within_s
    last: object = None
    while time.monotonic() < deadline:
        try:
            if found := look():
                return found
            last = found
        except Away as error:
            last = error
        time.sleep(_LOOK_S)
    raise Failed(f"{what}: not within {within_s:g} s; last seen: {last!r}")
