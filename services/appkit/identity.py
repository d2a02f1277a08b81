"""Who asks: what the gate says, and nothing that anybody else says."""

from __future__ import annotations

from urllib.parse import unquote

from aiohttp import web

from labkit.portal.publishing.rules import is_group
from services.appkit import secrets
from services.appkit.person import Person


def from_gate(request: web.Request, secret: str) -> Person:
    """Return who asks.

    Raises
    ------
    aiohttp.web.HTTPForbidden
        The request did not come through the gate, or names nobody.
    """
    # More than one of a header is not the gate's doing.
    if not secrets.shown(request.headers.getall(secrets.HEADER, []), secret):
        raise web.HTTPForbidden(text="This app answers only through the portal's login.")
    names = request.headers.getall("X-Labhub-User", [])
    admins = request.headers.getall("X-Labhub-Admin", [])
    groups = request.headers.getall("X-Labhub-Groups", [])
    # The gate percent-encodes unusual characters.
    name = unquote(names[0]).strip() if len(names) == 1 else ""
    if not name or len(admins) > 1 or len(groups) > 1:
        raise web.HTTPForbidden(text="The portal did not say who you are.")
    members = {unquote(one.strip()) for one in (groups[0] if groups else "").split(",")}
    return Person(
        name=name,
        groups=frozenset(one for one in members if is_group(one)),
        admin=admins == ["true"],
    )


def is_own_request(request: web.Request) -> bool:
    """Return whether a request that changes something comes from this app's own pages.

    The portal's cookie also comes along with what other people's pages send: their origins are
    of the same site. Programs (``labkit``) send neither of these headers.
    """
    if request.headers.get("Sec-Fetch-Site", "same-origin") not in ("same-origin", "none"):
        return False
    origin = request.headers.get("Origin")
    return origin is None or origin == own_origin(request)


def own_origin(request: web.Request) -> str:
    """Return the app's public origin, as the gate says it."""
    host = request.headers.get("X-Forwarded-Host") or request.host
    scheme = request.headers.get("X-Forwarded-Proto") or request.scheme
    return f"{scheme}://{host}"
