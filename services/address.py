"""The address of the API, and a key for it, where the command line is given none."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import services
from shared.errors import DownloadsError
from shared.settings import secret

_DEFAULT_URL = "http://127.0.0.1:3002"
_THIS_MACHINE = ("127.0.0.1", "localhost", "::1")


class NoKey(DownloadsError):
    """There is no API key to send."""


@dataclass(frozen=True, kw_only=True)
class Address:
    """The API's base URL, and an API key."""

    url: str
    key: str


def find_address(url: str, key: str, environ: Mapping[str, str] = os.environ) -> Address:
    """Complete what the command line was given from the `data` folder of `make run`.

    A key that is found there is sent to this machine alone.

    Raises:
        NoKey: none was given, and none found.
        SettingsError: BOOTSTRAP_ADMIN_KEY_FILE cannot be read.
    """
    url = url or _found("api.url") or _DEFAULT_URL
    key = key or secret("bootstrap_admin_key", environ)
    if not key and urlsplit(url).hostname in _THIS_MACHINE:
        key = _found("admin.key")
    if not key:
        raise NoKey(
            "no key: set BOOTSTRAP_ADMIN_KEY or BOOTSTRAP_ADMIN_KEY_FILE; in the folder of"
            " `make run` it is read from data/admin.key"
        )
    return Address(url=url, key=key)


def _found(name: str) -> str:
    """What `make run` wrote to `data`, in this folder or in the clone that this code is in."""
    for folder in (Path.cwd(), Path(services.__path__[0]).parent):
        try:
            return (folder / "data" / name).read_text(encoding="utf-8").strip()
        except OSError:
            continue
    return ""
