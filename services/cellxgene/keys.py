"""What the handlers find in the app, by typed keys."""

from __future__ import annotations

from aiohttp import web

from services.appkit.identity import Person
from services.cellxgene.catalogue import Catalogue
from services.cellxgene.pool import Pool
from services.cellxgene.uploads import Uploads

PREFIX: web.AppKey[str] = web.AppKey("prefix", str)
SECRET: web.AppKey[str] = web.AppKey("secret", str)
CATALOGUE: web.AppKey[Catalogue] = web.AppKey("catalogue", Catalogue)
POOL: web.AppKey[Pool] = web.AppKey("pool", Pool)
PERSON: web.RequestKey[Person] = web.RequestKey("person", Person)
UPLOADS: web.AppKey[Uploads] = web.AppKey("uploads", Uploads)


def person(request: web.Request) -> Person:
    """Return who asks; the app's guard has made sure of it."""
    return request[PERSON]
