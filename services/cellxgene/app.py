"""The app behind the gate: catalogue, publishing, and each dataset's CellxGene.

Below the prefix, ``_/`` is the app's own; everything else is ``<name>/`` or ``<name>@<version>/``.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

from aiohttp import web

from labkit.portal.datasets.rules import RULES
from services.appkit.app import create, with_slash
from services.appkit.launch import Portal
from services.appkit.published.store import Store
from services.cellxgene import api, datasets, pages
from services.cellxgene.answers import Answers
from services.cellxgene.catalogue import Catalogue
from services.cellxgene.keys import CATALOGUE, POOL, UPLOADS
from services.cellxgene.pool import Limits as PoolLimits
from services.cellxgene.pool import Pool
from services.cellxgene.records import Dataset, Version
from services.cellxgene.uploads import Limits as UploadLimits
from services.cellxgene.uploads import Uploads

_JSON_BYTES = 2 << 20


@dataclass(frozen=True)
class Parts:
    """What the app is made of.

    Attributes
    ----------
    portal : Portal
        Where it stands.
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

    portal: Portal
    store: Store[Dataset, Version]
    folder: Path
    python: Path
    viewers: PoolLimits
    uploads: UploadLimits
    answers: int = 256 << 20


def make_app(parts: Parts) -> web.Application:
    """Return the app."""
    app = create(parts.portal, pages.PAGES, body_most=_JSON_BYTES)
    catalogue = Catalogue(parts.store)
    pool = Pool(parts.viewers, parts.folder / "run", parts.python, Answers(parts.answers))
    uploads = Uploads(parts.uploads, parts.folder / "incoming", catalogue, pool, parts.python)
    app[CATALOGUE], app[POOL], app[UPLOADS] = catalogue, pool, uploads
    app.cleanup_ctx.append(_running)

    below = parts.portal.prefix
    app.router.add_get(below, pages.catalogue)
    app.router.add_get(below.rstrip("/"), with_slash)
    own = below + "_/api/"
    dataset = own + "datasets/{name:" + RULES.name.pattern + "}"
    app.router.add_get(own + "datasets", api.listing)
    app.router.add_get(dataset, api.one)
    app.router.add_patch(dataset, api.change)
    app.router.add_delete(dataset, api.remove)
    app.router.add_post(dataset + "/versions", api.announce)
    upload = own + r"uploads/{id:[\w-]{24}}"
    app.router.add_put(upload, api.receive)
    app.router.add_get(upload, api.progress)
    app.router.add_delete(upload, api.cancel)
    shown = "{name:" + RULES.name.pattern + r"}{version:(@[1-9]\d{0,5})?}"
    app.router.add_get(own + "state/" + shown, api.state)
    app.router.add_post(own + "state/" + shown, api.again)
    picture = r"_/thumbnails/{name:" + RULES.name.pattern + r"}/{number:[1-9]\d{0,5}}.png"
    app.router.add_get(below + picture, pages.thumbnail)
    app.router.add_get(below + shown, with_slash)
    app.router.add_route("*", below + shown + "/{tail:.*}", datasets.relay)
    return app


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
