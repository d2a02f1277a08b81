"""An aiohttp app behind the gate: who asks is known, errors are pages, headers are set."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Awaitable, Callable

from aiohttp import web

from services.appkit.identity import from_gate, is_own_request
from services.appkit.keys import PERSON, PORTAL
from services.appkit.launch import Portal
from services.appkit.pages import Pages

PAGES: web.AppKey[Pages] = web.AppKey("pages", Pages)
log = logging.getLogger(__name__)
# Who changed what; the hub has a log of its own for what is changed there.
audit = logging.getLogger("labhub.audit")
_SAFE = frozenset({"GET", "HEAD", "OPTIONS"})
_HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "same-origin",
    "Cache-Control": "private, no-cache",
}
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


def create(portal: Portal, pages: Pages, *, body_most: int = 1 << 20) -> web.Application:
    """Return an app without routes of its own; only the gate's requests reach its handlers.

    A handler finds who asks in ``request[PERSON]``, the pages in ``request.app[PAGES]`` and its
    prefix in ``request.app[PORTAL]``. What changes something is refused where the page of another
    origin asks for it.

    Parameters
    ----------
    portal : Portal
        Where it stands.
    pages : Pages
        What its pages and errors look like.
    body_most : int
        Bytes that the body of a request may have where a handler reads it whole.
    """
    app = web.Application(middlewares=[_guard], client_max_size=body_most)
    app[PORTAL], app[PAGES] = portal, pages
    app.router.add_get(portal.prefix + r"_/static/{file:[a-z.-]+}", pages.static)
    return app


@web.middleware
async def _guard(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Let in who comes through the gate; say of every answer what a browser may do with it."""
    pages = request.app[PAGES]
    try:
        request[PERSON] = from_gate(request, request.app[PORTAL].secret)
        if request.method not in _SAFE and not is_own_request(request):
            raise web.HTTPForbidden(text="Another page's request is refused.")
        response = await handler(request)
    except web.HTTPException as error:
        if error.status < 400:
            raise
        response = pages.error(request, error)
    except (ConnectionError, asyncio.CancelledError):
        raise
    except Exception:
        log.exception("%s %s", request.method, request.path)
        response = pages.error(request, web.HTTPInternalServerError())
    # A route for all methods hands on to another program, which keeps nothing of the portal's.
    own = request.match_info.route.method != "*"
    if request.method not in _SAFE and PERSON in request and own:
        _note(request, response.status)
    if not response.prepared:
        if response.status >= 400 and request.body_exists and not request.content.at_eof():
            # The rest of the body would be taken for the next person's request.
            response.force_close()
        for name, value in _HEADERS.items():
            response.headers.setdefault(name, value)
        response.headers.setdefault("Content-Security-Policy", pages.policy(request))
    return response


def _note(request: web.Request, status: int) -> None:
    """Log who changed something, or tried to: one JSON object, as in the hub's audit log."""
    person = request[PERSON]
    fields = {
        "who": person.name,
        "as": "administrator" if person.admin else "user",
        "action": request.method,
        "target": request.path[:200],
        "status": str(status),
    }
    # Each person's lines have a limit of their own: nobody floods those of others away.
    audit.getChild(person.name or "nobody").info("%s", json.dumps(fields))


async def with_slash(request: web.Request) -> web.Response:
    """Send to the address with its slash: relative links of the page need it."""
    query = request.rel_url.raw_query_string
    place = f"{request.rel_url.raw_path}/" + (f"?{query}" if query else "")
    raise web.HTTPMovedPermanently(place)
