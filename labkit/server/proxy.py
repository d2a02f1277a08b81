"""The data plane of ``/proxy/PORT/``: jupyter-server-proxy's handlers, streaming both ways.

`streaming` puts the class below in front of a handler of jupyter-server-proxy. Addresses,
configuration, starting of processes and login stay that package's; what is replaced is how
bytes go to the app and come back.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from urllib.parse import SplitResult, urlsplit, urlunsplit

import aiohttp
from jupyter_server_proxy import handlers as stock
from jupyter_server_proxy.rawsocket import RawSocketHandler
from tornado import httputil, web

from labkit.relay import credentials, origin, unreachable
from labkit.relay.relay import Relay
from labkit.relay.upstream import HOP_BY_HOP, Upstreams, named_in_connection
from labkit.relay.websockets import StreamingWebSocket
from labkit.viewers import sockets

if TYPE_CHECKING:
    from jupyter_server.base.handlers import JupyterHandler

    _Base = JupyterHandler
else:
    _Base = object

# What `Streaming` replaces or calls; another structure of the package is not touched.
HOOKS = ("_proxy_buffered", "_proxy_progressive", "proxy_open", "_get_context_path")
_APP_COOKIES = "labkit_app_cookies"
UPSTREAMS = "labkit_upstreams"
# An app may not act on the origin that it shares with the server.
_REFUSED = frozenset({"clear-site-data"})


class Streaming(StreamingWebSocket, Relay, _Base):
    """Mixin before a proxy handler: the body streams to the app while it arrives, and back."""

    # -- the request ------------------------------------------------------------------

    async def prepare(self, *args: Any, **kwargs: Any) -> None:
        """Log in as ever, then begin the exchange with the app: the body may take long."""
        # Tornado reads the body by the headers that the stock handler deletes from.
        self.request.headers = self.request.headers.copy()
        self._hop_by_hop = HOP_BY_HOP | named_in_connection(self.request.headers)
        await super().prepare(*args, **kwargs)  # type: ignore[misc]
        if self._finished:
            return
        if self._is_foreign():
            raise web.HTTPError(403, "This request came from another page; open the app itself")
        if not self.is_websocket and self.request.method in ("GET", "HEAD") and self._lacks_slash():
            parts = urlsplit(self.request.uri or "")
            self.redirect(urlunsplit(parts._replace(path=parts.path + "/")))
            return
        self.accept()
        if not self.is_websocket:
            self.begin_upload()

    def _is_foreign(self) -> bool:
        """Whether a page of another origin sends this with the person's cookie.

        Jupyter Server's own proof (`_xsrf`) is not asked of apps: their pages know nothing of it.
        """
        if self.token_authenticated:
            return False
        # A proxy in front may end TLS without a word: the host decides.
        sender = urlsplit(self.request.headers.get("Origin", ""))
        own = f"{sender.scheme or self.request.protocol}://{self.request.host}"
        return origin.is_foreign(
            self.request.headers, self.request.method or "", own, websocket=self.is_websocket
        )

    def _lacks_slash(self) -> bool:
        # Relative links of the app would lead out of its prefix.
        return not self.path_args[-1] and not self.request.path.endswith("/")

    # -- what the app gets to see -----------------------------------------------------

    @property
    def upstreams(self) -> Upstreams:
        """The pool of connections to apps."""
        pool: Upstreams = self.settings.setdefault(UPSTREAMS, Upstreams())
        return pool

    @property
    def _app_cookies(self) -> credentials.AppCookies:
        known: credentials.AppCookies = self.settings.setdefault(
            _APP_COOKIES, credentials.AppCookies()
        )
        return known

    def _own_tokens(self) -> set[str]:
        """Return the tokens that mean something to this server or its hub."""
        own = {str(getattr(self.identity_provider, "token", "") or "")}
        if self.token_authenticated:
            own.add(credentials.token_in_header(self.request.headers.get("Authorization", "")))
            own.update(v.decode() for v in self.request.query_arguments.get("token", []))
        return own - {""}

    def _login_cookie(self) -> str:
        provider = self.identity_provider
        if hasattr(provider, "hub_auth"):
            return ""  # the hub's are known by their names
        return str(provider.get_cookie_name(self))

    def proxy_request_headers(self) -> httputil.HTTPHeaders:
        """Return the headers for the app: the browser's, without what is not the app's."""
        headers = self.request.headers.copy()
        context = self._context
        credentials.strip_headers(
            headers,
            secrets=self._own_tokens(),
            context=context,
            app_made=lambda cookie: self._app_cookies.made(context, cookie),
            login_cookie=self._login_cookie(),
        )
        headers.update(self.get_request_headers_override())  # type: ignore[attr-defined]
        return headers

    def get_client_uri(self, protocol: str, host: str, port: int | str, path: str) -> str:
        """Return the app's address for this request, without a token of ours."""
        self._context = self._get_context_path(host, port)  # type: ignore[attr-defined]
        uri: str = super().get_client_uri(protocol, host, port, path)  # type: ignore[misc]
        place, question, query = uri.partition("?")
        query = credentials.strip_query(query, self._own_tokens()) if question else ""
        return f"{place}?{query}" if query else place

    # -- the exchange -----------------------------------------------------------------

    async def _proxy_progressive(self, *args: Any) -> None:
        await self._proxy_buffered(*args)

    async def _proxy_buffered(
        self, host: str, port: int | str, path: str, body: bytes | None, client: Any
    ) -> None:
        if self.rewrite_response:  # type: ignore[attr-defined]
            await self._rewritten(host, port, path, body, client)
            return
        uri = self.get_client_uri("http", host, port, path)
        headers = self.proxy_request_headers()
        if not self.absolute_url:  # type: ignore[attr-defined]
            for name in ("X-Forwarded-Context", "X-ProxyContextPath", "X-Forwarded-Prefix"):
                headers[name] = self._context
        self._asked = (host, port, path)
        session = self.upstreams.session(self._unix_socket)
        try:
            await self.exchange(session, uri, headers, self._hop_by_hop)
        except aiohttp.ClientError as error:
            raise unreachable.Unreachable(host, port, self._unix_socket, error) from error

    @property
    def _unix_socket(self) -> str | None:
        return getattr(self, "unix_socket", None) or None

    def confine_header(self, name: str, value: str) -> str | None:
        """Return a header of the app's answer, within the app's prefix."""
        return self._confine(name, value, *self._asked)

    def record_use(self) -> None:
        """Tell jupyter-server-proxy that the app was used."""
        self._record_activity()  # type: ignore[attr-defined]

    def broke_off(self, error: Exception) -> None:
        """Log it, without the query and its token."""
        self.log.warning("The app broke off its answer to %s: %s", self.request.path, error)

    def _confine(self, name: str, value: str, host: str, port: int | str, path: str) -> str | None:
        """Return a response header as the browser gets it; None: not at all."""
        match name.lower():
            case "set-cookie":
                return credentials.confine_cookie(
                    value,
                    context=self._context,
                    path=urlsplit(path).path if path.startswith("/") else "/",
                    remember=lambda cookie: self._app_cookies.remember(self._context, cookie),
                    login_cookie=self._login_cookie(),
                )
            case "location" | "content-location" | "service-worker-allowed":
                return self._place(value, host, port)
            case lowered if lowered in _REFUSED:
                return None
        return value

    def _place(self, value: str, host: str, port: int | str) -> str:
        """Return an address that the app names, below the app's prefix where it is the app's."""
        parts = urlsplit(value)
        if parts.netloc:
            own = {self.request.host, f"{host}:{port}", f"localhost:{port}", f"127.0.0.1:{port}"}
            if not self._is_below(parts):
                if parts.netloc not in own:
                    return value
                if parts.netloc == self.request.host and self._is_neighbour(parts.path):
                    return value
        elif not value.startswith("/"):
            return value
        place = urlunsplit(("", "", parts.path or "/", parts.query, parts.fragment))
        if self.absolute_url:  # type: ignore[attr-defined]
            return place
        return credentials.inside(self._context, place)

    def _is_below(self, parts: SplitResult) -> bool:
        """Return whether an address is the app's, maybe under the port of a proxy on the way.

        RStudio makes its own of ``X-Forwarded-Port``, which is a proxy's where TLS ends before.
        """
        host = urlsplit(f"//{self.request.host}").hostname
        return parts.hostname == host and parts.path.startswith(f"{self._context}/")

    def _is_neighbour(self, path: str) -> bool:
        """Return whether a path is the server's own: an app may send people there."""
        return self.base_url != "/" and path.startswith(self.base_url)

    async def _rewritten(
        self, host: str, port: int | str, path: str, body: bytes | None, client: Any
    ) -> None:
        """Let jupyter-server-proxy do it: its rewrite_response needs the whole body."""
        if self._upload is not None:
            body = b"".join([chunk async for chunk in self._upload.chunks()])
        self.get_client_uri("http", host, port, path)  # names the context
        await super()._proxy_buffered(host, port, path, body, client)  # type: ignore[misc]
        confined = httputil.HTTPHeaders()
        for name, value in self._headers.get_all():
            if name.lower() in _REFUSED:
                continue
            kept: str | None = value
            if name.lower() == "set-cookie":
                kept = self._confine(name, value, host, port, path)
            if kept is not None:
                confined.add(name, kept)
        self._headers = confined

    # -- when it fails ----------------------------------------------------------------

    def log_exception(self, typ: Any, value: Any, tb: Any) -> None:
        """Log an absent app in one line; Tornado's would hold the query and its token."""
        if isinstance(value, unreachable.Unreachable):
            self.log.warning("%s %s: %s", self.request.method, self.request.path, value.text)
        else:
            super().log_exception(typ, value, tb)

    def write_error(self, status_code: int, **kwargs: Any) -> None:
        """Say which app does not answer and what to do; else the server's own error page."""
        error = (kwargs.get("exc_info") or (None, None))[1]
        if isinstance(error, unreachable.Unreachable):
            unreachable.write(self, error)
        else:
            super().write_error(status_code, **kwargs)


class ByPort:
    """Mixin before the handler of ``/proxy/PORT/``: a socket in the port's place goes first."""

    path_args: list[str]

    @property
    def unix_socket(self) -> str | None:
        """The socket of one of labkit's viewers, where it has one instead of the port."""
        path = sockets.listening(int(self.path_args[0]))
        return str(path) if path else None


def streaming(handler: type) -> type:
    """Return a proxy handler with the streaming data plane in front.

    Parameters
    ----------
    handler : type
        A handler class of jupyter-server-proxy, or one derived from it.

    Returns
    -------
    type
        The same class where it proxies no HTTP (raw sockets), is no proxy, or has another
        structure than this package knows.
    """
    if not issubclass(handler, stock.ProxyHandler) or issubclass(handler, RawSocketHandler):
        return handler
    if not all(hasattr(handler, name) for name in HOOKS):
        return handler
    bases = (
        (Streaming, ByPort, handler) if handler is stock.LocalProxyHandler else (Streaming, handler)
    )
    return type(f"Streaming{handler.__name__}", bases, {})
