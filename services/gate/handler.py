"""The gate itself: who may come in, what passes, and when it ends."""

from __future__ import annotations

import json
import logging
import re
import time
from typing import Any
from urllib.parse import unquote, urlsplit

import aiohttp
from jupyterhub.services.auth import HubOAuthCallbackHandler, HubOAuthenticated
from tornado import httputil, web
from tornado.websocket import WebSocketHandler

from labkit.relay import credentials, origin
from labkit.relay.relay import Relay
from labkit.relay.upstream import HOP_BY_HOP, named_in_connection
from labkit.relay.websockets import WebSocketRelay
from services.gate import headers, pages
from services.gate.app_registry import AppRegistry, AppRoute
from services.gate.config import App
from services.gate.identity import HubAwayError, Person

log = logging.getLogger("labhub.gate")

_SLASHES = re.compile(r"[/\\]")
_GLANCE = 1.5  # seconds that a page waits before it is shown as starting
_METHODS = (*web.RequestHandler.SUPPORTED_METHODS, "PROPFIND", "PROPPATCH", "MKCOL", "COPY")
_METHODS = (*_METHODS, "MOVE", "LOCK", "UNLOCK", "REPORT")


class _Behind(HubOAuthenticated, web.RequestHandler):
    """What every handler of one app knows."""

    route: AppRoute

    def find(self, registry: AppRegistry) -> None:
        """Find the app that is asked for, on its own origin.

        Raises
        ------
        tornado.web.HTTPError
            There is none there.
        """
        name = self.request.path.split("/", 3)[2]
        route = registry.get(name)
        if route is None:
            raise web.HTTPError(404, "There is no such app")
        self.route = route
        self.hub_auth = route.identity.oauth
        host = self.request.headers.get("Host", "")
        self.inside = host == registry.portal.internal_host
        if host != route.app.host and not self.inside:
            raise web.HTTPError(421, "This app has another address")

    @property
    def app(self) -> App:
        """Which app."""
        return self.route.app

    def check_xsrf_cookie(self) -> None:
        """Leave it to `origin.is_foreign`: the app's own pages know nothing of the hub's."""

    def compute_etag(self) -> None:
        """Leave it to the app."""

    def log_exception(self, typ: Any, value: Any, tb: Any) -> None:
        """Log a refusal in one line, without the query, which may have a token."""
        if isinstance(value, web.HTTPError):
            log.info("%s %s: %s", self.request.method, self.request.path, value.status_code)
        else:
            super().log_exception(typ, value, tb)

    def write_error(self, status_code: int, **kwargs: Any) -> None:
        """Write the gate's own page for an error."""
        error = (kwargs.get("exc_info") or (None, None))[1]
        text = error.log_message if isinstance(error, web.HTTPError) else None
        pages.refuse(self, status_code, text or "", getattr(self, "route", None))


class Gate(WebSocketRelay, Relay, _Behind, WebSocketHandler):
    """Every request to an app, over HTTP and WebSocket."""

    SUPPORTED_METHODS = _METHODS  # type: ignore[assignment]
    person: Person | None = None

    def initialize(self, registry: AppRegistry) -> None:
        """Remember the apps."""
        self.registry = registry

    # -- who may come in --------------------------------------------------------------

    async def prepare(self) -> None:
        """Let in who may open the app; for everybody else the request ends here.

        A refusal waits for the body: one that closes the connection while a proxy in front
        still sends would be lost, and a 503 would take its place.
        """
        if self._is_knock():
            self.set_status(204)
            self.finish()
            return
        try:
            await self._admit()
        except web.HTTPError as error:
            if self.is_websocket or not self.has_body:
                raise
            self.begin_ignoring(error)

    def _is_knock(self) -> bool:
        """Return whether the hub looks, as it does each minute, if anybody is here.

        It asks by the gate's own address, under which there is no app: it gets an empty answer.
        """
        request = self.request
        route = self.registry.get(request.path.split("/", 3)[2])
        return (
            route is not None
            and request.path == route.app.prefix
            and request.method == "GET"
            and not self.is_websocket
            and not self.has_body
            and request.headers.get("Host") == f"127.0.0.1:{self.registry.portal.port}"
            # Without root the people's servers come by this address, too: with who they are.
            and not {"Authorization", "Cookie"} & set(request.headers)
        )

    async def _admit(self) -> None:
        self.find(self.registry)
        if not self.request.path.startswith(self.app.prefix):
            # The gate's cookie is not sent there, so a login would never end.
            query = f"?{self.request.query}" if self.request.query else ""
            self.redirect(f"{self.app.prefix}{query}")
            return
        # Some apps decode a path before they take it apart.
        if {".", ".."} & set(_SLASHES.split(unquote(self.request.path))):
            raise web.HTTPError(400, "An address has no dots for folders")
        try:
            person = await self.route.identity.person(self)
            self._tokens = await self._hub_tokens(person)
        except HubAwayError:
            raise web.HTTPError(503, "hub-away") from None
        if person is None:
            self._to_login()
            return
        if not person.allowed:
            raise web.HTTPError(403, "not-allowed")
        if person.by_cookie and (
            self.inside
            or origin.is_foreign(
                self.request.headers,
                self.request.method or "",
                self.app.origin,
                websocket=self.is_websocket,
            )
        ):
            raise web.HTTPError(403, "foreign")
        self.person = person
        self.current_user = person.model
        self.accept()
        self.route.enter(self)
        if not self.is_websocket:
            self.begin_upload()

    async def _hub_tokens(self, person: Person | None) -> set[str]:
        """Return the hub's tokens in this request: none of them is the app's business."""
        tokens = {person.token} if person else set()
        for value in self.request.query_arguments.get("token", [])[:1]:
            named = value.decode("utf-8", "replace")
            if person and await self.route.identity.model(named) is not None:
                tokens.add(named)
        return tokens

    def _to_login(self) -> None:
        if (
            self.request.method in ("GET", "HEAD")
            and not self.is_websocket
            and not self.inside
            and pages.is_page(self.request)
        ):
            self.redirect(self.get_login_url())
            return
        raise web.HTTPError(403, "login")

    def on_finish(self) -> None:
        """Forget the request; also a WebSocket that was not let in."""
        if self.person is not None and self.ws_connection is None:
            self.route.leave(self)

    def on_connection_close(self) -> None:
        """Forget the request when the browser has gone."""
        super().on_connection_close()
        if self.person is not None:
            self.route.leave(self)

    def revoke(self) -> None:
        """End what is open: this person may no longer."""
        log.info("%s: %s is out", self.app.name, (self.person or self.current_user))
        if self.ws_connection is not None:
            self.close(1008, "You may no longer open this app")
            return
        if self._exchange is not None:
            self._client_gone = True  # an end that is ours
            self._exchange.cancel()
        if self.request.connection is not None:
            self.request.connection.close()  # type: ignore[attr-defined]

    # -- what passes ------------------------------------------------------------------

    async def _pass(self, *_: Any) -> None:
        """Pass a request on; the first one to an app that is stopped starts it."""
        if self._late is not None:
            raise self._late
        page = pages.is_page(self.request) and self.request.method == "GET"
        upstream = self.route.upstream
        for last in (False, True):
            patience = _GLANCE if page else self.app.start_timeout + 1
            if not await upstream.ready(patience):
                pages.not_ready(self, self.route, self.current_user.get("admin") is True)
                return
            try:
                uri = upstream.url(self._path())
                with upstream.busy():
                    await self.exchange(upstream.session, uri, self._to_app(), self._hop_by_hop)
                return
            except (aiohttp.ClientConnectorError, FileNotFoundError):
                upstream.lost()  # it was not asked yet, so it can be asked again
                if last:
                    raise web.HTTPError(502, "app") from None
            except aiohttp.ClientError as error:
                upstream.lost()
                log.warning("%s %s: %s", self.request.method, self.request.path, error)
                raise web.HTTPError(502, "app") from None

    head = post = put = patch = delete = options = _pass  # type: ignore[assignment]
    propfind = proppatch = mkcol = copy = move = lock = unlock = report = _pass

    @property
    def _hop_by_hop(self) -> frozenset[str]:
        return HOP_BY_HOP | named_in_connection(self.request.headers)

    def _path(self) -> str:
        """Return the path for the app, with its query, byte for byte but for hub tokens."""
        parts = urlsplit(f"http://gate{self.request.uri}")
        path = parts.path
        if self.app.strip_prefix:
            path = path[len(self.app.prefix) - 1 :]
        query = credentials.strip_query(parts.query, self._tokens)
        return f"{path}?{query}" if query else path

    def _to_app(self) -> httputil.HTTPHeaders:
        route = self.route
        return headers.to_app(
            self.request.headers,
            route.app,
            self.current_user,
            secret=route.upstream.secret,
            tokens=self._tokens,
            app_made=lambda cookie: route.cookies.made(route.app.name, cookie),
        )

    def confine_header(self, name: str, value: str) -> str | None:
        """Return a header of the app's answer, within the app's prefix."""
        cookies, app = self.route.cookies, self.app
        path = urlsplit(self._path()).path
        return headers.from_app(
            name, value, app, path, lambda cookie: cookies.remember(app.name, cookie)
        )

    def complete_headers(self) -> None:
        """Keep other pages from framing the app, unless it says who may."""
        policy = self._headers.get("Content-Security-Policy", "")
        if "X-Frame-Options" not in self._headers and "frame-ancestors" not in policy:
            self._headers["X-Frame-Options"] = "SAMEORIGIN"

    def record_use(self) -> None:
        """Note that the app was used; what it sends to an open page is use, too."""
        self.route.upstream.use()

    def broke_off(self, error: Exception) -> None:
        """Log that the app did not finish its answer."""
        log.warning("%s broke off its answer to %s: %s", self.app.name, self.request.path, error)

    # -- WebSockets -------------------------------------------------------------------

    async def get(self, *args: Any, **kwargs: Any) -> None:
        """Answer a GET; for a WebSocket call the app first, so that its refusal is seen."""
        if not self.is_websocket:
            await self._pass()
            return
        upstream = self.route.upstream
        if not await upstream.ready(self.app.start_timeout + 1):
            raise web.HTTPError(503, "app")
        try:
            await self.dial(upstream.session, upstream.url(self._path()), self._to_app())
        except (aiohttp.ClientError, OSError):
            upstream.lost()
            raise web.HTTPError(502, "app") from None
        await self.let_in(*args, **kwargs)

    def check_origin(self, origin: str) -> bool:  # noqa: ARG002 - tornado's signature
        """Leave it to `prepare`, which has looked already."""
        return True

    def on_close(self) -> None:
        """Hang up at the app, and forget the connection."""
        super().on_close()
        if self.person is not None:
            self.route.leave(self)


class Callback(_Behind, HubOAuthCallbackHandler):
    """The end of a login: the hub sends people here."""

    def initialize(self, registry: AppRegistry) -> None:
        """Remember the apps."""
        self.registry = registry

    async def prepare(self) -> None:
        """Find the app, and who is logged in there already."""
        self.find(self.registry)
        try:
            person = await self.route.identity.person(self)
        except HubAwayError:
            raise web.HTTPError(503, "hub-away") from None
        self.current_user = person.model if person and person.allowed else None

    def redirect(self, url: str, *args: Any, **kwargs: Any) -> None:
        """Open the app; what it gave to whoever was here before goes."""
        if self.current_user is None:
            own = f"service-{self.app.name}"
            for name in self.request.cookies:
                for path in (self.app.prefix, self.app.prefix.rstrip("/")):
                    if not credentials.is_own_cookie(name, own):
                        # Tornado keeps one cookie of a name, whatever the paths are.
                        self.add_header("Set-Cookie", f"{name}=; Path={path}; Max-Age=0")
        super().redirect(url, *args, **kwargs)


class _OwnAnswer(_Behind):
    """What the gate itself answers to who may open the app; it is no use of the app."""

    person: Person

    def initialize(self, registry: AppRegistry) -> None:
        """Remember the apps."""
        self.registry = registry

    async def prepare(self) -> None:
        """Let in who may open the app."""
        self.find(self.registry)
        try:
            person = await self.route.identity.person(self)
        except HubAwayError:
            raise web.HTTPError(503, "hub-away") from None
        if person is None or not person.allowed:
            raise web.HTTPError(403, "login")
        self.person = person
        self.set_header("Cache-Control", "no-store")


class State(_OwnAnswer):
    """What the starting page asks, until the app is ready."""

    def get(self) -> None:
        """Answer with the app's state."""
        upstream = self.route.upstream
        self.write({"state": upstream.state, "reason": upstream.reason})


class Messages(_OwnAnswer):
    """What the administrators say to whoever looks at the app."""

    def get(self) -> None:
        """Answer with a list of messages."""
        groups = self.person.model.get("groups") or ()
        self.set_header("Content-Type", "application/json")
        self.finish(json.dumps(self.registry.messages.shown(groups, time.time())))
