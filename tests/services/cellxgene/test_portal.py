"""Published datasets in a real portal: the contract of all apps, and two people's journey.

Ada publishes from a notebook in her own server; bob, of her group, finds it and sees its cells;
eve, of another group, finds nothing. Pictures are kept as ``datasets-*.png``.
"""

from __future__ import annotations

import os
import pwd
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, BrowserContext, Page, expect, sync_playwright

from tests.browser.cells import WEBGL
from tests.browser.test_journey import assert_cells_are_drawn
from tests.conftest import CHROMIUM, needs_chromium, needs_env, needs_root
from tests.support.app_contract import AppCase, AppContract
from tests.support.gated_portal import AppPortal, eventually
from tests.support.portal import PASSWORD, REPOSITORY, People

pytestmark = [
    needs_root,
    needs_chromium,
    needs_env("proxy"),
    needs_env("notebook"),
    needs_env("cellxgene"),
    pytest.mark.slow,
]
APP = "cellxgene"
PUBLISH = """\
import sys; sys.path.insert(0, "library")
import scanpy as sc, labkit
cells = sc.datasets.pbmc68k_reduced()
cells.obs["tissue"] = "blood"
labkit.publish(cells, "pbmc", title="Blood cells", groups=["imaging"], organism="Homo sapiens",
               description="700 mononuclear cells of one donor, 765 variable genes.")"""


@pytest.fixture(scope="module")
def case(people: People) -> Iterator[AppCase]:
    ada, bob, eve = people.add("ada"), people.add("bob"), people.add("eve")
    outsider = people.add("out")
    lab = {
        "lab": {"name": "Our lab", "contact": "help@lab.example"},
        "groups": {"imaging": [ada, bob], "plants": [eve], "members": [ada, bob, eve]},
        "profiles": [
            {"name": "notebook", "title": "Notebook", "cpu": 2, "memory": "4G", "default": True}
        ],
    }
    with AppPortal(lab, [APP], {APP: ["members"]}) as portal:
        yield AppCase(
            portal,
            APP,
            member=ada,
            outsider=outsider,
            group="members",
            says="<h1>Datasets</h1>",
            assets=("_/static/labkit.css", "_/static/catalogue.js"),
            whoami="_/api/datasets",
        )


@pytest.fixture(scope="module")
def app(case: AppCase) -> AppCase:
    return case


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=CHROMIUM, args=list(WEBGL))
        yield started
        started.close()


class Visitor:
    """Somebody with a browser, logged in at the portal."""

    def __init__(self, case: AppCase, browser: Browser, name: str, artifacts: Path) -> None:
        self.case, self.name = case, name
        self.context: BrowserContext = browser.new_context(viewport={"width": 1300, "height": 850})
        self.context.set_default_timeout(60_000)
        self.page: Page = self.context.new_page()
        self._artifacts = artifacts
        self.page.goto(case.portal.url)
        self.page.get_by_label("User name").fill(name)
        self.page.get_by_label("Password").fill(PASSWORD)
        self.page.keyboard.press("Enter")
        self.page.wait_for_url("**/hub/home")

    def picture(self, what: str, page: Page | None = None) -> None:
        (page or self.page).screenshot(path=self._artifacts / f"datasets-{what}.png")


@pytest.fixture(scope="module")
def ada(case: AppCase, browser: Browser, artifacts: Path) -> Visitor:
    return Visitor(case, browser, case.member, artifacts)


def _member(case: AppCase, part: str) -> str:
    groups = case.portal.lab["groups"]
    return str(next(name for name in groups["members"] if f"-{part}" in name))


@pytest.fixture(scope="module")
def bob(case: AppCase, browser: Browser, artifacts: Path) -> Visitor:
    return Visitor(case, browser, _member(case, "bob"), artifacts)


@pytest.fixture(scope="module")
def eve(case: AppCase, browser: Browser, artifacts: Path) -> Visitor:
    return Visitor(case, browser, _member(case, "eve"), artifacts)


@pytest.fixture(scope="module")
def published(case: AppCase, ada: Visitor) -> Page:
    """The page that the link of ada's cell opens."""
    account = pwd.getpwnam(ada.name)
    # The environment's labkit may be older than this one: a copy in her home stands in.
    library = Path(account.pw_dir) / "library"
    shutil.copytree(REPOSITORY / "labkit", library / "labkit")
    for path in (library, *library.rglob("*")):
        os.chown(path, account.pw_uid, account.pw_gid)
    case.portal.spawn(ada.name, "notebook")
    page = ada.page
    page.goto(case.portal.user_url(ada.name, "lab"))
    page.locator(".jp-LauncherCard[data-category=Notebook]").first.click()
    expect(page.get_by_role("button", name=re.compile("Idle"))).to_be_visible(timeout=90_000)
    page.locator(".jp-Notebook:visible .jp-CodeCell .cm-content").last.click()
    page.keyboard.insert_text(PUBLISH)
    page.keyboard.press("Shift+Enter")
    output = page.locator(".jp-Notebook:visible .jp-CodeCell .jp-Cell-outputArea").first
    link = output.get_by_role("link", name="Open in CellxGene")
    expect(link.or_(output.locator("[data-mime-type*=error]"))).to_be_visible(timeout=170_000)
    ada.picture("1-published")
    expect(link).to_have_attribute("href", case.url("pbmc/"))
    with ada.context.expect_page() as opened:
        link.click()
    return opened.value


def test_ada_publishes_and_sees_the_cells(case: AppCase, ada: Visitor, published: Page) -> None:
    published.wait_for_url(case.url("pbmc/"))
    assert_cells_are_drawn(published)
    ada.picture("2-cells", published)
    assert [c for c in ada.context.cookies(case.url("pbmc/")) if c["name"] == "session"] == []


def test_bob_finds_it_and_sees_the_cells(case: AppCase, published: Page, bob: Visitor) -> None:
    page = bob.page
    page.goto(case.url())
    card = page.get_by_role("listitem").filter(has_text="Blood cells")
    for text in ("700 cells × 765 genes", "Homo sapiens · blood", case.member, "version 1"):
        expect(card.get_by_text(text)).to_be_visible()
    image = card.locator("img")
    expect(image).to_be_visible()
    expect(image).to_have_js_property("complete", True)
    assert image.evaluate("image => image.naturalWidth > 300")
    bob.picture("3-catalogue")
    search = page.get_by_label("Search the datasets")
    search.fill("sapiens imaging")
    expect(page.get_by_text("1 of 1 dataset")).to_be_visible()
    search.fill("zebrafish")
    expect(card).to_be_hidden()
    expect(page.get_by_text("Nothing matches")).to_be_visible()
    search.fill("")
    card.get_by_role("link", name="Blood cells").click()
    page.wait_for_url(case.url("pbmc/"))
    assert_cells_are_drawn(page)
    bob.picture("4-cells-of-another")


def test_eve_of_another_group_finds_nothing(case: AppCase, published: Page, eve: Visitor) -> None:
    page = eve.page
    page.goto(case.url())
    expect(page.get_by_text("No dataset is shared with you yet.")).to_be_visible()
    assert "Blood" not in page.content().replace('title="Blood, 700 cells"', "")
    eve.picture("5-nothing")
    answer = page.goto(case.url("pbmc/"))
    assert answer is not None and answer.status == 404
    expect(page.get_by_text("There is no dataset 'pbmc' that you may see.")).to_be_visible()
    eve.picture("6-not-hers")
    for path in ("pbmc/api/v0.2/schema", "_/api/datasets/pbmc", "_/thumbnails/pbmc/1.png"):
        status = page.evaluate("async path => (await fetch(path)).status", case.url(path))
        assert status == 404, path


def test_who_leaves_the_group_sees_it_no_more(case: AppCase, published: Page, bob: Visitor) -> None:
    token = case.portal.token(bob.name)
    with case.portal.program(token) as program:
        assert program.get(case.url("pbmc/api/v0.2/schema")).status_code == 200
        left = case.portal.api("DELETE", "/groups/imaging/users", json={"users": [bob.name]})
        assert left.status_code == 200
        eventually(
            lambda: program.get(case.url("pbmc/api/v0.2/schema")).status_code == 404,
            timeout=30,
            say="he still sees it after 30 s",
        )


class TestDatasets(AppContract):
    """What every app behind the gate must do."""
