"""What must not pass between the server and an app: tokens, login cookies, foreign cookies."""

from __future__ import annotations

import hashlib
import re
from collections import OrderedDict
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from urllib.parse import unquote_plus, urlsplit, urlunsplit

from tornado.httputil import HTTPHeaders

_TOKEN_HEADER = re.compile(r"^(?:token|bearer)\s+(\S+)\s*$", re.IGNORECASE)
# jupyter_server's own pattern of login cookies: username-<host>
_LOGIN = "username-"
_APPS = 256
_PER_APP = 64


def token_in_header(value: str) -> str:
    """Return the token of an ``Authorization`` header, or an empty text."""
    match = _TOKEN_HEADER.match(value)
    return match[1] if match else ""


def is_own_cookie(name: str, login_cookie: str = "") -> bool:
    """Return whether a cookie belongs to the hub or to this server, never to an app.

    Parameters
    ----------
    name : str
        The cookie's name.
    login_cookie : str
        Name of this server's login cookie; what begins with it and a hyphen goes with it.
        Cookies know no ports: those of other servers of this host,
        ``username-<host>-<port>``, come along.
    """
    bare = _bare(name)
    if bare == "_xsrf" or bare.startswith("jupyterhub-"):
        return True
    own = (f"{login_cookie}-", _LOGIN)
    return bool(login_cookie) and (bare == login_cookie or bare.startswith(own))


def _bare(name: str) -> str:
    return name.removeprefix("__Host-").removeprefix("__Secure-")


@dataclass
class AppCookies:
    """Remembers which cookies with the server's own names an app has set itself.

    Other Jupyter servers, Voila and Bokeh behind the proxy use ``_xsrf`` too. A cookie with
    such a name passes only with a value that this app has made.
    """

    _known: OrderedDict[str, OrderedDict[bytes, None]] = field(default_factory=OrderedDict)

    def remember(self, app: str, cookie: str) -> None:
        """Note ``name=value`` as one of the app's."""
        known = self._known.setdefault(app, OrderedDict())
        known[_digest(cookie)] = None
        self._known.move_to_end(app)
        while len(known) > _PER_APP:
            known.popitem(last=False)
        while len(self._known) > _APPS:
            self._known.popitem(last=False)

    def made(self, app: str, cookie: str) -> bool:
        """Return whether the app has set exactly this ``name=value``."""
        return _digest(cookie) in self._known.get(app, ())


def _digest(text: str) -> bytes:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest()


def strip_query(query: str, secrets: Iterable[str]) -> str:
    """Return a query without ``token=...`` where the value is one of the secrets.

    Everything else stays as it was, byte for byte.
    """
    hidden = set(secrets) - {""}
    if not hidden:
        return query
    kept = []
    for pair in query.split("&"):
        name, _, value = pair.partition("=")
        if unquote_plus(name) != "token" or unquote_plus(value) not in hidden:
            kept.append(pair)
    return "&".join(kept)


def strip_headers(
    headers: HTTPHeaders,
    *,
    secrets: Iterable[str],
    context: str,
    app_made: Callable[[str], bool],
    login_cookie: str = "",
) -> None:
    """Remove from a request's headers what an app must not see.

    Parameters
    ----------
    headers : HTTPHeaders
        Changed in place.
    secrets : iterable of str
        Tokens that this server accepted, and its own.
    context : str
        The app's own prefix; addresses of other pages lose their query in ``Referer``.
    app_made : callable
        Says whether the app itself has set a cookie ``name=value`` with a name of ours.
    login_cookie : str
        Name of this server's login cookie.
    """
    hidden = set(secrets) - {""}
    if token_in_header(headers.get("Authorization", "")) in hidden:
        del headers["Authorization"]
    cookies = []
    for line in headers.get_list("Cookie"):
        for cookie in (part.strip() for part in line.split(";")):
            name = cookie.partition("=")[0].strip()
            if cookie and (not is_own_cookie(name, login_cookie) or app_made(cookie)):
                cookies.append(cookie)
    headers.pop("Cookie", None)
    if cookies:
        headers["Cookie"] = "; ".join(cookies)
    if referer := headers.get("Referer"):
        parts = urlsplit(referer)
        inside = parts.path == context or parts.path.startswith(context.rstrip("/") + "/")
        query = strip_query(parts.query, hidden) if inside else ""
        headers["Referer"] = urlunsplit(parts._replace(query=query))


def confine_cookie(
    cookie: str, *, context: str, path: str, remember: Callable[[str], None], login_cookie: str = ""
) -> str | None:
    """Bind a cookie that an app sets to the app's own prefix.

    Parameters
    ----------
    cookie : str
        Value of a ``Set-Cookie`` header.
    context : str
        The app's prefix, e.g. ``/user/ada/proxy/5005``.
    path : str
        The path the app was asked for, as the app sees it.
    remember : callable
        Told ``name=value`` of cookies with the server's own names.
    login_cookie : str
        Name of this server's login cookie.

    Returns
    -------
    str or None
        The header's new value; None where an app tries to set a login cookie of the hub or of
        this server.
    """
    pair, *attributes = (part.strip() for part in cookie.split(";"))
    name = pair.partition("=")[0].strip()
    if is_own_cookie(name, login_cookie):
        if _bare(name) != "_xsrf":
            return None
        remember(pair)
    asked = ""
    kept = []
    for attribute in attributes:
        key, _, value = attribute.partition("=")
        match key.strip().lower():
            case "path":
                asked = value.strip()
            case "domain":
                pass  # the app has no name of its own
            case _:
                kept.append(attribute)
    if not asked.startswith("/"):
        asked = path[: path.rfind("/")] or "/"
    return "; ".join([pair, f"Path={inside(context, asked)}", *kept])


def inside(context: str, path: str) -> str:
    """Return a path that an app names as one below its prefix; one that is there already stays."""
    root = context.rstrip("/")
    if path == root or path.startswith((f"{root}/", f"{root}?", f"{root}#")):
        return path
    return root + (path if path.startswith("/") else f"/{path}")
