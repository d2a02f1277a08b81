"""What people said, as a table: one row for each thing said."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pandas as pd

KEY, NAME = "labkit_key", "labkit_file"
COLUMNS = (
    *("file", "label", "kind", "x", "y", "width", "height", "rotation", "points"),
    *("annotator", "created", "seconds", "task", "annotation", "region"),
)
_NAMES = ("file", "label", "task", "annotation", "region")
_KINDS = {
    "choices": "choices",
    "rectanglelabels": "rectangles",
    "polygonlabels": "polygons",
    "keypointlabels": "points",
    "brushlabels": "brush",
}


def table(tasks: Iterable[Mapping[str, Any]], people: Mapping[int, str]) -> pd.DataFrame:
    """Return annotations as a table.

    Parameters
    ----------
    tasks : iterable of mapping
        Label Studio's export (``exportType=JSON``).
    people : mapping of int to str
        Names of its users.

    Returns
    -------
    pandas.DataFrame
        One row for each label of each annotation: `COLUMNS`, then what was known of the picture.
        ``x``, ``y``, ``width`` and ``height`` are pixels from the upper left corner, as are
        ``points`` (a list of (x, y)); they are missing where the kind has none.
    """
    import pandas as pd

    rows = [row for task in tasks for row in _rows(task, people)]
    facts = list(dict.fromkeys(name for row in rows for name in row if name not in COLUMNS))
    out = pd.DataFrame(rows, columns=[*COLUMNS, *facts])
    out["created"] = pd.to_datetime(out["created"], utc=True)
    for name in ("x", "y", "width", "height", "rotation", "seconds"):
        out[name] = pd.to_numeric(out[name])
    return out


def painted(
    tasks: Iterable[Mapping[str, Any]],
) -> Iterator[tuple[dict[str, Any], Mapping[str, Any]]]:
    """Yield the regions that were painted: what they are called in the table, and the region."""
    for task in tasks:
        for row, region in _said(task, {}):
            if region["type"] == "brushlabels":
                yield {name: row[name] for name in _NAMES}, region


def _rows(task: Mapping[str, Any], people: Mapping[int, str]) -> Iterator[dict[str, Any]]:
    return (row for row, _ in _said(task, people))


def _said(
    task: Mapping[str, Any], people: Mapping[int, str]
) -> Iterator[tuple[dict[str, Any], Mapping[str, Any]]]:
    data = dict(task.get("data") or {})
    file = data.pop(NAME, None) or data.get("image")
    facts = {k: v for k, v in data.items() if k not in ("image", KEY) and k not in COLUMNS}
    for annotation in task.get("annotations") or ():
        if annotation.get("was_cancelled"):
            continue
        author = annotation.get("completed_by")
        for region in annotation.get("result") or ():
            kind = _KINDS.get(str(region.get("type")))
            if kind is None:
                continue
            value = region.get("value") or {}
            for label in value.get(region["type"]) or ():
                row = {
                    "file": file,
                    "label": label,
                    "kind": kind,
                    **_place(region, value),
                    "annotator": people.get(author, str(author)),
                    "created": annotation.get("created_at"),
                    "seconds": annotation.get("lead_time"),
                    "task": task.get("id"),
                    "annotation": annotation.get("id"),
                    "region": region.get("id"),
                    **facts,
                }
                yield row, region


def _place(region: Mapping[str, Any], value: Mapping[str, Any]) -> dict[str, Any]:
    """Return where a region is, in pixels; Label Studio counts in percent of the picture."""
    across = float(region.get("original_width") or 0) / 100
    down = float(region.get("original_height") or 0) / 100
    place: dict[str, Any] = {}
    for name, unit in (("x", across), ("y", down), ("width", across), ("height", down)):
        if name in value:
            place[name] = float(value[name]) * unit
    if "rotation" in value:
        place["rotation"] = float(value["rotation"])
    if "points" in value:
        place["points"] = [(float(x) * across, float(y) * down) for x, y in value["points"]]
    return place
