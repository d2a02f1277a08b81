"""Which pictures are to be annotated, and how a browser can show them."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from labkit.base.problems import Problem, refuse

if TYPE_CHECKING:
    import pandas as pd

SUFFIXES = (".png", ".jpg", ".jpeg", ".tif", ".tiff", ".bmp", ".gif", ".webp")
_SHOWN = (".png", ".jpg", ".jpeg")  # by every browser, as they are
COLUMN = "image"


@dataclass(frozen=True)
class Picture:
    """One picture.

    Attributes
    ----------
    path : Path
        Its file.
    facts : dict of str to str
        What else is known of it, such as plate, well and site.
    """

    path: Path
    facts: dict[str, str] = field(default_factory=dict)


def find(images: Any) -> list[Picture]:
    """Return the pictures that are meant.

    Parameters
    ----------
    images : str, Path, sequence of these, pandas.DataFrame or CellProfiler job
        A folder (all pictures in it, not in folders below), a file, files, a table with the
        column ``image`` (other columns are kept with the pictures), or a finished job, whose
        saved images are taken.

    Raises
    ------
    RefusedError
        Nothing was found, or files are missing; names them.
    """
    table = images.images() if callable(getattr(images, "images", None)) else images
    if hasattr(table, "columns"):
        pictures = list(_rows(table))
    elif isinstance(table, str | Path):
        pictures = [Picture(path) for path in _files(Path(table).expanduser())]
    elif isinstance(table, Sequence):
        pictures = [Picture(Path(entry).expanduser()) for entry in table]
    else:
        text = f"a {type(images).__name__} names no pictures."
        refuse([Problem("images", text, "Give a folder, a list of files, a table or a job.")])
    if not pictures:
        kinds = ", ".join(SUFFIXES)
        refuse([Problem("images", "there are no pictures.", f"Pictures end in {kinds}.")])
    problems = [
        Problem(str(picture.path), "is not there.")
        if not picture.path.is_file()
        else Problem(str(picture.path), "is no kind of picture that can be shown.")
        for picture in pictures
        if not picture.path.is_file() or picture.path.suffix.lower() not in SUFFIXES
    ]
    refuse(problems)
    return pictures


def _files(place: Path) -> Iterable[Path]:
    if not place.is_dir():
        return [place]
    return sorted(path for path in place.iterdir() if path.suffix.lower() in SUFFIXES)


def _rows(table: pd.DataFrame) -> Iterable[Picture]:
    # A job's table has the file in `path` and the image's name in the pipeline in `image`.
    column = "path" if "path" in table.columns else COLUMN
    if column not in table.columns:
        columns = ", ".join(map(str, table.columns)) or "none"
        refuse([Problem("images", f"the table has no column {COLUMN!r}.", f"It has: {columns}.")])
    for row in table.to_dict("records"):
        facts = {str(key): str(value) for key, value in row.items() if key != column}
        yield Picture(Path(str(row[column])), facts)


def shown(picture: Picture) -> tuple[str, bytes]:
    """Return a picture as browsers show it: suffix and content.

    Grey values of microscopes are stretched between their 0.1 and 99.9 percentile to 8 bit: the
    picture is for the eye, the file itself is never changed.

    Raises
    ------
    LabkitError
        The file is no picture.
    """
    if picture.path.suffix.lower() in _SHOWN and not _is_deep(picture.path):
        return picture.path.suffix.lower(), picture.path.read_bytes()
    import numpy as np
    from PIL import Image

    from labkit.workflows.cellprofiler.show import read_picture, stretch

    values = (stretch(read_picture(picture.path)) * 255).round().astype(np.uint8)
    out = io.BytesIO()
    Image.fromarray(values).save(out, "PNG")
    return ".png", out.getvalue()


def _is_deep(path: Path) -> bool:
    from PIL import Image, UnidentifiedImageError

    from labkit.base.problems import LabkitError

    try:
        with Image.open(path) as image:
            image.verify()
            return image.mode not in ("L", "RGB", "RGBA", "P", "1")
    except (UnidentifiedImageError, OSError, SyntaxError) as error:
        raise LabkitError(f"{path} is no picture: {error}.") from error


def digest(content: bytes) -> str:
    """Return what a picture is known by: the same one is never brought in twice."""
    return hashlib.sha256(content).hexdigest()[:24]
