"""The CUESHEET block of a FLAC file: places of tracks in samples, without titles."""

from __future__ import annotations

from shared.matching.cue import CueSheet, sheet_of
from shared.matching.cue_lines import MAX_TRACKS, Lines, Track

# RFC 9639, section 8.7: sizes in bytes.
_HEAD, _TRACK, _POINT = 396, 36, 12
# The numbers of the track that is the end of the audio: of a CD, and of other media.
_LEAD_OUT = (170, 255)
_NOT_AUDIO = 0x80


def parse_block(block: bytes, sample_rate_hz: int) -> CueSheet:
    """Parse the block's content. Raises ValueError with the reason if it is not one."""
    if len(block) < _HEAD:
        raise ValueError("a CUESHEET block without tracks")
    count, at = block[_HEAD - 1], _HEAD
    lines = Lines(files=[(b"the file itself", [])])
    length_s = None
    for _ in range(min(count, MAX_TRACKS + 1)):
        head = block[at : at + _TRACK]
        if len(head) < _TRACK:
            raise ValueError("a CUESHEET block that ends before its tracks do")
        end = at + _TRACK + head[-1] * _POINT
        if head[8] in _LEAD_OUT:
            length_s = int.from_bytes(head[:8], "big") / sample_rate_hz
        else:
            lines.files[0][1].append(_track(head, block[at + _TRACK : end], sample_rate_hz))
        at = end
    return sheet_of(lines, length_s=length_s)


def _track(head: bytes, points: bytes, sample_rate_hz: int) -> Track:
    """A track by its head and its index points, which count from the head's place."""
    track = Track(number=head[8], audio=not head[21] & _NOT_AUDIO)
    for at in range(0, len(points) - _POINT + 1, _POINT):
        samples = int.from_bytes(head[:8], "big") + int.from_bytes(points[at : at + 8], "big")
        if points[at + 8] == 1:
            track.start_s = samples / sample_rate_hz
        elif points[at + 8] == 0:
            track.gap_s = samples / sample_rate_hz
    if track.start_s is None:
        track.lost = f"track {track.number} has no INDEX 01"
    return track
