"""What a self-hoster does and meets: each step on the lab that the one before has left."""

from __future__ import annotations

import hashlib
import json
import re
import shutil
import subprocess
import time
from functools import partial
from pathlib import Path

import httpx
import trustme

from services.local.sample import ALBUM_ID, SECOND_ALBUM_ID
from shared.states import Stage
from tests.compose.lab import ADDRESS, SERVICES, Failed, Lab, until
from tests.compose.report import Report
from tests.compose.seen import Seen, require, require_refused

_STANDIN = "torrentino-standin"
_CALL_TORRENTINO = ("ticketer", "poller", "fetcher-writer")
# In which stage of an item each container is in the middle of its work.
_AT_WORK = {
    "postgres": Stage.DOWNLOADING,
    "nats": Stage.DOWNLOADING,
    "ingest": Stage.QUEUED,
    "ticketer": Stage.QUEUED,
    "poller": Stage.DOWNLOADING,
    "fetcher-writer": Stage.FETCHING,
    "watchdog": Stage.QUEUED,
    "reaper": Stage.DOWNLOADING,
    _STANDIN: Stage.DOWNLOADING,
}
# The processes of a service whose environment another one of its user, as ffmpeg is, can read.
_READABLE = """
import os
for pid in filter(str.isdigit, os.listdir("/proc")):
    with open(f"/proc/{pid}/cmdline", "rb") as file:
        ours = b"\\0services." in file.read() and int(pid) != os.getpid()
    if ours and os.access(f"/proc/{pid}/environ", os.R_OK):
        print(pid)
"""
_SECRET = re.compile(r"(PASSWORD|ADMIN_KEY|API_KEY)=.|://\S+:\S+@")


class Steps:
    """The installation under test, and what must be true of it."""

    def __init__(self, lab: Lab, report: Report) -> None:
        self.lab = lab
        self.report = report
        self.seen = Seen(lab)

    # --- the whole way

    def build(self) -> str:
        """The image of this tree, small and saying what it is."""
        self.lab.change(REVISION="compose-test")
        self.lab.compose("build", "ingest")
        [image] = json.loads(self.lab.run("docker", "inspect", self.lab.image))
        labels = image["Config"]["Labels"]
        require(labels["org.opencontainers.image.revision"] == "compose-test", labels)
        base = self.lab.environ.get("PYTHON_IMAGE", "python:3.13-slim")
        [below] = json.loads(self.lab.run("docker", "inspect", base))
        size, of_base = image["Size"] / 1e6, below["Size"] / 1e6
        return f"image {size:.0f} MB, of which {of_base:.0f} MB are {base}"

    def install(self) -> None:
        """From nothing to a system that works, as docs/operations.md says."""
        self.lab.as_documented("install")
        self.seen.healthy()

    def start(self) -> None:
        """How long it takes from empty volumes until everything is ready."""
        self.lab.as_documented("remove")
        began = time.monotonic()
        self.lab.compose("up", "-d")
        up = time.monotonic() - began
        until(self.seen.api_answers, what="ingest answers")
        answers = time.monotonic() - began
        until(self.lab.ready, what="all services are ready")
        self.report.add("start: docker compose up returns", up, "with a new PostgreSQL cluster")
        self.report.add("start: the API answers", answers, "since the same beginning")
        self.report.add("start: all services ready", time.monotonic() - began, "likewise")
        until(self.lab.said_healthy, what="Docker says that all containers are healthy")
        self.report.add("start: all containers healthy", time.monotonic() - began, "likewise")

    def hardened(self) -> str:
        """Only ingest is published, on one address; no service may do more than its work needs."""
        published = {}
        for container in self.lab.containers():
            service = container["Config"]["Labels"]["com.docker.compose.service"]
            host = container["HostConfig"]
            ports = [b["HostIp"] for bound in (host["PortBindings"] or {}).values() for b in bound]
            if ports:
                published[service] = ports
            require(host["ReadonlyRootfs"], f"{service} can write to its root filesystem")
            require(host["CapDrop"] == ["ALL"], f"{service} keeps capabilities")
            require("no-new-privileges:true" in host["SecurityOpt"], f"{service} can gain rights")
            require(host["Memory"] > 0 and host["PidsLimit"], f"{service} has no limits")
            if service not in ("postgres", "nats"):
                user = f"{self.lab.uid}:{self.lab.gid}"
                require(container["Config"]["User"] == user, f"{service} is not {user}")
            secret = [each for each in container["Config"]["Env"] if _SECRET.search(each)]
            require(not secret, f"{service} has secrets in its environment")
        require(published == {"ingest": [ADDRESS]}, f"published: {published}")
        for service in SERVICES:
            [container] = self.lab.containers(service)
            read = self.lab.run("docker", "exec", container["Id"], "python", "-IS", "-c", _READABLE)
            require(not read.strip(), f"{service}: a child reads the environment of {read}")
        return "read-only, no capabilities, limits, only ingest published"

    def networks(self) -> str:
        """Torrentino reaches no PostgreSQL, no NATS and no ops port; what needs it reaches it."""
        data = f"{self.lab.name}-data"
        closed = [("postgres", 5432), ("nats", 4222)] + [(s, 9091) for s in SERVICES]
        by_address = [(self.lab.address(name, data), port) for name, port in closed]
        # Those that Torrentino shares a network with answer there on no port.
        shared = [(self.lab.address(s, self.lab.name), 9091) for s in _CALL_TORRENTINO]
        for host, port in (*closed, *by_address, *shared):
            require(host, "an address is missing")
            require(not self.lab.connects(_STANDIN, host, port), f"it reaches {host}:{port}")
        for service in SERVICES:
            found = self.lab.connects(service, _STANDIN, 8080)
            require(found == (service in _CALL_TORRENTINO), f"{service} and Torrentino: {found}")
            # As a Prometheus would.
            require(self.lab.connects("reaper", service, 9091), f"no ops port of {service}")
        require(not self.lab.connects("reaper", "192.0.2.1", 9), "that network has a way out")
        return f"{len(closed) + len(by_address) + len(shared)} addresses closed to Torrentino"

    def closed_to(self, *others: str) -> None:
        """Other programs reach no PostgreSQL, no NATS and no ops port by their names."""
        for other in others:
            for host, port in (("postgres", 5432), ("nats", 4222), ("fetcher-writer", 9091)):
                require(not self.lab.connects(other, host, port), f"{other} reaches {host}:{port}")

    def database_users(self) -> str:
        """Each service has its own login, and PostgreSQL has refused it nothing."""
        sql = "SELECT DISTINCT usename FROM pg_stat_activity WHERE usename <> 'pezzottify'"
        ask = ("exec", "-T", "postgres", "psql", "-U", "pezzottify", "-Atc")

        def connected() -> set[str]:
            return set(self.lab.compose(*ask, sql).split())

        until(lambda: len(connected()) == len(SERVICES), what="every service has its own login")
        users = connected()
        require(users == {s.replace("-", "_") for s in SERVICES}, users)
        self.never_denied()
        reaper = self.lab.secret("database_url_reaper")
        for sql in ("SELECT magnet_uri FROM releases", "COPY events TO PROGRAM 'cat'"):
            refused = partial(self.lab.compose, *ask[:4], reaper, "-c", sql)
            require_refused(refused, f"the reaper's {sql}")
        return f"{len(users)} logins; a service that was taken over reads no secret of another"

    def never_denied(self) -> None:
        """PostgreSQL has refused no right so far, but those that were tried on purpose."""
        log = self.lab.compose("logs", "--no-color", "postgres")
        denied = [
            line
            for line in log.splitlines()
            if "permission denied" in line and "table releases" not in line and "COPY" not in line
        ]
        require(not denied, f"a service may not do what it needs: {denied[:3]}")

    def missing_folder(self) -> str:
        """A folder that is missing is named, by secrets.sh and by Compose; Docker makes none."""
        there, missing = self.lab.storage / "incoming", self.lab.storage / "typo"
        self.lab.change(INCOMING_DIR=str(missing))
        for command in (["sh", "deploy/secrets.sh"], ["docker", "compose", "up", "-d"]):
            try:
                self.lab.run(*command)
            except Failed as failed:
                require(str(missing) in str(failed), failed)
            else:
                raise Failed(f"{command} accepts a missing folder")
        require(not missing.exists(), "Docker has made the folder")
        self.lab.change(INCOMING_DIR=str(there))
        self.lab.compose("up", "-d")
        self.seen.healthy()
        return ""

    def album_over_http(self) -> str:
        """An album that was asked for over HTTP arrives."""
        answer = self.lab.ask("POST", f"album/{ALBUM_ID}")
        require(answer["queued"] == 12, answer)
        return self.seen.arrives([ALBUM_ID])

    def album_over_nats(self) -> str:
        """An album that the catalog server asked for arrives, and it hears of each file."""
        said = self.seen.as_catalog_server("album", SECOND_ALBUM_ID)
        require(said.startswith("accepted"), said)
        remark = self.seen.arrives([SECOND_ALBUM_ID])
        ready = {event["track_id"]: event for event in self.seen.heard()}
        for track_id in self.seen.tracks([ALBUM_ID, SECOND_ALBUM_ID]):
            path = self.seen.library / ready[track_id]["audio_uri"]
            sum_ = hashlib.sha256(path.read_bytes()).hexdigest()
            require(
                ready[track_id]["sha256"] == sum_, f"audio.ready of {track_id} is not of {path}"
            )
        return f"{remark}; audio.ready with the SHA-256 of each file"

    def bridge(self) -> str:
        """With its profile the catalog names every placed file; before, it named none."""
        tracks = set(self.seen.tracks([ALBUM_ID, SECOND_ALBUM_ID]))
        require(not self.seen.named(), "the catalog names files without the bridge")
        profiles = self.lab.environ["COMPOSE_PROFILES"]
        self.lab.environ["COMPOSE_PROFILES"] = f"{profiles},bridge"
        # No catalog server has this catalog open.
        self.lab.change(BRIDGE_CATALOG_WRITE="true", BRIDGE_SERVER_STOPPED="true")
        began = time.monotonic()
        self.lab.compose("up", "-d")
        until(lambda: self.seen.named().keys() == tracks, what="the catalog names every file")
        took = time.monotonic() - began
        lost = {t: u for t, u in self.seen.named().items() if not (self.seen.library / u).is_file()}
        require(not lost, f"the catalog names what is not there: {lost}")
        self.seen.healthy()
        self.never_denied()
        self.lab.compose("rm", "-sf", "bridge")
        self.lab.environ["COMPOSE_PROFILES"] = profiles
        self.lab.change(BRIDGE_CATALOG_WRITE="", BRIDGE_SERVER_STOPPED="")
        self.lab.compose("up", "-d")
        self.seen.healthy()
        return f"{len(tracks)} tracks named {took:.1f} s after `up`"

    def rights(self) -> str:
        """The catalog server may not publish what is not its own."""
        for subject in ("event.item.failed.1", "work.fetch", "command.scan", "dead"):
            said = self.seen.as_catalog_server("refused", f"pezzottify.download.{subject}")
            require("permissions violation" in said.lower(), f"{subject}: {said}")
        log = self.lab.compose("logs", "--no-color", "nats")
        others = [
            line for line in log.splitlines() if "Violation" in line and ":catalog" not in line
        ]
        require(not others, f"a service may not do what it needs: {others[:3]}")
        return "4 forbidden publishes refused; no service was refused anything"

    # --- what goes wrong

    def kill_each(self) -> None:
        """Each container dies in the middle of work: it comes back, and everything arrives."""
        for service, stage in _AT_WORK.items():
            self.seen.ask_anew()
            if service == "watchdog":
                self.lab.ask("POST", "admin/queue-all")
            until(partial(self.seen.reached, stage), what=f"an item is {stage}")
            began = time.monotonic()
            started_at = self.lab.kill(service)
            until(partial(self.lab.back, service, started_at), what=f"{service} is back")
            back = time.monotonic() - began
            self.seen.arrives([ALBUM_ID, SECOND_ALBUM_ID])
            whole = time.monotonic() - began
            self.report.add(
                f"kill {service}", whole, f"answers after {back:.1f} s, then all 17 there"
            )

    def scale_each(self) -> str:
        """Each service runs three times, and once again, while work continues."""
        began = time.monotonic()
        for name in ("scale", "scale-ingest"):
            self.lab.as_documented(name)
        self.scale(3)
        for service in SERVICES:
            until(partial(self.lab.healthy, service, count=3), what=f"3 of {service}")
        up = time.monotonic() - began
        self.seen.ask_anew()
        self.scale(1)
        self.lab.as_documented("scale-ingest-back")
        self.seen.healthy()
        self.seen.arrives([ALBUM_ID, SECOND_ALBUM_ID])
        return f"all 18 answer after {up:.1f} s"

    def scale(self, count: int) -> None:
        """All six services, so many times."""
        scales = [word for service in SERVICES for word in ("--scale", f"{service}={count}")]
        self.lab.compose("up", "-d", *scales)

    def stop_and_start(self) -> str:
        """A stop hands everything back, a start continues; what there was is kept."""
        before = self.seen.completed()
        self.seen.ask_anew()
        began = time.monotonic()
        self.lab.compose("stop")
        stopped = time.monotonic() - began
        codes = {
            c["Config"]["Labels"]["com.docker.compose.service"]: c["State"]["ExitCode"]
            for c in self.lab.containers()
        }
        require(all(codes[service] == 0 for service in SERVICES), f"exit codes: {codes}")
        self.lab.compose("start")
        self.seen.arrives([ALBUM_ID, SECOND_ALBUM_ID])
        require(before <= self.seen.completed(), "items are missing after a stop")
        return f"stopped in {stopped:.1f} s, all with exit code 0"

    def down_and_up(self) -> str:
        """New containers on the old volumes."""
        before = self.seen.completed()
        self.lab.compose("down")
        self.lab.compose("up", "-d")
        self.seen.healthy()
        require(before == self.seen.completed(), "items are missing after `down`")
        return f"{len(before)} items kept"

    def lose_nats(self) -> str:
        """The volume of NATS is gone: streams and events come back, requests go on."""
        before = {event["event_id"] for event in self.seen.heard()}
        self.lab.as_documented("nats-lost")
        self.seen.healthy()
        until(
            lambda: before <= {event["event_id"] for event in self.seen.heard()}, what="old events"
        )
        self.seen.forget_files()
        said = self.seen.as_catalog_server("album", SECOND_ALBUM_ID)
        require(said.startswith("accepted"), said)
        self.seen.arrives([SECOND_ALBUM_ID])
        return f"{len(before)} audio.ready events published again"

    # --- operations

    def back_up_and_restore(self) -> str:
        """A backup, made while work continues, brings everything back into empty volumes."""
        self.seen.ask_anew()
        self.lab.as_documented("backup")
        self.seen.arrives([ALBUM_ID, SECOND_ALBUM_ID])
        before = self.seen.completed()
        self.lab.as_documented("remove")
        volumes = self.lab.run("docker", "volume", "ls", "-q", "--filter", f"name={self.lab.name}")
        require(not volumes.strip(), f"`remove` leaves volumes: {volumes}")
        self.lab.run("sh", "-c", "rm -r .env secrets && tar -xf settings.tar")
        self.lab.as_documented("restore")
        self.seen.healthy()
        self.seen.arrives([ALBUM_ID, SECOND_ALBUM_ID])
        kept = self.seen.completed()
        require(len(kept) >= len(before) - 17, "the history is not restored")
        size = (self.lab.checkout / "backup.dump").stat().st_size
        return f"{len(kept)} completed items, dump of {size / 1000:.0f} kB"

    def move(self) -> str:
        """The media go to another folder, and all work continues."""
        new = self.lab.make_folder(self.lab.storage / "elsewhere")
        self.lab.as_documented("move", OLD=str(self.seen.library), NEW=str(new))
        self.seen.library = new
        self.seen.healthy()
        self.seen.forget_files()
        self.lab.ask("POST", f"album/{SECOND_ALBUM_ID}")
        return self.seen.arrives([SECOND_ALBUM_ID])

    def rotate(self) -> str:
        """New passwords hold, and the old ones no more."""
        nats, database, login, key = map(
            self.lab.secret,
            ("nats_url_catalog", "database_url", "database_url_poller", "admin_key"),
        )
        for name in ("rotate-postgres", "rotate-nats", "rotate-admin"):
            self.lab.as_documented(name)
        self.seen.healthy()
        until(self.lab.ready, what="all services are ready with the new passwords")
        answer = httpx.get(
            f"http://{ADDRESS}:3002/v1/download/limits",
            headers={"Authorization": f"Bearer {key}"},
            trust_env=False,
        )
        require(answer.status_code == 401, f"the old key still works: {answer.status_code}")
        require_refused(
            partial(self.seen.as_catalog_server, "ready", url=nats), "NATS' old password"
        )
        psql = partial(self.lab.compose, "exec", "-T", "postgres", "psql", "-c", "SELECT 1", "-d")
        require_refused(partial(psql, database), "PostgreSQL's old password")
        require_refused(partial(psql, login), "the poller's old password")
        psql(self.lab.secret("database_url"))
        self.seen.forget_files()
        said = self.seen.as_catalog_server("album", SECOND_ALBUM_ID)
        require(said.startswith("accepted"), said)
        return self.seen.arrives([SECOND_ALBUM_ID])

    def read_a_stuck_item(self) -> str:
        """The commands for it say what happened to an item."""
        for name in ("logs", "look", "stuck"):
            self.lab.as_documented(name)
        item = self.lab.ask("GET", "my-requests?limit=1")["items"][0]
        said = self.lab.as_documented("stuck-item", ID=item["id"])
        require("the file is in place" in said, said)
        require("file_placed" in said, "the logs do not name the item")
        return ""

    def over_http(self) -> str:
        """Files come through nginx instead of a folder."""
        self.lab.compose("build", "files")
        self.lab.as_documented("http")
        self.lab.environ["COMPOSE_PROFILES"] += ",nginx"
        self.seen.healthy()
        self.seen.forget_files()
        self.lab.ask("POST", f"album/{SECOND_ALBUM_ID}")
        self.seen.arrives([SECOND_ALBUM_ID])
        self.closed_to("files")
        log = self.lab.compose("logs", "--no-color", "files")
        fetched = re.findall(r'"GET (/downloads/\S+[^/]) HTTP/1\.\d" 20[06]', log)
        require(len(set(fetched)) >= 5, f"nginx gave only {fetched}")
        self.lab.change(
            TORRENTINO_DELIVERY="",
            TORRENTINO_FILES_URL="",
            TORRENTINO_DOWNLOADS_URL="",
        )
        self.lab.compose("up", "-d")
        return f"{len(set(fetched))} files through nginx"

    def with_tls(self) -> str:
        """NATS with certificates; the catalog server verifies them too."""
        folder = self.lab.make_folder(self.lab.checkout / "secrets/tls")
        authority = trustme.CA()
        server = authority.issue_cert("nats", "localhost")
        authority.cert_pem.write_to_path(folder / "ca.crt")
        server.private_key_pem.write_to_path(folder / "server.key")
        server.cert_chain_pems[0].write_to_path(folder / "server.crt")
        self.lab.run("chmod", "-R", "a+rX", str(folder))
        self.lab.as_documented("tls", TLS="./secrets/tls")
        self.lab.environ["COMPOSE_FILE"] = "docker-compose.yml:deploy/compose/tls.yml"
        self.seen.healthy()
        self.seen.forget_files()
        said = self.seen.as_catalog_server("album", SECOND_ALBUM_ID, trusts=folder / "ca.crt")
        require(said.startswith("accepted"), said)
        return self.seen.arrives([SECOND_ALBUM_ID])

    def beside_pezzottify(self) -> str:
        """The second file: one mount for all, so that files are linked and not copied."""
        self.lab.compose("down")
        shutil.rmtree(self.lab.storage / "library")
        self.seen.library = self.seen.library.rename(self.lab.storage / "library")
        self.build_neighbours()
        self.lab.change(
            MEDIA_DIR=str(self.seen.library),
            TORRENTINO_URL="http://torrentino:8080/api/v1",
            NATS_SCHEME="nats",
        )
        with (self.lab.checkout / ".env").open("a") as file:
            file.write(
                f"\nSTORAGE_DIR={self.lab.storage}\nTORRENTINO_IMAGE={self.lab.name}/torrentino\n"
                f"PEZZOTTIFY_IMAGE={self.lab.name}/pezzottify\nTORRENTINO_CONFIG_DIR=./deploy\n"
                "PEZZOTTIFY_CONFIG=./LICENSE\n"
            )
        self.lab.run("sh", "deploy/secrets.sh", "nats")
        self.lab.environ["COMPOSE_FILE"] = "docker-compose.yml:deploy/compose/pezzottify.yml"
        self.lab.environ["COMPOSE_PROFILES"] = ""
        self.lab.compose("up", "-d")
        self.seen.healthy()
        self.seen.forget_files()
        self.lab.ask("POST", f"album/{ALBUM_ID}")
        self.seen.arrives([ALBUM_ID], linked=True)
        self.closed_to("torrentino", "pezzottify")
        return "12 files: 10 hard links to the torrent's, 2 converted"

    def build_neighbours(self) -> None:
        """Images in the places of Torrentino's and Pezzottify's own, which are not published."""
        standin = ["python", "-m", "services.local.torrentino", "--host=0.0.0.0", "--port=8080"]
        standin += ["--songs=/catalog/songs.json", "--downloads=/media/downloads"]
        for name, command in (("torrentino", standin), ("pezzottify", ["sleep", "infinity"])):
            entrypoint = json.dumps(["tini", "--", *command])
            self.lab.run(
                *("docker", "build", "-q", "-t", f"{self.lab.name}/{name}", "-"),
                text=f"FROM {self.lab.image}\nUSER 0\nHEALTHCHECK NONE\n"
                # Where the songs of the sample were made, and where this Torrentino sees them.
                "RUN rmdir /catalog && ln -s /media/catalog /catalog\n"
                f"ENTRYPOINT {entrypoint}\n",
            )

    def try_it(self) -> str:
        """Without .env, a catalog and a Torrentino."""
        self.lab.as_documented("try", BIND_ADDRESS=ADDRESS)
        self.seen.healthy()
        self.lab.as_documented("try-album")
        until(lambda: not self.seen.active(), what="nothing is left to do")
        said = self.lab.as_documented("try-album")
        require(said.count("completed") == 12, said)
        self.lab.as_documented("try-end")
        require(not self.lab.containers(), "containers are left")
        return "12 tracks completed"

    def upgrade(self, commit: str) -> str:
        """From an earlier commit's installation, with data in it and work under way."""
        earlier = f"{self.lab.name}/earlier"
        self.lab.build_commit(commit, earlier)
        self.lab.compose("build", "ingest")
        with self.lab.files_of(commit):
            self.lab.run("sh", "deploy/secrets.sh")
            self.lab.compose("up", "-d", DOWNLOADS_IMAGE=earlier)
        until(self.seen.api_answers, what="the earlier ingest answers")
        self.lab.ask("POST", f"album/{ALBUM_ID}")
        self.seen.arrives([ALBUM_ID])
        before = self.seen.completed()
        self.lab.ask("POST", f"album/{SECOND_ALBUM_ID}")
        began = time.monotonic()
        self.lab.as_documented("upgrade")
        self.seen.healthy()
        took = time.monotonic() - began
        self.seen.arrives([ALBUM_ID, SECOND_ALBUM_ID])
        require(before <= self.seen.completed(), "items are missing after the upgrade")
        images = {c["Config"]["Image"] for c in self.lab.containers()}
        require(earlier not in images, f"the earlier image still runs: {images}")
        users = set(re.findall(r"^(\w+)_PASSWORD:", self.lab.secret("nats_passwords"), re.M))
        require("BRIDGE" in users, f"secrets.sh has added no user: {users}")
        self.database_users()
        return f"from {commit[:8]} in {took:.1f} s; 12 items kept, 5 arrived across it"


def previous_commit(named: str) -> str | None:
    """The commit that is named, or None where this clone does not have it."""
    found = subprocess.run(
        ["git", "rev-parse", "--verify", "-q", f"{named}^{{commit}}"],
        cwd=Path(__file__).parent,
        capture_output=True,
        text=True,
        check=False,
    )
    return found.stdout.strip() or None
