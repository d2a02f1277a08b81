"""The pages for people: the catalogue, a start that can be watched, an error with its next step."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from aiohttp import web

from services.appkit.pages import Pages
from services.appkit.person import Person
from services.cellxgene.keys import CATALOGUE, person, prefix
from services.cellxgene.records import THUMBNAIL, Dataset, thumbnail_url
from services.cellxgene.viewer import Viewer

# CellxGene's page has one script of its own in it, and styles that its code makes.
VIEWER_POLICY = (
    "default-src 'self'; script-src 'self' 'unsafe-inline' 'unsafe-eval' blob:; "
    "style-src 'self' 'unsafe-inline'; img-src 'self' data: blob:; font-src 'self' data:; "
    "worker-src 'self' blob:; connect-src 'self' data: blob:; object-src 'none'; "
    "base-uri 'self'; form-action 'self'; frame-ancestors 'self'"
)
PAGES = Pages(
    "Datasets",
    Path(__file__).parent,
    icon="cellxgene.svg",
    styles=("catalogue.css",),
    shared=("cellxgene.svg",),
    overview="All datasets",
    advice={
        400: "Update labkit, or tell an administrator what you did.",
        403: "Ask its owner or an administrator.",
        404: "It may be shared with another group, or unpublished. Ask who gave you the link.",
        502: "Reload the page: it is started again. If it stays so, its owner can roll back.",
    },
)


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


def _cards(datasets: Iterable[Dataset], who: Person, place: str) -> list[Card]:
    return [
        Card(
            dataset=one,
            url=f"{place}{one.name}/",
            thumbnail=thumbnail_url(one, place),
            seen_by=_seen_by(one),
            mine=one.owner == who.name,
        )
        for one in datasets
    ]


def _seen_by(dataset: Dataset) -> str:
    if dataset.hidden:
        return "unpublished: only its owner and administrators"
    return ", ".join(dataset.groups) or "only its owner and administrators"


async def catalogue(request: web.Request) -> web.Response:
    """Show what the person may open."""
    who = person(request)
    datasets = request.app[CATALOGUE].visible(who)
    return PAGES.show(request, "catalogue.html", cards=_cards(datasets, who, prefix(request)))


def starting(request: web.Request, viewer: Viewer) -> web.Response:
    """Show how a start goes, or why it failed; the page goes on by itself."""
    name, version = request.match_info["name"], request.match_info["version"]
    response = PAGES.show(
        request,
        "starting.html",
        viewer=viewer,
        name=name,
        state_url=f"{prefix(request)}_/api/state/{name}{version}",
    )
    response.headers["Retry-After"] = "2"
    return response


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
