"""The pictures of one place on the plate."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from labkit import storage
from labkit.base.problems import LabkitError, unknown_name
from labkit.base.remote import is_remote
from labkit.workflows.cellprofiler.loaddata import channels_of

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from labkit.workflows.cellprofiler.job import CellProfilerJob

_SHOWN_LIKE = {".png", ".jpg", ".jpeg", ".tif", ".tiff", ".npy"}


def show(
    job: CellProfilerJob,
    place: Mapping[str, Any],
    channels: Sequence[str] | None,
    outlines: bool,
) -> Figure:
    """Draw the channels of one image set and what was saved for it, side by side."""
    from labkit.jobs.notebook.figure import NotebookFigure

    row = find_row(job.image_sets(), place)
    pictures: list[tuple[str, np.ndarray]] = []
    names = [c for c in channels_of(job.image_sets()) if not row[f"PathName_{c}"].startswith("$")]
    for name in channels or names:
        if name not in names:
            raise LabkitError(str(unknown_name("channel", name, names)))
        folder, file = row[f"PathName_{name}"], row[f"FileName_{name}"]
        if is_remote(folder):
            pictures.append((name, _read_remote(f"{folder}/{file}")))
        else:
            pictures.append((name, read_picture(Path(folder) / file)))
    if outlines:
        saved = job.images()
        for entry in saved[saved["ImageNumber"] == row["ImageNumber"]].itertuples():
            if Path(str(entry.path)).suffix.lower() in _SHOWN_LIKE:
                pictures.append((str(entry.image), read_picture(Path(str(entry.path)))))
    figure = NotebookFigure(figsize=(4 * len(pictures), 4.3), layout="constrained")
    axes = figure.subplots(1, len(pictures), squeeze=False)[0]
    for axis, (name, picture) in zip(axes, pictures, strict=True):
        axis.imshow(stretch(picture), cmap="gray", vmin=0, vmax=1)
        axis.set_title(name)
        axis.set_axis_off()
    where = "  ".join(f"{key} {row[key]}" for key in ("plate", "well", "site") if row[key])
    figure.suptitle(where or f"image set {row['ImageNumber']}")
    return figure


def find_row(table: pd.DataFrame, place: Mapping[str, Any]) -> pd.Series:
    """Return the first image set at a place.

    Raises
    ------
    LabkitError
        There is none; the text lists what there is.
    """
    for name, value in place.items():
        if value is None:
            continue
        present = list(dict.fromkeys(table[name]))
        table = table[table[name] == str(value)]
        if not len(table):
            raise LabkitError(str(unknown_name(name, str(value), present)))
    return table.iloc[0]


def read_picture(path: Path) -> np.ndarray:
    """Read an image file as grey values (rows x columns) or colours (rows x columns x 3)."""
    if path.suffix.lower() == ".npy":
        array: np.ndarray = np.load(path, allow_pickle=False)
        return array
    from PIL import Image, UnidentifiedImageError

    try:
        with Image.open(path) as image:
            if image.mode in ("RGB", "RGBA", "P", "CMYK"):
                return np.asarray(image.convert("RGB"))
            return np.asarray(image)
    except FileNotFoundError:
        raise LabkitError(f"{path} is not there any more.") from None
    except (UnidentifiedImageError, OSError) as error:
        raise LabkitError(f"{path} cannot be read: {error}.") from error


def _read_remote(address: str) -> np.ndarray:
    """Read a picture from S3."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / address.rpartition("/")[2]
        storage.copy(address, path)
        return read_picture(path)


def stretch(picture: np.ndarray) -> np.ndarray:
    """Scale a picture to 0 to 1 between its 0.1 and 99.9 percentile; colours stay colours."""
    values = picture.astype(float)
    if values.ndim == 3:
        scaled: np.ndarray = values / max(1.0, float(values.max()))
        return scaled
    low, high = np.percentile(values, (0.1, 99.9))
    spread: np.ndarray = np.clip((values - low) / max(float(high - low), 1e-12), 0, 1)
    return spread
