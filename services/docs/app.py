"""The app behind the gate: ``_/`` is its own, everything else is ``<section>/<path>``."""

from __future__ import annotations

from aiohttp import web

from services.appkit.app import create
from services.appkit.launch import Portal
from services.docs import pages
from services.docs.keys import LIBRARY
from services.docs.library import Library


def make_app(library: Library, portal: Portal) -> web.Application:
    """Return the app.

    Parameters
    ----------
    library : Library
        What there is to read.
    portal : Portal
        Where it stands.
    """
    app = create(portal, pages.PAGES)
    app[LIBRARY] = library
    prefix = portal.prefix
    app.router.add_get(prefix, pages.home)
    app.router.add_get(prefix + "_/search", pages.search)
    section = prefix + r"{section:[a-z][a-z0-9-]*}"
    app.router.add_get(section, pages.slash)
    app.router.add_get(section + "/{path:.*}", pages.show)
    return app
