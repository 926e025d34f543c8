"""docker-compose.yml and what stands beside it, read as text: `make compose-test` runs them."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import Any, TypeAlias

import pytest
import yaml

from shared.settings import EVERY_SERVICE, OPTIONAL_SERVICES, REQUIRED_BY, SECRETS, Settings
from tests.compose.lab import COMMANDS, documented

Json: TypeAlias = dict[str, Any]

ROOT = Path(__file__).parents[2]
OVERRIDES = sorted((ROOT / "deploy/compose").glob("*.yml"))
VARIABLE = re.compile(r"(?<!\$)\$\{(\w+)")
# Where each setting that is a path leads to, and so what a service that requires it mounts.
MOUNTED = {"catalog_db": "/catalog", "media_path": "/media/library"}
OWN_IMAGES = {"pezzottify-downloads", "pezzottify-files"}
# What differs between services, beside the URL of NATS.
FURTHER_SECRETS = {
    "ingest": {"admin_key"},
    "ticketer": {"torrentino_api_key"},
    "poller": {"torrentino_api_key"},
    "fetcher-writer": {"torrentino_api_key"},
    "bridge": {"catalog_server_password"},
}
# What it checks before it places a file, and what the bridge writes.
FURTHER_MOUNTS = {
    "fetcher-writer": {"/media/incoming", "/media/downloads", "/catalog"},
    "bridge": {"/media/library", "/catalog"},
}


def read(path: Path) -> Json:
    """A compose file."""
    found: Json = yaml.safe_load(path.read_text(encoding="utf-8"))
    return found


COMPOSE = read(ROOT / "docker-compose.yml")
# Beside the data network: what calls other programs, those programs, and what others call.
REACHED = {
    "pezzottify-internal": {"ticketer", "poller", "fetcher-writer", "bridge"}
    | {"torrentino-standin", "sample", "files"},
    "clients": {"ingest", "nats"},
}
OF_OURS = {name.replace("_", "-"): name for name in EVERY_SERVICE}

each_service = pytest.mark.parametrize("service", OF_OURS)


def variables_of(text: str) -> set[str]:
    """The variables that Compose replaces in a file."""
    return set(VARIABLE.findall(text))


@each_service
def test_each_service_runs_its_module_with_every_setting(service: str) -> None:
    """No setting can be made in .env and have no effect."""
    found = COMPOSE["services"][service]
    assert found["command"] == ["python", "-m", f"services.{OF_OURS[service]}"]
    secret = {name.upper() for name in SECRETS}
    given = {
        name.removesuffix("_FILE") if name[:-5] in secret else name for name in found["environment"]
    }
    wanted = {name.upper() for name in Settings.model_fields} - secret
    assert given - secret == wanted | {"PUID", "PGID", "OPS_NETWORK"}
    assert {"DATABASE_URL_FILE", "NATS_URL_FILE"} <= found["environment"].keys()
    assert not secret & found["environment"].keys()


@each_service
def test_each_service_has_only_the_secrets_that_it_needs(service: str) -> None:
    """One user of PostgreSQL and of NATS each; the administrator's key and Torrentino's where they
    are used."""
    names = [
        s if isinstance(s, str) else s["source"] for s in COMPOSE["services"][service]["secrets"]
    ]
    own = {f"database_url_{OF_OURS[service]}", f"nats_url_{OF_OURS[service]}"}
    assert set(names) == own | FURTHER_SECRETS.get(service, set())
    files = {n for n in COMPOSE["services"][service]["environment"] if n.endswith("_FILE")}
    files -= {"NATS_CA_FILE"}
    assert len(files) == len(names)


@each_service
def test_each_service_mounts_what_it_requires(service: str) -> None:
    """And nothing else, but for what the fetcher-writer and the bridge may use."""
    volumes = COMPOSE["services"][service].get("volumes", [])
    mounts = {re.sub(r"[${}]|\w+:-", "", volume["target"]) for volume in volumes}
    wanted = {where for name, where in MOUNTED.items() if OF_OURS[service] in REQUIRED_BY[name]}
    assert mounts == wanted | FURTHER_MOUNTS.get(service, set())


@each_service
def test_what_is_optional_is_off(service: str) -> None:
    """A profile of its name switches it on."""
    optional = OF_OURS[service] in OPTIONAL_SERVICES
    assert COMPOSE["services"][service].get("profiles") == ([service] if optional else None)


@each_service
def test_each_service_waits_for_what_it_stands_on(service: str) -> None:
    """An ordered start: the servers are healthy, and the schema is this version's."""
    conditions = {n: d["condition"] for n, d in COMPOSE["services"][service]["depends_on"].items()}
    assert conditions == {
        "postgres": "service_healthy",
        "nats": "service_healthy",
        "migrate": "service_completed_successfully",
    }


@pytest.mark.parametrize("service", COMPOSE["services"])
def test_no_container_may_do_more_than_it_needs(service: str) -> None:
    """Read-only, without capabilities and without a way to get some, limited."""
    found = COMPOSE["services"][service]
    assert found["read_only"] is True
    assert found["cap_drop"] == ["ALL"]
    assert found["security_opt"] == ["no-new-privileges:true"]
    assert found["mem_limit"]
    assert found["pids_limit"]
    assert found["logging"]["options"]["max-size"]
    assert service == "postgres" or "cap_add" not in found
    assert service in ("postgres", "nats") or found["user"] == "${PUID:-1000}:${PGID:-1000}"
    assert found["restart"] == ("no" if service in ("migrate", "sample") else "unless-stopped")


@pytest.mark.parametrize("service", COMPOSE["services"])
def test_the_data_network_has_no_other_program(service: str) -> None:
    """Torrentino's network has what calls it, the clients' what they call."""
    found = set(COMPOSE["services"][service]["networks"])
    data = {"data"} if service in {*OF_OURS, "postgres", "nats", "migrate"} else set()
    further = {network for network, members in REACHED.items() if service in members}
    assert found == data | further
    assert COMPOSE["networks"]["data"]["internal"] is True


@pytest.mark.parametrize("path", [ROOT / "docker-compose.yml", *OVERRIDES], ids=lambda p: p.name)
def test_folders_of_the_user_are_mounted_in_the_long_syntax(path: Path) -> None:
    """For the short one Docker makes a missing folder, empty and of root."""
    volumes = [v for s in read(path)["services"].values() for v in s.get("volumes", [])]
    assert [v for v in volumes if isinstance(v, str) and v.startswith("$")] == []
    assert volumes


def test_no_folder_is_made_where_compose_would_make_it() -> None:
    """deploy/compose/folders.yml has the mounts of each service once more, and forbids it."""
    strict = read(ROOT / "deploy/compose/folders.yml")["services"]
    assert strict.keys() == {
        service for service in OF_OURS if "volumes" in COMPOSE["services"][service]
    }
    for service, found in strict.items():
        again = [
            {**v, "source": re.sub(r":\?[^}]*", "", v["source"]), "type": "bind"}
            | {"bind": {"create_host_path": False}}
            for v in COMPOSE["services"][service]["volumes"]
        ]
        assert found["volumes"] == again, service


def test_only_ingest_is_published_and_to_this_machine_alone() -> None:
    """A user who wants more sets it in .env."""
    published = {n: s["ports"] for n, s in COMPOSE["services"].items() if "ports" in s}
    assert published == {"ingest": ["${BIND_ADDRESS:-127.0.0.1}:${PORT:-3002}:3002"]}


def test_every_container_has_a_health_check() -> None:
    """Its own, or that of our images; jobs end instead."""
    for name, service in COMPOSE["services"].items():
        image = re.sub(r"\$\{\w+:-(.*)\}", r"\1", service["image"])
        job = service.get("healthcheck") == {"disable": True}
        assert job == (service["restart"] == "no"), name
        assert job or image in OWN_IMAGES or service["healthcheck"]["test"], name


def test_foreign_images_are_pinned() -> None:
    """Two machines that install on different days run the same."""
    for name, service in COMPOSE["services"].items():
        default = re.fullmatch(r"\$\{\w+:-(.*)\}", service["image"])
        assert default, name
        assert default[1] in OWN_IMAGES or re.search(r":\d+\.\d+", default[1]), name


def test_ci_gets_the_images_that_compose_names() -> None:
    """Otherwise it would find that it cannot have them, and leave the compose test out."""
    script = (ROOT / ".ci/run").read_text(encoding="utf-8")
    compose = (ROOT / "docker-compose.yml").read_text(encoding="utf-8")
    wanted = re.findall(r"\$\{(?:PYTHON|POSTGRES|NATS)_IMAGE:-[^}]+\}", script)
    assert len(wanted) == 3
    assert all(image in compose for image in wanted)


def test_env_example_explains_what_compose_reads() -> None:
    """Every variable of docker-compose.yml and of deploy/secrets.sh, and no other."""
    text = (ROOT / ".env.example").read_text(encoding="utf-8")
    explained = re.findall(r"^([A-Z_]+)=", text, re.M)
    assert len(explained) == len(set(explained))
    read_ = variables_of((ROOT / "docker-compose.yml").read_text(encoding="utf-8"))
    script = (ROOT / "deploy/secrets.sh").read_text(encoding="utf-8")
    read_ |= set(re.findall(r"\$\(setting (\w+)", script))
    read_ |= {"COMPOSE_PROJECT_NAME", "COMPOSE_PROFILES", "COMPOSE_FILE"}
    assert set(explained) == read_


def test_env_example_has_the_defaults_of_compose() -> None:
    """To copy it and change nothing is to choose nothing."""
    text = (ROOT / ".env.example").read_text(encoding="utf-8")
    values = dict(re.findall(r"^([A-Z_]+)=(.*)$", text, re.M))
    compose = (ROOT / "docker-compose.yml").read_text(encoding="utf-8")
    for name, default in re.findall(r"\$\{(\w+):-([^}]*)\}", compose):
        assert values[name] in ("", default), name


@pytest.mark.parametrize("path", OVERRIDES, ids=lambda path: path.name)
def test_an_override_changes_what_is_there(path: Path) -> None:
    """A misspelt service would be a new one; a variable is explained somewhere."""
    text = path.read_text(encoding="utf-8")
    known = variables_of((ROOT / "docker-compose.yml").read_text(encoding="utf-8"))
    for name, service in read(path)["services"].items():
        assert name in COMPOSE["services"] or "image" in service, name
    for name in variables_of(text) - known:
        assert re.search(rf"^#.*\b{name}\b", text, re.M), name


def test_try_env_names_what_has_no_default() -> None:
    """Nothing of .env is needed to try it."""
    compose = (ROOT / "docker-compose.yml").read_text(encoding="utf-8")
    text = (ROOT / "deploy/compose/try.env").read_text(encoding="utf-8")
    named = dict(re.findall(r"^([A-Z_]+)=(.+)$", text, re.M))
    assert set(re.findall(r"\$\{(\w+):\?", compose)) <= named.keys()
    assert named.keys() <= variables_of(compose) | {"COMPOSE_PROJECT_NAME"}
    folders = {value for name, value in named.items() if name.endswith("_DIR")}
    assert folders <= COMPOSE["volumes"].keys()


def test_every_secret_is_made_by_the_script() -> None:
    """docker-compose.yml mounts no file that deploy/secrets.sh does not make."""
    script = (ROOT / "deploy/secrets.sh").read_text(encoding="utf-8")
    made = set(re.findall(r"\bkeep (\w+)\b", script))
    services = re.search(r"^services='(.*)'$", script, re.M)
    users = re.search(r'^users="\$services (.*)"$', script, re.M)
    assert services
    assert users
    assert services[1].split() == list(EVERY_SERVICE)
    made |= {f"database_url_{service}" for service in EVERY_SERVICE}
    made |= {f"nats_url_{user}" for user in (*EVERY_SERVICE, *users[1].split())}
    assert COMPOSE["secrets"].keys() <= made


def test_the_image_has_the_version_of_the_project() -> None:
    """The label org.opencontainers.image.version."""
    pyproject = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    dockerfile = (ROOT / "deploy/docker/Dockerfile").read_text(encoding="utf-8")
    assert f"\nARG VERSION={pyproject['project']['version']}\n" in dockerfile


@pytest.mark.parametrize(
    "path", sorted((ROOT / "deploy").rglob("Dockerfile")), ids=lambda p: p.parent.name
)
def test_the_classic_builder_can_build_it(path: Path) -> None:
    """Nothing that only BuildKit knows."""
    text = path.read_text(encoding="utf-8")
    assert not re.search(r"--mount|--link|--chmod|<<|# *syntax|--start-interval", text)


def test_every_command_of_operations_is_run_by_the_compose_test() -> None:
    """Each block of docs/operations.md has a name, and a step of the compose test runs it."""
    page = (ROOT / "docs/operations.md").read_text(encoding="utf-8")
    assert len(documented("docs/operations.md")) == page.count("```sh\n")
    steps = "\n".join(path.read_text() for path in (ROOT / "tests/compose").glob("*.py"))
    assert [name for name in COMMANDS if f'"{name}"' not in steps] == []
