"""The words of release titles, folded, and what each says."""

# ruff: noqa: RUF001

from __future__ import annotations


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


LOSSLESS = _words(
    "flac ape alac wv wavpack lossless tta tr24 dsd dsd64 dsd128 dsd256 dsd512 dsf dff wav aiff "
    "mqa tak shn optimfrog ofr"
)
LOSSY = _words("mp3 aac m4a ogg vorbis opus wma mp2 mpc musepack")
# What a variable rate amounts to, in kbit/s; V2 is as good as 192, with 190 in the mean.
VARIABLE_KBPS = {"v0": 245, "v1": 225, "v2": 192}

# Said of the files or of the release, never of the recording.
NEUTRAL = _words(
    "cd cds cdm cdep vls web webrip rip cdrip vinyl lp cassette tape eac log cue scans itunes cbr "
    "vbr kbps kbit kbits kb bit bits khz hz hi res hires 24bit 16bit 16b 24b stereo tracks image "
    "album single ep retail qobuz hdtracks tidal deezer digital ost soundtrack original motion "
    "picture score torrent audio music full advance split repack proper of 441khz 48khz 96khz "
    "192khz 320k 256k va various artists the and with hd hq 12 7 e p"
)
# Of the same recording in another dress.
EDITION = _words(
    "deluxe expanded anniversary edition special limited explicit super collectors collector "
    "reissue rerelease release re remaster remastered remasterizado version bonus japan japanese "
    "digipak digipack import mastered master pereizdanie"
)
REMASTER = _words("remaster remastered remasterizado")
LARGER = _words("deluxe expanded super anniversary collectors")

# Of another recording, each by the name it goes by in a sentence.
MARKERS = {
    "live": "live", "concert": "live", "koncert": "live", "kontsert": "live", "tour": "live",
    "bootleg": "live", "sbd": "live", "unplugged": "live", "ライブ": "live",
    "session": "sessions", "sessions": "sessions", "demo": "demos", "demos": "demos",
    "outtake": "outtakes", "outtakes": "outtakes", "rehearsal": "rehearsal",
    "rehearsals": "rehearsal", "acoustic": "acoustic", "tribute": "tribute", "tribyut": "tribute",
    "cover": "covers", "covers": "covers", "covered": "covers", "karaoke": "karaoke",
    "lullaby": "lullaby", "instrumental": "instrumental", "instrumentals": "instrumental",
    "instrumentalnyy": "instrumental", "cappella": "a cappella", "acapella": "a cappella",
    "remix": "remixes", "remixes": "remixes", "remixed": "remixes", "mixes": "remixes",
    "mix": "remixes", "dub": "dub", "megamix": "remixes", "mashup": "remixes",
    "slowed": "slowed", "nightcore": "nightcore", "8d": "8D", "reverb": "slowed", "mono": "mono",
    "rerecorded": "re-recorded", "commentary": "commentary", "interview": "interview",
    "promo": "promo", "sampler": "sampler", "clean": "clean", "edited": "clean",
}  # fmt: skip
# Several words that say what one of them would not.
PHRASES = {
    "in the style of": "tribute", "made famous by": "tribute", "string quartet": "tribute",
    "sped up": "slowed", "re recorded": "re-recorded", "dj mix": "DJ mix",
}  # fmt: skip

CONTAINER = _words(
    "discography discografia discographie diskografiya complete collection kollektsiya anthology "
    "box boxset 2in1 3in1"
)
COUNTED = _words("albums album albomov alboma releases cds lps")
# Nothing that a file of audio would be taken out of.
NOT_AUDIO = _words(
    "1080p 720p 2160p 480p x264 x265 h264 h265 hevc bluray bdrip dvdrip brrip hdtv webdl mkv avi "
    "mp4 iso dts mlp dvda dvd audiobook audiobooks ebook pdf sacd"
)
SURROUND = ("5 1", "7 1", "dvd audio")

CYRILLIC = {
    "а": "a", "б": "b", "в": "v", "г": "g", "д": "d", "е": "e", "ё": "e", "ж": "zh", "з": "z",
    "и": "i", "й": "y", "к": "k", "л": "l", "м": "m", "н": "n", "о": "o", "п": "p", "р": "r",
    "с": "s", "т": "t", "у": "u", "ф": "f", "х": "kh", "ц": "ts", "ч": "ch", "ш": "sh",
    "щ": "shch", "ъ": "", "ы": "y", "ь": "", "э": "e", "ю": "yu", "я": "ya",
}  # fmt: skip
