"""What was wrong with the torrents that were tried for a track, in a few words.

`told` is one refusal in words that follow "one": "damaged at 1:12". It is stored with the block of
the torrent or release. `last_words` sums up all of an item's track, in either acquisition mode, so
that the message of a failed item says more than why no other torrent was left.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping, Sequence

from shared.db.pool import Connection, Row
from shared.errors import AttemptFailed, ErrorType
from shared.remedies import clock, damaged_at_s, explained, tolerance_s
from shared.states import Stage

LACKS = "lacks the track"
STALLED = "did not arrive"
BROKEN = "gave broken audio"
_REFUSED = "could not be used"
_NO_AUDIO = "no audio"
_OF_TYPE = {ErrorType.STALLED: STALLED, ErrorType.NOT_FOUND: LACKS}

_MOST_KINDS = 4
_LONGEST = 1000
_NUMBERS = ("no", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
_PLURAL = {"lacks ": "lack ", "ends ": "end "}
# Of blocks of the release before, which stored no words.
_OF_WHY = {"lacks": LACKS, "stalled": STALLED, "wrong": BROKEN, "refused": _REFUSED}

# `tried`: it is known which torrent the item's download is; `recorded`: that one is blocked.
_KNOWN = """
SELECT q.id AS item_id,
       (SELECT count(*) FROM refused_files r WHERE r.track_id = q.track_id) AS kept,
       coalesce(t.info_hash, t.release_key) IS NOT NULL AS tried,
       EXISTS (SELECT 1 FROM bad_sources b
                WHERE b.track_id = q.track_id AND b.info_hash = t.info_hash)
       OR EXISTS (SELECT 1 FROM blocklist l
                   WHERE l.track_id = q.track_id AND l.release_key = t.release_key) AS recorded
  FROM queue_items q LEFT JOIN tickets t ON t.id = q.ticket_id
 WHERE q.id = ANY($1)
"""

# A stalled torrent of a ticket is not blocked: only the history has it.
_TRIED = """
SELECT q.id AS item_id, r.told, r.why
  FROM queue_items q
 CROSS JOIN LATERAL (
       SELECT b.told, CASE WHEN b.lacks THEN 'lacks' ELSE 'wrong' END AS why, b.at
         FROM bad_sources b WHERE b.track_id = q.track_id
       UNION ALL
       SELECT l.told, l.why, l.at
         FROM blocklist l
        WHERE l.track_id = q.track_id
          AND NOT EXISTS (SELECT 1 FROM bad_sources b
                           WHERE b.track_id = l.track_id AND b.info_hash = l.info_hash)
       UNION ALL
       SELECT NULL, 'stalled', e.at
         FROM events e
        WHERE e.item_id = q.id AND e.kind = 'item' AND e.error_type = $2 AND e.stage = ANY($3)
          AND e.data ? 'torrentino_ticket_id') r
 WHERE q.id = ANY($1)
 ORDER BY r.at
"""


def told(failure: AttemptFailed) -> str:
    """A refusal of a torrent in a few words."""
    if failure.error_type is ErrorType.CORRUPTION:
        return _of_rule(failure.evidence)
    return _OF_TYPE.get(failure.error_type, _REFUSED)


def _of_rule(evidence: Mapping[str, object]) -> str:
    """By the rule of verification that the file breaks; a decode stops at the first damage."""
    heard, expected = clock(damaged_at_s(evidence)), clock(evidence.get("expected_s"))
    long = clock(evidence.get("decoded_s")) or clock(evidence.get("container_s"))
    rule = str(evidence.get("rule"))
    words = {
        "decode_errors": f"damaged at {heard}" if heard else "damaged",
        "truncated": f"ends at {heard}" if heard else "truncated",
        "wrong_length": f"{long} long instead of {expected}{_allowed(evidence)}"
        if long and expected
        else "too long",
    }
    return words.get(rule, _NO_AUDIO if rule in ("not_audio", "too_small") else BROKEN)


def _allowed(evidence: Mapping[str, object]) -> str:
    tolerance = tolerance_s(evidence)
    return "" if tolerance is None else f" ({tolerance:g} s allowed)"


def summary(refusals: Sequence[str]) -> str:
    """All of them in one clause: "2 torrents tried: one damaged at 1:12, one lacks the track"."""
    if len(refusals) == 1:
        return f"1 torrent tried: {refusals[0]}"
    return f"{len(refusals)} torrents tried: {_listed(refusals)}"


def _listed(refusals: Sequence[str]) -> str:
    counted = Counter(refusals).most_common()
    parts = [_counted(count, words) for words, count in counted[:_MOST_KINDS]]
    others = sum(count for _, count in counted[_MOST_KINDS:])
    if others:
        parts.append(f"{_number(others)} for other reasons")
    return ", ".join(parts)


def _counted(count: int, words: str) -> str:
    if count > 1:
        for one, many in _PLURAL.items():
            if words.startswith(one):
                words = many + words.removeprefix(one)
    return f"{_number(count)} {words}"


def _number(count: int) -> str:
    return _NUMBERS[count] if count < len(_NUMBERS) else str(count)


async def last_words(
    connection: Connection,
    item_ids: Collection[str],
    failure: AttemptFailed,
    *,
    opening: str | None,
) -> dict[str, str]:
    """The message of each of these items, which fail now: what was tried, and why it ends.

    `opening` says how many were tried, where that is known. Call it before the failure is written.
    """
    ids = list(item_ids)
    known = {row["item_id"]: row for row in await connection.fetch(_KNOWN, ids)}
    ended = [Stage.RETRY_WAIT, Stage.FAILED]
    tried: dict[str, list[str]] = {id_: [] for id_ in ids}
    for row in await connection.fetch(_TRIED, ids, ErrorType.STALLED, ended):
        tried[row["item_id"]].append(row["told"] or _OF_WHY[row["why"]])
    return {id_: _whole_message(tried[id_], known.get(id_), failure, opening) for id_ in ids}


def _whole_message(
    tried: Sequence[str], row: Row | None, failure: AttemptFailed, opening: str | None
) -> str:
    """The message, and how many files of earlier refusals can be released."""
    count = row["kept"] if row is not None else 0
    are = "file is" if count == 1 else "files are"
    kept = f"; {count} refused {are} kept, and can be released" if count else ""
    return _message(tried, row, failure, opening)[: _LONGEST - len(kept)] + kept


def _message(
    tried: Sequence[str],
    row: Row | None,
    failure: AttemptFailed,
    opening: str | None,
) -> str:
    refused = failure.error_type in (ErrorType.CORRUPTION, ErrorType.STALLED) or opening is not None
    new = refused and row is not None and row["tried"] and not row["recorded"]
    every = [*tried, told(failure)] if new else list(tried)
    if opening is not None:
        listed = f": {_listed(every)}; the last one" if len(every) > 1 else ", the last one"
        return f"{opening}{listed}: {explained(failure)}"
    if not tried or (refused and len(every) == 1):
        return explained(failure)
    return f"{summary(every)}; {'the last one: ' if refused else ''}{explained(failure)}"
