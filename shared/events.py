"""The messages on NATS, version 1: commands that arrive, events that leave.

A command is named for what it asks, an event for what happened. Each is a frozen type, and only its
type knows its wire shape, which docs/api.md describes. A handler takes any of them twice, and in
any order.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from typing import Annotated, Any, ClassVar, Literal, TypeAlias, TypeVar

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    StringConstraints,
    ValidationError,
    model_validator,
)

from shared.bus import subjects
from shared.catalog.models import Album, Track
from shared.errors import InvalidRequest
from shared.untrusted import content_id, json_object, token, user

Json: TypeAlias = dict[str, Any]
ContentKind = Literal["track", "album"]

M = TypeVar("M")

# --- commands

# What goes into a column: PostgreSQL takes no NUL in a text, and integers of four bytes.
_Text = Annotated[str, StringConstraints(max_length=1000, pattern=r"^[^\x00]*$")]
_Number = Annotated[int, Field(ge=0, lt=2**31)]


def _check_token(value: str) -> str:
    try:
        return token(value, what="id")
    except InvalidRequest as error:
        # pydantic names the field of a ValueError.
        raise ValueError(str(error)) from error


def _check_user(value: str) -> str:
    try:
        return user(value, what="id")
    except InvalidRequest as error:
        raise ValueError(str(error)) from error


_Token = Annotated[str, AfterValidator(_check_token)]
_User = Annotated[str, AfterValidator(_check_user)]
_Version = Annotated[int, Field(ge=1, le=1)]
_MAX_TRACKS = 2000


class _Message(BaseModel):
    # Strict: "2" or 1.0 is no version. Unknown fields are allowed, because a newer sender may add
    # some within the version.
    # Most processes read few of them: each is built at its first use.
    model_config = ConfigDict(frozen=True, strict=True, extra="ignore", defer_build=True)


class TrackData(_Message):
    """The catalog's data of a track; a request that carries them needs no catalog lookup."""

    id: str
    name: _Text
    artists: list[_Text] = Field(default_factory=list, max_length=200)
    album_id: str | None = None
    album: _Text | None = None
    disc_number: _Number | None = None
    track_number: _Number | None = None
    duration_ms: Annotated[int, Field(ge=0, lt=2**40)] | None = None
    isrc: _Text | None = None

    def to_track(self, *, album_id: str | None = None, album: str | None = None) -> Track:
        """As the catalog would have given it; the album's data replace what is missing."""
        own_album = self.album_id or album_id
        return Track(
            id=content_id(self.id, what="track id"),
            # Items are shown by their name, so there is always one.
            name=self.name.strip() or self.id,
            artists=tuple(artist for artist in self.artists if artist.strip()),
            album_id=content_id(own_album, what="album id") if own_album else None,
            album_name=self.album or album or None,
            album_artist=None,
            disc_number=self.disc_number,
            track_number=self.track_number,
            # No file is 0 ms long: the catalog does not know the length.
            duration_ms=self.duration_ms or None,
            isrc=self.isrc or None,
            popularity=None,
        )


class _Request(_Message):
    v: _Version
    request_id: _Token
    user_id: _User | None = None
    priority: Annotated[int, Field(ge=1, le=3)] = 2


class RequestTrack(_Request):
    """`request.track`: get one track."""

    track_id: str
    track: TrackData | None = None

    def carried(self) -> Track | None:
        """The track's data, if the message carries them.

        Raises:
            InvalidRequest: they are another track's.
        """
        if self.track is None:
            return None
        if self.track.id != self.track_id:
            raise InvalidRequest(f"track.id {self.track.id!r} is not track_id {self.track_id!r}")
        return self.track.to_track()


class RequestAlbum(_Request):
    """`request.album`: get every track of an album."""

    album_id: str
    album: _Text | None = None
    tracks: Annotated[list[TrackData], Field(max_length=_MAX_TRACKS)] | None = None

    def carried(self) -> Album | None:
        """The album's data, if the message carries its tracks.

        Raises:
            InvalidRequest: an id in them is malformed.
        """
        if self.tracks is None:
            return None
        tracks = tuple(t.to_track(album_id=self.album_id, album=self.album) for t in self.tracks)
        artist = tracks[0].artists[0] if tracks and tracks[0].artists else None
        return Album(
            id=content_id(self.album_id, what="album id"),
            name=self.album or self.album_id,
            artist=artist,
            tracks=tracks,
        )


class CancelRequest(_Message):
    """`request.cancel`: withdraw what `request_id` asked for; without a user, any user's."""

    v: _Version
    request_id: _Token
    user_id: _User | None = None


class ScanOrder(BaseModel):
    """What a scan covers. Unknown fields are refused: a misspelt scope or limit must not become a
    scan of everything."""

    model_config = ConfigDict(frozen=True, strict=True, extra="forbid")

    scope: Literal["all", "partial_albums", "album"] = "all"
    album_id: str | None = None
    min_popularity: Annotated[int, Field(ge=0, le=100)] | None = None
    # Missing tracks after which the scan ends.
    limit: Annotated[int, Field(ge=1, le=1_000_000)] | None = None
    # Whether files that the ledger lacks are verified and recorded.
    adopt: bool = False

    @model_validator(mode="after")
    def _album_goes_with_its_scope(self) -> ScanOrder:
        if (self.scope == "album") != (self.album_id is not None):
            raise ValueError("album_id goes with scope 'album', and only with it")
        return self


ADOPT_OR_QUEUE = "a scan adopts files or queues tracks, not both: leave out adopt or queue"


class StartScan(ScanOrder):
    """`command.scan`: a dry run, or with `queue` a scan that queues what is missing.

    `request_id` becomes the scan's id, so that a message that comes twice starts one scan.
    """

    v: _Version
    request_id: _Token
    user_id: _User | None = None
    queue: bool = False

    @model_validator(mode="after")
    def _adopts_or_queues(self) -> StartScan:
        if self.queue and self.adopt:
            raise ValueError(ADOPT_OR_QUEUE)
        return self

    def order(self) -> ScanOrder:
        """The scan without the message around it."""
        return ScanOrder.model_validate(self.model_dump(include=set(ScanOrder.model_fields)))


Command: TypeAlias = RequestTrack | RequestAlbum | CancelRequest | StartScan

_COMMANDS: dict[str, type[Command]] = {
    subjects.REQUEST_TRACK: RequestTrack,
    subjects.REQUEST_ALBUM: RequestAlbum,
    subjects.REQUEST_CANCEL: CancelRequest,
    subjects.COMMAND_SCAN: StartScan,
}


def parse(subject: str, body: bytes) -> Command:
    """The command in a message of this subject.

    Raises:
        InvalidRequest: there is none; the text names the first thing that is wrong.
    """
    model = _COMMANDS.get(subject)
    if model is None:
        raise InvalidRequest(f"no service handles {subject}")
    json_object(body)
    command = _validated(lambda: model.model_validate_json(body))
    if isinstance(command, StartScan):
        _check_album(command)
    return command


def parse_order(body: Mapping[str, object]) -> ScanOrder:
    """The order in the body of an HTTP request.

    Raises:
        InvalidRequest: there is none; the text names the first thing that is wrong.
    """
    order = _validated(lambda: ScanOrder.model_validate(dict(body)))
    _check_album(order)
    return order


def _validated(validate: Callable[[], M]) -> M:
    try:
        return validate()
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        where = ".".join(str(part) for part in first["loc"]) or "body"
        raise InvalidRequest(f"{where}: {first['msg']}") from error


def _check_album(order: ScanOrder) -> None:
    if order.album_id is not None:
        content_id(order.album_id, what="album id")


# --- events


@dataclass(frozen=True, kw_only=True)
class Event:
    """What happened; `shared.db.events` stores it, `shared.bus.relay` publishes it.

    The fields of an event are those of its body on the wire, beside what `envelope` adds.
    """

    # What the subject has behind `event.`, and the outbox in its column `kind`.
    kind: ClassVar[str]
    # The field that ends the subject.
    subject_field: ClassVar[str | None] = None

    def data(self) -> Json:
        """The body without its envelope."""
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        return {name: list(v) if isinstance(v, tuple) else v for name, v in values.items()}

    @property
    def outbox_item(self) -> str | None:
        """The item that the outbox row belongs to."""
        return None

    @property
    def outbox_request(self) -> str | None:
        """The request that the outbox row belongs to."""
        return None


@dataclass(frozen=True, kw_only=True)
class ItemMoved(Event):
    """An item came into a stage. A trigger of the database writes the row with the move."""

    kind: ClassVar[str] = "item"

    item_id: str
    track_id: str
    album_id: str | None
    status: str
    stage: str
    from_stage: str | None
    attempt: int
    retry_count: int
    service: str
    reason: str | None
    error_type: str | None
    # The ids of its ticket, here and at Torrentino, where there is one.
    ticket: Json

    def data(self) -> Json:
        body = super().data()
        ticket: Json = body.pop("ticket")
        return body | ticket


@dataclass(frozen=True, kw_only=True)
class _OfContent(Event):
    """`content` and `content_id` are one field of the body: `track_id` or `album_id`."""

    request_id: str
    user_id: str | None
    content: ContentKind | None
    content_id: str | None

    def data(self) -> Json:
        body = super().data()
        content, content_id_ = body.pop("content"), body.pop("content_id")
        return body if content is None else body | {f"{content}_id": content_id_}


@dataclass(frozen=True, kw_only=True)
class RequestAccepted(_OfContent):
    """A request was recorded, with what became of its tracks."""

    kind: ClassVar[str] = "request.accepted"

    content_name: str | None
    artist_name: str | None
    queued: int
    already_queued: int
    already_available: int
    item_ids: tuple[str, ...]
    # Tracks that are not fetched, because the catalog names a broken file for them.
    broken: tuple[str, ...] = ()

    @property
    def outbox_request(self) -> str | None:
        return self.request_id


@dataclass(frozen=True, kw_only=True)
class RequestRejected(_OfContent):
    """A command was refused. It leaves no request row; a scan has no content."""

    kind: ClassVar[str] = "request.rejected"

    # The class of the error, and its text.
    problem: str
    reason: str


_CONTENT_OF: dict[str, ContentKind] = {
    subjects.REQUEST_TRACK: "track",
    subjects.REQUEST_ALBUM: "album",
}


def rejection(subject: str, body: bytes, reason: str) -> RequestRejected | None:
    """The event for the sender of a message that `parse` refuses; None: it does not say who.

    An id of the user or of the content that is malformed is left out.
    """
    try:
        values = json_object(body)
        request_id = token(str(values.get("request_id", "")), what="request_id")
    except InvalidRequest:
        return None
    content = _CONTENT_OF.get(subject)
    return RequestRejected(
        request_id=request_id,
        user_id=_usable(values.get("user_id"), user),
        content=content,
        content_id=_usable(values.get(f"{content}_id"), content_id) if content else None,
        problem=InvalidRequest.__name__,
        reason=reason[:1000],
    )


def _usable(value: object, check: Callable[..., str]) -> str | None:
    try:
        return check(value, what="id") if isinstance(value, str) else None
    except InvalidRequest:
        return None


@dataclass(frozen=True, kw_only=True)
class AudioReady(Event):
    """A file is in place, and its item says COMPLETED. `audio_uri` is relative to MEDIA_PATH.

    `item_id` is None for a file that a scan has adopted.
    """

    kind: ClassVar[str] = "audio.ready"
    subject_field: ClassVar[str | None] = "track_id"

    item_id: str | None
    track_id: str
    album_id: str | None
    audio_uri: str
    ext: str
    codec: str
    duration_ms: int
    bitrate_kbps: int
    size_bytes: int
    sha256: str
    request_ids: tuple[str, ...]
    user_ids: tuple[str, ...]

    @property
    def outbox_item(self) -> str | None:
        return self.item_id


@dataclass(frozen=True, kw_only=True)
class AlbumCompleted(Event):
    """Every item of an album request has ended, or all of its files were in place before."""

    kind: ClassVar[str] = "album.completed"
    subject_field: ClassVar[str | None] = "album_id"

    album_id: str
    album_name: str | None
    artist_name: str | None
    request_ids: tuple[str]
    user_ids: tuple[str, ...]
    completed: int
    failed: int
    already_available: int

    @property
    def outbox_request(self) -> str | None:
        return self.request_ids[0]


@dataclass(frozen=True, kw_only=True)
class DecisionTaken(Event):
    """An administrator has decided about a source or a file, and no item was moved by that."""

    kind: ClassVar[str] = "decision.taken"
    subject_field: ClassVar[str | None] = "track_id"

    # The last item of the track; None if the history has none.
    item_id: str | None
    track_id: str
    decision: Literal["lifted", "discarded"]
    by: str
    detail: str

    @property
    def outbox_item(self) -> str | None:
        return self.item_id


# The field that ends the subject, by the kind of the event.
SUBJECT_FIELDS = {
    event.kind: event.subject_field for event in (AudioReady, AlbumCompleted, DecisionTaken)
}


def envelope(*, event_id: str, seq: int, at: int) -> Json:
    """What the body of every event begins with; `at` in Unix seconds."""
    return {"v": 1, "event_id": event_id, "seq": seq, "at": at}
