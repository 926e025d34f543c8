"""One trial from its music to its row in the table."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

from shared.states import Stage
from tests.live import lab as labs
from tests.live.lab import Bench, Json, Lab
from tests.live.music import Music
from tests.live.product import Row
from tests.live.sound import Sounds
from tests.live.trials import Client, Trial, Wanted


@dataclass(kw_only=True)
class Outcome:
    """What was measured in a trial, and what of it is not as it must be."""

    trial: str
    client: str
    way: str
    wanted: int
    right: int = 0
    wrong: int = 0
    searches: float = 0.0
    downloads: float = 0.0
    lost: int = 0
    waiting: int = 0
    seconds: float = 0.0
    missed: list[str] = field(default_factory=list)
    remarks: list[str] = field(default_factory=list)
    must_hold: bool = True

    def as_json(self) -> dict[str, object]:
        """For the file of results."""
        return asdict(self)


async def run(bench: Bench, trial: Trial, client: Client, *, name: str, seed: int) -> Outcome:
    """Run a trial in a folder of this name.

    Raises:
        Failed: the trial could not be made.
    """
    music = Music()
    wanted = trial.build(music)
    neighbour = len(music.releases)
    music.offer(labs.NEIGHBOUR)
    outcome = Outcome(
        trial=trial.name,
        client=client,
        way=bench.way,
        wanted=len(wanted.all_tracks) if wanted.arrives else 0,
        must_hold=trial.must_hold and bench.way != "tickets",
    )
    async with labs.running(
        bench, music, name=name, seed=seed, client_name=client, env=trial.env
    ) as lab:
        await lab.add_for_others(neighbour)
        if wanted.there_before is not None:
            await lab.add_for_others(music.releases.index(wanted.there_before))
        if wanted.left_behind is not None:
            await lab.leave_files_of(music.releases.index(wanted.left_behind))
        began = time.monotonic()
        items = await _asked_and_ended(lab, trial, wanted)
        outcome.seconds = round(time.monotonic() - began, 1)
        await _measure(outcome, lab, wanted, items, bench.sounds)
        if bench.way != "tickets":
            outcome.missed += await _kept_in_order(lab)
    _judge(outcome, trial)
    return outcome


async def _asked_and_ended(lab: Lab, trial: Trial, wanted: Wanted) -> Sequence[Row]:
    requests = [
        *(("album", album.id) for album in wanted.albums),
        *(("track", track.id) for track in wanted.tracks),
    ]
    if trial.before is not None:
        await trial.before(lab)
    trouble = asyncio.create_task(_nothing() if trial.trouble is None else trial.trouble(lab))
    try:
        for kind, id_ in requests:
            await lab.product.ask(kind, id_)
            await asyncio.sleep(trial.spread_s / len(requests))
        items = await lab.product.until_ended(
            len(wanted.all_tracks),
            limit_s=trial.limit_s,
            quiet_s=trial.quiet_s,
            trouble=trouble,
        )
    except BaseException:
        trouble.cancel()
        await asyncio.gather(trouble, return_exceptions=True)
        raise
    await trouble
    return items


async def _nothing() -> None:
    """Nothing goes wrong."""


async def _measure(
    outcome: Outcome, lab: Lab, wanted: Wanted, items: Sequence[Row], sounds: Sounds
) -> None:
    seen = await lab.seen()
    added = set(seen["announced"]) - set(lab.of_others)
    outcome.searches = round(len(seen["queries"]) / wanted.album_count, 2)
    if seen["failed"]:
        outcome.remarks.append(f"{seen['failed']} searches while the indexer was away")
    outcome.downloads = round(len(added) / wanted.album_count, 2)
    outcome.lost = sum(int(item["retry_count"]) for item in items) + sum(
        item["stage"] == Stage.FAILED for item in items
    )
    outcome.waiting = await lab.product.waiting_for_a_person()
    placed = await asyncio.to_thread(lab.product.placed)
    tones = {track.id: track.tone for track in wanted.all_tracks}
    for track_id, paths in placed.items():
        good = 0
        for path in paths:
            heard = await asyncio.to_thread(sounds.heard, path)
            if track_id in tones and heard.is_(tones[track_id]):
                good += 1
            else:
                outcome.remarks.append(_what_is_wrong(path, track_id, wanted, f"{heard}"))
        outcome.right += good > 0
        outcome.wrong += len(paths) - min(good, 1)
    outcome.remarks += _what_is_not_there(items)


def _what_is_wrong(path: Path, track_id: str, wanted: Wanted, heard: str) -> str:
    [expected] = [str(t.tone) for t in wanted.all_tracks if t.id == track_id] or ["nothing"]
    return f"{path.name}: {heard} instead of {expected}"


def _what_is_not_there(items: Sequence[Row]) -> list[str]:
    """Why tracks did not arrive, the most frequent first."""
    told = Counter(
        f"{item['stage']}: {item['error_message'] or item['reason']}"
        for item in items
        if item["stage"] != Stage.COMPLETED
    )
    return [f"{count} times {what}" for what, count in told.most_common(4)]


async def _kept_in_order(lab: Lab) -> list[str]:
    """What is wrong beside the tracks: others' torrents, torrents of nobody, secrets told."""
    missed = await lab.harmed()
    if unknown := await lab.unknown_torrents():
        missed.append(f"{unknown} torrents that no row knows")
    missed += [f"the indexer's key is in {where}" for where in await _telling_the_key(lab)]
    return missed


async def _telling_the_key(lab: Lab) -> list[str]:
    log = await asyncio.to_thread(
        lab.product.program.log.read_text, encoding="utf-8", errors="replace"
    )
    items = await lab.product.rows("SELECT i::text AS told FROM queue_items i")
    events = await lab.product.rows("SELECT e::text AS told FROM events e")
    told: Json = {
        "the log": log,
        "an API answer": await lab.product.answers(),
        "an item": "\n".join(row["told"] for row in items),
        "an event": "\n".join(row["told"] for row in events),
    }
    return [where for where, text in told.items() if lab.indexer_key in text]


def _judge(outcome: Outcome, trial: Trial) -> None:
    limits: Sequence[tuple[bool, str]] = (
        (outcome.right < outcome.wanted, f"{outcome.wanted - outcome.right} did not arrive"),
        (outcome.wrong > 0, f"{outcome.wrong} wrong files"),
        (outcome.searches > trial.searches, f"more than {trial.searches:g} searches an album"),
        (outcome.downloads > trial.downloads, f"more than {trial.downloads:g} downloads an album"),
        (
            trial.lost is not None and outcome.lost > trial.lost,
            f"{outcome.lost} attempts lost",
        ),
        (outcome.waiting > 0, f"{outcome.waiting} wait for a person"),
    )
    outcome.missed = [what for missed, what in limits if missed] + outcome.missed
