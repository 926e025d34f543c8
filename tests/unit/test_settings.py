"""Settings: what is wrong is named in one line, and secrets are never shown."""

from __future__ import annotations

from pathlib import Path

import pytest
import trustme

from shared.settings import (
    REQUIRED_BY,
    SECRETS,
    SERVICES,
    Service,
    Settings,
    SettingsError,
    load,
    secret,
)

GOOD = {
    "DATABASE_URL": "postgresql://user:pw@host/db",
    "NATS_URL": "nats://host:4222",
    "TORRENTINO_URL": "http://torrentino:8080/api/v1",
    "CATALOG_DB": "/data/catalog.db",
    "MEDIA_PATH": "/data/media",
}
# From the contract's table: variable, default, another value.
TABLE: tuple[tuple[str, object, str, object], ...] = (
    ("TORRENTINO_DELIVERY", "shared", "http", "http"),
    ("TORRENTINO_DEST_ROOT", "/media/incoming", "/x", "/x"),
    ("TORRENTINO_DEST_MOUNT", None, "/y", "/y"),
    ("TORRENTINO_FILES_URL", None, "https://files/", "https://files/"),
    ("TORRENTINO_DOWNLOADS_ROOT", None, "/downloads", "/downloads"),
    ("TORRENTINO_CLEANUP", "keep", "torrent", "torrent"),
    ("TICKET_GROUPING", "auto", "album", "album"),
    ("AUDIO_FORMAT", "original", "ogg_vorbis", "ogg_vorbis"),
    ("AUDIO_PLAYABLE", "convert", "refuse", "refuse"),
    ("AUDIO_KEEP_SOURCE", False, "true", True),
    ("REPLACE_BROKEN", False, "true", True),
    ("CATALOG_SERVER_URL", None, "http://pezzottify:3001", "http://pezzottify:3001"),
    ("CATALOG_SERVER_USER", None, "bridge", "bridge"),
    ("BRIDGE_CATALOG_WRITE", False, "true", True),
    ("BRIDGE_SERVER_STOPPED", False, "true", True),
    ("BRIDGE_REQUESTS", True, "false", False),
    ("BRIDGE_AVAILABILITY", True, "false", False),
    ("BRIDGE_CLOSE", "delete", "receipt", "receipt"),
    ("BRIDGE_POLL_S", 5, "30", 30),
    ("UMASK", "022", "0002", "0002"),
    ("HOST", "127.0.0.1", "0.0.0.0", "0.0.0.0"),
    ("PORT", 3002, "8080", 8080),
    ("OPS_PORT", 9091, "0", 0),
    ("USER_MAX_REQUESTS_PER_DAY", 100, "7", 7),
    ("USER_MAX_QUEUE_SIZE", 200, "0", 0),
    ("MAX_RETRIES", 8, "0", 0),
    ("RETRY_INITIAL_S", 60, "0.5", 0.5),
    ("RETRY_MULTIPLIER", 2.5, "1", 1),
    ("RETRY_MAX_S", 86400, "10", 10),
    ("LEASE_S", 60, "5", 5),
    ("POLL_INTERVAL_S", 5, "0.2", 0.2),
    ("SWEEP_INTERVAL_S", 5, "1", 1),
    ("STALL_TIMEOUT_S", 10800, "60", 60),
    ("DURATION_TOLERANCE_S", 6, "3.5", 3.5),
    ("MAX_TICKETS_IN_FLIGHT", 50, "1", 1),
    ("MIN_FREE_DISK_MB", 1024, "0", 0),
    ("SHUTDOWN_GRACE_S", 20, "3", 3),
    ("LOG_FORMAT", "json", "console", "console"),
    ("LOG_LEVEL", "info", "DEBUG", "debug"),
)


def fault(environ: dict[str, str], *services: Service) -> str:
    """The message of an environment that is refused."""
    with pytest.raises(SettingsError) as raised:
        load(services or SERVICES, environ)
    return str(raised.value)


@pytest.mark.parametrize(("variable", "default", "text", "value"), TABLE)
def test_each_variable_has_its_default_and_an_effect(
    variable: str, default: object, text: str, value: object
) -> None:
    """L-14, L-31: the contract's defaults, and a value that is set is the one that is used."""
    name = variable.lower()
    assert getattr(load(SERVICES, GOOD), name) == default
    given = GOOD | {"TORRENTINO_FILES_URL": "http://files"} | {variable: text}
    assert getattr(load(SERVICES, given), name) == value
    spaced = GOOD | {"TORRENTINO_FILES_URL": "http://files"} | {variable: f" {text}\n"}
    assert getattr(load(SERVICES, spaced), name) == value


@pytest.mark.parametrize("variable", sorted({*(row[0] for row in TABLE), "TORRENTINO_API_KEY"}))
def test_an_empty_variable_is_one_that_is_not_set(variable: str) -> None:
    """Compose files write `X=` for what is left out."""
    assert load(SERVICES, GOOD | {variable: ""}) == load(SERVICES, GOOD)
    assert load(SERVICES, GOOD | {variable: "  "}) == load(SERVICES, GOOD)


def test_the_mount_is_the_root_unless_it_is_another() -> None:
    """TORRENTINO_DEST_MOUNT defaults to TORRENTINO_DEST_ROOT."""
    assert load(SERVICES, GOOD).dest_mount == Path("/media/incoming")
    other = GOOD | {"TORRENTINO_DEST_MOUNT": "/mnt/in"}
    assert load(SERVICES, other).dest_mount == Path("/mnt/in")


def test_the_downloads_mount_is_the_root_unless_it_is_another() -> None:
    """Without a root there is no mount; a mount without a root is refused."""
    assert load(SERVICES, GOOD).downloads_mount is None
    seen = GOOD | {"TORRENTINO_DOWNLOADS_ROOT": "/downloads"}
    assert load(SERVICES, seen).downloads_mount == Path("/downloads")
    elsewhere = load(SERVICES, seen | {"TORRENTINO_DOWNLOADS_MOUNT": "/mnt/d"})
    assert elsewhere.downloads_mount == Path("/mnt/d")
    message = fault(GOOD | {"TORRENTINO_DOWNLOADS_MOUNT": "/mnt/d"})
    assert message.startswith("TORRENTINO_DOWNLOADS_ROOT: is not set")


@pytest.mark.parametrize(
    ("format_", "quality", "usable"),
    [
        ("opus", "96", True),
        ("flac", "12", True),
        ("flac", "0", True),
        ("opus", "31", False),
        ("flac", "13", False),
        ("mp3", "513", False),
        ("original", "320", False),
        ("", "320", False),
    ],
)
def test_a_quality_is_one_of_its_format(format_: str, quality: str, usable: bool) -> None:
    """kbit/s or a compression level; without a format it has no meaning."""
    environ = GOOD | {"AUDIO_FORMAT": format_, "AUDIO_QUALITY": quality}
    if usable:
        assert load(SERVICES, environ).audio_quality == int(quality)
    else:
        assert fault(environ).startswith(f"AUDIO_QUALITY: got '{quality}', wants kbit/s")


@pytest.mark.parametrize(
    ("text", "bits", "mode"),
    [
        ("", 0o022, 0o644),
        ("022", 0o022, 0o644),
        ("0002", 0o002, 0o664),
        ("027", 0o027, 0o640),
        ("077", 0o077, 0o600),
        ("000", 0o000, 0o666),
    ],
)
def test_a_umask_is_octal_as_in_a_shell(text: str, bits: int, mode: int) -> None:
    """Three digits with or without a leading 0; a file gets the rest of 0666."""
    settings = load(SERVICES, GOOD | {"UMASK": text})
    assert (settings.umask_bits, settings.file_mode) == (bits, mode)


def refused(text: str) -> None:
    """Require that this is no UMASK, in one line with what it got and what it wants."""
    message = fault(GOOD | {"UMASK": text})
    assert message.startswith(f"UMASK: got {text!r}, wants the rights in octal that ")
    assert message.endswith("not three octal digits, which YAML needs quotes for)")
    assert "\n" not in message


@pytest.mark.parametrize(
    "text",
    ["9", "028", "0o22", "0x12", "1777", "00022", "-1", "+22", "0_2", "abc", "\u0660\u0662\u0662"],
)
def test_a_value_that_is_no_umask_is_refused(text: str) -> None:
    """No prefix, no sign and no further digit is accepted."""
    refused(text)


@pytest.mark.parametrize(("written", "text"), [("022", "18"), ("002", "2"), ("077", "63")])
def test_a_umask_that_yaml_read_as_a_number_is_refused(written: str, text: str) -> None:
    """Without quotes another number arrives, which must not pass for another umask."""
    assert int(written, 8) == int(text)
    refused(text)


@pytest.mark.parametrize("text", ["700", "0777", "100", "222", "477"])
def test_a_umask_leaves_the_owner_all_rights(text: str) -> None:
    """A service that cannot read, write or enter what it made could not work."""
    message = fault(GOOD | {"UMASK": text})
    assert message.startswith(f"UMASK: got '{text}', wants the rights in octal that ")
    assert message.endswith("it takes rights from the owner, and the owner is this service itself)")


@pytest.mark.parametrize("service", SERVICES)
def test_what_a_service_requires(service: Service) -> None:
    """Each required variable is named when it is missing, for the services that need it."""
    always = {"DATABASE_URL", "NATS_URL"}
    own = {name.upper() for name, services in REQUIRED_BY.items() if service in services}
    needed = {name: GOOD[name] for name in (*always, *own)}
    assert load([service], needed)
    for variable in needed:
        left = {name: value for name, value in needed.items() if name != variable}
        message = fault(left, service)
        assert message.startswith(f"{variable}: is not set, wants ")
        assert "\n" not in message


def test_services_require_what_the_contract_lists() -> None:
    """The required variables of the contract's table."""
    wanted = {
        "torrentino_url": {"ticketer", "poller", "fetcher_writer"},
        "catalog_db": {"ingest", "watchdog"},
        "media_path": {"ingest", "fetcher_writer", "watchdog", "reaper"},
    }
    assert wanted == REQUIRED_BY


def test_everything_that_is_wrong_is_reported_at_once() -> None:
    """One line for each variable at fault, in one start."""
    lines = fault({"LEASE_S": "soon", "PORT": "70000"}).splitlines()
    assert [line.partition(":")[0] for line in lines] == [
        "DATABASE_URL", "NATS_URL", "TORRENTINO_URL", "CATALOG_DB", "MEDIA_PATH", "PORT", "LEASE_S",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("TORRENTINO_URL", "torrentino:8080"), ("TORRENTINO_URL", "ftp://host"),
        ("TORRENTINO_URL", "http://"), ("TORRENTINO_URL", "http://host:port"),
        ("TORRENTINO_URL", "http://[half"), ("TORRENTINO_URL", "http://host:99999"),
        ("TORRENTINO_FILES_URL", "/files"),
        ("TORRENTINO_DELIVERY", "ftp"), ("TORRENTINO_DEST_ROOT", "relative"),
        ("TORRENTINO_DEST_ROOT", "/a/../b"), ("TORRENTINO_DEST_MOUNT", "./x"),
        ("PORT", "-1"), ("PORT", "65536"), ("PORT", "http"), ("OPS_PORT", "1.5"),
        ("USER_MAX_REQUESTS_PER_DAY", "-1"), ("USER_MAX_QUEUE_SIZE", "many"),
        ("USER_MAX_QUEUE_SIZE", "9" * 30), ("MAX_RETRIES", "-1"), ("MAX_RETRIES", "1000"),
        ("RETRY_INITIAL_S", "0"), ("RETRY_MULTIPLIER", "0.5"), ("RETRY_MULTIPLIER", "inf"),
        ("RETRY_MAX_S", "-5"), ("LEASE_S", "0.5"), ("LEASE_S", "nan"), ("LEASE_S", "1e300"),
        ("POLL_INTERVAL_S", "inf"), ("POLL_INTERVAL_S", "5s"), ("SWEEP_INTERVAL_S", "0"),
        ("STALL_TIMEOUT_S", "-1"), ("DURATION_TOLERANCE_S", "nan"),
        ("MAX_TICKETS_IN_FLIGHT", "0"), ("MAX_TICKETS_IN_FLIGHT", "9" * 30),
        ("MIN_FREE_DISK_MB", "-1"), ("SHUTDOWN_GRACE_S", "0"), ("LOG_FORMAT", "xml"),
        ("LOG_LEVEL", "loud"), ("LOG_LEVEL", "two\nlines"),
    ],
)  # fmt: skip
def test_an_unusable_value_is_named_with_what_is_wanted(variable: str, value: str) -> None:
    """One line: the variable, what it got, and what it wants."""
    message = fault(GOOD | {variable: value})
    assert message.startswith(f"{variable}: got {value!r}, wants ")
    assert str(Settings.model_fields[variable.lower()].description) in message
    assert len(message.splitlines()) == 1


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://u:p@host/db", "postgres://host/db", "postgresql://u:p,q@host/db",
        "postgresql://a:5432,b:5433/db", "postgresql:///db?host=/run/postgresql",
    ],
)  # fmt: skip
def test_every_url_that_postgresql_takes_is_taken(url: str) -> None:
    """Several hosts, a comma in the password and a folder of sockets are accepted."""
    assert load(SERVICES, GOOD | {"DATABASE_URL": url}).database_url.get_secret_value() == url


def test_nats_takes_several_servers() -> None:
    """NATS_URL may name several, separated by commas; each has to be a URL."""
    urls = "nats://a:4222, tls://b"
    assert load(SERVICES, GOOD | {"NATS_URL": urls}).nats_url.get_secret_value() == urls
    for bad in ("a:4222", "nats://a,b", "nats://", "http://a"):
        assert fault(GOOD | {"NATS_URL": bad}).startswith("NATS_URL: got")


def test_the_ca_of_nats_is_a_file_of_certificates(tmp_path: Path) -> None:
    """Missing, a folder or another file: one line at the start, not an error at the handshake."""
    good, other = tmp_path / "ca.pem", tmp_path / "other.pem"
    trustme.CA().cert_pem.write_to_path(good)
    assert load(SERVICES, GOOD | {"NATS_CA_FILE": str(good)}).nats_ca_file == good
    assert load(SERVICES, GOOD | {"NATS_CA_FILE": ""}).nats_ca_file is None
    other.write_text("a certificate, honestly\n")
    for path, why in (
        (tmp_path / "none", "No such file or directory"),
        (tmp_path, "Is a directory"),
        (other, "it holds no certificates"),
    ):
        message = fault(GOOD | {"NATS_CA_FILE": str(path)})
        assert message.startswith(f"NATS_CA_FILE: got {str(path)!r}, wants a readable PEM file")
        assert message.endswith(f"{why})")
        assert len(message.splitlines()) == 1


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("DATABASE_URL", "mysql://u:hunter2@host/db"), ("DATABASE_URL", "hunter2"),
        ("NATS_URL", "nats://u:hunter2@[host"), ("NATS_URL", "http://u:hunter2@host"),
        ("NATS_URL", "nats://u:hunter2@h\u2100st"), ("NATS_URL", "nats://u:hunter2@h:port"),
    ],
)  # fmt: skip
def test_a_secret_is_never_in_the_message(variable: str, value: str) -> None:
    """Not even the part of it that was wrong."""
    message = fault(GOOD | {variable: value})
    assert message.startswith(f"{variable}: got a value that is not shown, wants ")
    assert "hunter2" not in message


SERVER = {"CATALOG_SERVER_URL": "http://pezzottify:3001", "CATALOG_SERVER_USER": "bridge"}


def test_the_account_at_the_catalog_server_is_whole_for_the_bridge_alone() -> None:
    """Compose gives the address to every service, and the password to the bridge."""
    assert load(SERVICES, GOOD | SERVER).catalog_server_password is None
    message = fault(GOOD | SERVER, "bridge")
    assert message.startswith("CATALOG_SERVER_PASSWORD: is not set")
    assert len(message.splitlines()) == 1
    whole = GOOD | SERVER | {"CATALOG_SERVER_PASSWORD": "hunter2"}
    assert str(load(["bridge"], whole).catalog_server_url).startswith("http://pezzottify:3001")


def test_a_bridge_with_nothing_to_do_does_not_start() -> None:
    """It names the variable; a bridge that only publishes needs the catalog and the media root."""
    assert fault(GOOD, "bridge").startswith("CATALOG_SERVER_URL: is not set")
    writes = GOOD | {"BRIDGE_CATALOG_WRITE": "true"}
    assert load(["bridge"], writes).bridge_catalog_write
    for name in ("CATALOG_DB", "MEDIA_PATH"):
        rest = {key: text for key, text in writes.items() if key != name}
        assert fault(rest, "bridge").startswith(f"{name}: is not set")


@pytest.mark.parametrize("name", SECRETS)
def test_a_secret_may_come_from_a_file(name: str, tmp_path: Path) -> None:
    """X_FILE gives X, without the line break at its end."""
    variable = name.upper()
    value = GOOD.get(variable, "some-key")
    file = tmp_path / "secret"
    file.write_text(f"{value}\n")
    rest = {key: text for key, text in GOOD.items() if key != variable}
    found = getattr(load(SERVICES, rest | {f"{variable}_FILE": str(file)}), name)
    assert found.get_secret_value() == value
    assert value not in repr(load(SERVICES, rest | {f"{variable}_FILE": str(file)}))
    both = GOOD | {variable: value, f"{variable}_FILE": str(file)}
    assert fault(both) == f"{variable} and {variable}_FILE are both set: keep one"


def test_a_file_that_gives_no_secret_is_named(tmp_path: Path) -> None:
    """Missing, a folder, empty, or no text: the variable, the path, and why, and no other line."""
    empty, binary = tmp_path / "empty", tmp_path / "binary"
    empty.write_text("\n")
    binary.write_bytes(b"hunter2\xff")
    rest = {key: text for key, text in GOOD.items() if key != "DATABASE_URL"}
    for path in (tmp_path / "none", tmp_path, empty, binary):
        message = fault(rest | {"DATABASE_URL_FILE": str(path)})
        assert message.startswith(f"DATABASE_URL_FILE: got {str(path)!r}, wants a readable file")
        assert "hunter2" not in message
        assert len(message.splitlines()) == 1


def test_an_empty_file_gives_no_secret_that_may_be_left_out(tmp_path: Path) -> None:
    """As an empty variable; docker-compose.yml mounts a file also where there is no key."""
    empty = tmp_path / "empty"
    empty.write_text("\n")
    assert load(SERVICES, GOOD | {"TORRENTINO_API_KEY_FILE": str(empty)}) == load(SERVICES, GOOD)


def test_one_secret_can_be_read_alone(tmp_path: Path) -> None:
    """For the command line, which needs no setting but its key."""
    file = tmp_path / "key"
    file.write_text("hunter2\n")
    assert secret("bootstrap_admin_key", {}) == ""
    assert secret("bootstrap_admin_key", {"BOOTSTRAP_ADMIN_KEY": "hunter2"}) == "hunter2"
    assert secret("bootstrap_admin_key", {"BOOTSTRAP_ADMIN_KEY_FILE": str(file)}) == "hunter2"
    with pytest.raises(SettingsError, match="BOOTSTRAP_ADMIN_KEY_FILE"):
        secret("bootstrap_admin_key", {"BOOTSTRAP_ADMIN_KEY_FILE": str(tmp_path)})


def test_http_delivery_needs_its_url() -> None:
    """TORRENTINO_DELIVERY=http without TORRENTINO_FILES_URL cannot collect anything."""
    message = fault(GOOD | {"TORRENTINO_DELIVERY": "http"})
    assert message.startswith("TORRENTINO_FILES_URL: is not set")
    assert load(["ticketer"], GOOD | {"TORRENTINO_DELIVERY": "http"})
