"""The small scripts of deploy/: the secrets, the image's entrypoint and its health check."""

from __future__ import annotations

import asyncio
import os
import re
import shutil
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from shared.settings import EVERY_SERVICE
from tests.support.autoindex import Autoindex

ROOT = Path(__file__).parents[2]
DOCKER = ROOT / "deploy/docker"
IDS = {"PUID": str(os.getuid()), "PGID": str(os.getgid())}
CLEAN = {"PATH": os.environ["PATH"]}


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A folder with nothing but the script."""
    (tmp_path / "deploy").mkdir()
    shutil.copy(ROOT / "deploy/secrets.sh", tmp_path / "deploy")
    return tmp_path


def make(checkout: Path, *names: str, **environ: str) -> subprocess.CompletedProcess[str]:
    """Run deploy/secrets.sh from elsewhere."""
    return subprocess.run(
        ["sh", str(checkout / "deploy/secrets.sh"), *names],
        env=CLEAN | IDS | environ,
        cwd="/",
        capture_output=True,
        text=True,
        check=False,
        timeout=30,
    )


def secrets_of(checkout: Path) -> dict[str, str]:
    """The content of every secret."""
    return {path.name: path.read_text() for path in (checkout / "secrets").iterdir()}


def test_secrets_are_made_once(checkout: Path) -> None:
    """A second run changes nothing; what is missing is made."""
    assert make(checkout).returncode == 0
    before = secrets_of(checkout)
    (checkout / "secrets/admin_key").unlink()
    again = make(checkout)
    assert again.stdout.split() == ["made", "./secrets/admin_key"]
    after = secrets_of(checkout)
    assert {name: text for name, text in after.items() if before[name] != text}.keys() == {
        "admin_key"
    }


def test_the_two_sides_of_a_password_agree(checkout: Path) -> None:
    """PostgreSQL's and the services', NATS' and each user's; all are random and long."""
    make(checkout)
    found = secrets_of(checkout)
    assert f":{found['postgres_password'].strip()}@postgres/" in found["database_url"]
    passwords = dict(
        re.findall(r'^(\w+)_PASSWORD: "([0-9a-f]{48})"$', found["nats_passwords"], re.M)
    )
    assert len(set(passwords.values())) == len(passwords) == 9
    for user, password in passwords.items():
        url = found[f"nats_url_{user.lower()}"].strip()
        assert url == f"nats://{user.lower()}:{password}@nats:4222"
    assert found["torrentino_api_key"] == found["catalog_server_password"] == ""


def test_each_service_has_a_user_of_postgresql(checkout: Path) -> None:
    """An installation from before has one for all: each gets its own, and that one stays."""
    make(checkout)
    before = secrets_of(checkout)
    logins = [checkout / f"secrets/database_url_{service}" for service in EVERY_SERVICE]
    urls = [path.read_text().strip() for path in logins]
    for service, url in zip(EVERY_SERVICE, urls, strict=True):
        assert re.fullmatch(rf"postgresql://{service}:[0-9a-f]{{48}}@postgres/pezzottify", url)
    assert len({url.partition("@")[0].rpartition(":")[2] for url in urls}) == len(urls)
    for path in logins:
        path.unlink()
    again = make(checkout)
    assert len(again.stdout.splitlines()) == len(logins)
    assert secrets_of(checkout)["database_url"] == before["database_url"]
    assert [path.read_text().strip() for path in logins] != urls


def test_a_folder_that_is_missing_is_named(checkout: Path) -> None:
    """Before Docker makes an empty one; a volume's name is none, and a rotation needs no folder."""
    there, missing = checkout / "there", checkout / "typo"
    there.mkdir()
    (checkout / ".env").write_text(
        f"INCOMING_DIR={missing}\nCATALOG_DIR={there}\nMEDIA_DIR=media\n"
    )
    failed = make(checkout)
    assert failed.returncode == 1
    assert failed.stderr.splitlines() == [
        f"INCOMING_DIR: {missing} is no folder of this machine: make it, or correct .env"
    ]
    assert make(checkout, "admin").returncode == 0
    missing.mkdir()
    assert make(checkout).returncode == 0


def test_an_upgrade_adds_the_users_that_are_missing(checkout: Path) -> None:
    """An installation from before the bridge: NATS' file gets its line, in place; no other
    password changes."""
    make(checkout)
    secrets = checkout / "secrets"
    everything = secrets_of(checkout)
    older = "".join(
        line
        for line in everything["nats_passwords"].splitlines(keepends=True)
        if not line.startswith("BRIDGE_")
    )
    (secrets / "nats_passwords").chmod(0o600)
    (secrets / "nats_passwords").write_text(older)
    for name in ("nats_url_bridge", "catalog_server_password"):
        (secrets / name).unlink()
    inode = (secrets / "nats_passwords").stat().st_ino
    again = make(checkout)
    assert again.returncode == 0, again.stderr
    made = re.findall(r"^made \./secrets/(\w+)$", again.stdout, re.M)
    assert sorted(made) == ["catalog_server_password", "nats_passwords", "nats_url_bridge"]
    after = secrets_of(checkout)
    assert after["nats_passwords"].startswith(older)
    [line] = after["nats_passwords"].removeprefix(older).splitlines()
    password = re.fullmatch(r'BRIDGE_PASSWORD: "([0-9a-f]{48})"', line)
    assert password
    assert after["nats_url_bridge"] == f"nats://bridge:{password[1]}@nats:4222\n"
    kept = everything.keys() - {"nats_passwords", "nats_url_bridge"}
    assert all(after[name] == everything[name] for name in kept)
    assert (secrets / "nats_passwords").stat().st_ino == inode
    assert make(checkout).stdout == ""


def test_secrets_are_for_the_owner_and_the_group_alone(checkout: Path) -> None:
    """NATS reads its own through the group."""
    make(checkout)
    for path in (checkout / "secrets").iterdir():
        assert stat.S_IMODE(path.stat().st_mode) == 0o440, path.name
        assert (path.stat().st_uid, path.stat().st_gid) == (os.getuid(), os.getgid())
    assert stat.S_IMODE((checkout / "secrets").stat().st_mode) == 0o700


@pytest.mark.skipif(os.getuid() != 0, reason="only root can give files away")
def test_root_makes_them_for_puid(checkout: Path) -> None:
    """.env says who that is; those that there are go to the new one, too."""
    assert make(checkout).returncode == 0
    (checkout / ".env").write_text("PUID=1234\nPGID='1235'\n")
    again = make(checkout, PUID="", PGID="")
    assert (again.returncode, again.stdout) == (0, "")
    for path in (checkout / "secrets", *(checkout / "secrets").iterdir()):
        assert (path.stat().st_uid, path.stat().st_gid) == (1234, 1235), path.name


@pytest.mark.skipif(os.getuid() == 0, reason="root can give files to any group")
def test_a_group_that_is_not_ours_is_an_error(checkout: Path) -> None:
    """The containers could not read the files, and no message would say why."""
    failed = make(checkout, PGID="4242")
    assert failed.returncode == 1
    assert "PGID" in failed.stderr


def test_a_named_secret_is_made_anew_in_its_file(checkout: Path) -> None:
    """In the same file, which containers have mounted; the others stay."""
    make(checkout)
    before, inode = secrets_of(checkout), (checkout / "secrets/nats_passwords").stat().st_ino
    assert make(checkout, "nats", NATS_SCHEME="tls").returncode == 0
    after = secrets_of(checkout)
    changed = {name for name, text in after.items() if before[name] != text}
    assert changed == {name for name in after if name.startswith("nats_")}
    assert (checkout / "secrets/nats_passwords").stat().st_ino == inode
    assert after["nats_url_catalog"].startswith("tls://catalog:")


def test_an_unknown_secret_is_refused(checkout: Path) -> None:
    """With the names that there are."""
    failed = make(checkout, "natz")
    assert failed.returncode == 2
    assert "natz: there are postgres, nats, admin, torrentino and catalog_server" in failed.stderr


# --- the image


def enter(*command: str, **environ: str) -> subprocess.CompletedProcess[str]:
    """Run the image's entrypoint here."""
    return subprocess.run(
        ["sh", str(DOCKER / "entrypoint"), *command],
        env=CLEAN | environ,
        capture_output=True,
        text=True,
        check=False,
        timeout=30,
    )


@pytest.mark.skipif(os.getuid() != 0, reason="only root can become another user")
def test_root_becomes_puid_and_pgid() -> None:
    """Without the groups that root had, and without a way back."""
    done = enter(
        "sh",
        "-c",
        "id -u; id -g; id -G; grep NoNewPrivs /proc/self/status",
        PUID="1234",
        PGID="1235",
    )
    assert done.stdout.split() == ["1234", "1235", "1235", "NoNewPrivs:", "1"]
    assert enter("id", "-u").stdout.strip() == "1000"


@pytest.mark.skipif(os.getuid() != 0, reason="only root can be root")
def test_root_stays_root_if_told_so() -> None:
    """Some have all of their files belong to root."""
    assert enter("id", "-u", PUID="0", PGID="0").stdout == "0\n"


@pytest.mark.skipif(os.getuid() != 0, reason="only root can become another user")
def test_numbers_that_are_none_are_an_error() -> None:
    """One line with the variable, not what the system calls it."""
    failed = enter("id", PUID="me")
    assert failed.returncode == 1
    assert failed.stderr.splitlines()[-1].startswith("PUID: cannot become me:1000")


@pytest.mark.skipif(os.getuid() == 0, reason="root becomes the user instead")
@pytest.mark.parametrize("name", ["PUID", "PGID"])
def test_another_user_than_puid_is_an_error(name: str) -> None:
    """A setting without effect would put the files into the wrong hands."""
    failed = enter("id", **{name: "4242"})
    assert failed.returncode == 1
    assert failed.stderr.startswith(f"{name}: got 4242, but the container runs as")
    assert enter("echo", "in", **IDS).stdout == "in\n"


@pytest.mark.parametrize("network", ["", "no-such-network"])
def test_the_ops_port_keeps_to_loopback_without_its_network(network: str) -> None:
    """The health check needs loopback; a network that is not there is said."""
    done = enter("sh", "-c", "echo $OPS_HOST", OPS_HOST="127.0.0.1", OPS_NETWORK=network, **IDS)
    assert done.stdout == "127.0.0.1\n"
    assert ("OPS_NETWORK: no address" in done.stderr) == bool(network)


def check(*arguments: str, **environ: str) -> int:
    """Run the health check; its exit code."""
    command = [sys.executable, "-IS", str(DOCKER / "healthcheck.py"), *arguments]
    return subprocess.run(
        command, env=environ, capture_output=True, check=False, timeout=30
    ).returncode


async def test_the_health_check_says_whether_the_answer_is_200(
    tmp_path: Path, unused_tcp_port: int
) -> None:
    """200 is healthy; another answer, or none, is not."""
    (tmp_path / "healthz").write_text("ok")
    async with Autoindex(tmp_path) as server:
        port = server.url.rsplit(":", 1)[1].partition("/")[0]
        ask = asyncio.to_thread
        assert await ask(check, port, "/files/healthz") == 0
        assert await ask(check, port, "/files/none") != 0
        assert await ask(check, OPS_PORT=port) != 0
    assert await asyncio.to_thread(check, str(unused_tcp_port), "/healthz") != 0
