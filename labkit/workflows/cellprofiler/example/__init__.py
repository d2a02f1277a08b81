"""A small plate with known truth: images that are made here, and pipelines that fit them.

It is for learning and for tests: every nucleus is a disc whose area is known, so that results can
be compared with the truth.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd

from labkit.base.problems import LabkitError

_FOLDER = Path(__file__).parent
#: Two channels, DNA and ER, no correction.
ANALYSIS = _FOLDER / "analysis.cppipe"
#: One illumination function over all images of a plate: ``IllumDNA.npy``.
ILLUMINATION = _FOLDER / "illumination.cppipe"
#: As ``ANALYSIS``, on the DNA image divided by ``IllumDNA``.
CORRECTED = _FOLDER / "corrected.cppipe"

_TRIES = 20_000  # places tried for the nuclei of one image
_BACKGROUND, _NUCLEUS, _CELL = 3000, 30000, 12000  # 16-bit grey values


def make_plate(
    folder: str | Path,
    wells: int = 8,
    sites: int = 2,
    *,
    plate: str = "Plate1",
    size: int = 256,
    shading: float = 0.0,
    seed: int = 7,
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Write a plate of two-channel 16-bit TIFF images.

    Wells in odd columns are controls; in even columns the dose is higher, nuclei are fewer and
    larger.

    Parameters
    ----------
    folder : str or Path
        Made if missing.
    wells, sites : int
        How many, and how many images of each.
    plate : str
        Name of the plate, a part of the file names.
    size : int
        Width and height in pixels.
    shading : float
        How much darker the corners are, from 0 to 1: what illumination correction takes away.
    seed : int
        Of the random numbers.

    Returns
    -------
    images : DataFrame
        The image sets, in LoadData's format, for ``labkit.CellProfiler(images=...)``.
    truth : DataFrame
        One row per nucleus: ``plate``, ``well``, ``site``, ``y``, ``x``, ``area`` (pixels).

    Raises
    ------
    LabkitError
        The images are too small for the nuclei.
    """
    from PIL import Image

    folder = Path(folder).resolve()
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(seed)
    light = _light(size, shading)
    images, truth = [], []
    for number in range(wells):
        row, column = divmod(number, 12)
        well = f"{chr(65 + row)}{column + 1:02d}"
        treated = column % 2 == 1
        for site in range(1, sites + 1):
            nuclei = _scatter(rng, size, 8 if treated else 14, 9 if treated else 6)
            dna, er = _draw(rng, nuclei, size)
            entry: dict[str, object] = {}
            for channel, pixels in (("OrigDNA", dna), ("OrigER", er)):
                name = f"{plate}_{well}_s{site}_{channel[4:]}.tif"
                shaded = np.clip(pixels * light, 0, 65535).astype(np.uint16)
                Image.fromarray(shaded).save(folder / name)
                entry |= {f"FileName_{channel}": name, f"PathName_{channel}": str(folder)}
            place = {"plate": plate, "well": well, "site": str(site)}
            entry |= {f"Metadata_{k.title()}": v for k, v in place.items()}
            entry["Metadata_Dose"] = 10 if treated else 0
            images.append(entry)
            truth += [place | nucleus for nucleus in nuclei]
    return pd.DataFrame(images), pd.DataFrame(truth)


def _light(size: int, shading: float) -> np.ndarray:
    axis = np.linspace(-1, 1, size)
    distance = (axis[:, None] ** 2 + axis[None, :] ** 2) / 2
    light: np.ndarray = 1 - shading * distance
    return light


def _scatter(rng: np.random.Generator, size: int, count: int, radius: int) -> list[dict[str, int]]:
    """Place discs that neither touch each other nor the border."""
    places: list[tuple[int, int, int]] = []
    nuclei: list[dict[str, int]] = []
    tries = 0
    while len(nuclei) < count:
        tries += 1
        if tries > _TRIES or size < 2 * (radius + 3 + 8) + 1:
            raise LabkitError(
                f"{count} nuclei have no room in an image of {size} x {size} pixels. "
                f"Give a larger size, such as size={max(160, size * 2)}."
            )
        r = int(radius + rng.integers(0, 4))
        y, x = (int(value) for value in rng.integers(r + 8, size - r - 8, 2))
        if all((y - b) ** 2 + (x - a) ** 2 > (r + s + 14) ** 2 for b, a, s in places):
            places.append((y, x, r))
            span = np.arange(-r, r + 1)
            area = int(((span[:, None] ** 2 + span[None, :] ** 2) <= r * r).sum())
            nuclei.append({"y": y, "x": x, "radius": r, "area": area})
    return nuclei


def _draw(
    rng: np.random.Generator, nuclei: list[dict[str, int]], size: int
) -> tuple[np.ndarray, np.ndarray]:
    """Return the DNA and the ER image of some nuclei."""
    yy, xx = np.mgrid[:size, :size]
    dna = np.full((size, size), float(_BACKGROUND))
    er = np.full((size, size), float(_BACKGROUND))
    for nucleus in nuclei:
        squares = (yy - nucleus["y"]) ** 2 + (xx - nucleus["x"]) ** 2
        dna[squares <= nucleus["radius"] ** 2] = _NUCLEUS
        er[squares <= (nucleus["radius"] + 6) ** 2] = _CELL
    noise = rng.normal(0, 150, (2, size, size))
    return dna + noise[0], er + noise[1]
