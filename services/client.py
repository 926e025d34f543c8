"""The HTTP API as the command line and `make run` use it."""

from __future__ import annotations

from typing import Any, TypeAlias

import httpx

Json: TypeAlias = dict[str, Any]

_TIMEOUT_S = 60


class ApiError(Exception):
    """The API refused or could not be reached; the text is for people."""


class ApiClient:
    """A thin client of ingest."""

    def __init__(self, base_url: str, api_key: str) -> None:
        self._http = httpx.AsyncClient(
            base_url=base_url,
            headers={"Authorization": f"Bearer {api_key}"},
            timeout=_TIMEOUT_S,
            trust_env=False,
        )

    async def get(self, path: str, **params: str | int) -> Json:
        """A GET below /v1/download.

        Raises:
            ApiError: it was refused, or nobody answered.
        """
        return await self._send("GET", path, params=params)

    async def post(self, path: str, body: Json | None = None) -> Json:
        """A POST below /v1/download, with a JSON body if one is given.

        Raises:
            ApiError: it was refused, or nobody answered.
        """
        return await self._send("POST", path, body=body)

    async def delete(self, path: str, **params: str | int) -> Json:
        """A DELETE below /v1/download.

        Raises:
            ApiError: it was refused, or nobody answered.
        """
        return await self._send("DELETE", path, params=params)

    async def _send(
        self,
        method: str,
        path: str,
        *,
        params: dict[str, str | int] | None = None,
        body: Json | None = None,
    ) -> Json:
        try:
            answer = await self._http.request(
                method, f"/v1/download/{path}", params=params, json=body
            )
        except httpx.HTTPError as error:
            raise ApiError(
                f"{self._http.base_url} does not answer ({error!r}); is ingest running there?"
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
