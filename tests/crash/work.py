"""What is asked for in a run of the crash search: all that can come up, and how it should end.

`Work` goes by tickets; `direct_work` has what comes up where we search and follow ourselves.
"""

from __future__ import annotations

import asyncio
import os
import uuid
from collections.abc import Awaitable, Iterable, Mapping, Sequence
from pathlib import Path

import asyncpg
import httpx
import nats.errors
import nats.js.errors

from shared.bus.subjects import (
    DEAD,
    DEAD_STREAM,
    REQUEST_ALBUM,
    REQUEST_CANCEL,
    REQUEST_TRACK,
)
from shared.media.paths import audio_uri
from tests.support.audio import cut, make_audio
from tests.support.ingest_helpers import name_file, servers_uri
from tests.support.world import ADMIN, Row, World, album_id, as_user, eventually

SECONDS = 1.0
# Whose torrents no search for another album finds, so that what is made to hang hangs.
_OTHER_ARTIST = "Somebody Else"
_ITEMS = "SELECT id, track_id, stage, status FROM queue_items"
_WITHIN_S = 90.0


class Asking:
    """Requests over HTTP and NATS, made again until they are answered, as clients do."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._looking = asyncio.Lock()
        self._connection: asyncpg.Connection[asyncpg.Record] | None = None
        # Attempts that may be used up by what is no crash and no outage.
        self.burned = 0
        # From then on whatever may go away may do so.
        self.begun = asyncio.Event()
        self.begun.set()

    # Tracks whose file a scan has to record, without an item.
    adopted: Sequence[str] = ()

    @property
    def wanted(self) -> list[str]:
        """Every track that has to arrive."""
        raise NotImplementedError

    async def prepare(self) -> None:
        """Put everything in place that is to be met."""
        # One for all looks: they come often.
        self._connection = await asyncpg.connect(self._world.database_url)

    async def close(self) -> None:
        """End what `prepare` opened."""
        if self._connection is not None:
            await self._connection.close()

    async def ask(self) -> None:
        """Ask for everything; returns when all of it was accepted."""
        raise NotImplementedError

    async def until_over(self) -> None:
        """Wait until every wanted track has its COMPLETED item, and no item is active."""

        def over(items: list[Row]) -> bool:
            active = [item for item in items if item["status"] in ("PENDING", "DOWNLOADING")]
            done = {item["track_id"] for item in items if item["status"] == "COMPLETED"}
            return not active and done == set(self.wanted)

        await eventually(self._items, over, within_s=_WITHIN_S)
        await eventually(self._recorded, set(self.adopted).issubset, within_s=_WITHIN_S)

    async def _recorded(self) -> set[str]:
        return {row["track_id"] for row in await self._rows("SELECT track_id FROM media_files")}

    def broken_now(self) -> list[str]:
        """What does not hold of it at this instant, beside the invariants of all work."""
        return []

    def excuse(self, queries: Iterable[str], *, adds: int = 0) -> None:
        """These were asked, and so many torrents were to be added, when no server could answer."""

    @property
    def adds(self) -> int:
        """How often a torrent was to be added."""
        requests: Mapping[str, int] = self._world.standin.requests
        return sum(n for call, n in requests.items() if call.startswith("POST /torrents/add"))

    async def check_the_end(self, *, deaths: int) -> None:
        """What holds of it when all is over; processes have died or stood still so many times."""

    async def _items(self) -> list[Row]:
        return await self._rows(_ITEMS)

    async def _rows(self, sql: str) -> list[Row]:
        assert self._connection is not None
        async with self._looking:
            return [dict(row) for row in await self._connection.fetch(sql)]

    async def _over_nats(self, track: str, *, twice: bool = False) -> str:
        body = {"v": 1, "request_id": str(uuid.uuid4()), "user_id": "2", "track_id": track}
        for _ in range(2 if twice else 1):
            await self._publish(REQUEST_TRACK, body)
        return str(body["request_id"])

    async def _until(self, track: str, *stages: str) -> Row:
        async def there() -> list[Row]:
            items = await self._items()
            mine = [item for item in items if item["track_id"] == track]
            return [item for item in mine if item["stage"] in stages]

        [item] = await eventually(there, within_s=_WITHIN_S)
        return item

    async def _publish(self, subject: str, body: object) -> None:
        async def published() -> bool:
            try:
                await self._world.publish(subject, body)
            except (TimeoutError, OSError, nats.errors.Error, nats.js.errors.Error):
                return False  # it is being killed just now
            return True

        await eventually(published, within_s=_WITHIN_S)

    async def _post(
        self,
        path: str,
        body: dict[str, object] | None = None,
        *,
        headers: dict[str, str] | None = None,
    ) -> None:
        base = f"http://127.0.0.1:{self._world.env['PORT']}/v1/download/"
        # Reading the machine's certificates would take half a second, for plain HTTP.
        async with httpx.AsyncClient(
            base_url=base,
            headers=headers or ADMIN,
            timeout=5,
            verify=False,
            trust_env=False,
        ) as api:

            async def answered() -> bool:
                try:
                    answer = await api.post(path, json=body)
                except httpx.HTTPError:
                    return False
                assert answer.status_code < 500 or answer.status_code == 503, answer.text
                return answer.is_success or answer.status_code == 409

            await eventually(answered, within_s=_WITHIN_S)


class Work(Asking):
    """By tickets, and not only the good case: a misnamed and a good file that lie in place, a
    broken delivery, an answer of Torrentino that is lost, a withdrawal and a retry, a message that
    no service understands, and a scan; files that the catalog names, one of them while its track is
    under way, and a scan that adopts them; a torrent of an album that lacks a track, and, if
    `unclear`, one whose files only a person can tell apart. All tracks end COMPLETED, or recorded.
    `plain` is an album of two good tracks and no more.
    """

    def __init__(self, world: World, *, plain: bool, unclear: bool) -> None:
        super().__init__(world)
        self._plain = plain
        self._song = make_audio(world.folder / "song.flac", seconds=SECONDS)
        self._album = self._add_album(1, 2 if plain else 3)
        self._others = [] if plain else self._add_album(2, 3)
        self._found_missing = [] if plain else self._add_album(3, 1)
        self._in_torrent = [] if plain else self._add_torrent(4, lacks=1)
        self._unclear = self._add_unclear(5) if unclear and not plain else []
        self._named = [] if plain else self._add_album(6, 3)
        self.adopted = self._named[1:]
        # Attempts that the broken delivery costs.
        self.burned = 0 if plain else 1

    @property
    def wanted(self) -> list[str]:
        """Every track that has to arrive."""
        albums = [*self._album, *self._others, *self._found_missing]
        return [*albums, *self._in_torrent, *self._unclear, *self._named[:1]]

    def _add_album(self, number: int, count: int, artist: str = "The Testers") -> list[str]:
        return self._world.add_album(
            number, count, seconds=SECONDS, audio=self._song, artist=artist
        )

    def _add_torrent(self, number: int, *, lacks: int) -> list[str]:
        """An album of four, of which the torrent of the album lacks the last tracks.

        Each has a torrent of its own as well, for when the ticket for the album is refused.
        """
        tracks = self._add_album(number, 4, _OTHER_ARTIST)
        title = f"{_OTHER_ARTIST} - Album {number} [FLAC]"
        names = [f"{n:02d} - Song {number * 1000 + n}.flac" for n in range(1, 5 - lacks)]
        self._world.add_torrent(title, {f"{title}/{name}": self._song for name in names})
        return tracks

    def _add_unclear(self, number: int) -> list[str]:
        """An album of two tracks of one length, whose files have numbers and no names."""
        tracks = self._add_album(number, 2)
        del self._world.songs[-2:]
        title = f"The Testers - Album {number} [FLAC]"
        files = {f"{title}/{name}.flac": self._song for name in ("01", "02")}
        self._world.add_torrent(title, files, listed=False)
        return tracks

    async def prepare(self) -> None:
        """Put everything in place that is to be met."""
        await super().prepare()
        if self._plain:
            return
        world = self._world
        faults = world.faults
        broken = cut(world.folder / "broken.flac", self._song)
        _, delivered_broken, misnamed = self._album
        faults.substitute[_title(delivered_broken)] = [broken]
        faults.database_locked_after_effect, faults.only = 1, "POST /tickets"
        for track in self._others[1:]:
            faults.fates[_title(track)] = "stuck_downloading"
        faults.fates[_title(self._named[0])] = "stuck_downloading"
        _lay(self._song, world.media / audio_uri(misnamed, "mp3"))
        for track in self.adopted:
            self._name(track)
        # Refused, and so fetched.
        name_file(world, self._others[0], "/etc/hostname")
        orphan = world.media / ".incoming" / "somebody.7.part"
        orphan.parent.mkdir()
        orphan.write_bytes(b"left behind long ago")
        os.utime(orphan, (1, 1))

    async def ask(self) -> None:
        """Ask for everything; returns when all of it was accepted."""
        asking: list[Awaitable[object]] = [self._post(f"album/{album_id(1)}", headers=as_user("1"))]
        if self._unclear:
            asking += [
                self._post(f"album/{album_id(5)}", headers=as_user("5")),
                *(self._decided(track) for track in self._unclear),
            ]
        if not self._plain:
            asking += [
                self._joined_by_one(self._in_torrent),
                self._post("admin/queue-all", {"scope": "album", "album_id": album_id(3)}),
                self._over_nats(self._others[0], twice=True),
                self._misunderstood(),
                self._withdrawn_and_retried(self._others[1]),
                self._found_in_place(self._others[2]),
                self._named_meanwhile(self._named[0]),
            ]
        await asyncio.gather(*asking)

    async def check_the_end(self, *, deaths: int) -> None:
        """The message that no service understands is in the dead stream, once and whole."""
        if self._plain:
            return
        dead = await eventually(lambda: self._world.events(DEAD, DEAD_STREAM))
        assert [message["body"] for message in dead] == [b"not a request"]

    async def _misunderstood(self) -> None:
        await self._publish(REQUEST_TRACK, b"not a request")

    async def _withdrawn_and_retried(self, track: str) -> None:
        request_id = await self._over_nats(track)
        item = await self._until(track, "downloading")
        await self._publish(REQUEST_CANCEL, {"v": 1, "request_id": request_id, "user_id": "2"})
        await self._until(track, "failed")
        # Until then it hangs where a cancellation has something to do.
        await eventually(lambda: self._is_at_rest(track), within_s=_WITHIN_S)
        del self._world.faults.fates[_title(track)]
        await self._post(f"items/{item['id']}/retry", headers=as_user("2"))

    async def _is_at_rest(self, track: str) -> bool:
        descriptions = [
            str(ticket["query_context"]["description"]).casefold()
            for ticket in self._world.live_tickets()
        ]
        return not any(_title(track) in description for description in descriptions)

    async def _found_in_place(self, track: str) -> None:
        await self._over_nats(track)
        await self._until(track, "downloading")
        _lay(self._song, self._world.media / audio_uri(track, "flac"))
        del self._world.faults.fates[_title(track)]

    async def _named_meanwhile(self, track: str) -> None:
        """Let the catalog name a file of a track that is under way, and a scan adopt all of it."""
        await self._over_nats(track)
        await self._until(track, "downloading")
        self._name(track)
        await self._scanned({"adopt": True, "scope": "album", "album_id": album_id(6)})
        del self._world.faults.fates[_title(track)]

    def _name(self, track: str) -> None:
        _lay(self._song, self._world.media / servers_uri(track))
        name_file(self._world, track, servers_uri(track))

    async def _scanned(self, body: dict[str, object]) -> None:
        """Order a scan, when no other one is open."""

        async def ordered() -> bool:
            await self._post("admin/scan", body)
            return bool(await self._rows("SELECT 1 FROM scans WHERE scope @> '{\"adopt\": true}'"))

        await eventually(ordered, within_s=_WITHIN_S)

    async def _joined_by_one(self, tracks: list[str]) -> None:
        """Ask for all but one of the album, and for that one when the ticket is at work."""
        *first, last = tracks
        fates = self._world.faults.fates
        fates["album 4"] = "stuck_downloading"
        carried = [
            {"id": id_, "name": _title(id_).title(), "artists": [_OTHER_ARTIST]}
            | {"track_number": number, "duration_ms": int(SECONDS * 1000)}
            for number, id_ in enumerate(first, start=1)
        ]
        body = {"v": 1, "request_id": str(uuid.uuid4()), "user_id": "4", "album_id": album_id(4)}
        await self._publish(REQUEST_ALBUM, body | {"album": "Album 4", "tracks": carried})
        # Each may have a ticket of its own, when that of the album was refused.
        await self._until(first[0], "downloading", "completed")
        await self._post(f"track/{last}", headers=as_user("4"))
        await self._until(last, "downloading", "completed")
        del fates["album 4"]

    async def _decided(self, track: str) -> None:
        item = await self._until(track, "needs_choice")
        evidence = await self._evidence(item["id"])
        await self._post(
            f"admin/items/{item['id']}/approve", {"file": evidence["candidates"][0]["file"]}
        )

    async def _evidence(self, item_id: str) -> Row:
        [row] = await self._world.rows(
            "SELECT error_evidence FROM queue_items WHERE id = $1", item_id
        )
        evidence: Row = row["error_evidence"]
        return evidence


def _lay(song: Path, name: Path) -> None:
    name.parent.mkdir(parents=True, exist_ok=True)
    os.link(song, name)


def _title(track: str) -> str:
    return f"song {int(track[1:])}"
