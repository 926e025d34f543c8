"""What an answer of Torrentino, or the lack of one, means for the caller.

Reading (GET) has no effect, so anything that may pass is `DependencyDown`. A call with an effect
(POST, DELETE) is sorted by whether the effect can have happened:

| what came back                      | meaning                                                  |
|-------------------------------------|----------------------------------------------------------|
| no connection, no free connection   | `DependencyDown`: nothing was sent                       |
| sent, then time-out or broken pipe  | `OutcomeUnknown(settled=False)`: it may still be at work |
| 401, 403                            | `Misconfigured`: the key is checked before anything else |
| 408, 429                            | `DependencyDown`: turned away before it was handled      |
| 500 with `{"error": …}`             | `OutcomeUnknown(settled=True)`: the handler has finished |
| 503                                 | `DependencyDown`: refused, by Torrentino or by a proxy   |
|                                     | without a back end; but see `_RESET_AFTER_SENDING`       |
| 502, 504, other 5xx                 | `OutcomeUnknown(settled=False)`: a proxy says this of a  |
|                                     | back end that refused and of one that died half-way      |
| 201, or 2xx in JSON, not readable   | `OutcomeUnknown(settled=True)`: something was made       |
| any other 2xx that is not JSON      | `Misconfigured`: that is not Torrentino. Its own routes  |
|                                     | answer JSON, and its dashboard answers HTML only to GET, |
|                                     | so nothing was made                                      |
| 3xx, 404 without JSON, other 4xx    | `Misconfigured`: there is no such route behind this URL  |

A 404 in JSON, a 409, and on create a 400, 413, 415 or 422, belong to the call and are handled
there.
"""

from __future__ import annotations

import json
from dataclasses import dataclass

import httpx

from shared.errors import DependencyDown, DownloadsError, Misconfigured, OutcomeUnknown
from shared.redaction import redact

MAX_BODY_BYTES = 32 * 1024 * 1024
_MAX_TEXT_CHARS = 500

# The connection was not made, so no byte of the request has left.
_NOT_SENT = (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout, httpx.ProxyError)

# Envoy, and with it most service meshes, answers 503 also when it lost the back end after the
# request had been passed on, with these words.
_RESET_AFTER_SENDING = "reset before headers"


class TooLarge(Misconfigured):
    """An answer exceeded `MAX_BODY_BYTES`; a smaller page may do."""


@dataclass(frozen=True, kw_only=True)
class Answer:
    """A complete HTTP answer, its body bounded by `MAX_BODY_BYTES`."""

    status: int
    content_type: str
    body: bytes

    @property
    def is_json(self) -> bool:
        """Whether its content type is JSON."""
        media_type = self.content_type.partition(";")[0].strip().lower()
        return media_type == "application/json" or media_type.endswith("+json")

    def json(self) -> object:
        """The body, parsed.

        Raises:
            ValueError: it is not JSON, whatever its content type says.
        """
        if not self.is_json:
            raise ValueError(f"answered {self.content_type or 'no content type'}, not JSON")
        try:
            parsed: object = json.loads(self.body)
        except RecursionError as exc:
            raise ValueError("the JSON is nested too deeply") from exc
        return parsed

    @property
    def error(self) -> str | None:
        """The text of a JSON error, in any of its forms; None when it is not one."""
        try:
            parsed = self.json()
        except ValueError:
            return None
        if not isinstance(parsed, dict):
            return None
        texts = (parsed.get("error"), parsed.get("message"))
        return next((text for text in texts if isinstance(text, str)), None)

    @property
    def text(self) -> str:
        """Its text, to be shown: redacted and at most 500 characters."""
        found = self.error
        if found is None:
            found = self.body[: 64 * 1024].decode("utf-8", "replace")
        return redact(found).strip()[:_MAX_TEXT_CHARS] or "(empty body)"


def lost(exc: Exception, *, effect: bool) -> DownloadsError:
    """The error for a request that got no whole answer."""
    detail = redact(f"{type(exc).__name__}: {exc}".rstrip(": "))[:_MAX_TEXT_CHARS]
    if isinstance(exc, httpx.InvalidURL | httpx.UnsupportedProtocol):
        return Misconfigured("torrentino", f"TORRENTINO_URL cannot be used ({detail})")
    if not effect or isinstance(exc, _NOT_SENT):
        return DependencyDown("torrentino", f"no answer from TORRENTINO_URL ({detail})")
    return OutcomeUnknown(
        f"torrentino: no answer to a request that was sent ({detail})", settled=False
    )


def refused(answer: Answer, *, effect: bool) -> DownloadsError:
    """The error for a status that the call itself has no meaning for."""
    status = answer.status
    if status in (401, 403):
        return Misconfigured(
            "torrentino",
            f"TORRENTINO_API_KEY is refused ({status}): set it to the api_key of Torrentino's"
            " config.toml, section [auth]",
        )
    if status in (408, 429):
        return DependencyDown("torrentino", f"answered {status}: {answer.text}")
    if status >= 500:
        return _server_error(answer, effect=effect)
    return wrong_url(f"answered {status} ({answer.text[:120]})")


def _server_error(answer: Answer, *, effect: bool) -> DownloadsError:
    detail = f"answered {answer.status}: {answer.text}"
    if not effect:
        return DependencyDown("torrentino", detail)
    if answer.status == 503 and _RESET_AFTER_SENDING not in answer.text:
        return DependencyDown("torrentino", detail)
    finished = answer.status == 500 and answer.error is not None
    return OutcomeUnknown(f"torrentino: {detail}", settled=finished)


def unreadable(answer: Answer, cause: ValueError, *, effect: bool) -> DownloadsError:
    """The error for a success that does not say what it should."""
    if effect and (answer.is_json or answer.status == 201):
        return OutcomeUnknown(
            f"torrentino: answered {answer.status}, but unreadably ({cause})", settled=True
        )
    if not answer.is_json:
        kind = "HTML" if "html" in answer.content_type else answer.content_type or "no content type"
        return wrong_url(f"answered {kind}")
    return Misconfigured(
        "torrentino", f"answered JSON of another shape ({cause}): is its version supported?"
    )


def wrong_url(what: str) -> Misconfigured:
    """The error for something that answers but is not Torrentino's API."""
    return Misconfigured(
        "torrentino",
        f"{what}: is TORRENTINO_URL the API base, e.g. http://host:8080/api/v1 ?",
    )
