"""The app behind the gate: catalogue, publishing, and each dataset's CellxGene.

Below the prefix, ``_/`` is the app's own; everything else is ``<name>/`` or ``<name>@<version>/``.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path

from aiohttp import web

from labkit.portal.datasets.rules import NAME
from services.appkit.identity import from_gate, is_own_request
from services.cellxgene import api, datasets, pages
from services.cellxgene.answers import Answers
from services.cellxgene.catalogue import Catalogue
from services.cellxgene.keys import CATALOGUE, PERSON, POOL, PREFIX, SECRET, UPLOADS
from services.cellxgene.pool import Limits as PoolLimits
from services.cellxgene.pool import Pool
from services.cellxgene.store import Store
from services.cellxgene.uploads import Limits as UploadLimits
from services.cellxgene.uploads import Uploads

log = logging.getLogger(__name__)
_SAFE = frozenset({"GET", "HEAD", "OPTIONS"})
_JSON_BYTES = 2 << 20
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


@dataclass(frozen=True)
class Parts:
    """What the app is made of.

    Attributes
    ----------
    prefix : str
        Path below which it answers, with slashes at both ends.
    secret : str
        By which it knows the gate.
    store : Store
        Where the datasets are.
    folder : Path
        For uploads and viewers.
    python : Path
        Python of CellxGene's environment.
    viewers, uploads : PoolLimits, UploadLimits
        What may be taken.
    answers : int
        Bytes of answers that are kept.
    """

    prefix: str
    secret: str
    store: Store
    folder: Path
    python: Path
    viewers: PoolLimits
    uploads: UploadLimits
    answers: int = 256 << 20


def make_app(parts: Parts) -> web.Application:
    """Return the app.

    Raises
    ------
    ValueError
        There is no secret: anybody could say who they are.
    """
    if len(parts.secret) < 16:
        raise ValueError("the app's secret is missing or shorter than 16 characters")
    app = web.Application(middlewares=[_guard], client_max_size=_JSON_BYTES)
    catalogue = Catalogue(parts.store)
    pool = Pool(parts.viewers, parts.folder / "run", parts.python, Answers(parts.answers))
    uploads = Uploads(parts.uploads, parts.folder / "incoming", catalogue, pool, parts.python)
    app[PREFIX], app[SECRET] = parts.prefix, parts.secret
    app[CATALOGUE], app[POOL], app[UPLOADS] = catalogue, pool, uploads
    app.cleanup_ctx.append(_running)

    below = parts.prefix
    app.router.add_get(below, pages.catalogue)
    app.router.add_get(below.rstrip("/"), pages.slash)
    app.router.add_get(below + r"_/static/{file:[a-z.]+}", pages.static)
    own = below + "_/api/"
    dataset = own + "datasets/{name:" + NAME.pattern + "}"
    app.router.add_get(own + "datasets", api.listing)
    app.router.add_get(dataset, api.one)
    app.router.add_patch(dataset, api.change)
    app.router.add_delete(dataset, api.remove)
    app.router.add_post(dataset + "/versions", api.announce)
    upload = own + r"uploads/{id:[\w-]{24}}"
    app.router.add_put(upload, api.receive)
    app.router.add_get(upload, api.progress)
    app.router.add_delete(upload, api.cancel)
    shown = "{name:" + NAME.pattern + r"}{version:(@[1-9]\d{0,5})?}"
    app.router.add_get(own + "state/" + shown, api.state)
    app.router.add_post(own + "state/" + shown, api.again)
    picture = r"_/thumbnails/{name:" + NAME.pattern + r"}/{number:[1-9]\d{0,5}}.png"
    app.router.add_get(below + picture, pages.thumbnail)
    app.router.add_get(below + shown, pages.slash)
    app.router.add_route("*", below + shown + "/{tail:.*}", datasets.relay)
    return app


@web.middleware
async def _guard(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Let in who comes through the gate; say of every answer what a browser may do with it."""
    try:
        request[PERSON] = from_gate(request, request.app[SECRET])
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
    if not response.prepared:
        if response.status >= 400 and request.body_exists and not request.content.at_eof():
            # The rest of the body would be taken for the next person's request.
            response.force_close()
        response.headers.setdefault("X-Content-Type-Options", "nosniff")
        response.headers.setdefault("Cross-Origin-Resource-Policy", "same-origin")
        response.headers.setdefault("Referrer-Policy", "same-origin")
        response.headers.setdefault("Cache-Control", "private, no-cache")
        response.headers.setdefault("Content-Security-Policy", pages.POLICY)
    return response


async def _running(app: web.Application) -> AsyncIterator[None]:
    """Read the store, look after viewers and uploads, and end them with the app."""
    await asyncio.to_thread(app[CATALOGUE].load)
    tasks = [
        asyncio.ensure_future(app[POOL].look_after()),
        asyncio.ensure_future(app[UPLOADS].look_after()),
    ]
    yield
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    await app[UPLOADS].close()
    await app[POOL].close()
