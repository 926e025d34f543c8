"""The handlers of `/search`, `/searcher` and the links in their answers (reference, 1.5)."""

from __future__ import annotations

import time
from http import HTTPStatus
from typing import Final

from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, Response
from starlette.routing import Route

from services.local.torrentino.bodies import error, required
from services.local.torrentino.core import Core
from services.local.torrentino.gate import PAGE
from services.local.torrentino.links import magnet_link, torrent_file
from services.local.torrentino.routing import api_route, route
from services.local.torrentino.schema import SearchBody
from services.local.torrentino.search import Candidate, LinkFailed, Search, SearchFailed

_LIMIT: Final = 100
_UNCONFIGURED = "Search backend not configured"


class SearchApi:
    """The routes of the indexers."""

    def __init__(self, core: Core) -> None:
        self._core = core

    @property
    def _search(self) -> Search:
        return self._core.search

    def routes(self) -> list[Route]:
        """The routes under the API's prefix."""
        return [
            api_route("/search", POST=self.search),
            api_route("/searcher/status", GET=self.status),
            api_route("/searcher/indexers", GET=self.indexers),
        ]

    def root_routes(self) -> list[Route]:
        """An indexer's own route, outside the API."""
        return [route("/dl/{name}", GET=self.download)]

    async def search(self, request: Request) -> Response:
        """Ask the indexers, the cache, or both; the indexers' answers come first."""
        started = time.monotonic()
        body = await required(request, SearchBody)
        configured = self._core.faults.searcher_configured
        if not configured and body.mode != "cache_only":
            raise error(503, _UNCONFIGURED)
        asked = self._ask(request, body) if body.mode != "cache_only" else []
        known = {each.info_hash for each in asked}
        cached = self._search.cached(body.query) if body.mode != "external_only" else []
        both = [*asked, *(each for each in cached if each.info_hash not in known)]
        limit = _LIMIT if body.limit is None else body.limit
        shown = sorted(both, key=lambda each: -each.seeders)[:limit]
        hits = sum(each.from_cache for each in shown)
        answer: dict[str, object] = {
            "query": body.model_dump(exclude_none=True, exclude={"mode"}),
            "candidates": [each.json() for each in shown],
            "duration_ms": int((time.monotonic() - started) * 1000),
            "cache_hits": hits,
            "external_hits": len(shown) - hits,
        }
        if body.mode != "cache_only" and self._core.faults.indexer_errors:
            answer["indexer_errors"] = self._core.faults.indexer_errors
        return JSONResponse(answer)

    async def status(self, _request: Request) -> Response:
        """`configured` follows the configuration, even while the indexers are unavailable."""
        faults = self._core.faults
        if not faults.searcher_configured:
            return JSONResponse(_status("none", count=0, configured=False))
        count = 0 if faults.searcher_away else len(self._core.shelf.indexers())
        return JSONResponse(_status("jackett", count=count, configured=True))

    async def indexers(self, _request: Request) -> Response:
        faults = self._core.faults
        if not faults.searcher_configured:
            raise error(503, _UNCONFIGURED)
        names = [] if faults.searcher_away else self._core.shelf.indexers()
        return JSONResponse({"indexers": [{"name": name, "enabled": True} for name in names]})

    async def download(self, request: Request) -> Response:
        """The .torrent behind a link; the link's key is required."""
        try:
            offer = self._search.follow(str(request.url))
        except LinkFailed as exc:
            if exc.status is HTTPStatus.OK:
                return HTMLResponse(PAGE)
            return Response(status_code=exc.status)
        if offer.redirects:
            return Response(status_code=302, headers={"Location": magnet_link(offer)})
        return Response(torrent_file(offer), media_type="application/x-bittorrent")

    def _ask(self, request: Request, body: SearchBody) -> list[Candidate]:
        self._core.searches.append(body.query)
        base = f"{request.url.scheme}://{request.url.netloc}"
        try:
            found = self._search.ask(body.query, base)
        except SearchFailed as exc:
            raise error(500, str(exc)) from exc
        music = body.categories is None or {"audio", "music"} & set(body.categories)
        return found if music else []


def _status(backend: str, *, count: int, configured: bool) -> dict[str, object]:
    return {
        "backend": backend,
        "configured": configured,
        "indexers_count": count,
        "indexers_enabled": count,
    }
