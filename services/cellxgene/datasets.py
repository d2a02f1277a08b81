"""A dataset's own pages and API: CellxGene's answers, for those who may see them."""

from __future__ import annotations

import asyncio
import contextlib
import gzip

import aiohttp
from aiohttp import web

from services.cellxgene import pages
from services.cellxgene.answers import Answer, Key
from services.cellxgene.keys import CATALOGUE, POOL, person, prefix
from services.cellxgene.opening import is_asset
from services.cellxgene.pool import ASSETS, Pool
from services.cellxgene.records import OPENING, Dataset, Version
from services.cellxgene.viewer import Shown, Viewer, ViewerError

_WAIT = 25.0  # seconds that a request of CellxGene's page waits for a start
_BODY = 64 << 20  # CellxGene's own requests are lists of cells
_METHODS = frozenset({"GET", "HEAD", "POST", "PUT"})
_KEPT = ("Content-Type", "Content-Encoding", "Content-Length")


def asked_for(request: web.Request) -> tuple[Key, Shown]:
    """Return which version of which dataset an address names, and how to show it.

    Raises
    ------
    aiohttp.web.HTTPNotFound
        There is none that this person may see. It says the same of what is somebody else's.
    """
    name = request.match_info["name"]
    dataset = request.app[CATALOGUE].get(person(request), name)
    wanted = request.match_info["version"]
    version = None
    if dataset is not None:
        version = dataset.version(int(wanted[1:])) if wanted else dataset.shown
    if dataset is None or version is None:
        raise web.HTTPNotFound(text=f"There is no dataset '{name}{wanted}' that you may see.")
    return Key(name, version.number), _shown(request, dataset, version, bool(wanted))


def _shown(request: web.Request, dataset: Dataset, version: Version, by_number: bool) -> Shown:
    store = request.app[CATALOGUE].store
    title = f"{version.title} (version {version.number})" if by_number else version.title
    return Shown(
        title=title,
        cells=version.facts.cells,
        genes=version.facts.genes,
        need=version.facts.need,
        fetch=lambda say: store.data(dataset.name, version, say),
    )


async def relay(request: web.Request) -> web.StreamResponse:
    """Answer as CellxGene does; start it where it does not run."""
    key, shown = asked_for(request)
    if request.method not in _METHODS:
        raise web.HTTPMethodNotAllowed(request.method, _METHODS)
    pool = request.app[POOL]
    target = _target(request)
    if target == "obsolete.js":  # named by CellxGene's page, and nowhere to be found
        return web.Response(body=b"", content_type="text/javascript")
    if request.method in ("GET", "HEAD"):
        if target == "" and not await _can_open(request, pool, key, shown):
            viewer = pool.want(key, shown)
            return pages.starting(request, viewer)
        return await _get(request, pool, key, shown, target)
    return await _compute(request, pool, key, shown, target)


def _target(request: web.Request) -> str:
    """Return the path and query below the dataset's own, as they were sent."""
    tail = request.match_info["tail"]
    raw = request.rel_url.raw_path.removeprefix(prefix(request))
    if ".." in tail.split("/") or "\\" in tail or "\0" in tail or raw.startswith("/"):
        raise web.HTTPNotFound
    # Not decoded: CellxGene unquotes names of genes twice.
    raw = raw.partition("/")[2]
    query = request.rel_url.raw_query_string
    return f"{raw}?{query}" if query else raw


async def _can_open(request: web.Request, pool: Pool, key: Key, shown: Shown) -> bool:
    """Return whether the page can be shown now: by a viewer, or by what one answered before."""
    viewer = pool.get(key)
    if viewer is not None and viewer.state == "ready":
        return True
    if viewer is not None and viewer.state == "failed":
        return False
    if not pool.can_open(key):
        store = request.app[CATALOGUE].store
        packed = await asyncio.to_thread(store.read, key.name, key.number, OPENING)
        if packed is not None:
            pool.open_with(key, packed)
    if not pool.can_open(key):
        return False
    pool.want(key, shown)  # for what the person does next
    return True


async def _ready(pool: Pool, key: Key, shown: Shown) -> Viewer:
    try:
        return await pool.ready(key, shown, _WAIT)
    except TimeoutError:
        step = viewer.step if (viewer := pool.get(key)) else "it starts"
        raise web.HTTPServiceUnavailable(
            text=f"'{key.name}' is not ready yet: {step}.", headers={"Retry-After": "3"}
        ) from None
    except ViewerError as error:
        raise web.HTTPBadGateway(text=str(error)) from error


async def _get(
    request: web.Request, pool: Pool, key: Key, shown: Shown, target: str
) -> web.Response:
    async def ask() -> Answer:
        for last in (False, True):
            viewer = await _ready(pool, key, shown)
            try:
                return await viewer.ask(target)
            except aiohttp.ClientError:
                if last:
                    raise
        raise AssertionError("the second try returns or raises")

    try:
        answer = await pool.answers.get(ASSETS if is_asset(target) else key, target, ask)
    except aiohttp.ClientError as error:
        raise web.HTTPBadGateway(text=_broke_off(error)) from error
    etag = answer.etag
    headers = {"Content-Type": answer.content_type, "Vary": "Accept-Encoding", "ETag": etag}
    headers["Content-Security-Policy"] = pages.VIEWER_POLICY
    if answer.status == 200 and etag in request.headers.get("If-None-Match", ""):
        return web.Response(status=304, headers=headers)
    body = answer.body
    if answer.encoding:
        if "gzip" in request.headers.get("Accept-Encoding", ""):
            headers["Content-Encoding"] = answer.encoding
        else:
            body = gzip.decompress(body)
    return web.Response(status=answer.status, body=body, headers=headers)


async def _compute(
    request: web.Request, pool: Pool, key: Key, shown: Shown, target: str
) -> web.StreamResponse:
    """Pass a computation on: its body there, its answer back, piece by piece."""
    if request.content_length is None or request.content_length > _BODY:
        raise web.HTTPRequestEntityTooLarge(_BODY, request.content_length or 0)
    viewer = await _ready(pool, key, shown)
    body = await _body(request)
    headers = {"Accept-Encoding": request.headers.get("Accept-Encoding", "")}
    headers |= {"Content-Type": request.content_type}
    async with contextlib.AsyncExitStack() as stack:
        if target.startswith("api/v0.2/diffexp/"):
            await stack.enter_async_context(pool.comparing)
        stack.enter_context(viewer.using())
        try:
            answer = await stack.enter_async_context(
                viewer.session.request(
                    request.method, viewer.url(target), data=body, headers=headers
                )
            )
        except aiohttp.ClientError as error:
            raise web.HTTPBadGateway(text=_broke_off(error)) from error
        kept = {name: answer.headers[name] for name in _KEPT if name in answer.headers}
        response = web.StreamResponse(status=answer.status, headers=kept)
        response.headers["Cache-Control"] = "no-store"
        response.headers["X-Content-Type-Options"] = "nosniff"
        await response.prepare(request)
        try:
            async for piece in answer.content.iter_any():
                await response.write(piece)
        except aiohttp.ClientError:
            # An end that looks proper would pass off a part as the whole.
            if request.transport is not None:
                request.transport.close()
        await response.write_eof()
        return response


async def _body(request: web.Request) -> bytes:
    # The app's own limit is for its small JSON.
    content = bytearray()
    async for piece in request.content.iter_any():
        content += piece
        if len(content) > _BODY:
            raise web.HTTPRequestEntityTooLarge(_BODY, len(content))
    return bytes(content)


def _broke_off(error: aiohttp.ClientError) -> str:
    return f"CellxGene broke off ({type(error).__name__}). Reload the page: it is started again."
