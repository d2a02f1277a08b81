"""The app behind the gate: ``_/`` is its own, everything else is ``<section>/<path>``."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable

from aiohttp import web

from services.appkit.identity import from_gate
from services.docs import pages
from services.docs.keys import LIBRARY, PERSON, PREFIX, SECRET
from services.docs.library import Library
from services.docs.sending import harden

log = logging.getLogger(__name__)
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


def make_app(library: Library, prefix: str, secret: str) -> web.Application:
    """Return the app.

    Parameters
    ----------
    library : Library
        What there is to read.
    prefix : str
        Path below which it answers, with slashes at both ends.
    secret : str
        By which it knows the gate.

    Raises
    ------
    ValueError
        There is no secret: anybody could say who they are.
    """
    if len(secret) < 16:
        raise ValueError("the app's secret is missing or shorter than 16 characters")
    app = web.Application(middlewares=[_guard])
    app[LIBRARY], app[PREFIX], app[SECRET] = library, prefix, secret
    app.router.add_get(prefix, pages.home)
    app.router.add_get(prefix + "_/search", pages.search)
    app.router.add_get(prefix + r"_/static/{file:[a-z.]+}", pages.static)
    section = prefix + r"{section:[a-z][a-z0-9-]*}"
    app.router.add_get(section, pages.slash)
    app.router.add_get(section + "/{path:.*}", pages.show)
    return app


@web.middleware
async def _guard(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Let in who comes through the gate; say of every answer what a browser may do with it."""
    try:
        request[PERSON] = from_gate(request, request.app[SECRET])
        response = await handler(request)
    except web.HTTPException as error:
        if error.status < 400:
            raise
        response = pages.error(request, error)
    except ConnectionError:
        raise
    except Exception:
        log.exception("%s %s", request.method, request.path)
        response = pages.error(request, web.HTTPInternalServerError())
    if not response.prepared:
        if response.status >= 400 and request.body_exists and not request.content.at_eof():
            # The rest of the body would be taken for the next person's request.
            response.force_close()
        harden(response)
    return response
