"""What is done about a direct download, by what the client shows of it."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from services.poller.download_verdict import (
    Action,
    Collect,
    DownloadFacts,
    Identified,
    LetGo,
    Lost,
    Missing,
    Progress,
    Stalled,
    decide,
)
from services.poller.downloads_store import Download
from services.poller.ticket_facts import once
from shared.acquisition.protocol import Location, Phase, Seen
from shared.states import Stage
from shared.torrentino.torrent import RemoteTorrent

NOW = datetime(2026, 11, 26, tzinfo=UTC)
HASH, OTHER = "a" * 40, "b" * 40
AT = Location(path="/downloads/x", in_torrent=True, size_bytes=5)


def download(**changes: object) -> Download:
    made = Download(
        id="d",
        withdrawing=False,
        info_hash=HASH,
        title="A release",
        ours=True,
        adding_at=None,
        hashes_before=None,
        size_bytes=5,
        state="downloading",
        whole_at=None,
        failures=0,
        missing_at=None,
        progressed_at=NOW,
        now=NOW,
    )
    return replace(made, **changes)  # type: ignore[arg-type]


def facts(phase: Phase, of: Download, *, found: str | None = None, size: int = 5) -> DownloadFacts:
    told = {"hash": HASH, "name": "x", "save_path": "/downloads", "size_bytes": size}
    torrent = RemoteTorrent.from_json(told | {"progress": 0.5, "state": "downloading"})
    return DownloadFacts(
        download=of,
        seen=Seen(phase=phase, remote=None if phase is Phase.GONE else torrent),
        found=found,
        at=AT if phase is Phase.WHOLE else None,
        stall_timeout_s=600,
        poll_interval_s=5,
    )


def ago(seconds: float) -> datetime:
    return NOW - timedelta(seconds=seconds)


WORKS = Progress(stage=Stage.DOWNLOADING, reason="downloads A release")
LONG_GONE = Lost(how="gone", reason="is gone from the torrent client")


@pytest.mark.parametrize(
    ("seen", "action"),
    [
        (facts(Phase.WORKING, download()), WORKS),
        (facts(Phase.WHOLE, download()), WORKS),
        (facts(Phase.WHOLE, download(whole_at=NOW)), Collect(at=AT)),
        # What is whole does not stall.
        (facts(Phase.WHOLE, download(progressed_at=ago(9999))), WORKS),
        (facts(Phase.GONE, download()), Missing()),
        (facts(Phase.GONE, download(failures=0, missing_at=ago(19))), Missing()),
        (facts(Phase.GONE, download(failures=0, missing_at=ago(21))), LONG_GONE),
        (
            facts(Phase.GONE, download(failures=0, missing_at=ago(21)), found=OTHER),
            Identified(info_hash=OTHER, otherwise=LONG_GONE),
        ),
        (
            facts(Phase.FAILED, download(whole_at=NOW)),
            Lost(how="error", reason="is in error at the torrent client"),
        ),
        (
            facts(Phase.WORKING, download(progressed_at=ago(600))),
            Stalled(reason="makes no progress", idle_s=600, shown=WORKS),
        ),
        (facts(Phase.WORKING, download(progressed_at=ago(599))), WORKS),
    ],
)
def test_the_first_question_with_an_answer_decides(seen: DownloadFacts, action: Action) -> None:
    """Gone, in error, whole twice, stalled; otherwise it is followed."""
    assert decide(seen) == action


def test_what_has_no_metadata_stalls_sooner() -> None:
    """No peer has it: a sixth of the time is enough."""
    for idle_s, kind in ((99, Progress), (100, Stalled)):
        seen = facts(Phase.WORKING, download(progressed_at=ago(idle_s)), size=0)
        assert isinstance(decide(seen), kind)


def test_a_withdrawn_download_waits_for_an_add_that_may_be_at_work() -> None:
    """For 90 s after the add, unless its torrent shows; whatever the client makes of it."""
    begun = download(withdrawing=True, info_hash=None, state=None, adding_at=ago(89))
    late = replace(begun, adding_at=ago(91))
    assert decide(facts(Phase.GONE, begun)) == Missing()
    assert decide(facts(Phase.GONE, begun, found=OTHER)) == LetGo(info_hash=OTHER)
    assert decide(facts(Phase.GONE, late)) == LetGo(info_hash=None)
    known = download(withdrawing=True, state=None, adding_at=ago(1))
    for phase in (Phase.WORKING, Phase.WHOLE, Phase.FAILED):
        assert decide(facts(phase, known)) == LetGo(info_hash=None)


async def test_a_fact_is_asked_for_once() -> None:
    """The second question about it gets the first answer; a failure is asked again."""

    class Asker:
        def __init__(self) -> None:
            self.answers: dict[str, object] = {}
            self.asked = 0

        @once
        async def fact(self) -> int:
            self.asked += 1
            if self.asked == 1:
                raise OSError
            return self.asked

    asker = Asker()
    with pytest.raises(OSError):
        await asker.fact()
    assert (await asker.fact(), await asker.fact()) == (2, 2)
