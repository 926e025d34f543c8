"""The requests that arrive over NATS, version 1, as `contract.md` describes them."""

from __future__ import annotations

from typing import Annotated, TypeAlias

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    StringConstraints,
    ValidationError,
)

from shared.bus import subjects
from shared.catalog.models import Album, Track
from shared.errors import InvalidRequest
from shared.untrusted import content_id, json_object, token

# What goes into a column: PostgreSQL takes no NUL in a text, and integers of four bytes.
_Text = Annotated[str, StringConstraints(max_length=1000, pattern=r"^[^\x00]*$")]
_Number = Annotated[int, Field(ge=0, lt=2**31)]


def _check_token(value: str) -> str:
    try:
        return token(value, what="id")
    except InvalidRequest as error:
        # What pydantic knows to name by its field.
        raise ValueError(str(error)) from error


_Token = Annotated[str, AfterValidator(_check_token)]
_Version = Annotated[int, Field(ge=1, le=1)]
_MOST_TRACKS = 2000


class _Message(BaseModel):
    # Strict, so that "2" or 1.0 for a version is seen as the mistake that it is; unknown fields
    # are allowed, because a newer sender may add some within the version.
    model_config = ConfigDict(frozen=True, strict=True, extra="ignore")


class TrackData(_Message):
    """The catalog's data of a track, carried along so that nothing has to be looked up."""

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
        """As the catalog would have given it; the album's data fill what is not there."""
        own_album = self.album_id or album_id
        return Track(
            id=content_id(self.id, what="track id"),
            # A name is never missing where items are shown.
            name=self.name.strip() or self.id,
            artists=tuple(artist for artist in self.artists if artist.strip()),
            album_id=content_id(own_album, what="album id") if own_album else None,
            album_name=self.album or album or None,
            album_artist=None,
            disc_number=self.disc_number,
            track_number=self.track_number,
            # No file is 0 ms long: it means that the catalog does not know.
            duration_ms=self.duration_ms or None,
            isrc=self.isrc or None,
            popularity=None,
        )


class _Request(_Message):
    v: _Version
    request_id: _Token
    user_id: _Token | None = None
    priority: Annotated[int, Field(ge=1, le=3)] = 2


class TrackRequest(_Request):
    """`request.track`"""

    track_id: str
    track: TrackData | None = None

    def carried(self) -> Track | None:
        """The track that the message carries, if it does."""
        if self.track is None:
            return None
        if self.track.id != self.track_id:
            raise InvalidRequest(f"track.id {self.track.id!r} is not track_id {self.track_id!r}")
        return self.track.to_track()


class AlbumRequest(_Request):
    """`request.album`"""

    album_id: str
    album: _Text | None = None
    tracks: Annotated[list[TrackData], Field(max_length=_MOST_TRACKS)] | None = None

    def carried(self) -> Album | None:
        """The album that the message carries, if it brings its tracks."""
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
    """`request.cancel`: withdraws what `request_id` asked for."""

    v: _Version
    request_id: _Token
    user_id: _Token | None = None


Message: TypeAlias = TrackRequest | AlbumRequest | CancelRequest

_BY_SUBJECT: dict[str, type[TrackRequest] | type[AlbumRequest] | type[CancelRequest]] = {
    subjects.REQUEST_TRACK: TrackRequest,
    subjects.REQUEST_ALBUM: AlbumRequest,
    subjects.REQUEST_CANCEL: CancelRequest,
}


def parse(subject: str, body: bytes) -> Message:
    """The message of this subject.

    Raises:
        InvalidRequest: it is none; the text names the first thing that is wrong.
    """
    model = _BY_SUBJECT.get(subject)
    if model is None:
        raise InvalidRequest(f"nobody handles {subject}")
    json_object(body)
    try:
        return model.model_validate_json(body)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        where = ".".join(str(part) for part in first["loc"]) or "body"
        raise InvalidRequest(f"{where}: {first['msg']}") from error
