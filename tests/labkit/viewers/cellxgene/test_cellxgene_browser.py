"""In a real browser: the cells are drawn, a gene colours them, the page asks nobody else."""

from __future__ import annotations

from pathlib import Path

import pytest
from playwright.sync_api import expect, sync_playwright

import labkit
from tests.browser.cells import WEBGL, colours_drawn
from tests.conftest import CHROMIUM, needs_chromium, needs_env

pytestmark = [needs_env("cellxgene"), needs_chromium]


@pytest.mark.filterwarnings("ignore")
def test_cells_are_drawn_and_coloured(home: Path, port: int, artifacts: Path) -> None:
    import scanpy as sc

    adata = sc.datasets.pbmc68k_reduced()
    card = labkit.cellxgene(adata, port, title="700 blood cells")
    foreign, failed = [], []
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=list(WEBGL))
        page = browser.new_page(viewport={"width": 1400, "height": 900})
        page.on(
            "request",
            lambda r: foreign.append(r.url) if not r.url.startswith((card.url, "data:")) else None,
        )
        page.on("response", lambda r: failed.append((r.status, r.url)) if not r.ok else None)
        page.on("requestfailed", lambda r: failed.append((r.failure, r.url)))
        page.goto(card.url)
        expect(page.get_by_text("bulk_labels")).to_be_visible(timeout=30_000)
        page.wait_for_timeout(1500)
        plain, few = colours_drawn(page)
        page.get_by_test_id("colorby-bulk_labels").click()
        page.wait_for_timeout(1500)
        coloured, many = colours_drawn(page)
        page.screenshot(path=artifacts / "cellxgene.png")
        text = page.inner_text("body")
        browser.close()
    assert plain > 3000 and coloured > 3000
    assert many > few + 3, "ten kinds of cells have more colours than one"
    assert foreign == []
    # CellxGene's page names a script for old browsers that its server does not have.
    assert [one for one in failed if not one[1].endswith("/obsolete.js")] == [], card.log(50)
    assert "Failure loading" not in text and "error" not in text.lower()
