"""Start the app: ``python -m services.docs``, with what the portal says in variables."""

from __future__ import annotations

from functools import partial

from aiohttp import web

from services.appkit.launch import Portal, run
from services.docs import settings
from services.docs.app import make_app
from services.docs.library import Library


def make(portal: Portal) -> web.Application:
    """Return the app, with all documents read: no reader has to wait for it."""
    library = Library(partial(settings.shown, portal.data))
    library.shelves()
    return make_app(library, portal)


if __name__ == "__main__":
    run(make)
