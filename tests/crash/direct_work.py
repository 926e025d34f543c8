"""What is asked for where we search, choose and follow ourselves, and what must hold of it.

Beside I1 to I9:

    I10  torrents that others have added are neither removed, stopped nor changed
    I11  each of our torrents has a row that knows it, and goes when DOWNLOAD_CLEANUP says so
    I12  no remote is asked more than once: searches, torrents to add, downloads begun in vain
    I13  what is blocked is what was wrong
"""

from __future__ import annotations

import asyncio
import atexit
import functools
import hashlib
import re
import tempfile
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

from services.local.torrentino import TorrentSpec
from services.local.torrentino.torrents import ByHand
from shared.bus.subjects import REQUEST_CANCEL
from shared.choosing.model import Release
from shared.choosing.selection import key_of
from tests.crash.work import Asking
from tests.support.audio import make_audio
from tests.support.direct import at_client
from tests.support.world import Row, World, album_id, as_user, eventually

TOLERANCE_S = 0.1
_ARTIST = "The Testers"
_TESTED = (WRONG, REFUSED, STALLED, LOST, CANCELLED, UNLISTED, THERE, UNTOLD) = range(1, 9)
_TRACKS = {WRONG: 2, REFUSED: 2}
_PRIVATE = (REFUSED, UNTOLD)
# Downloads that were begun for a track and did not bring it.
_GRABS = {WRONG: 1, STALLED: 1}
# What is added, without a crash: also what is refused, and what is lost or cancelled once more.
_ADDED = {WRONG: 2, REFUSED: 2, STALLED: 2, LOST: 2, CANCELLED: 2, UNLISTED: 1, THERE: 0, UNTOLD: 1}
_WITHIN_S = 90.0
_SWEEPS_S = 10.0
_MOST_QUERIES = 3
_NUMBER = re.compile(r"(?:album |song )(\d)", re.IGNORECASE)

_KNOWN = """
SELECT info_hash, bool_or(brought) AS brought FROM tickets
 WHERE way = 'direct' AND info_hash IS NOT NULL GROUP BY info_hash
"""
_SECRETS = """
SELECT id FROM tickets
 WHERE way = 'direct' AND (links IS NOT NULL OR hashes_before IS NOT NULL)
"""
_OURS = "SELECT info_hash FROM tickets WHERE ours AND info_hash = ANY($1)"


class DirectWork(Asking):
    """A release that is wrong and has the most seeders, one whose link is dead before one without
    a hash, one that stalls, one that is lost on its way, one that is withdrawn and asked for
    again, one whose indexer fails at first, and two that another client has added already, of which
    one does not tell its hash. While the first of them is searched for the indexers are away. All
    tracks end COMPLETED, each with its own audio. `plain` is the good case.
    """

    def __init__(self, world: World, *, plain: bool, cleanup: str) -> None:
        super().__init__(world)
        self._cleanup = cleanup
        self._albums = {
            number: self._add_album(number, _TRACKS.get(number, 1))
            for number in ((WRONG,) if plain else _TESTED)
        }
        self._right = {n: self._list(n, private=n in _PRIVATE) for n in self._albums}
        self._strangers: dict[str, TorrentSpec] = {}
        self._excused: Counter[str] = Counter()
        self._excused_adds = 0
        self._plain = plain
        if not plain:
            self._wrong = {
                WRONG: self._list(WRONG, " [CD]", seeders=900, audio=_wrong),
                REFUSED: self._list(REFUSED, " [CD]", seeders=900, private=True),
                STALLED: self._list(STALLED, " [CD]", seeders=900),
            }
            # Its search fails, and not once.
            self.burned = 3

    @property
    def wanted(self) -> list[str]:
        """Every track that has to arrive."""
        return [track for tracks in self._albums.values() for track in tracks]

    def _add_album(self, number: int, count: int) -> list[str]:
        lengths = [{"seconds": _length_s(place)} for place in range(1, count + 1)]
        ids = self._world.add_album(
            number, tracks=lengths, artist=_ARTIST, songs=False, audio=_tone(number, 1)
        )
        tones = [_tone(number, place) for place in range(1, count + 1)]
        self._world.audio |= dict(zip(ids, tones, strict=True))
        return ids

    def _list(
        self, number: int, more: str = "", *, audio: object = None, **spec: object
    ) -> TorrentSpec:
        """Have the indexers list an album, its own audio or (`_wrong`) another one's."""
        of = _wrong if audio is _wrong else _tone
        files = {
            f"{place:02d} Song {number * 1000 + place}.flac": of(number, place)
            for place in range(1, _TRACKS.get(number, 1) + 1)
        }
        indexer = "lab" if number == UNLISTED else "openbay"
        made = TorrentSpec.of(
            f"{_ARTIST} - Album {number} [FLAC]{more}",
            files,
            folder=f"{number}{more}",
            indexers=(indexer,),
            **spec,
        )
        self._world.torrents.append(made)
        return made

    async def prepare(self) -> None:
        """Put everything in place that is to be met."""
        await super().prepare()
        if self._plain:
            return
        self.begun.clear()
        other = TorrentSpec.of("Somebody - Something", {"a.flac": _tone(9, 1)}, folder="other")
        self._world.torrents.append(other)
        for spec in (other, self._right[THERE], self._right[UNTOLD]):
            core = self._world.standin.core
            [offer] = [each for each in core.shelf.matching(spec.title) if each.title == spec.title]
            core.torrents.add_by_hand(offer, ByHand())
            self._strangers[spec.info_hash] = spec
        faults = self._world.faults
        faults.fates |= {
            _fate(self._wrong[REFUSED]): "dead_link",
            _fate(self._wrong[STALLED]): "stuck_downloading",
            _fate(self._right[LOST]): "stuck_downloading",
            _fate(self._right[CANCELLED]): "stuck_downloading",
        }
        faults.searcher_away = True
        faults.indexer_errors = {"lab": "429 Too Many Requests"}

    async def ask(self) -> None:
        """Ask for everything; returns when all of it was accepted."""
        if not self._plain:
            await self._unlisted_at_first()
        asking = [
            self._post(f"album/{album_id(number)}", headers=as_user(str(number)))
            for number in self._albums
            if number not in (CANCELLED, UNLISTED, THERE)
        ]
        if self._plain:
            await asyncio.gather(*asking)
            return
        await asyncio.gather(
            *asking,
            self._over_nats(self._albums[THERE][0], twice=True),
            self._lost_on_its_way(),
            self._withdrawn_and_retried(),
        )

    async def _unlisted_at_first(self) -> None:
        """The indexers are away at first, and when they are back the one that has it fails."""
        [track] = self._albums[UNLISTED]
        await self._post(f"album/{album_id(UNLISTED)}", headers=as_user("6"))
        away = "SELECT 1 FROM conditions WHERE dependency = 'searcher' AND NOT ok"
        await eventually(lambda: self._rows(away), within_s=_WITHIN_S)
        self._world.faults.searcher_away = False
        await self._until(track, "retry_wait")
        self._world.faults.indexer_errors = {}
        self.begun.set()
        # One that was under way may fail as well.
        self.excuse(self._world.standin.searches)

    def excuse(self, queries: Iterable[str], *, adds: int = 0) -> None:
        """These were asked, and so many torrents were to be added, when no server could answer."""
        self._excused.update(queries)
        self._excused_adds += adds

    async def _lost_on_its_way(self) -> None:
        """The client forgets it, or has it in error, after we have seen it."""
        [track] = self._albums[LOST]
        spec, standin = self._right[LOST], self._world.standin
        await self._until(track, "downloading")
        if standin.core.config.client == "qbittorrent":
            standin.forget_torrent(spec.info_hash)
        else:
            # It would not add again what lies there.
            standin.break_torrent(spec.info_hash)
        del self._world.faults.fates[_fate(spec)]

    async def _withdrawn_and_retried(self) -> None:
        [track] = self._albums[CANCELLED]
        request_id = await self._over_nats(track)
        item = await self._until(track, "downloading")
        await self._publish(REQUEST_CANCEL, {"v": 1, "request_id": request_id, "user_id": "2"})
        await self._until(track, "failed")
        del self._world.faults.fates[_fate(self._right[CANCELLED])]
        # What it has left at the client may be removed at this very moment.
        await self._post(f"items/{item['id']}/retry", headers=as_user("2"))

    # --- what holds

    def broken_now(self) -> list[str]:
        """I10: what is wrong with the torrents of others."""
        there = {
            torrent.offer.info_hash: torrent
            for torrent in self._world.standin.core.torrents.every()
        }
        return [
            f"I10: {spec.title} is not as it was"
            for info_hash, spec in self._strangers.items()
            if info_hash not in there or there[info_hash].paused
        ]

    async def check_the_end(self, *, deaths: int) -> None:
        """I10 to I13; a death may have cost one more search, and one more call to add for each."""
        assert self._world.standin.tickets() == [], "I12: there are tickets"
        await eventually(self._left, lambda left: left == [], within_s=_SWEEPS_S)
        await self._strangers_are_whole()
        assert await self._rows(_SECRETS) == [], "I12: links are kept for longer than needed"
        await self._grabs()
        await self._blocked()
        self._searches(deaths)
        self._adds(deaths)

    async def _left(self) -> list[str]:
        """I11: what is at the client and should not be."""
        known = {row["info_hash"]: row["brought"] for row in await self._rows(_KNOWN)}
        ours = at_client(self._world).keys() - self._strangers.keys()
        return [
            f"I11: {why}: {info_hash}"
            for info_hash in ours
            for why, broken in {
                "no row knows it": info_hash not in known,
                "it brought nothing": self._cleanup == "wrong" and not known.get(info_hash),
                "all shall go": self._cleanup == "all",
            }.items()
            if broken
        ]

    async def _strangers_are_whole(self) -> None:
        assert (broken := self.broken_now()) == [], broken
        rows = await self._world.rows(_OURS, list(self._strangers))
        assert rows == [], f"I10: taken for ours: {rows}"
        for spec in self._strangers.values():
            for file in spec.files:
                path = self._world.downloads / file.path
                assert _digest(path) == _digest(file.source), f"I10: {path}"

    async def _grabs(self) -> None:
        rows = await self._rows("SELECT track_id, grabs FROM queue_items")
        grabs = {row["track_id"]: row["grabs"] for row in rows}
        expected = {
            track: 0 if self._plain else _GRABS.get(number, 0)
            for number, tracks in self._albums.items()
            for track in tracks
        }
        others = {id_: n for id_, n in grabs.items() if n != expected.get(id_)}
        assert grabs == expected, f"I12: downloads in vain: {others}"

    async def _blocked(self) -> None:
        rows: list[Row] = await self._rows("SELECT track_id, release_key, info_hash FROM blocklist")
        right = {spec.info_hash for spec in self._right.values()}
        keys = {_key(spec) for spec in self._right.values()}
        assert not [row for row in rows if row["info_hash"] in right], f"I13: {rows}"
        assert not [row for row in rows if row["release_key"] in keys], f"I13: {rows}"

    def _searches(self, deaths: int) -> None:
        asked = Counter(self._world.standin.searches)
        asked.subtract(self._excused)
        often = {query: n for query, n in asked.items() if n > 1 + deaths}
        assert often == {}, "I12: searches"
        by_album = Counter(_NUMBER.findall(query)[-1] for query in asked if _NUMBER.search(query))
        assert max(by_album.values(), default=0) <= _MOST_QUERIES, f"I12: queries: {asked}"

    def _adds(self, deaths: int) -> None:
        added = self.adds - self._excused_adds
        needed = 1 if self._plain else sum(_ADDED.values())
        assert added <= needed + deaths * len(self._albums), f"I12: {added} calls to add"


def _key(spec: TorrentSpec) -> str:
    size_bytes = sum(file.source.stat().st_size for file in spec.files)
    return key_of(Release(title=spec.title, size_bytes=size_bytes, seeders=1))


def _fate(spec: TorrentSpec) -> str:
    return spec.title.casefold()


def _length_s(place: int) -> float:
    """No two of an album are taken for each other."""
    return 0.6 + 4 * TOLERANCE_S * place


@functools.cache
def _folder() -> Path:
    """For what all runs of this process share."""
    folder = tempfile.TemporaryDirectory(prefix="pezzottify-tones-")
    atexit.register(folder.cleanup)
    return Path(folder.name)


@functools.cache
def _tone(number: int, place: int) -> Path:
    """What a track sounds like, as no other does."""
    return make_audio(
        _folder() / f"{number}-{place}.flac",
        seconds=_length_s(place),
        frequency=200 + 100 * number + 40 * place,
    )


@functools.cache
def _wrong(number: int, place: int) -> Path:
    """What lies under a track's name in a wrong release: of a length that none has."""
    return make_audio(
        _folder() / f"{number}-{place}-wrong.flac",
        seconds=_length_s(place) + 2 * TOLERANCE_S,
        frequency=250 + 100 * number + 40 * place,
    )


def _digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
