"""A project of annotations, as a notebook holds it."""

from __future__ import annotations

import html
import re
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode

from labkit.base.problems import Problem, refuse, unknown_name
from labkit.portal.annotating import brush, pictures, results
from labkit.portal.annotating import labels as configured
from labkit.portal.annotating.client import AnnotationError, Client

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd

_NAME = re.compile(r"\S.{1,48}\S")
_FILES, _BYTES = 50, 64 << 20  # at once
_STYLE = (
    "border:1px solid var(--jp-border-color1,#bdbdbd);border-radius:8px;padding:12px 16px;"
    "max-width:44rem;font-family:var(--jp-ui-font-family,sans-serif);line-height:1.5"
)


class Project:
    """A project in Label Studio.

    Attributes
    ----------
    name : str
        Its title.
    number : int
        Label Studio's number of it.
    url : str
        Its address for the browser.
    pictures : int
        How many it has.
    annotated : int
        How many of these somebody has annotated.
    """

    def __init__(self, client: Client, project: dict[str, Any]) -> None:
        self._client = client
        self.number = int(project["id"])
        self.name = str(project["title"])
        self.url = client.url(self.number)
        self._told = project

    @property
    def pictures(self) -> int:
        """How many pictures it has."""
        return int(self._told["task_number"] or 0)

    @property
    def annotated(self) -> int:
        """How many pictures somebody has annotated."""
        return int(self._told["num_tasks_with_annotations"] or 0)

    def refresh(self) -> Project:
        """Ask again how far it is; returns itself."""
        self._told = self._client.ask("GET", f"projects/{self.number}/")
        return self

    def annotations(self) -> pd.DataFrame:
        """Return what was said; see :func:`labkit.annotations`."""
        return results.table(self._export(), self._client.people())

    def masks(self) -> Iterator[tuple[dict[str, Any], np.ndarray]]:
        """Yield what was painted with the brush.

        Yields
        ------
        tuple
            ``file``, ``label``, ``task``, ``annotation`` and ``region`` of the mask, as in the
            table, and the mask itself: rows x columns of bool.

        Raises
        ------
        AnnotationError
            A mask is damaged; says which.
        """
        for place, region in results.painted(self._export()):
            height, width = int(region["original_height"]), int(region["original_width"])
            try:
                yield place, brush.unpack(region["value"]["rle"], height, width)
            except ValueError as error:
                text = f"Region {place['region']} of task {place['task']}: {error}."
                raise AnnotationError(text) from None

    def _export(self) -> list[dict[str, Any]]:
        query = urlencode({"exportType": "JSON", "download_all_tasks": "false"})
        return list(self._client.ask("GET", f"projects/{self.number}/export?{query}"))

    def __repr__(self) -> str:
        done = f"{self.annotated} of {self.pictures} pictures annotated"
        return f"<Project {self.name!r}: {done}; {self.url}>"

    def _repr_html_(self) -> str:
        done, share = self.annotated, self.annotated / max(1, self.pictures)
        return (
            f'<div style="{_STYLE}"><b>{html.escape(self.name)}</b><br>'
            f'<progress max="1" value="{share:.3f}" aria-label="annotated"></progress> '
            f"{done} of {self.pictures} pictures annotated<br>"
            f'<a href="{html.escape(self.url)}" target="_blank" rel="noopener">'
            "Annotate in Label Studio</a></div>"
        )


def find(client: Client, name: str) -> Project:
    """Return the project of a name.

    Raises
    ------
    AnnotationError
        There is none; the text lists those there are.
    """
    projects = list(client.projects())
    for project in projects:
        if project["title"] == name:
            return Project(client, project)
    raise AnnotationError(str(unknown_name("project", name, [str(p["title"]) for p in projects])))


def make(
    client: Client,
    images: Any,
    labels: Sequence[str],
    *,
    name: str,
    tool: str,
    several: bool,
    say: Callable[[str], None],
) -> Project:
    """Make a project, or add to it what it does not have yet; see :func:`labkit.annotate`."""
    problems = list(configured.check(labels, tool))
    if not _NAME.fullmatch(name):
        problems.append(Problem("project", f"{name!r} must be a text of 3 to 50 characters."))
    refuse(problems)
    images_found = pictures.find(images)
    told = next((one for one in client.projects() if one["title"] == name), None)
    if told is None:
        config = configured.configuration(labels, tool, several=several)
        say(f"Making the project {name}")
        told = client.ask("POST", "projects/", {"title": name, "label_config": config})
    else:
        _same(told, labels, tool)
    number = int(told["id"])
    there = {str(task["data"].get(results.KEY)) for task in client.tasks(number)}
    sent = 0
    for batch in _batches(images_found, there):
        places = client.upload(number, [(file, content) for _, file, content in batch])
        tasks = [
            {"data": {**picture.facts, **_facts(picture, place, file)}}
            for (picture, file, _), place in zip(batch, places, strict=True)
        ]
        client.ask("POST", f"projects/{number}/import", tasks)
        sent += len(batch)
        say(f"{sent} of {len(images_found)} pictures are there")
    return Project(client, told).refresh()


def _facts(picture: pictures.Picture, place: str, file: str) -> dict[str, str]:
    key = file.partition(".")[0]
    return {"image": place, results.KEY: key, results.NAME: str(picture.path)}


def _same(project: dict[str, Any], labels: Sequence[str], tool: str) -> None:
    """Refuse to mix two ways of annotating in one project."""
    try:
        theirs = configured.read(str(project["label_config"]))
    except ValueError:
        text = "there is a project of this name that was not made by labkit."
        refuse([Problem("project", text, "Choose another name.")])
        raise
    if theirs != (tool, list(labels)):
        text = f"the project has {theirs[0]} with the labels {', '.join(theirs[1])}."
        refuse([Problem("labels", text, "Use the same, or choose another name.")])


def _batches(
    found: Sequence[pictures.Picture], there: set[str]
) -> Iterator[list[tuple[pictures.Picture, str, bytes]]]:
    """Yield pictures that are not there yet, as many as one upload may have."""
    batch: list[tuple[pictures.Picture, str, bytes]] = []
    size = 0
    for picture in found:
        suffix, content = pictures.shown(picture)
        key = pictures.digest(content)
        if key in there:
            continue
        there.add(key)
        if batch and (len(batch) >= _FILES or size + len(content) > _BYTES):
            yield batch
            batch, size = [], 0
        batch.append((picture, f"{key}{suffix}", content))
        size += len(content)
    if batch:
        yield batch
