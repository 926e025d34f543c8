"""The answers of the API as sentences for a terminal."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any, TypeAlias

from shared.states import ACTIVE_STATUSES, Status

Json: TypeAlias = dict[str, Any]

_STATUSES = {
    Status.PENDING: "waiting",
    Status.DOWNLOADING: "in work",
    Status.COMPLETED: "completed",
    Status.FAILED: "failed",
}
_UNITS = ("bytes", "kB", "MB", "GB", "TB")


def situation(item: Json) -> str:
    """What an item waits for, or why it failed; empty when its file is in place."""
    if item["status"] == Status.FAILED:
        return item["error_message"] or item["reason"] or ""
    return item["waiting_for"] or ""


def item(detail: Json) -> list[str]:
    """An item in a few lines: its names and its situation."""
    of = [name for name in (detail["artist_name"], detail["album_name"]) if name]
    lines = [f"{detail['track_name']}{' - ' if of else ''}{', '.join(of)}"]
    if waits := situation(detail):
        until = detail["waits_until"]
        lines.append(
            f"{'failed' if detail['status'] == Status.FAILED else 'waits for'}: {waits}"
            + (f" (until {clock_time(until)} at the latest)" if until else "")
        )
    if detail["status"] in ACTIVE_STATUSES and detail["error_message"]:
        lines.append(f"last attempt: {detail['error_message']}")
    if detail["audio_uri"]:
        lines.append(f"in place: {detail['audio_uri']}")
    return lines


def answer(given: Json) -> str:
    """The result of a request, in a line."""
    if "already_queued" in given:
        return f"album {given['album_id']}: {album_counts(given)}"
    if "discarded" in given:
        return "discarded"
    if given.get("available"):
        return "the file is in place already"
    if given.get("deduplicated"):
        return "it was queued already"
    if given.get("others_wait"):
        return "withdrawn; others still wait for it"
    return {"PENDING": "queued", "FAILED": "cancelled"}.get(given["item"]["status"], "done")


def album_counts(given: Json) -> str:
    """The result of a request for an album, by its tracks."""
    broken = given.get("broken")
    return (
        f"{given['queued']:,} queued, {given['already_queued']:,} already queued,"
        f" {given['already_available']:,} already available"
        + (f", {len(given['broken']):,} with a broken file: see `problems`" if broken else "")
    )


def rest(page: Json) -> str:
    """Which part of a list was shown, and how to see more; empty if all of it was."""
    first, last, total = page["offset"] + 1, page["offset"] + len(page["items"]), page["total"]
    if last - first + 1 >= total:
        return ""
    part = f"{last:,}" if first == 1 else f"{first:,} to {last:,}"
    return f"{part} of {total:,}" + (f", --offset {last} shows more" if last < total else "")


# A request of the catalog server that is over, whichever way.
_OVER = ("ended", "withdrawn")


def stats(value: Json) -> list[str]:
    """`admin/stats` in sentences."""
    by_status, by_stage = value["by_status"], value["by_stage"]
    attention = by_stage["needs_approval"] + by_stage["needs_choice"]
    counts = ", ".join(f"{by_status[status]:,} {word}" for status, word in _STATUSES.items())
    lines = [f"Queue: {counts}."]
    if attention:
        need = "needs" if attention == 1 else "need"
        lines.append(f"{_many(attention, 'item')} {need} a decision: see `attention`.")
    age_s = value["oldest_pending_age_s"]
    if age_s is not None:
        lines.append(f"The oldest has been waiting for {duration(age_s)}.")
    rates = value["rates"]
    hour, day = (
        f"{rates[f'completed_last_{span}']:,} completed and {rates[f'failed_last_{span}']:,} failed"
        for span in ("hour", "day")
    )
    lines.append(f"Last hour: {hour}; last day: {day}, {size(rates['bytes_last_day'])}.")
    lines += [*_library(value["library"]), *_acquisition(value), *_health(value)]
    if problems := _presence_problems(value["presence_problems"]):
        lines.append(f"The catalog names files that need a correction: {problems}; see `problems`.")
    if count := value["refused_files"]["count"]:
        kept = size(value["refused_files"]["bytes"])
        lines.append(f"{_many(count, 'refused download')} kept, {kept}: see `refused list`.")
    if value["outbox"]["waiting"]:
        lines.append(f"{_are(value['outbox']['waiting'], 'event')} waiting to be published.")
    lines += _at_server(value)
    return lines


def _presence_problems(counts: Mapping[str, int]) -> str:
    words = {"outside": "not usable", "broken": "broken", "second": "beside another file"}
    return ", ".join(f"{counts[kind]:,} {word}" for kind, word in words.items() if counts[kind])


def presence_problem(problem: Json) -> str:
    """A row of `admin/presence-problems`."""
    return f"{problem['track_id']}  {problem['kind']}: {problem['audio_uri']} ({problem['detail']})"


def refused_file(file: Json) -> list[str]:
    """A row of `admin/refused`."""
    until = clock_time(file["kept_until"])
    state = file["state"] if file["state"] == "released" else f"kept until {until}"
    name = f"{file['track_name'] or file['track_id']}: {file['file']}"
    return [
        f"{file['id']}  {name} ({size(file['size_bytes'])}, {state})",
        f"    {file['reason']}",
    ]


def blocked_source(block: Json) -> list[str]:
    """A row of `admin/blocked`."""
    source = [block["source"], *([block["release"]] if block["release"] else [])]
    track = " ".join(filter(None, (block["track_id"], block["track_name"])))
    return ["  ".join([*source, f"{block['why']}, for {track}"]), f"    {block['reason']}"]


def lifted(given: Json) -> str:
    """What `blocked lift` did, in a line."""
    line = f"lifted for {_many(len(given['lifted']), 'track')}"
    if given["failed"]:
        line += f"; these items are FAILED, `retry` them: {', '.join(given['failed'])}"
    return line


def _library(library: Json) -> list[str]:
    """How many files there are for the catalog server, and why it does not play the others."""
    counts = ", ".join(f"{name} {library[name]:,}" for name in ("placed", "published", "playable"))
    reasons = [f"    {each['count']:,} {each['reason']}" for each in library["not_playable"]]
    return [f"Files: {counts}.", *reasons]


def synced(counts: Json) -> str:
    """What `bridge sync` did, in a line."""
    parts = [
        f"{counts['checked']:,} files checked",
        f"{counts['written']:,} written to the catalog",
        f"{counts['named']:,} named there already",
    ]
    if counts["outside"]:
        parts.append(f"{counts['outside']:,} of them outside of the media root")
    if counts["not_publishable"]:
        parts.append(f"{counts['not_publishable']:,} that cannot be: `stats` says why")
    if counts["changed_meanwhile"]:
        parts.append(f"{counts['changed_meanwhile']:,} changed by the server meanwhile")
    return ", ".join(parts)


def _acquisition(value: Json) -> list[str]:
    """The acquisition mode, and how many downloads and searches there are."""
    chosen, downloads, searches = value["acquisition"], value["downloads"], value["searches"]
    lines = []
    if chosen is not None:
        lines.append(f"Acquisition mode: {chosen['way']} ({chosen['reason']}).")
    if chosen is None or chosen["way"] == "tickets" or value["tickets"]["in_flight"]:
        lines.append(_tickets(value["tickets"]))
    if downloads["in_flight"] or (chosen is not None and chosen["way"] == "direct"):
        most = _many(downloads["max_in_flight"], "download")
        lines.append(
            f"At the torrent client: {downloads['in_flight']} of at most {most}."
            f" Searches in the last hour: {searches['last_hour']} of {searches['per_hour']}."
        )
    return lines


def _tickets(tickets: Json) -> str:
    most = _many(tickets["max_in_flight"], "ticket")
    line = f"At Torrentino: {tickets['in_flight']} of at most {most}"
    if tickets["need_approval"]:
        line += f", {tickets['need_approval']} to be approved there"
    return f"{line}."


def _health(value: Json) -> list[str]:
    health: Mapping[str, Json] = value["health"]
    good = [name for name, condition in health.items() if condition["ok"]]
    unknown = [name for name, condition in health.items() if condition["ok"] is None]
    lines = [f"Available: {', '.join(good)}."] if good else []
    if unknown:
        lines.append(f"Not used yet: {', '.join(unknown)}.")
    free_mb = health["media"]["free_mb"]
    if free_mb is not None:
        lines.append(f"Free for media: {size(free_mb * 1024 * 1024)}.")
    if not_durable := health["postgres"].get("not_durable"):
        lines.append(f"PostgreSQL loses the last commits in a crash: {', '.join(not_durable)}.")
    for name, condition in health.items():
        if condition["ok"] is False:
            stops = [each for each in value["paused"] if each["dependency"] == name]
            what = f" Stopped: {', '.join(each['stage'] for each in stops)}." if stops else ""
            to_do = f" To do: {stops[0]['to_do']}." if stops else ""
            since = clock_time(condition["since"])
            lines.append(f"UNAVAILABLE since {since}: {name}: {condition['detail']}.{what}{to_do}")
    return lines


def scan(report: Json) -> list[str]:
    """`admin/scan/{id}` in sentences: its progress, or its result."""
    found = (
        f"{report['present']:,} have a file, {report['in_queue']:,} are in the queue,"
        f" {report['missing']:,} have none"
    )
    lines = [f"Checked {report['scanned']:,}{_of_total(report)} tracks: {found}."]
    if report["unrecorded"]:
        lines.append(
            f"{report['unrecorded']:,} have a file that neither the ledger nor the catalog names."
        )
    lines += _presence(report)
    if report["mode"] == "queue":
        lines.append(f"{_many(report['queued'], 'track')} queued.")
    elif report["missing"]:
        lines.append("Nothing was queued; --queue queues them.")
    if report["limit_reached"]:
        lines.append(f"It ended at the limit of {report['limit']:,}.")
    lines += [f"    {track_line(track)}" for track in report["sample"][:10]]
    if report["sample"][10:] or report["missing"] > len(report["sample"]):
        lines.append(f"    and {report['missing'] - min(10, len(report['sample'])):,} more")
    if report["state"] in ("refused", "cancelled"):
        lines.append(f"The scan was {report['state']}: {report['problem']}.")
    return lines


def _presence(report: Json) -> list[str]:
    """What a scan says of files that the ledger lacks, or that cannot be used."""
    lines = []
    if report["adopted"] or report["scope"].get("adopt"):
        lines.append(f"{_many(report['adopted'], 'file')} verified and recorded.")
    elif report["to_adopt"]:
        lines.append(
            f"{_many(report['to_adopt'], 'file')} not verified yet: one is when its track is"
            " requested, all are by --adopt."
        )
    if report["broken"]:
        lines.append(f"{_are(report['broken'], 'named file')} broken: see `problems`.")
    if report["refused"]:
        lines.append(
            f"{_many(report['refused'], 'path')} of the catalog may not be used: see `problems`."
        )
    return lines


def scan_progress(report: Json) -> str:
    """The progress of a scan, or what it waits for, in a line."""
    if report["problem"]:
        return f"waits: {report['problem']}"
    if report["started_at"] is None:
        return "waits for the watchdog"
    adopted = f", {report['adopted']:,} files recorded" if report["adopted"] else ""
    return (
        f"{report['scanned']:,}{_of_total(report)} tracks, {report['missing']:,} without a file"
        f"{adopted}"
    )


def _of_total(report: Json) -> str:
    return f" of about {report['total']:,}" if report["total"] else ""


def track_line(track: Json) -> str:
    """A track of a scan's sample."""
    artists = ", ".join(track["artist_names"])
    album = f" ({track['album_name']})" if track["album_name"] else ""
    return f"{track['track_id']}  {artists} - {track['track_name']}{album}"


def size(number: int) -> str:
    """Bytes in the largest unit that gives at least 1."""
    value, unit = float(number), 0
    while value >= 1000 and unit < len(_UNITS) - 1:
        value, unit = value / 1000, unit + 1
    return f"{value:.1f} {_UNITS[unit]}" if unit else f"{number} bytes"


def duration(seconds: float) -> str:
    """A time span in its two largest units."""
    minutes, s = divmod(int(seconds), 60)
    hours, m = divmod(minutes, 60)
    days, h = divmod(hours, 24)
    parts = [(days, "d"), (h, "h"), (m, "min"), (s, "s")]
    shown = [f"{number} {unit}" for number, unit in parts if number][:2]
    return " ".join(shown) or "0 s"


def clock_time(unix_s: float) -> str:
    """A moment in this machine's time zone."""
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(unix_s))


def _many(number: int, what: str) -> str:
    return f"{number:,} {what}{'' if number == 1 else 's'}"


def _are(number: int, what: str) -> str:
    return f"{_many(number, what)} {'is' if number == 1 else 'are'}"


def _at_server(value: Json) -> list[str]:
    """The requests that the bridge has taken over, and what does not work at the server."""
    said = value.get("catalog_server")
    if said is None:
        return []
    open_ = {state: n for state, n in said["requests"].items() if n and state not in _OVER}
    lines = []
    if open_:
        counts = ", ".join(f"{n:,} {state}" for state, n in open_.items())
        lines.append(f"Requests at the catalog server: {counts}.")
    lines += [
        f"  {row['content_name'] or row['content_id']}: {row['problem']}" for row in said["waiting"]
    ]
    return lines + [f"Catalog server: {problem}." for problem in said["problems"].values()]
