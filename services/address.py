"""Where the command line finds the API and a key for it, if nobody says."""

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
    """The API's base, and what opens it."""

    url: str
    key: str


def find_address(url: str, key: str, environ: Mapping[str, str] = os.environ) -> Address:
    """Complete what the command line was given with what `make run` left in its `data` folder.

    A key that was found there is for this machine alone, and not sent anywhere else.

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
            "no key: set BOOTSTRAP_ADMIN_KEY or BOOTSTRAP_ADMIN_KEY_FILE; that of `make run` is"
            " found by itself in its folder, in data/admin.key"
        )
    return Address(url=url, key=key)


def _found(name: str) -> str:
    """What `make run` wrote down: in this folder's data, or that of the clone we belong to."""
    for folder in (Path.cwd(), Path(services.__path__[0]).parent):
        try:
            return (folder / "data" / name).read_text(encoding="utf-8").strip()
        except OSError:
            continue
    return ""
