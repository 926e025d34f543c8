"""A client of the HTTP API, for the command line and `make run`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeAlias
from urllib.parse import quote

import httpx

from shared.errors import DownloadsError

Json: TypeAlias = dict[str, Any]

_TIMEOUT_S = 60


class ApiError(DownloadsError):
    """The API refused the request; the text says why."""


class NoAnswer(ApiError):
    """The API cannot be reached."""


class ApiClient:
    """A thin client of ingest."""

    def __init__(self, base_url: str, api_key: str) -> None:
        self._http = httpx.AsyncClient(
            base_url=base_url,
            headers={"Authorization": f"Bearer {api_key}"},
            timeout=_TIMEOUT_S,
            # Reading the machine's certificates takes a while.
            verify=base_url.startswith("https"),
            trust_env=False,
        )

    async def get(self, route: str, *ids: str, **params: str | int) -> Json:
        """A GET of a route below /v1/download, followed by ids, which are quoted.

        Raises:
            ApiError: it was refused.
            NoAnswer: the API cannot be reached.
        """
        return await self._send("GET", route, ids, params=params)

    async def post(self, route: str, *ids: str, body: Json | None = None) -> Json:
        """A POST to such a route, with a JSON body if one is given.

        Raises:
            ApiError: it was refused.
            NoAnswer: the API cannot be reached.
        """
        return await self._send("POST", route, ids, body=body)

    async def delete(self, route: str, *ids: str, **params: str | int) -> Json:
        """A DELETE of such a route.

        Raises:
            ApiError: it was refused.
            NoAnswer: the API cannot be reached.
        """
        return await self._send("DELETE", route, ids, params=params)

    async def _send(
        self,
        method: str,
        route: str,
        ids: Sequence[str],
        *,
        params: dict[str, str | int] | None = None,
        body: Json | None = None,
    ) -> Json:
        # An id with a slash would lead to another route.
        path = "/".join(["/v1/download", route, *(quote(each, safe="") for each in ids)])
        try:
            answer = await self._http.request(method, path, params=params, json=body)
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            raise NoAnswer(
                f"{self._http.base_url} does not answer ({str(error) or repr(error)});"
                " is ingest running there?"
            ) from error
        try:
            value: Json = answer.json()
        except ValueError as error:
            raise ApiError(f"{answer.url} answered {answer.status_code}, not JSON") from error
        if answer.is_error:
            raise ApiError(f"{value.get('title')}: {value.get('detail')}")
        return value

    async def close(self) -> None:
        """Close the connections."""
        await self._http.aclose()
