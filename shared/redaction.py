"""Secrets in texts of other programs: what is stored, logged or shown is redacted first."""

from __future__ import annotations

import re

from shared.untrusted import printable

_SENSITIVE = (
    r"(?:(?:jackett_?)?api_?key|x-api-key|pass_?key|auth_?key|torrent_?pass|rss_?key|secret"
    r"|access_?token|token|password)"
)
_QUOTE = r"\\{0,4}[\"']?"
_REDACTIONS = (
    # A magnet's trackers: each may carry a passkey, in the query or in the path, often encoded.
    (re.compile(r"(\btr=)[^&\s\"'<>]+", re.IGNORECASE), r"\1***"),
    # apikey=…, "apikey": "…", X-Api-Key: …, and the same percent-encoded, or in JSON within JSON.
    (
        re.compile(
            rf"({_SENSITIVE}\s{{0,4}}{_QUOTE}\s{{0,4}}(?:=|:|%3D|%3A)\s{{0,4}}{_QUOTE})"
            r"(?:(?!%26|%22)[^&\s\"'<>,;)}])+",
            re.IGNORECASE,
        ),
        r"\1***",
    ),
    (re.compile(r"(\bBearer\s{1,4})[^\s\"',;]+", re.IGNORECASE), r"\1***"),
    # http://user:password@host
    (re.compile(r"(\b[a-z][a-z0-9+.-]{1,20}://)[^/\s@\"']{1,200}@", re.IGNORECASE), r"\1***@"),
    # https://tracker/<passkey>/announce
    (re.compile(r"((?:/|%2F))[A-Za-z0-9_-]{16,128}(?=(?:/|%2F)(?:announce|scrape))"), r"\1***"),
)


def redact(text: str) -> str:
    """`text` without API keys, passkeys, tokens, passwords and the trackers of magnet links.

    Nor with NUL, which JSON can carry and PostgreSQL cannot keep; and what else a terminal would
    obey is written as an escape.
    """
    text = printable(text.replace("\0", ""), keep="\n\t")
    for pattern, replacement in _REDACTIONS:
        text = pattern.sub(replacement, text)
    return text
