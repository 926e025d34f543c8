"""The caller of a route, by an API key; every route needs one.

There is one key so far, BOOTSTRAP_ADMIN_KEY. With `X-User-Id` its bearer acts for that user, under
that user's limits, as the catalog server does for its users.
"""

from __future__ import annotations

import hmac
from dataclasses import dataclass

from starlette.requests import Request

from services.ingest.limits import Caller
from shared.errors import InvalidRequest, Refused
from shared.untrusted import ADMINISTRATOR, user


class NotAuthenticated(Refused):
    """No API key, or an unknown one."""


class NotAllowed(Refused):
    """The key is known, but may not do this."""


@dataclass(frozen=True, kw_only=True)
class Principal:
    """The caller of a route. `acting_for` is the user in X-User-Id, if any."""

    acting_for: str | None

    @property
    def caller(self) -> Caller:
        """The caller as a requester: a user has limits, the administrator has none."""
        if self.acting_for is None:
            return Caller(user_id=ADMINISTRATOR, unlimited=True)
        return Caller(user_id=self.acting_for, unlimited=False)

    @property
    def name(self) -> str:
        """The caller's user id."""
        return self.acting_for or ADMINISTRATOR

    @property
    def sees_only(self) -> str | None:
        """The user whose items this caller may see; None: all users'."""
        return self.acting_for


class Keys:
    """The known API keys."""

    def __init__(self, admin_key: str | None) -> None:
        self._admin_key = admin_key.encode() if admin_key else None

    def principal(self, request: Request) -> Principal:
        """The caller of this request.

        Raises:
            NotAuthenticated: there is no key, or an unknown one.
            InvalidRequest: X-User-Id is not usable, or one of the two headers is doubled.
        """
        for name in ("Authorization", "X-User-Id"):
            # A proxy in between may read another one than we do.
            if len(request.headers.getlist(name)) > 1:
                raise InvalidRequest(f"{name} is given twice: send it once")
        scheme, _, key = request.headers.get("authorization", "").partition(" ")
        if scheme.lower() != "bearer" or not key.strip():
            raise NotAuthenticated("send an API key: 'Authorization: Bearer <key>'")
        known = self._admin_key
        # Starlette reads headers as Latin-1: this gives back the bytes that were sent.
        if known is None or not hmac.compare_digest(key.strip().encode("latin-1"), known):
            raise NotAuthenticated("this API key is not known; BOOTSTRAP_ADMIN_KEY sets one")
        return Principal(acting_for=self._acting_for(request))

    def admin(self, request: Request) -> Principal:
        """The caller of an administrator's route.

        Raises:
            NotAuthenticated, InvalidRequest: as `principal`.
            NotAllowed: the caller acts for a user.
        """
        principal = self.principal(request)
        if principal.acting_for is not None:
            raise NotAllowed("this is for administrators; leave X-User-Id out")
        return principal

    @staticmethod
    def _acting_for(request: Request) -> str | None:
        user_ids = request.headers.getlist("x-user-id")
        return user(user_ids[0], what="X-User-Id") if user_ids else None
