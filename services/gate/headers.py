"""Which headers pass the gate, in both directions."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any
from urllib.parse import quote, urlsplit, urlunsplit

from tornado.httputil import HTTPHeaders

from labkit.relay import credentials
from services.gate.config import App

# Names under which apps and their frameworks look for an identity or for their own address.
_FORGEABLE = re.compile(
    r"x-labhub-|x-forwarded-|forwarded$|remote-|x-remote-|x-webauth-|x-authenticated-"
    r"|x-auth-(?:request|user|email|groups)|x-user(?:name|-id|-name|-email)?$|x-email$"
    r"|x-real-ip$|x-client-(?:ip|cert|verify|dn)|x-proxy|x-script-name$|script-name$"
    r"|x-original-|x-rewrite-|x-envoy-|x-amzn-oidc-|x-goog-(?:iap|authenticated)"
    r"|x-ms-client-|x-jupyterhub-|cf-access-|x?-?ssl-client-|true-client-ip$",
    re.IGNORECASE,
)
_PLAIN = " _.@:/+-"
# An app may not act on what it shares with others.
_REFUSED = frozenset({"clear-site-data", "x-labhub-app-secret"})


def is_forgeable(name: str) -> bool:
    """Return whether a request's header could pass for one of the gate's.

    WSGI and CGI cannot tell ``X_Labhub_User`` from ``X-Labhub-User``: names with an
    underscore never pass.
    """
    return "_" in name or bool(_FORGEABLE.match(name))


def quoted(name: str) -> str:
    """Return a name such that it can stand in a list, and cannot pass for two."""
    return quote(name, safe=_PLAIN)


def to_app(
    headers: HTTPHeaders,
    app: App,
    person: Mapping[str, Any],
    *,
    secret: str,
    tokens: Iterable[str],
    app_made: Callable[[str], bool],
) -> HTTPHeaders:
    """Return the headers of a request as the app gets them.

    Parameters
    ----------
    headers : HTTPHeaders
        The client's.
    app : App
        Which app.
    person : mapping
        The hub's model of who asks.
    secret : str
        The app's own secret.
    tokens : iterable of str
        The hub tokens in this request.
    app_made : callable
        Says whether the app has set a cookie ``name=value`` itself.
    """
    out = HTTPHeaders()
    for name, value in headers.get_all():
        if not is_forgeable(name):
            out.add(name, value)
    credentials.strip_headers(
        out,
        secrets=tokens,
        context=app.prefix.rstrip("/"),
        app_made=app_made,
        login_cookie=f"service-{app.name}",
    )
    groups = ",".join(sorted(quoted(group) for group in person.get("groups") or ()))
    out["Host"] = app.host
    out["X-Labhub-User"] = quoted(str(person["name"]))
    out["X-Labhub-Groups"] = groups
    out["X-Labhub-Admin"] = "true" if person.get("admin") is True else "false"
    out["X-Labhub-App-Secret"] = secret
    out["X-Forwarded-Prefix"] = app.prefix.rstrip("/")
    out["X-Forwarded-Proto"] = app.scheme
    out["X-Forwarded-Host"] = app.host
    return out


def from_app(
    name: str, value: str, app: App, path: str, remember: Callable[[str], None]
) -> str | None:
    """Return a header of an answer as the browser gets it; None: not at all.

    Parameters
    ----------
    name, value : str
        The app's header.
    app : App
        Which app.
    path : str
        The path that the app was asked for, as it sees it.
    remember : callable
        Told ``name=value`` of cookies with names of the hub's.
    """
    lowered = name.lower()
    if lowered in _REFUSED:
        return None
    context = app.prefix.rstrip("/")
    if lowered == "set-cookie":
        return credentials.confine_cookie(
            value,
            context=context,
            path=path,
            remember=remember,
            login_cookie=f"service-{app.name}",
        )
    if lowered in ("location", "content-location", "service-worker-allowed"):
        return _place(value, app, context)
    return value


def _place(value: str, app: App, context: str) -> str:
    """Return an address that the app names, below its prefix where it is the app's own."""
    parts = urlsplit(value)
    if parts.netloc:
        if parts.netloc not in (app.host, "localhost"):
            return value
    elif not value.startswith("/"):
        return value
    place = urlunsplit(("", "", parts.path or "/", parts.query, parts.fragment))
    return credentials.inside(context, place) if app.strip_prefix else place


def is_foreign(headers: HTTPHeaders, method: str, origin: str, *, websocket: bool) -> bool:
    """Return whether a page of another origin sends this request with somebody's cookie.

    Links from elsewhere are welcome; anything that changes or reads from elsewhere is not.

    Parameters
    ----------
    headers : HTTPHeaders
        The request's.
    method : str
        Its method.
    origin : str
        The app's own.
    websocket : bool
        It asks for a WebSocket.
    """
    sender = headers.get("Origin")
    safe = method in ("GET", "HEAD", "OPTIONS") and not websocket
    if sender is not None and sender != origin:
        return True
    site, mode = headers.get("Sec-Fetch-Site"), headers.get("Sec-Fetch-Mode")
    if site in ("cross-site", "same-site"):
        return mode != "navigate" or not safe
    # A browser names itself by one of the two in whatever may change something.
    return websocket and sender is None
