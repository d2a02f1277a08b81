"""The pages: what there is, a document, a folder, what a search has found."""

from __future__ import annotations

import asyncio
import html
import os
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from heapq import nlargest
from pathlib import Path
from urllib.parse import quote

from aiohttp import web
from markupsafe import Markup

from services.appkit.identity import own_origin
from services.appkit.keys import PERSON, PORTAL
from services.appkit.pages import Pages
from services.docs import files, markdown, sending, settings
from services.docs.keys import LIBRARY
from services.docs.library import CLOSE, OPEN, Entry, Shelf

_MOST_PAGE = 4 << 20  # bytes of Markdown; more is shown as plain text
_RECENT = 10
_NOTHING = "There is nothing of that name that you may read."


class DocumentPages(Pages):
    """Pages without scripts, which show pictures of the documents."""

    def policy(self, request: web.Request) -> str:
        """Return what such a page may load."""
        return sending.page_policy(_place(request))


PAGES = DocumentPages(
    "Documentation",
    Path(__file__).parent,
    icon="docs.svg",
    styles=("docs.css", "code.css"),
    shared=(),
    made={"code.css": ("text/css", markdown.style())},
    layout="layout.html",
    overview="All documentation",
    advice={
        404: (
            "It may have been moved or renamed: look for it. Other groups' documents are not shown."
        ),
        405: "Documents are only read here.",
    },
)


@dataclass(frozen=True)
class Link:
    """A line of the navigation.

    Attributes
    ----------
    title, url : str
        What it says and where it leads.
    depth : int
        How far it is indented.
    folder, here : bool
        It leads to a folder; it is the page that is shown.
    """

    title: str
    url: str
    depth: int = 0
    folder: bool = False
    here: bool = False


async def _shelves(request: web.Request) -> dict[str, Shelf]:
    """Return the sections that the person may read."""
    shelves = await asyncio.to_thread(request.app[LIBRARY].shelves)
    who = request[PERSON]
    return {name: shelf for name, shelf in shelves.items() if shelf.section.may_read(who)}


def _url(request: web.Request, section: str, path: str = "") -> str:
    return f"{request.app[PORTAL].prefix}{section}/{quote(path)}"


def _folder_url(request: web.Request, section: str, folder: str) -> str:
    return _url(request, section, f"{folder}/" if folder else "")


def _place(request: web.Request) -> str:
    return own_origin(request) + request.app[PORTAL].prefix


async def home(request: web.Request) -> web.Response:
    """Show the sections, and what was changed last."""
    shelves = await _shelves(request)
    recent = nlargest(
        _RECENT,
        (
            (entry, name)
            for name, shelf in shelves.items()
            if name != settings.HELP  # changed by an update, all at once
            for entry in shelf.entries.values()
        ),
        key=lambda found: found[0].file.changed,
    )
    return PAGES.show(
        request,
        "home.html",
        sections=[(shelf, _url(request, name)) for name, shelf in shelves.items()],
        recent=[_listed(request, name, entry) for entry, name in recent],
    )


def _listed(request: web.Request, section: str, entry: Entry) -> dict[str, str]:
    return {
        "title": entry.title,
        "url": _url(request, section, entry.file.path),
        "place": entry.file.path,
        "changed": _day(entry.file.changed),
    }


def _day(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d")


async def slash(request: web.Request) -> web.Response:
    """Send to the address with its slash: relative links of the page need it."""
    raise web.HTTPFound(_url(request, request.match_info["section"]))


async def show(request: web.Request) -> web.StreamResponse:
    """Show a document, a folder, or a file."""
    shelf = (await _shelves(request)).get(request.match_info["section"])
    path = request.match_info["path"]
    if shelf is None or "//" in path or path.startswith("/"):
        raise web.HTTPNotFound(text=_NOTHING)
    root, name = shelf.section.folder, shelf.section.name
    try:
        descriptor = await asyncio.to_thread(files.open_below, root, path)
        if files.is_folder(descriptor):
            os.close(descriptor)
            if path and not path.endswith("/"):
                raise web.HTTPFound(_url(request, name, f"{path}/"))
            return await _folder(request, shelf, path.rstrip("/"))
        if path.endswith("/"):
            os.close(descriptor)
            raise web.HTTPNotFound(text=_NOTHING)
        return await _file(request, shelf, path, descriptor)
    except files.NoFileError:
        raise web.HTTPNotFound(text=_NOTHING) from None
    except PermissionError:
        text = "The documentation's account may not read this file."
        raise web.HTTPForbidden(text=text) from None


async def _folder(request: web.Request, shelf: Shelf, folder: str) -> web.StreamResponse:
    """Show a folder's own page, or what is in it."""
    index = shelf.index_of(folder)
    if index is not None:
        path = index.file.path
        descriptor = await asyncio.to_thread(files.open_below, shelf.section.folder, path)
        return await _file(request, shelf, path, descriptor, of_folder=True)
    return _document(request, shelf, folder, None, markdown.Page(shelf.title_of(folder)))


async def _file(
    request: web.Request, shelf: Shelf, path: str, descriptor: int, of_folder: bool = False
) -> web.StreamResponse:
    stream = os.fdopen(descriptor, "rb")
    status = os.fstat(descriptor)
    if not path.lower().endswith(files.MARKDOWN) or status.st_size > _MOST_PAGE:
        return sending.send(stream, path, _place(request))
    with stream:
        content = await asyncio.to_thread(stream.read, _MOST_PAGE)
    page = await asyncio.to_thread(markdown.render, content.decode("utf-8-sig", "replace"))
    folder = path.rpartition("/")[0]
    return _document(request, shelf, folder, path, page, _day(status.st_mtime), of_folder)


def _document(
    request: web.Request,
    shelf: Shelf,
    folder: str,
    path: str | None,
    page: markdown.Page,
    changed: str = "",
    of_folder: bool = False,
) -> web.Response:
    """Show a page of ours with its surroundings; a path of None is a folder without one."""
    name = shelf.section.name
    entry = shelf.entries.get(path or "")
    listed = path is None or of_folder
    below, beside = shelf.inside(folder) if listed else ([], [])
    return PAGES.show(
        request,
        "document.html",
        title=page.title or (entry.title if entry else shelf.title_of(folder)),
        page=page,
        body=Markup(page.body),  # noqa: S704 - `markdown.clean` has made it harmless
        navigation=list(_navigation(request, shelf, folder, path)),
        crumbs=list(_crumbs(request, shelf, folder, last=path is not None and not of_folder)),
        folders=[(shelf.title_of(one), _folder_url(request, name, one)) for one in below],
        documents=[_listed(request, name, one) for one in beside],
        changed=changed,
        shelf=shelf,
    )


def _crumbs(request: web.Request, shelf: Shelf, folder: str, last: bool) -> Iterator[Link]:
    """Yield the way to a page; the page itself is not among it."""
    steps = folder.split("/") if folder else []
    for count in range(len(steps) + (1 if last else 0)):
        place = "/".join(steps[:count])
        yield Link(shelf.title_of(place), _folder_url(request, shelf.section.name, place))


def _navigation(
    request: web.Request, shelf: Shelf, folder: str, path: str | None
) -> Iterator[Link]:
    """Yield the section's top, and what lies in the folders on the way to a page."""
    name = shelf.section.name
    index = shelf.index_of("")
    at_top = path is not None and index is not None and path == index.file.path
    at_top = at_top or (path is None and not folder)
    yield Link(shelf.section.title, _url(request, name), here=at_top)

    def level(place: str, depth: int) -> Iterator[Link]:
        below, beside = shelf.inside(place)
        for one in below:
            own = shelf.index_of(one)
            here = one == folder and (path is None or (own is not None and own.file.path == path))
            url = _folder_url(request, name, one)
            yield Link(shelf.title_of(one), url, depth, folder=True, here=here)
            if one == folder or folder.startswith(f"{one}/"):
                yield from level(one, depth + 1)
        for entry in beside:
            url = _url(request, name, entry.file.path)
            yield Link(entry.title, url, depth, here=entry.file.path == path)

    yield from level("", 1)


async def search(request: web.Request) -> web.Response:
    """Show which pages have some words."""
    words = request.query.get("q", "")[:200].strip()
    shelves = await _shelves(request)
    hits = await asyncio.to_thread(request.app[LIBRARY].search, words, shelves)
    found = [
        {
            "title": hit.title,
            "url": _url(request, hit.section, hit.path),
            "place": f"{shelves[hit.section].section.title} / {hit.path}",
            "snippet": _marked(hit.snippet),
        }
        for hit in hits
    ]
    return PAGES.show(request, "search.html", words=words, found=found)


def _marked(snippet: str) -> Markup:
    """Return a snippet as HTML, with the words that were found marked."""
    text = html.escape(snippet).replace(OPEN, "<mark>").replace(CLOSE, "</mark>")
    return Markup(text)  # noqa: S704 - escaped just now
