"""What Torrentino's own machinery does: health, orchestrator, pipeline, audit."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from shared.errors import Conflict, DependencyDown, InvalidRequest, Unknown
from shared.redaction import redact
from shared.torrentino.answers import Answer, refused, unreadable
from shared.torrentino.http import Http, object_of, quoted
from shared.torrentino.model import mapping_of, mappings_of
from shared.untrusted import usable_path

_UNDER_WAY = "already exists"
_NOT_RUNNING = "not running"


@dataclass(frozen=True, kw_only=True)
class SourceFile:
    """A file that the pipeline is to convert: where it lies there, and its name when placed."""

    path: str
    item_id: str
    dest_filename: str


class EngineCalls:
    """The calls about the server, and about its pipeline."""

    http: Http

    async def health(self) -> None:
        """Return when the API answers; it says nothing about searching or downloading."""
        answer = await self.http.read("/health")
        status = object_of(answer, effect=False).get("status")
        if status != "ok":
            raise DependencyDown("torrentino", f"its health is {redact(str(status))[:80]!r}")

    async def orchestrator(self) -> Mapping[str, object]:
        """Whether tickets are being worked on (`available`, `running`), and counts by state."""
        return object_of(await self.http.read("/orchestrator/status"), effect=False)

    async def orchestrator_runs(self) -> bool:
        """Whether Torrentino works on tickets at all."""
        return (await self.orchestrator()).get("running") is True

    async def pipeline(self) -> frozenset[str] | None:
        """The tickets that are being converted or placed; None when the pipeline does not run."""
        answer = await self.http.read("/pipeline/status")
        body = object_of(answer, effect=False)
        lists = (body.get("converting_tickets"), body.get("placing_tickets"))
        if body.get("running") is not True:
            return None
        if not all(isinstance(ids, list) for ids in lists):
            raise unreadable(answer, ValueError("not the status of a pipeline"), effect=False)
        return frozenset(str(id_) for ids in lists if isinstance(ids, list) for id_ in ids)

    async def process(
        self,
        ticket_id: str,
        files: Sequence[SourceFile],
        *,
        dest_dir: str,
        output_format: str,
        bitrate_kbps: int,
    ) -> None:
        """Have the pipeline convert these files and place them in `dest_dir`.

        Whatever the ticket's state, it goes to converting, placing, and to an end of its own. Fine
        when that is under way already.

        Raises:
            Unknown: there is no such ticket.
            InvalidRequest: the format is none that it can make.
            Conflict: the pipeline does not run.
            OutcomeUnknown: read the ticket before asking again.
        """
        body = {
            "source_files": [vars(each) for each in files],
            "dest_dir": dest_dir,
            "output_format": output_format,
            "bitrate_kbps": bitrate_kbps,
        }
        answer = await self.http.effect(
            "POST",
            f"/pipeline/process/{quoted(ticket_id)}",
            body=json.dumps(body).encode("ascii"),
            own={400, 404, 422, 500, 503},
        )
        if answer.status >= 400:
            _refuse(answer)
        else:
            object_of(answer, effect=True)

    async def conversion_input(self, ticket_id: str) -> str | None:
        """The path that the pipeline last began to convert or copy for the ticket, if it tells.

        The audit that it stands in may lose entries, and is written a moment later.
        """
        query = f"ticket_id={quoted(ticket_id)}&event_type=conversion_started&limit=1"
        answer = await self.http.read(f"/audit?{query}")
        events = object_of(answer, effect=False).get("events")
        if not isinstance(events, list):
            raise unreadable(answer, ValueError("not a page of the audit"), effect=False)
        for event in mappings_of(events):
            data = event.get("data")
            return usable_path(mapping_of(data).get("input_path")) if data is not None else None
        return None


def _refuse(answer: Answer) -> None:
    """Raise what an error of the pipeline means; return when the job is there all the same."""
    text = f"Torrentino: {answer.text}"
    match answer.status:
        case 500 if _UNDER_WAY in answer.text:
            return
        case 404 if answer.error is not None:
            raise Unknown(text)
        case 400 | 422:
            raise InvalidRequest(text)
        case 500 | 503 if answer.error is not None and _is_pipeline(answer):
            raise Conflict(text)
    raise refused(answer, effect=True)


def _is_pipeline(answer: Answer) -> bool:
    """Whether it is the pipeline's own answer that it does not work, and not that of a proxy."""
    return answer.status == 503 or _NOT_RUNNING in answer.text
