"""The types of settings: what each kind of value has to look like."""

from __future__ import annotations

import re
import ssl
from collections.abc import Collection
from pathlib import Path
from typing import Annotated
from urllib.parse import urlsplit

from pydantic import AfterValidator, BeforeValidator, Field, SecretStr


def _url(*schemes: str, many: bool = False, needs_host: bool = True) -> AfterValidator:
    def check(value: SecretStr | str) -> SecretStr | str:
        text = value.get_secret_value() if isinstance(value, SecretStr) else value
        for part in text.split(",") if many else [text]:
            _check_url(part.strip(), schemes, needs_host=needs_host)
        return value

    return AfterValidator(check)


def _check_url(text: str, schemes: Collection[str], *, needs_host: bool) -> None:
    try:
        parts = urlsplit(text)
        # PostgreSQL's may name several hosts, or none and a folder of sockets.
        found = bool(parts.hostname) and parts.port != 0 if needs_host else _ports(parts.netloc)
    except ValueError:
        # The error's text may have the password.
        raise ValueError("not a URL") from None
    if parts.scheme not in schemes or not found:
        raise ValueError("not such a URL")


def _ports(netloc: str) -> bool:
    """Whether the port of each host is a number; a `/` in a password shows here as well."""
    hosts = netloc.rpartition("@")[2].split(",")
    return all(re.fullmatch(r"(\[.*\]|[^:]*)(:\d*)?", host) for host in hosts)


def _absolute(value: str) -> str:
    if not value.startswith("/") or ".." in value.split("/") or "\0" in value:
        raise ValueError("not an absolute path without '..'")
    return value


def _umask(value: str) -> str:
    # All three digits: YAML reads an unquoted 077 as 63, which would be another umask.
    if re.fullmatch("0?[0-7]{3}", value) is None:
        raise ValueError("not three octal digits, which YAML needs quotes for")
    if int(value, 8) & 0o700:
        raise ValueError("it takes rights from the owner, and the owner is this service itself")
    return value


def _certificates(path: Path) -> Path:
    try:
        ssl.create_default_context(cafile=path)
    except ssl.SSLError:
        raise ValueError("it holds no certificates") from None
    except OSError as error:
        raise ValueError(error.strerror) from None
    return path


_YEARS_S = 10 * 365 * 86_400
_MOST = 2**31 - 1  # what PostgreSQL takes as an integer

DatabaseUrl = Annotated[SecretStr, _url("postgres", "postgresql", needs_host=False)]
NatsUrls = Annotated[SecretStr, _url("nats", "tls", "ws", "wss", many=True)]
HttpUrl = Annotated[str, _url("http", "https")]
AbsolutePath = Annotated[str, AfterValidator(_absolute)]
CertificateFile = Annotated[Path, AfterValidator(_certificates)]
Umask = Annotated[str, AfterValidator(_umask)]
Seconds = Annotated[float, Field(gt=0, le=_YEARS_S)]
Count = Annotated[int, Field(le=_MOST)]
# One of several words; INFO is read as info.
Word = BeforeValidator(lambda value: value.lower() if isinstance(value, str) else value)
