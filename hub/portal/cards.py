"""The cards on the home page: what a person can open."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from urllib.parse import quote

from hub import targets
from hub.apps import jupyterhub_services
from hub.apps.catalogue import App
from hub.apps.declaration import thumbnail_of
from hub.environments import rstudio
from hub.labfile.schema import Settings
from hub.spawners import profiles
from hub.state.paths import Paths


@dataclass(frozen=True)
class Card:
    """Something to open.

    Attributes
    ----------
    title, description : str
        What is shown.
    url : str
        Where it leads; relative to the hub's base address where ``own`` is set.
    own : bool
        It runs in the person's own server, which is started where it must be.
    service : str
        Name of the app behind the gate, whose state is shown; empty: it is none.
    picture : str
        Path below the hub's base address of its picture; may be empty.
    """

    title: str
    description: str
    url: str
    own: bool = False
    service: str = ""
    picture: str = ""


# Apps that every user server brings (labkit's tiles in the launcher).
BUILT_IN = (
    Card(
        "JupyterLab",
        "Notebooks, a terminal and your files.",
        "user-redirect/lab",
        own=True,
        picture="lab-static/card-jupyterlab.svg",
    ),
    Card(
        "CellxGene",
        "Explore single-cell data in the browser. Pick an .h5ad file to begin.",
        "user-redirect/labkit/cellxgene/",
        own=True,
        picture="lab-static/card-cellxgene.svg",
    ),
)

_RSTUDIO = Card(
    "RStudio",
    "R in its own workbench. It needs a server with R.",
    "user-redirect/rstudio/",
    own=True,
    picture="lab-static/card-rstudio.svg",
)
_SHINY = Card(
    "Shiny preview",
    "Try a Shiny app of yours while you write it. It needs a server with R.",
    "user-redirect/labkit/shiny/",
    own=True,
    picture="lab-static/card-shiny.svg",
)


def cards(
    settings: Settings, paths: Paths, groups: Collection[str], admin: bool = False
) -> list[Card]:
    """Return the apps that a person may open.

    First those in their own server, then those behind the gate, then links to other places.
    """
    return [
        *BUILT_IN,
        *_with_r(settings, paths, groups, admin),
        *(
            _card(app, settings)
            for app in jupyterhub_services.apps(settings, paths)
            if admin or not app.groups or set(app.groups) & set(groups)
        ),
        *(
            Card(app.title, app.description, app.url)
            for app in settings.apps
            if admin or not app.groups or set(app.groups) & set(groups)
        ),
    ]


def _with_r(
    settings: Settings, paths: Paths, groups: Collection[str], admin: bool
) -> Iterator[Card]:
    if rstudio.has_r(profiles.usable(settings, groups, admin)):
        if rstudio.may_be_there(on_this_machine=targets.of(settings, paths).on_this_machine):
            yield _RSTUDIO
        yield _SHINY


def _card(app: App, settings: Settings) -> Card:
    service = app.service
    file = thumbnail_of(service, app.folder)
    # Browsers keep the picture until it is another one.
    picture = f"app-picture/{app.name}?v={file.stat().st_mtime_ns:x}" if file else ""
    url = app.url(settings)
    return Card(service.title, service.description, url, service=app.name, picture=picture)


def tutorials(folder: Path) -> list[Card]:
    """Return the notebooks of a folder, by name; their titles are their first headings."""
    cards = []
    for path in sorted(folder.glob("*.ipynb")):
        title = _title(path, path.stat().st_mtime_ns) or path.stem.replace("_", " ")
        link = f"user-redirect/lab/tree/tutorials/{quote(path.name)}"
        cards.append(Card(title, path.name, link, own=True))
    return cards


@lru_cache(maxsize=256)
def _title(path: Path, mtime_ns: int) -> str:  # noqa: ARG001 - makes a changed file a new entry
    try:
        cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
    except (OSError, ValueError, KeyError, TypeError):
        return ""
    for cell in cells:
        if cell.get("cell_type") == "markdown":
            for line in "".join(cell.get("source", [])).splitlines():
                if line.startswith("# "):
                    return line[2:].strip()
    return ""
