"""Which headers pass the gate, in both directions."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any
from urllib.parse import quote, urlsplit, urlunsplit

from tornado.httputil import HTTPHeaders

from labkit.relay import credentials
from services.gate.config import App

# What a request may say to an app: what HTTP itself, browsers, WebDAV and the proofs against
# forged requests need. A list of what may not pass would miss the next product's identity header.
_PASSED = frozenset(
    [
        "accept",
        "accept-charset",
        "accept-encoding",
        "accept-language",
        "access-control-request-headers",
        "access-control-request-method",
        "authorization",
        "cache-control",
        "connection",
        "content-disposition",
        "content-encoding",
        "content-language",
        "content-length",
        "content-location",
        "content-md5",
        "content-range",
        "content-type",
        "cookie",
        "date",
        "depth",
        "destination",
        "dnt",
        "expect",
        "if",
        "if-match",
        "if-modified-since",
        "if-none-match",
        "if-range",
        "if-unmodified-since",
        "keep-alive",
        "last-event-id",
        "lock-token",
        "origin",
        "overwrite",
        "pragma",
        "prefer",
        "priority",
        "purpose",
        "range",
        "referer",
        "save-data",
        "sec-gpc",
        "sec-purpose",
        "te",
        "timeout",
        "trailer",
        "transfer-encoding",
        "upgrade",
        "upgrade-insecure-requests",
        "user-agent",
        "x-csrf-token",
        "x-csrftoken",
        "x-requested-with",
        "x-xsrf-token",
        "x-xsrftoken",
    ]
)
_OF_BROWSERS = ("sec-ch-", "sec-fetch-", "sec-websocket-")
_PLAIN = " _.@:/+-"
# An app may not act on what it shares with others.
_REFUSED = frozenset({"clear-site-data", "x-labhub-app-secret"})


def passes(name: str, app: App) -> bool:
    """Return whether a request's header may reach an app: a common one, or one that it names.

    WSGI and CGI cannot tell ``X_Labhub_User`` from ``X-Labhub-User``: names with an
    underscore never pass.
    """
    lowered = name.lower()
    if "_" in lowered:
        return False
    return lowered in _PASSED or lowered.startswith(_OF_BROWSERS) or lowered in app.headers


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
        if passes(name, app):
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
