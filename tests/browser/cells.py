"""CellxGene in a browser: what Chromium needs for WebGL, and how many cells it drew."""

from __future__ import annotations

import io

import numpy as np
from PIL import Image
from playwright.sync_api import Page

# CellxGene draws with WebGL; without a graphics card Chromium must be told to compute it.
WEBGL = (
    "--no-sandbox",
    "--use-gl=angle",
    "--use-angle=swiftshader",
    "--enable-unsafe-swiftshader",
)


def colours_drawn(page: Page) -> tuple[int, int]:
    """Return how many pixels of the plot are not background, and in how many colours."""
    picture = page.locator("[data-testid=layout-graph], canvas").first.screenshot()
    pixels = np.asarray(Image.open(io.BytesIO(picture)).convert("RGB"))
    drawn = pixels[(pixels < 235).any(axis=2)]
    return len(drawn), len(np.unique(drawn // 32, axis=0))
