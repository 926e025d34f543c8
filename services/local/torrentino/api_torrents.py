"""The handlers of `/torrents` and `/catalog` (reference, 1.4 and 1.5)."""

from __future__ import annotations

import asyncio
from http import HTTPStatus

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from services.local.torrentino.bodies import error, integer, refusal, required
from services.local.torrentino.core import Core
from services.local.torrentino.links import Magnet, magnet_link, read_magnet
from services.local.torrentino.offers import Offer, unknown_offer
from services.local.torrentino.routing import api_route
from services.local.torrentino.schema import AddBody, LimitBody, MagnetBody, UrlBody
from services.local.torrentino.search import LinkFailed
from services.local.torrentino.torrent import Torrent
from services.local.torrentino.torrents import ByHand, ClientError

_TORRENT_STATES = frozenset(
    {"downloading", "seeding", "paused", "checking", "queued", "stalled", "error", "unknown"}
)
_NO_MAGNET = "API error: Failed to add torrent: provided path is not a valid magnet URL"
_NO_TORRENT = "API error: Failed to add torrent: error decoding torrent"


class TorrentApi:
    """The routes of the torrent client and of the search catalog."""

    def __init__(self, core: Core) -> None:
        self._core = core
        self._adding: Torrent | None = None

    def routes(self) -> list[Route]:
        return [
            api_route("/torrents", GET=self.torrents),
            api_route("/torrents/status", GET=self.torrent_client),
            api_route("/torrents/add/magnet", POST=self.add_magnet),
            api_route("/torrents/add/url", POST=self.add_url),
            api_route("/torrents/{hash}", GET=self.torrent, DELETE=self.remove_torrent),
            api_route("/torrents/{hash}/pause", POST=self.pause),
            api_route("/torrents/{hash}/resume", POST=self.resume),
            api_route("/torrents/{hash}/upload-limit", POST=self.limit),
            api_route("/torrents/{hash}/download-limit", POST=self.limit),
            api_route("/catalog", GET=self.catalog, DELETE=self.clear_catalog),
            api_route("/catalog/stats", GET=self.catalog_stats),
            api_route("/catalog/{hash}", GET=self.entry, DELETE=self.remove_entry),
        ]

    async def torrent_client(self, _request: Request) -> Response:
        """`configured` follows the configuration, even while the client is unavailable."""
        configured = self._core.faults.client_configured
        backend = self._core.config.client if configured else "none"
        return JSONResponse({"backend": backend, "configured": configured})

    async def torrents(self, request: Request) -> Response:
        kind = request.query_params.get("state")
        if kind is not None and kind not in _TORRENT_STATES:
            raise refusal(400, f"Failed to deserialize query string: unknown variant `{kind}`")
        self._require("info")
        words = request.query_params.get("search", "").casefold()
        category = request.query_params.get("category")
        shown = [
            torrent.json()
            for torrent in self._core.torrents.every()
            if kind in {None, torrent.state}
            and words in torrent.name.casefold()
            and (not category or category == torrent.category)
        ]
        return JSONResponse({"torrents": shown, "count": len(shown)})

    async def torrent(self, request: Request) -> Response:
        info_hash: str = request.path_params["hash"]
        self._require("info")
        torrent = self._core.torrents.get(info_hash.lower())
        if torrent is None:
            raise error(404, f"Torrent not found: {info_hash}")
        return JSONResponse(torrent.json())

    async def add_magnet(self, request: Request) -> Response:
        """Any link with a hash is accepted; its metadata comes from the stand-in's torrents.

        qBittorrent also accepts a link without a hash, and answers at once; librqbit waits for
        the metadata first.
        """
        body = await required(request, MagnetBody)
        self._require("add")
        magnet = read_magnet(body.uri)
        if not magnet.info_hash:
            if self._core.config.client == "librqbit":
                raise error(500, _NO_MAGNET)
            return JSONResponse({"hash": ""})
        offer = self._core.torrents.offered(magnet.info_hash) or self._core.shelf.of_hash(
            magnet.info_hash
        )
        return await self._by_magnet(offer or unknown_offer(magnet.info_hash), body, magnet)

    async def add_url(self, request: Request) -> Response:
        """Fetch a .torrent, here without a connection; qBittorrent's answer has no hash.

        A link that leads to a magnet is treated as the magnet.
        """
        body = await required(request, UrlBody)
        self._require(None)
        try:
            offer = self._core.search.follow(body.url)
        except LinkFailed as exc:
            if exc.status is HTTPStatus.OK:
                raise error(500, _NO_TORRENT) from exc
            if exc.status is HTTPStatus.SERVICE_UNAVAILABLE:  # with the key
                text = f"Failed to fetch URL: error sending request for url ({body.url})"
                raise error(502, text) from exc
            raise error(502, f"URL returned status: {exc}") from exc
        if offer.redirects:
            return await self._by_magnet(offer, body, read_magnet(magnet_link(offer)))
        if self._core.config.client == "qbittorrent":
            self._add(offer, body, None)
            return JSONResponse({"hash": ""})
        return await self._by_rqbit(offer, body, None)

    async def remove_torrent(self, request: Request) -> Response:
        """`delete_files` removes what was saved below `StandinConfig.downloads`.

        With qBittorrent an unknown hash is no error.
        """
        info_hash: str = request.path_params["hash"]
        with_files = request.query_params.get("delete_files", "false")
        if with_files not in {"true", "false"}:
            text = "Failed to deserialize query string: provided string was not `true` or `false`"
            raise refusal(400, text)
        self._require("delete")
        there = self._core.torrents.remove(info_hash.lower(), with_files=with_files == "true")
        if not there and self._core.config.client == "librqbit":
            raise error(404, f"Torrent not found: {info_hash}")
        return JSONResponse({"message": "Torrent removed"})

    async def pause(self, request: Request) -> Response:
        return self._pause(request, paused=True)

    async def resume(self, request: Request) -> Response:
        return self._pause(request, paused=False)

    async def limit(self, request: Request) -> Response:
        """Accepted, without effect."""
        await required(request, LimitBody)
        self._known(request, "setUploadLimit")
        return JSONResponse({"message": "Limit set"})

    def _pause(self, request: Request, *, paused: bool) -> Response:
        torrent = self._known(request, "pause" if paused else "resume")
        if torrent is not None:
            torrent.paused = paused
        return JSONResponse({"message": f"Torrent {'paused' if paused else 'resumed'}"})

    def _known(self, request: Request, what: str) -> Torrent | None:
        """The torrent; None for an unknown hash, which is an error with librqbit only."""
        self._require(what)
        info_hash: str = request.path_params["hash"]
        torrent = self._core.torrents.get(info_hash.lower())
        if torrent is None and self._core.config.client == "librqbit":
            raise error(500, f"Torrent not found: {info_hash}")
        return torrent

    def _require(self, what: str | None) -> None:
        """Advance the client to now; with `what`, the client must be available for that call."""
        if not self._core.faults.client_configured:
            raise error(503, "Torrent client not configured")
        try:
            if what is not None:
                self._core.torrents.require(what)
        except ClientError as exc:
            raise error(500, str(exc)) from exc
        self._core.torrents.advance()

    def _add(self, offer: Offer, body: AddBody, magnet: Magnet | None) -> Torrent:
        how = ByHand(
            magnet=magnet,
            download_path=body.download_path,
            category=body.category,
            paused=body.paused,
        )
        try:
            return self._core.torrents.add_by_hand(offer, how)
        except ClientError as exc:
            raise error(500, str(exc)) from exc

    async def _by_magnet(self, offer: Offer, body: AddBody, magnet: Magnet) -> Response:
        if self._core.config.client == "qbittorrent":
            self._add(offer, body, magnet)
            return JSONResponse({"hash": magnet.info_hash})
        return await self._by_rqbit(offer, body, magnet)

    async def _by_rqbit(self, offer: Offer, body: AddBody, magnet: Magnet | None) -> Response:
        """Of two adds at once it mistakes the second for the first, and does not add it."""
        if self._adding is not None:
            return JSONResponse(_added(self._adding))
        self._adding = torrent = self._add(offer, body, magnet)
        try:
            if magnet is None:
                await asyncio.sleep(self._core.config.metadata_s)
            else:
                await self._resolved(torrent)
        finally:
            self._adding = None
        return JSONResponse(_added(torrent))

    async def _resolved(self, torrent: Torrent) -> None:
        """Wait for the metadata, with a timeout, as librqbit does."""
        config = self._core.config
        if not torrent.metadata:
            await asyncio.sleep(
                config.metadata_s if torrent.offer.seeded else config.magnet_timeout_s
            )
            self._core.torrents.advance()

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


def _added(torrent: Torrent) -> dict[str, object]:
    """librqbit's answer; it has the name once the metadata is known."""
    shown: dict[str, object] = {"hash": torrent.offer.info_hash}
    return shown | ({"name": torrent.name} if torrent.metadata else {})


def _not_cached(request: Request) -> Exception:
    return error(404, f"Torrent not found in catalog: {request.path_params['hash']}")
