"""Who asks, by the hub's own word, which is believed for a few seconds and no longer."""

from __future__ import annotations

import asyncio
import hashlib
import re
import time
from dataclasses import dataclass
from typing import Any

from jupyterhub.services.auth import HubOAuth, check_scopes
from tornado import web

from services.gate import keys
from services.gate.config import App, Portal

FRESH = 10.0  # seconds for which the hub's answer is taken without asking again
STALE = 30.0  # and at most while the hub does not answer
_KEPT = 4096

_HEADER = re.compile(r"(?:token|bearer)\s+(\S+)\s*$", re.IGNORECASE)


class HubAwayError(Exception):
    """The hub does not answer: nobody can be told from anybody."""


@dataclass(frozen=True)
class Person:
    """Who asks, and how they showed it.

    Attributes
    ----------
    model : dict
        The hub's: name, groups, admin, scopes.
    token : str
        Their token.
    session : str
        The browser's session at the hub; a logout ends it.
    by_cookie : bool
        A browser sent it by itself: the request may be a stranger's idea.
    allowed : bool
        They may open this app.
    """

    model: dict[str, Any]
    token: str
    session: str
    by_cookie: bool
    allowed: bool

    def __repr__(self) -> str:
        return f"Person({self.model.get('name')!r})"  # without the token


class Identity:
    """The people of one app.

    Parameters
    ----------
    app : App
        Which app.
    portal : Portal
        Where the hub is.
    key : str
        The gate's key.
    """

    def __init__(self, app: App, portal: Portal, key: str) -> None:
        self.app = app
        self.scope = f"access:services!service={app.name}"
        host = portal.url if portal.own_origins else ""
        callback = f"{app.prefix}oauth_callback"
        self.oauth = HubOAuth(
            api_url=f"{portal.hub_url}/api",
            api_token=keys.derived(key, keys.HUB_TOKEN, app.name),
            base_url=app.prefix,
            hub_host=host,
            hub_prefix="/hub/",
            oauth_client_id=f"service-{app.name}",
            oauth_redirect_uri=f"{app.origin}{callback}" if host else callback,
            access_scopes={self.scope},
            # Of its own origin alone: no page beside it can set a cookie of this name.
            cookie_host_prefix_enabled=portal.own_origins and app.scheme == "https",
            cookie_options={"samesite": "Lax", "secure": app.scheme == "https"},
        )
        self._known: dict[str, tuple[float, dict[str, Any] | None]] = {}
        self._asking: dict[str, asyncio.Task[dict[str, Any] | None]] = {}

    async def person(self, handler: web.RequestHandler) -> Person | None:
        """Return who sends a request; None where nobody is named, or nobody known.

        A token in the ``Authorization`` header goes before the cookie. One that the hub does
        not know may be the app's own, and says nothing.

        Raises
        ------
        HubAwayError
            The hub cannot be asked.
        """
        session = self.oauth.get_session_id(handler)
        header = _HEADER.match(handler.request.headers.get("Authorization", ""))
        if header:
            model = await self.model(header[1], session)
            if model is not None:
                return self._person(model, header[1], session, by_cookie=False)
        value = handler.get_secure_cookie(self.oauth.cookie_name)
        if value:
            token = value.decode("ascii", "replace")
            model = await self.model(token, session)
            if model is not None:
                return self._person(model, token, session, by_cookie=True)
        return None

    async def still(self, person: Person) -> Person | None:
        """Ask again about somebody whose connection is open; None: they are out."""
        model = await self.model(person.token, person.session)
        if model is None or model.get("name") != person.model.get("name"):
            return None
        again = self._person(model, person.token, person.session, by_cookie=person.by_cookie)
        return again if again.allowed else None

    def _person(self, model: dict[str, Any], token: str, session: str, by_cookie: bool) -> Person:
        # Services of the hub are no people.
        allowed = model.get("kind", "user") == "user" and bool(
            check_scopes({self.scope}, set(model.get("scopes") or ()))
        )
        return Person(model, token, session, by_cookie, allowed)

    async def model(self, token: str, session: str = "") -> dict[str, Any] | None:
        """Return the hub's model of a token's owner, None where it knows no such token.

        Raises
        ------
        HubAwayError
            The hub cannot be asked.
        """
        key = hashlib.sha256(f"{session}\0{token}".encode("utf-8", "replace")).hexdigest()
        now = time.monotonic()
        known = self._known.get(key)
        if known is not None and now - known[0] < FRESH:
            return known[1]
        task = self._asking.get(key)
        if task is None:
            task = self._asking[key] = asyncio.ensure_future(self._ask(token, session))
            task.add_done_callback(lambda _: self._asking.pop(key, None))
        try:
            model = await asyncio.shield(task)
        except (web.HTTPError, OSError, ValueError, TimeoutError) as error:
            if known is not None and now - known[0] < STALE:
                return known[1]
            raise HubAwayError(type(error).__name__) from None
        if len(self._known) >= _KEPT:
            oldest = sorted(self._known, key=lambda entry: self._known[entry][0])
            for entry in oldest[: _KEPT // 4]:
                del self._known[entry]
        self._known[key] = (time.monotonic(), model)
        return model

    async def _ask(self, token: str, session: str) -> dict[str, Any] | None:
        model: dict[str, Any] | None = await self.oauth.user_for_token(
            token, use_cache=False, session_id=session, sync=False
        )
        return model
