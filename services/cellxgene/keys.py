"""What the handlers find in the app beside the kit's, by typed keys."""

from __future__ import annotations

from aiohttp import web

from services.appkit.keys import PERSON, PORTAL
from services.appkit.person import Person
from services.cellxgene.catalogue import Catalogue
from services.cellxgene.pool import Pool
from services.cellxgene.uploads import Uploads

CATALOGUE: web.AppKey[Catalogue] = web.AppKey("catalogue", Catalogue)
POOL: web.AppKey[Pool] = web.AppKey("pool", Pool)
UPLOADS: web.AppKey[Uploads] = web.AppKey("uploads", Uploads)


def person(request: web.Request) -> Person:
    """Return who asks; the kit's guard has made sure of it."""
    return request[PERSON]


def prefix(request: web.Request) -> str:
    """Return the path below which the app answers."""
    return request.app[PORTAL].prefix
