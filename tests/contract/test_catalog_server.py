"""The client and the catalog server: the stand-in, and the real one where PEZZOTTIFY_BINARY is.

Both pass the same tests, so that what the other tests see of the stand-in is what the server does.
"""

from __future__ import annotations

import sqlite3
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, closing
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest

from services.bridge.catalog_server import CatalogServer
from services.bridge.receipt import silence
from services.bridge.server_http import LOGIN_GAP_S, Account, Forbidden, NotEnabled, Session
from services.local.sample import add_album, create_catalog
from shared.clock import Clock, SystemClock
from shared.errors import DependencyDown, Misconfigured
from shared.health import Health
from tests.support import pezzottify
from tests.support.catalog_server_api import EVERYTHING, LISTENER, CatalogServerStandin
from tests.support.music import album_id, track_id
from tests.support.pezzottify import Pezzottify
from tests.support.waits import eventually

KINDS = [
    "standin",
    pytest.param(
        "real",
        marks=pytest.mark.skipif(
            pezzottify.binary() is None, reason=f"{pezzottify.BINARY} is not set"
        ),
    ),
]


class Standing(SystemClock):
    """A clock that a test moves."""

    at = 1000.0

    def monotonic(self) -> float:
        return self.at


@dataclass(kw_only=True)
class Lab:
    """One of the two, with an account `bridge` and the albums 1 (three tracks) and 2 (one)."""

    server: CatalogServerStandin | Pezzottify
    stack: AsyncExitStack

    def client(
        self,
        *permissions: str,
        user: str = "bridge",
        password: str = "",
        device: str = "device-of-bridge",
        clock: Clock | None = None,
    ) -> CatalogServer:
        """A client under a new account with these permissions, or, without any, under `bridge`."""
        if permissions:
            user = f"with-{len(permissions)}-{permissions[0]}"
            self.server.add_user(user, permissions)
        real = pezzottify.PASSWORD if isinstance(self.server, Pezzottify) else f"pw-{user}"
        given = Account(user=user, password=password or real, device_uuid=device)

        async def account() -> Account:
            return given

        clock = clock or SystemClock()
        session = Session(
            base_url=self.server.url, account=account, health=Health(clock), clock=clock
        )
        self.stack.push_async_callback(session.close)
        return CatalogServer(session)

    async def press(self, number: int) -> str:
        """A listener requests an album, over plain HTTP."""
        return str((await self.pressed("album", album_id(number))).json()["request_id"])

    async def pressed(self, kind: str, content_id: str) -> httpx.Response:
        """The answer to a listener's request."""
        async with httpx.AsyncClient(
            base_url=self.server.url, trust_env=False, verify=False, timeout=60
        ) as http:
            password = "pw-ann" if isinstance(self.server, CatalogServerStandin) else ""
            body = {"user_handle": "ann", "password": password or pezzottify.PASSWORD}
            said = await http.post(
                "/v1/auth/login", json=body | {"device_uuid": "of-ann-01", "device_type": "web"}
            )
            return await http.post(
                f"/v1/download/request/{kind}",
                json={f"{kind}_id": content_id},
                headers={"Authorization": said.json()["token"]},
            )

    def place(self, *ids: str) -> None:
        """Files for these tracks, named in the catalog."""
        (self.server.media / "audio").mkdir(parents=True, exist_ok=True)
        with closing(sqlite3.connect(self.server.catalog, timeout=10)) as db, db:
            for each in ids:
                (self.server.media / f"audio/{each}.flac").write_bytes(b"fLaC")
                uri = f"audio/{each}.flac"
                db.execute("UPDATE tracks SET audio_uri = ? WHERE id = ?", (uri, each))

    def flag(self, number: int) -> str:
        """What the server shows of an album."""
        with closing(sqlite3.connect(self.server.catalog, timeout=10)) as db:
            sql = "SELECT album_availability FROM albums WHERE id = ?"
            return str(db.execute(sql, (album_id(number),)).fetchone()[0])


@pytest.fixture(params=KINDS)
async def lab(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Lab]:
    """A server with its ingestion on."""
    server: CatalogServerStandin | Pezzottify
    if request.param == "real":
        program = pezzottify.binary()
        assert program is not None
        folder = tmp_path / "server"
        server = Pezzottify(
            program=program, folder=folder, media=tmp_path / "media", ingestion=True
        )
    else:
        create_catalog(tmp_path / "catalog.db")
        server = CatalogServerStandin(
            catalog=tmp_path / "catalog.db", media=tmp_path / "media", ingestion=True
        )
    await server.start()
    try:
        server.add_user("bridge", EVERYTHING)
        server.add_user("ann", LISTENER)
        for number, count in ((1, 3), (2, 1)):
            tracks = [
                {"id": track_id(number * 1000 + n), "name": f"Song {n}", "duration_ms": 8000}
                for n in range(1, count + 1)
            ]
            add_album(
                server.catalog,
                album_id=album_id(number),
                name=f"Album {number}",
                artist="The Testers",
                tracks=tracks,
            )
        async with AsyncExitStack() as stack:
            yield Lab(server=server, stack=stack)
    finally:
        await server.stop()


ONE = [track_id(1000 + n) for n in (1, 2, 3)]


async def test_a_request_is_listed_with_who_asked_and_how_urgently(lab: Lab) -> None:
    """What the bridge needs of each row; the queue has no others."""
    remote_id = await lab.press(1)
    track = (await lab.pressed("track", track_id(2001))).json()["queue_item_id"]
    first, second = await lab.client().requests(offset=0)
    assert (first.id, first.kind, first.content_id) == (remote_id, "album", album_id(1))
    assert (first.status, first.priority, first.content_name) == ("PENDING", 2, "Album 1")
    assert first.user_id is not None
    assert first.user_id.isdigit()
    assert (second.id, second.kind, second.content_id) == (track, "track", track_id(2001))
    assert await lab.client().requests(offset=1, limit=1) == [second]


async def test_a_status_that_it_does_not_know_is_ignored(lab: Lab) -> None:
    """So each row has to be checked."""
    remote_id = await lab.press(1)
    rows = await lab.client().requests(offset=0, status="NONSENSE")
    assert [row.id for row in rows] == [remote_id]
    assert await lab.client().requests(offset=0, status="COMPLETED") == []


async def test_a_request_is_deleted_once(lab: Lab) -> None:
    """An unknown id is 400 there, and no fault."""
    remote_id, client = await lab.press(1), lab.client()
    assert await client.delete_request(remote_id) is True
    assert await client.delete_request(remote_id) is False
    assert await client.requests(offset=0) == []


async def test_an_album_that_plays_is_refused(lab: Lab) -> None:
    """And so is one that is in the queue already."""
    await lab.press(1)
    again = await lab.pressed("album", album_id(1))
    assert (again.status_code, "already" in again.text) == (400, True)
    await lab.client().delete_request((await lab.client().requests(offset=0))[0].id)
    lab.place(*ONE)
    refused = await lab.pressed("album", album_id(1))
    assert (refused.status_code, "already available" in refused.text) == (400, True)


async def test_what_plays_is_what_is_on_disk(lab: Lab) -> None:
    """By track and by album; an unknown id is told as such."""
    client = lab.client()
    lab.place(*ONE[:2])
    said = await client.tracks([*ONE, "nothing-there"])
    assert said["nothing-there"] is None
    assert [track and track.plays for track in (said[each] for each in ONE)] == [True, True, False]
    assert [track and track.audio_uri for track in (said[each] for each in ONE)] == [
        f"audio/{ONE[0]}.flac",
        f"audio/{ONE[1]}.flac",
        None,
    ]
    (lab.server.media / f"audio/{ONE[0]}.flac").unlink()
    albums = await client.albums([album_id(1), "nothing-there"])
    assert albums["nothing-there"] is None
    tracks = albums[album_id(1)]
    assert tracks is not None
    assert [(t.id, t.plays, t.duration_ms) for t in tracks] == [
        (ONE[0], False, 8000),
        (ONE[1], True, 8000),
        (ONE[2], False, 8000),
    ]


async def test_the_job_computes_the_flags_once_at_a_time(lab: Lab) -> None:
    """A second order while it runs is answered with "running"."""
    client = lab.client()
    lab.place(*ONE)
    assert lab.flag(1) == "missing"
    before = await client.availability()
    assert (before.running, before.started_at) == (False, None)
    assert await client.trigger_availability() == "started"
    run = await eventually(client.availability, lambda run: run.status is not None)
    assert (run.status, run.running) == ("completed", False)
    assert run.took_s is not None
    assert lab.flag(1) == "complete"


@pytest.mark.parametrize(
    ("permissions", "lacks"),
    [
        (("AccessCatalog",), ["RequestContent", "ViewAnalytics"]),
        (("RequestContent",), ["ViewAnalytics"]),
    ],
)
async def test_a_missing_permission_is_named(
    lab: Lab, permissions: tuple[str, ...], lacks: list[str]
) -> None:
    """403 has no text: the names come from what the login granted."""
    with pytest.raises(Forbidden, match=" and ".join(lacks)) as caught:
        await lab.client(*permissions).requests(offset=0)
    assert list(caught.value.lacks) == lacks


async def test_each_call_names_the_permission_that_it_needs(lab: Lab) -> None:
    """The optional ones are each needed by one kind of call."""
    client = lab.client("RequestContent", "ViewAnalytics")
    remote_id = await lab.press(1)
    assert [row.id for row in await client.requests(offset=0)] == [remote_id]
    for call, name in [
        (client.delete_request(remote_id), "EditCatalog"),
        (client.tracks(ONE), "AccessCatalog"),
        (client.trigger_availability(), "ServerAdmin"),
        (client.upload(remote_id, filename="a.wav", data=b"x"), "EditCatalog"),
    ]:
        with pytest.raises(Forbidden, match=name):
            await call


async def test_a_wrong_password_is_an_operators_matter(lab: Lab) -> None:
    """And is told apart from a server that is away."""
    with pytest.raises(Misconfigured, match="CATALOG_SERVER_PASSWORD"):
        await lab.client(password="wrong").requests(offset=0)


async def test_a_second_login_of_the_same_device_leaves_the_first_one_its_session(
    lab: Lab,
) -> None:
    """Copies of the bridge share a device, and do not end each other's session."""
    first, second = lab.client(), lab.client()
    for client in (first, second, first):
        assert await client.requests(offset=0) == []


async def test_the_seventh_device_ends_the_session_of_the_first(lab: Lab) -> None:
    """The client then logs in again, but not more often than the server takes it."""
    clock = Standing()
    first = lab.client(device="device-0", clock=clock)
    for client in (first, *(lab.client(device=f"device-{number}") for number in range(1, 7))):
        assert await client.requests(offset=0) == []
    with pytest.raises(DependencyDown, match="session"):
        await first.requests(offset=0)
    clock.at += LOGIN_GAP_S
    assert await first.requests(offset=0) == []


async def test_what_is_not_the_api_is_told_apart(lab: Lab) -> None:
    """The server answers unknown paths with its web app's page."""
    client = lab.client()
    with pytest.raises(Misconfigured, match=r"HTML.*CATALOG_SERVER_URL"):
        (await client.session.call("GET", "/somewhere", needs=())).json()


async def test_a_receipt_completes_a_request_and_touches_no_file(lab: Lab) -> None:
    """Uploaded, asked about, answered: the request is COMPLETED, uris as before."""
    client, remote_id = lab.client(), await lab.press(1)
    lab.place(*ONE)
    before = await client.albums([album_id(1)])
    job_id = await client.upload(remote_id, filename="receipt.wav", data=silence())
    options = await eventually(lambda: _offered(client, job_id))
    assert f"album:{album_id(1)}" in options
    [job] = await client.own_jobs()
    assert (job.id, job.context_id, job.filename) == (job_id, remote_id, "receipt.wav")
    assert (job.status, job.matched, job.converted) == ("AWAITING_REVIEW", 0, 0)
    assert await client.resolve(job_id, "continue") is True
    ended = await eventually(lambda: client.job(job_id), lambda found: _status(found) != "PENDING")
    assert _status(ended) == "COMPLETED"
    assert await client.resolve(job_id, "continue") is False
    [row] = await client.requests(offset=0, status="COMPLETED")
    assert (row.id, row.status) == (remote_id, "COMPLETED")
    assert await client.requests(offset=0) == []
    assert await client.albums([album_id(1)]) == before


async def test_an_upload_that_is_gone_is_told_as_such(lab: Lab) -> None:
    """And may be deleted twice."""
    client, remote_id = lab.client(), await lab.press(1)
    job_id = await client.upload(remote_id, filename="receipt.wav", data=silence())
    await eventually(lambda: _offered(client, job_id))
    await client.delete_job(job_id)
    await client.delete_job(job_id)
    assert await client.job(job_id) is None


async def _offered(client: CatalogServer, job_id: str) -> list[str]:
    found = await client.job(job_id)
    return found[1] if found is not None and found[0].status == "AWAITING_REVIEW" else []


def _status(found: object) -> str:
    assert isinstance(found, tuple)
    return str(found[0].status)


async def test_with_ingestion_off_it_says_so(tmp_path: Path) -> None:
    """503, as the server is delivered."""
    create_catalog(tmp_path / "catalog.db")
    server = CatalogServerStandin(catalog=tmp_path / "catalog.db", media=tmp_path)
    server.add_user("bridge")
    async with server, AsyncExitStack() as stack:
        client = Lab(server=server, stack=stack).client()
        with pytest.raises(NotEnabled, match="Ingestion manager not enabled"):
            await client.own_jobs()
