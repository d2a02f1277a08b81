"""The pages for people: the catalogue, a start that can be watched, an error with its next step."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from aiohttp import web
from jinja2 import Environment, FileSystemLoader

from labkit import server as labkit_server
from services.appkit.identity import Person
from services.cellxgene.keys import CATALOGUE, PERSON, PREFIX, person
from services.cellxgene.records import Dataset, thumbnail_url
from services.cellxgene.store import THUMBNAIL
from services.cellxgene.viewer import Viewer

_OWN = Path(__file__).parent
_SHARED = Path(labkit_server.__file__).parent / "data" / "static"
_STATIC = {
    "labkit.css": _SHARED / "labkit.css",
    "cellxgene.svg": _SHARED / "cellxgene.svg",
    "catalogue.css": _OWN / "static" / "catalogue.css",
    "catalogue.js": _OWN / "static" / "catalogue.js",
    "starting.js": _OWN / "static" / "starting.js",
}
_TEMPLATES = Environment(
    loader=FileSystemLoader(_OWN / "templates"), autoescape=True, trim_blocks=True
)
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'self'"
)
# CellxGene's page has one script of its own in it, and styles that its code makes.
VIEWER_POLICY = (
    "default-src 'self'; script-src 'self' 'unsafe-inline' 'unsafe-eval' blob:; "
    "style-src 'self' 'unsafe-inline'; img-src 'self' data: blob:; font-src 'self' data:; "
    "worker-src 'self' blob:; connect-src 'self' data: blob:; object-src 'none'; "
    "base-uri 'self'; form-action 'self'; frame-ancestors 'self'"
)
_ADVICE = {
    400: "Update labkit, or tell an administrator what you did.",
    403: "Ask its owner or an administrator.",
    404: "It may be shared with another group, or unpublished. Ask who gave you the link.",
    502: "Reload the page: it is started again. If it stays so, its owner can roll back.",
    503: "Wait a moment, then reload the page.",
}


@dataclass(frozen=True)
class Card:
    """A dataset in the catalogue, as it is shown."""

    dataset: Dataset
    url: str
    thumbnail: str
    seen_by: str
    mine: bool

    @property
    def words(self) -> str:
        """What the search looks in."""
        one = self.dataset
        parts = (one.name, one.title, one.description, one.organism, one.tissue, one.owner)
        return " ".join((*parts, *one.groups)).lower()


def _cards(found: Iterable[Dataset], who: Person, prefix: str) -> list[Card]:
    return [
        Card(
            dataset=one,
            url=f"{prefix}{one.name}/",
            thumbnail=thumbnail_url(one, prefix),
            seen_by=_seen_by(one),
            mine=one.owner == who.name,
        )
        for one in found
    ]


def _seen_by(dataset: Dataset) -> str:
    if dataset.hidden:
        return "unpublished: only its owner and administrators"
    return ", ".join(dataset.groups) or "only its owner and administrators"


def _page(template: str, request: web.Request, status: int = 200, **values: Any) -> web.Response:
    prefix = request.app[PREFIX]
    text = _TEMPLATES.get_template(template).render(
        prefix=prefix,
        static=f"{prefix}_/static/",
        lab=os.environ.get("LABHUB_LAB_NAME", ""),
        home=os.environ.get("LABHUB_HOME_URL", ""),
        **values,
    )
    return web.Response(
        text=text,
        status=status,
        content_type="text/html",
        headers={"Content-Security-Policy": POLICY, "Cache-Control": "no-store"},
    )


async def catalogue(request: web.Request) -> web.Response:
    """Show what the person may open."""
    who = person(request)
    found = request.app[CATALOGUE].visible(who)
    prefix = request.app[PREFIX]
    return _page("catalogue.html", request, cards=_cards(found, who, prefix), who=who)


def starting(request: web.Request, viewer: Viewer) -> web.Response:
    """Show how a start goes, or why it failed; the page goes on by itself."""
    name, version = request.match_info["name"], request.match_info["version"]
    response = _page(
        "starting.html",
        request,
        viewer=viewer,
        name=name,
        state_url=f"{request.app[PREFIX]}_/api/state/{name}{version}",
    )
    response.headers["Retry-After"] = "2"
    return response


def error(request: web.Request, problem: web.HTTPException) -> web.Response:
    """Answer with a page for people, with JSON for programs."""
    advice = _ADVICE.get(problem.status, "")
    text = problem.text or problem.reason
    kept = {k: v for k, v in problem.headers.items() if k in ("Retry-After", "Allow")}
    if PERSON not in request or "text/html" not in request.headers.get("Accept", ""):
        body = {"message": text, "advice": advice}
        return web.json_response(body, status=problem.status, headers=kept)
    response = _page("error.html", request, problem.status, text=text, advice=advice)
    response.headers.update(kept)
    return response


async def slash(request: web.Request) -> web.Response:
    """Send to the address with its slash: relative links of the page need it."""
    query = request.rel_url.raw_query_string
    place = f"{request.rel_url.raw_path}/" + (f"?{query}" if query else "")
    raise web.HTTPMovedPermanently(place)


async def static(request: web.Request) -> web.StreamResponse:
    """Answer with a script, a style or a picture of these pages."""
    path = _STATIC.get(request.match_info["file"])
    if path is None:
        raise web.HTTPNotFound
    return web.FileResponse(path)


async def thumbnail(request: web.Request) -> web.Response:
    """Answer with a version's picture."""
    name, number = request.match_info["name"], int(request.match_info["number"])
    catalogue = request.app[CATALOGUE]
    dataset = catalogue.get(person(request), name)
    content = None
    if dataset is not None and (version := dataset.version(number)) and version.thumbnail:
        content = await asyncio.to_thread(catalogue.store.read, name, number, THUMBNAIL)
    if content is None:
        raise web.HTTPNotFound(text=f"There is no picture of '{name}' that you may see.")
    # A version never changes: its picture neither.
    headers = {"Cache-Control": "private, max-age=86400, immutable"}
    return web.Response(body=content, content_type="image/png", headers=headers)
