"""The handlers of `/torrents` and `/catalog` (reference, 1.4 and 1.5)."""

from __future__ import annotations

import re

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from shared.local.torrentino.bodies import error, integer, refusal, required
from shared.local.torrentino.core import Core
from shared.local.torrentino.offers import unknown_offer
from shared.local.torrentino.routing import api_route
from shared.local.torrentino.schema import MagnetBody

_TORRENT_STATES = frozenset(
    {"downloading", "seeding", "paused", "checking", "queued", "stalled", "error", "unknown"}
)
_BTIH = re.compile(r"[?&]xt=urn:btih:([0-9a-fA-F]{40})(?:&|$)")


class TorrentApi:
    """The torrent client as the server shows it, and what searches have seen."""

    def __init__(self, core: Core) -> None:
        self._core = core

    def routes(self) -> list[Route]:
        return [
            api_route("/torrents", GET=self.torrents),
            api_route("/torrents/status", GET=self.torrent_client),
            api_route("/torrents/add/magnet", POST=self.add_magnet),
            api_route("/torrents/{hash}", GET=self.torrent, DELETE=self.remove_torrent),
            api_route("/torrents/{hash}/pause", POST=self.pause),
            api_route("/torrents/{hash}/resume", POST=self.resume),
            api_route("/catalog", GET=self.catalog, DELETE=self.clear_catalog),
            api_route("/catalog/stats", GET=self.catalog_stats),
            api_route("/catalog/{hash}", GET=self.entry, DELETE=self.remove_entry),
        ]

    async def torrent_client(self, _request: Request) -> Response:
        return JSONResponse({"backend": "qbittorrent", "configured": True})

    async def torrents(self, request: Request) -> Response:
        kind = request.query_params.get("state")
        if kind is not None and kind not in _TORRENT_STATES:
            raise refusal(400, f"Failed to deserialize query string: unknown variant `{kind}`")
        self._core.torrents.advance()
        words = request.query_params.get("search", "").casefold()
        category = request.query_params.get("category")
        shown = [
            torrent.json()
            for torrent in self._core.torrents.every()
            if kind in {None, torrent.state}
            and words in torrent.offer.name.casefold()
            and (not category or category == torrent.category)
        ]
        return JSONResponse({"torrents": shown, "count": len(shown)})

    async def torrent(self, request: Request) -> Response:
        info_hash: str = request.path_params["hash"]
        self._core.torrents.advance()
        torrent = self._core.torrents.get(info_hash)
        if torrent is None:
            raise error(404, f"Torrent not found: {info_hash}")
        return JSONResponse(torrent.json())

    async def add_magnet(self, request: Request) -> Response:
        """As with qBittorrent: any link is taken, and the hash is the link's, or empty.

        Known hashes are those that a search has found; another one never gets its metadata.
        """
        body = await required(request, MagnetBody)
        found = _BTIH.search(body.uri)
        info_hash = found[1].lower() if found else ""
        if info_hash:
            offer = self._core.torrents.offered(info_hash) or unknown_offer(info_hash)
            self._core.torrents.add_by_hand(
                offer, save_path=body.download_path, category=body.category, paused=body.paused
            )
        return JSONResponse({"hash": info_hash})

    async def remove_torrent(self, request: Request) -> Response:
        """`delete_files` removes what was saved below `StandinConfig.downloads`."""
        info_hash: str = request.path_params["hash"]
        with_files = request.query_params.get("delete_files", "false")
        if with_files not in {"true", "false"}:
            text = "Failed to deserialize query string: provided string was not `true` or `false`"
            raise refusal(400, text)
        if not self._core.torrents.remove(info_hash, with_files=with_files == "true"):
            raise error(404, f"Torrent not found: {info_hash}")
        return JSONResponse({"message": "Torrent removed"})

    async def pause(self, request: Request) -> Response:
        return self._pause(request, paused=True)

    async def resume(self, request: Request) -> Response:
        return self._pause(request, paused=False)

    def _pause(self, request: Request, *, paused: bool) -> Response:
        """An unknown hash makes no difference, as with qBittorrent."""
        self._core.torrents.advance()
        torrent = self._core.torrents.get(request.path_params["hash"])
        if torrent is not None:
            torrent.paused = paused
        return JSONResponse({"message": f"Torrent {'paused' if paused else 'resumed'}"})

    async def catalog(self, request: Request) -> Response:
        limit = max(integer(request, "limit", 100), 0)
        entries = self._core.catalog.query(request.query_params.get("query", ""))[:limit]
        return JSONResponse({"entries": entries, "total": len(entries)})

    async def catalog_stats(self, _request: Request) -> Response:
        return JSONResponse(self._core.catalog.stats())

    async def entry(self, request: Request) -> Response:
        found = self._core.catalog.get(request.path_params["hash"])
        if found is None:
            raise _not_cached(request)
        return JSONResponse(found)

    async def remove_entry(self, request: Request) -> Response:
        if not self._core.catalog.remove(request.path_params["hash"]):
            raise _not_cached(request)
        return JSONResponse({"message": "Torrent removed from catalog"})

    async def clear_catalog(self, _request: Request) -> Response:
        self._core.catalog.clear()
        return JSONResponse({"message": "Catalog cleared"})


def _not_cached(request: Request) -> Exception:
    return error(404, f"Torrent not found in catalog: {request.path_params['hash']}")
