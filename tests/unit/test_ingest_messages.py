"""The requests over NATS, as they are understood."""

from __future__ import annotations

import json
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.bus.subjects import REQUEST_ALBUM, REQUEST_CANCEL, REQUEST_TRACK
from shared.errors import InvalidRequest
from shared.events import CancelRequest, RequestAlbum, RequestTrack, parse
from shared.untrusted import content_id, token

ID = "4uLU6hMCjMI75M1A2tKUQC"


def test_the_contracts_request_is_understood() -> None:
    """Version 1, with and without the track that it may carry; what a newer sender adds is left."""
    body = {"v": 1, "request_id": "r", "user_id": "42", "priority": 2, "track_id": ID, "new": 1}
    plain = parse(REQUEST_TRACK, json.dumps(body).encode())
    assert isinstance(plain, RequestTrack)
    assert plain.carried() is None
    track = {
        "id": ID, "name": "N", "artists": ["A", "B"], "album_id": ID, "album": "L",
        "disc_number": 1, "track_number": 2, "duration_ms": 3, "isrc": "I", "explicit": True,
    }  # fmt: skip
    whole = parse(REQUEST_TRACK, json.dumps(body | {"track": track}).encode())
    assert isinstance(whole, RequestTrack)
    carried = whole.carried()
    assert carried is not None
    assert (carried.name, carried.artists, carried.album_name) == ("N", ("A", "B"), "L")
    assert (carried.disc_number, carried.track_number, carried.duration_ms) == (1, 2, 3)


def test_what_is_left_out_has_its_default() -> None:
    """Priority 2, and no user: the catalog server's own."""
    for subject, name in ((REQUEST_TRACK, "track_id"), (REQUEST_ALBUM, "album_id")):
        found = parse(subject, json.dumps({"v": 1, "request_id": "r", name: ID}).encode())
        assert isinstance(found, RequestTrack | RequestAlbum)
        assert (found.priority, found.user_id) == (2, None)
    cancel = parse(REQUEST_CANCEL, b'{"v":1,"request_id":"r"}')
    assert isinstance(cancel, CancelRequest)


def test_an_album_gives_its_tracks_what_they_lack() -> None:
    """Tracks of a carried album know their album."""
    body = {
        "v": 1, "request_id": "r", "album_id": ID, "album": "Whole",
        "tracks": [{"id": "abcdef", "name": "N", "artists": ["A"]}],
    }  # fmt: skip
    found = parse(REQUEST_ALBUM, json.dumps(body).encode())
    assert isinstance(found, RequestAlbum)
    album = found.carried()
    assert album is not None
    assert (album.name, album.artist) == ("Whole", "A")
    assert (album.tracks[0].album_id, album.tracks[0].album_name) == (ID, "Whole")


def test_a_refusal_names_the_field() -> None:
    """Who looks at the dead stream sees which part was wrong."""
    for change, where in (
        ({"request_id": "a b"}, "request_id"),
        ({"user_id": ""}, "user_id"),
        ({"user_id": "admin"}, "user_id"),
        ({"priority": 9}, "priority"),
        ({"track": {"id": ID, "name": 7}}, "track.name"),
    ):
        body = {"v": 1, "request_id": "r", "track_id": ID} | change
        with pytest.raises(InvalidRequest, match=f"^{where}: "):
            parse(REQUEST_TRACK, json.dumps(body).encode())


GOOD = b'"v":1,"request_id":"r","track_id":"' + ID.encode() + b'"'
MOST_PAYLOAD = 1024 * 1024
_TRACK = b'{"id":"' + ID.encode() + b'","name":"N"}'


@pytest.mark.parametrize(
    ("body", "why"),
    [
        (b"{" + GOOD + b',"priority":1,"priority":3}', "'priority' appears twice"),
        (b"{" + GOOD + b',"track":{"id":"x","id":"y","name":"N"}}', "'id' appears twice"),
        (b"{" + GOOD + b',"x":NaN}', "NaN is no number"),
        (b"{" + GOOD + b',"x":-Infinity}', "Infinity is no number"),
        (b"{" + GOOD + b',"x":' + b"9" * 100_000 + b"}", "not JSON"),
        (b"{" + GOOD + b',"priority":1e400}', "priority"),
        (b"{" + GOOD + b',"priority":2.0}', "priority"),
        (b"{" + GOOD + b',"x":' + b"[" * (MOST_PAYLOAD - 100), "nested too deeply"),
        (b'{"a":' * 170_000 + b"1" + b"}" * 170_000, "nested too deeply"),
        (b"{" + GOOD + b',"x":"\xff\xfe"}', "not JSON"),
        (b"{" + GOOD + b',"x":"' + b"y" * (MOST_PAYLOAD - 100), "not JSON"),
        (b"\xef\xbb\xbf{" + GOOD + b"}", "not JSON"),
        (b"[" + b"{}," * 300_000 + b"{}]", "not a JSON object"),
        (b'{"v":2,"request_id":"r","track_id":"' + ID.encode() + b'"}', "^v: "),
        (b'{"v":true,"request_id":"r","track_id":"' + ID.encode() + b'"}', "^v: "),
        (b"{" + GOOD + b',"track":{"id":"' + ID.encode() + b'","name":"\\ud800"}}', "."),
    ],
)
def test_what_is_made_to_hurt_is_refused_quickly(body: bytes, why: str) -> None:
    """Up to what NATS carries: the reason is short, and the time does not grow with the malice."""
    started = time.monotonic()
    with pytest.raises(InvalidRequest, match=why) as caught:
        parse(REQUEST_TRACK, body)
    assert len(str(caught.value)) <= 600
    assert time.monotonic() - started < 5


def test_an_album_has_a_bounded_number_of_tracks() -> None:
    """Thousands of tracks in one message are refused before any of them is looked at."""
    body = b'{"v":1,"request_id":"r","album_id":"' + ID.encode() + b'","tracks":['
    body += b",".join([_TRACK] * 20_000) + b"]}"
    assert len(body) < MOST_PAYLOAD
    with pytest.raises(InvalidRequest, match=r"^tracks: "):
        parse(REQUEST_ALBUM, body)


@given(st.binary(max_size=200))
def test_no_bytes_do_anything_but_be_refused(body: bytes) -> None:
    """Any body is a message or an InvalidRequest; nothing else ever comes out."""
    for subject in (REQUEST_TRACK, REQUEST_ALBUM, REQUEST_CANCEL):
        with pytest.raises(InvalidRequest):
            parse(subject, body)


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=10,
)
_KEYS = st.sampled_from(
    ["v", "request_id", "user_id", "priority", "track_id", "album_id", "track", "tracks", "album"]
)


@given(st.dictionaries(_KEYS, _JSON | st.sampled_from([1, ID, "r"])))
def test_what_is_understood_fits_the_database(body: dict[str, object]) -> None:
    """Whatever JSON comes: it is refused, or everything in it can be stored."""
    for subject in (REQUEST_TRACK, REQUEST_ALBUM, REQUEST_CANCEL):
        try:
            found = parse(subject, json.dumps(body).encode())
            carried = found.carried() if isinstance(found, RequestTrack) else None
        except InvalidRequest:
            continue
        assert "\0" not in found.model_dump_json()
        assert token(found.request_id, what="request_id") == found.request_id
        assert carried is None or carried.id == content_id(carried.id, what="track id")


@given(st.text(max_size=80) | st.text(alphabet="aZ09_-./%\n", min_size=5, max_size=70))
def test_an_id_is_safe_wherever_it_goes(text: str) -> None:
    """L-15: an id that passes is one part of a path, of a subject and of a URL, and long enough
    for its folders."""
    try:
        accepted = content_id(text, what="track id")
    except InvalidRequest:
        return
    assert accepted == text
    assert 6 <= len(text) <= 64
    assert not set(text) & set("/\\.%*> \0\n")
