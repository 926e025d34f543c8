"""Bodies of `POST /tickets` that the real server takes, and that it refuses."""

from __future__ import annotations

from tests.support.standin_helpers import JSON, body

CONTEXT = {"tags": [], "description": "x"}

WRONG_SHAPES: list[object] = [
    {},
    [],
    {"dest_path": "/x"},
    {"query_context": CONTEXT},
    {"query_context": {"tags": []}, "dest_path": "/x"},
    {"query_context": {"description": "x"}, "dest_path": "/x"},
    {"query_context": {"tags": ["a", None], "description": "x"}, "dest_path": "/x"},
    {"query_context": {"tags": "a", "description": "x"}, "dest_path": "/x"},
    {"query_context": {"tags": [], "description": None}, "dest_path": "/x"},
    {"query_context": CONTEXT, "dest_path": None},
    {"query_context": CONTEXT, "dest_path": 5},
    body(priority=-1),
    body(priority=65536),
    body(priority=1.5),
    body(priority="high"),
    body(priority=True),
    body(output_constraints={"type": "audio"}),
    body(output_constraints={"type": "audio", "format": "FLAC"}),
    body(output_constraints={"type": "cassette"}),
    body(query_context={**CONTEXT, "expected": {"type": "album", "title": "x"}}),
    body(query_context={**CONTEXT, "expected": {"type": "podcast", "title": "x"}}),
    body(query_context={**CONTEXT, "expected": {"title": "x"}}),
    body(query_context={**CONTEXT, "catalog_reference": {"type": "musicbrainz"}}),
]

EXPECTATIONS: list[JSON] = [
    {"type": "track", "artist": "Radiohead", "title": "Paranoid Android"},
    {"type": "track", "title": "Paranoid Android"},
    {
        "type": "album",
        "artist": "Pink Floyd",
        "title": "The Wall",
        "tracks": [{"number": 1, "title": "In the Flesh?", "duration_ms": 195000}],
    },
    {"type": "movie", "title": "Metropolis", "year": 1927},
    {"type": "tv_episode", "series": "S", "season": 1, "episodes": [1, 2]},
]
