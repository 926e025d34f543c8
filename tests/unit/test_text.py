"""What others write cannot command a terminal, nor carry a secret into what we keep."""

from __future__ import annotations

import io
import itertools
import json
import logging
import unicodedata
from collections.abc import Awaitable, Iterator
from datetime import datetime

import httpx
import pytest
import structlog
from hypothesis import given
from hypothesis import strategies as st

from shared import logs
from shared.errors import DownloadsError
from shared.redaction import redact
from shared.settings import load
from shared.torrentino.client import TorrentinoClient
from shared.torrentino.model import RemoteState, RemoteTicket
from shared.untrusted import printable

SECRET = "5ecre7d00dfeed5ecre7d00dfeed0042"
# How Torrentino, Jackett and trackers show their keys in what they say of a failure.
LEAKS = (
    f"GET http://jackett:9117/api/v2.0/indexers/all?apikey={SECRET}&q=x: timed out",
    f"http://jackett:9117/?q=x&ApiKey%3D{SECRET}%26t=music",
    f'{{"apikey": "{SECRET}", "url": "x"}}',
    f"X-Api-Key: {SECRET}",
    f"magnet:?xt=urn:btih:{'a' * 40}&tr=https%3A%2F%2Ftracker%2F{SECRET}%2Fannounce&tr=udp://x/{SECRET}",
    f"https://tracker.example/{SECRET}/announce refused",
    f"https://tracker.example/announce.php?passkey={SECRET}&compact=1",
    f"https://user:{SECRET}@tracker.example/rss",
    f"Authorization: Bearer {SECRET}",
    f"rsskey={SECRET} torrent_pass={SECRET} authkey={SECRET} token={SECRET}",
)
HOSTILE = "\x1b[2J\x1b]0;owned\x07\u202egnp.3pm\u2066\x9b31m\u200b\r\x08"


@given(st.text())
def test_nothing_is_left_that_a_terminal_obeys(text: str) -> None:
    """Whatever the text; what can be shown stays as it is."""
    shown = printable(text)
    for char in shown:
        hidden = unicodedata.category(char) in {"Cc", "Cf", "Cs", "Zl", "Zp"}
        assert not hidden or char in "\u200c\u200d"
    shown.encode("utf-8")
    assert text.isprintable() <= (shown == text)


@pytest.mark.parametrize("leak", LEAKS)
@given(around=st.text(alphabet=st.characters(codec="utf-8"), max_size=20))
def test_no_secret_is_left(leak: str, around: str) -> None:
    """However a key is written, and whatever stands around it."""
    assert SECRET not in redact(f"{around} {leak} {around}")


def ticket(state: dict[str, object]) -> dict[str, object]:
    return {"id": "t-1", "dest_path": "/media/incoming/x", "state": state, "priority": 1}


@pytest.mark.parametrize("leak", LEAKS)
@pytest.mark.parametrize("state", [*RemoteState, "invented"])
def test_no_part_of_a_ticket_that_we_keep_has_a_secret(state: str, leak: str) -> None:
    """In every state, wherever Torrentino puts it; `raw_state` is not kept."""
    candidates = [{"title": leak, "info_hash": leak, "size_bytes": 1}] * 200
    remote = RemoteTicket.from_json(
        ticket(
            {
                "type": state if state != "invented" else f"x {leak}",
                **dict.fromkeys(("reason", "error", "info_hash", "speed_bps", "eta_secs"), leak),
                "candidates": candidates,
                "selected": {"info_hash": leak, "size_bytes": leak, "title": leak},
                "stats": {"files_placed": leak, "final_size_bytes": leak},
                "progress_pct": leak,
            }
        )
    )
    kept = [getattr(remote, name) for name in dir(remote) if _is_kept(name)]
    assert SECRET not in repr(kept) + repr(remote)
    assert len(remote.candidates) <= 50


def _is_kept(name: str) -> bool:
    return not name.startswith("_") and name not in ("raw_state", "from_json")


@pytest.mark.parametrize("status", [200, 201, 302, 400, 401, 404, 409, 422, 500, 503])
async def test_no_error_of_an_answer_has_a_secret(status: int) -> None:
    """Pages of proxies, errors in JSON and what cannot be read at all."""
    answers: list[httpx.Response] = []
    client = TorrentinoClient(
        base_url="http://torrentino/api/v1",
        api_key=None,
        transport=httpx.MockTransport(lambda _: answers[-1]),
        sleep=_at_once,
    )
    for leak, kind in itertools.product(LEAKS, KINDS):
        for body in (leak, json.dumps({"error": leak}), json.dumps({"status": leak})):
            for call in (client.get("x"), client.cancel("x", reason="r"), client.health()):
                answers.append(httpx.Response(status, text=body, headers={"content-type": kind}))
                assert SECRET not in await _told(call)
    await client.close()


KINDS = ("text/html", "application/json", f"x/y; apikey={SECRET}")


async def _told(call: Awaitable[object]) -> str:
    """All that a caller could write down of what came back."""
    try:
        return repr(await call)
    except DownloadsError as error:
        return f"{error!r} {error} {vars(error)}"


async def _at_once(_: float) -> None:
    return None


def test_hostile_names_do_no_harm_in_a_ticket() -> None:
    """They are escaped where they are shown, and refused where they would be an id."""
    remote = RemoteTicket.from_json(
        ticket({"type": "failed", "error": HOSTILE}) | {"dest_path": f"/x/\0{HOSTILE}\ud800"}
    )
    assert remote.reason is not None
    assert remote.reason.isprintable()
    assert remote.dest_path.isprintable()
    for bad in ("\ud800", "a\nb", "\0", "x" * 1000, HOSTILE):
        with pytest.raises(ValueError, match="id"):
            RemoteTicket.from_json(ticket({"type": "failed"}) | {"id": bad})


@pytest.mark.parametrize("form", ["console", "json"])
def test_a_log_line_is_one_line_of_text(form: str, reset_structlog: None) -> None:
    """No field can move the cursor, add a line of its own, or turn the direction of writing."""
    stream = io.StringIO()
    settings = load(["reaper"], ENV | {"LOG_FORMAT": form})
    logs.configure(settings, stream)
    structlog.get_logger().warning("stray_ticket", name=HOSTILE, path=f"a\nb{HOSTILE}")
    (line,) = stream.getvalue().splitlines()
    # What renders the time and the level is ours.
    assert all(char.isprintable() for char in line)
    if form == "json":
        assert json.loads(line)["name"] == HOSTILE
        assert datetime.fromisoformat(json.loads(line)["timestamp"])


ENV = {
    "DATABASE_URL": "postgresql://x/y",
    "NATS_URL": "nats://127.0.0.1:1",
    "MEDIA_PATH": "/tmp",
}


@pytest.fixture
def reset_structlog() -> Iterator[None]:
    """The other tests' configuration, back again afterwards."""
    before, handlers = structlog.get_config(), logging.getLogger().handlers[:]
    yield
    structlog.configure(**before)
    logging.getLogger().handlers[:] = handlers
