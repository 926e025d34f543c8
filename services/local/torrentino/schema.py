"""Request bodies, as strict as serde: no coercion, unknown fields are ignored."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

U8 = Annotated[int, Field(ge=0, lt=2**8)]
U16 = Annotated[int, Field(ge=0, lt=2**16)]
U32 = Annotated[int, Field(ge=0, lt=2**32)]
U64 = Annotated[int, Field(ge=0, lt=2**64)]
AudioFormat = Literal["flac", "mp3", "aac", "ogg_vorbis", "opus", "wav", "alac"]
VideoFormat = Literal["h264", "h265", "vp9", "av1", "h264_nvenc", "h265_nvenc", "av1_nvenc", "copy"]
Category = Literal["audio", "music", "movies", "tv", "books", "software", "other"]
Resolution = Literal["r720p", "r1080p", "r2160p"]


class _Body(BaseModel):
    model_config = ConfigDict(strict=True, frozen=True, extra="ignore", allow_inf_nan=False)


class ExpectedTrack(_Body):
    number: U32
    title: str
    duration_secs: U32 | None = None
    duration_ms: U64 | None = None
    disc_number: U32 | None = None


class ExpectedAlbum(_Body):
    type: Literal["album"]
    artist: str | None = None
    title: str
    tracks: list[ExpectedTrack]


class ExpectedSingle(_Body):
    type: Literal["track"]
    artist: str | None = None
    title: str


class ExpectedMovie(_Body):
    type: Literal["movie"]
    title: str
    year: U32 | None = None


class ExpectedEpisode(_Body):
    type: Literal["tv_episode"]
    series: str
    season: U32
    episodes: list[U32]


class MusicBrainz(_Body):
    type: Literal["music_brainz"]
    release_id: str
    track_count: U32
    total_duration_ms: U64 | None = None


class Tmdb(_Body):
    type: Literal["tmdb"]
    id: U32
    media_type: Literal["movie", "tv"]
    runtime_minutes: U32 | None = None
    episode_count: U32 | None = None


class AudioSearch(_Body):
    preferred_formats: list[AudioFormat] = []
    min_bitrate_kbps: U32 | None = None
    avoid_compilations: bool = False
    avoid_live: bool = False


class Language(_Body):
    code: str
    priority: Literal["preferred", "required"]


class VideoSearch(_Body):
    min_resolution: Resolution | None = None
    preferred_resolution: Resolution | None = None
    preferred_sources: list[Literal["cam", "hdtv", "web_dl", "blu_ray", "remux"]] = []
    preferred_codecs: list[Literal["x264", "x265", "av1"]] = []
    audio_languages: list[Language] = []
    subtitle_languages: list[Language] = []
    exclude_hardcoded_subs: bool = False


class SearchConstraints(_Body):
    audio: AudioSearch | None = None
    video: VideoSearch | None = None


class AudioFields(_Body):
    format: AudioFormat
    bitrate_kbps: U32 | None = None
    sample_rate_hz: U32 | None = None
    channels: U8 | None = None
    compression_level: U8 | None = None


class OriginalOutput(_Body):
    type: Literal["original"]


class AudioOutput(AudioFields):
    type: Literal["audio"]


class VideoOutput(_Body):
    type: Literal["video"]
    format: VideoFormat
    container: Literal["mkv", "mp4", "webm", "audio_only"]
    crf: U8 | None = None
    bitrate_kbps: U32 | None = None
    max_width: U32 | None = None
    max_height: U32 | None = None
    fps: float | None = None
    audio: AudioFields | None = None


class QueryContext(_Body):
    tags: list[str]
    description: str
    expected: (
        Annotated[
            ExpectedAlbum | ExpectedSingle | ExpectedMovie | ExpectedEpisode,
            Field(discriminator="type"),
        ]
        | None
    ) = None
    catalog_reference: Annotated[MusicBrainz | Tmdb, Field(discriminator="type")] | None = None
    search_constraints: SearchConstraints | None = None


class CreateTicket(_Body):
    """The body of `POST /tickets`."""

    priority: U16 | None = None
    query_context: QueryContext
    dest_path: str
    output_constraints: (
        Annotated[OriginalOutput | AudioOutput | VideoOutput, Field(discriminator="type")] | None
    ) = None


class SourceFileBody(_Body):
    path: str
    item_id: str
    dest_filename: str


class ProcessBody(_Body):
    """The body of `POST /pipeline/process/{id}`."""

    source_files: list[SourceFileBody]
    dest_dir: str
    output_format: str | None = None
    bitrate_kbps: U32 | None = None


class AddBody(_Body):
    """What the bodies of `POST /torrents/add/*` share."""

    download_path: str | None = None
    category: str | None = None
    paused: bool = False
    ticket_id: str | None = None


class MagnetBody(AddBody):
    """The body of `POST /torrents/add/magnet`."""

    uri: str


class UrlBody(AddBody):
    """The body of `POST /torrents/add/url`."""

    url: str


class SearchBody(_Body):
    """The body of `POST /search`."""

    query: str
    indexers: list[str] | None = None
    categories: list[Category] | None = None
    limit: U32 | None = None
    mode: Literal["both", "cache_only", "external_only"] = "both"


class LimitBody(_Body):
    """The body of `POST /torrents/{hash}/upload-limit` and `download-limit`."""

    limit: U64


class ReasonBody(_Body):
    """The optional body of a cancel or a reject."""

    reason: str | None = None


class ApproveBody(_Body):
    """The optional body of an approve."""

    candidate_idx: U64 | None = None
