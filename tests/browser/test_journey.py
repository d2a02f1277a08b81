"""The main journey: from the login page to cells in CellxGene, and out again.

One portal, one person, one server with the real environments; the tests are its steps and run
in their order. Pictures of each are kept as ``journey-*.png``.
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Locator, Page, Response, expect, sync_playwright

from tests.browser.cells import WEBGL, colours_drawn
from tests.conftest import CHROMIUM, needs_chromium, needs_env, needs_root
from tests.support.portal import PASSWORD, Portal

pytestmark = [
    needs_root,
    needs_chromium,
    needs_env("notebook"),
    needs_env("cellxgene"),
    pytest.mark.slow,
]

LAB = {
    "lab": {"name": "Our lab", "contact": "help@lab.example"},
    "profiles": [
        {
            "name": "standard",
            "title": "Standard",
            "description": "Notebooks, scanpy and CellxGene for everyday work.",
            "cpu": 2,
            "memory": "4G",
            "default": True,
        },
        {
            "name": "large",
            "title": "Large",
            "description": "For data sets that do not fit into Standard.",
            "cpu": 4,
            "memory": "16G",
        },
    ],
}
PLOT = "import matplotlib.pyplot as plt\nplt.plot([1, 4, 9, 16], color='crimson');"
CELLS = """\
import scanpy as sc, labkit
cells = sc.datasets.pbmc68k_reduced()
cells.write_h5ad("blood.h5ad")
card = labkit.cellxgene(cells)
card"""
JOB = """\
job = labkit.Command("sh -c 'echo {n} > n'", over=[{"n": n} for n in range(6)]).submit()
job.wait()
from labkit.jobs.backends.capacity import capacity
print(job.state.value, "with", len(job.tasks()), "records of", capacity().memory >> 30, "GiB")"""

WHEEL = """\
import pathlib, zipfile
pathlib.Path("wheels").mkdir(exist_ok=True)
with zipfile.ZipFile("wheels/labprobe-1.5-py3-none-any.whl", "w") as wheel:
    wheel.writestr("labprobe.py", "ANSWER = 42")
    info = "labprobe-1.5.dist-info/"
    wheel.writestr(info + "METADATA", "Metadata-Version: 2.1\\nName: labprobe\\nVersion: 1.5")
    wheel.writestr(info + "WHEEL", "Wheel-Version: 1.0\\nRoot-Is-Purelib: true\\nTag: py3-none-any")
    wheel.writestr(info + "RECORD", "")
%pip install --no-index --find-links wheels labprobe"""
TERMINAL = (
    "labkit env list > said.txt; command -v pip labkit cellxgene >> said.txt; "
    "python -c 'import labprobe, scanpy; print(labprobe.ANSWER)' >> said.txt; touch said.done"
)
SAID = """\
import pathlib, time
while not pathlib.Path("said.done").exists():
    time.sleep(0.2)
print(pathlib.Path("said.txt").read_text())"""


class Journey:
    """Who travels, and where: the page of the portal, and that of JupyterLab."""

    def __init__(self, portal: Portal, name: str, browser: Browser, artifacts: Path) -> None:
        self.portal = portal
        self.name = name
        self.context = browser.new_context(viewport={"width": 1400, "height": 900})
        self.page = self.context.new_page()
        self.page.set_default_timeout(60_000)
        self.failed: list[str] = []
        self.context.on("response", self._note)
        self._artifacts = artifacts
        self._pictures = 0

    def _note(self, response: Response) -> None:
        if response.status >= 400:
            self.failed.append(f"{response.status} {response.url}")

    def picture(self, what: str, page: Page | None = None) -> None:
        self._pictures += 1
        name = f"journey-{self._pictures:02}-{what}.png"
        (page or self.page).screenshot(path=self._artifacts / name)

    def url(self, path: str = "") -> str:
        return self.portal.user_url(self.name, path)

    def cookies(self) -> set[tuple[str, str, str]]:
        """Return name, domain and path of the cookies of the person's own origin."""
        found = self.context.cookies(self.url("lab")) + self.context.cookies(
            self.url("proxy/5005/")
        )
        return {(c["name"], c["domain"], c["path"]) for c in found}

    def run(self, code: str) -> Locator:
        """Run code in the open notebook's last cell; return that cell's output."""
        cells = self.page.locator(".jp-Notebook:visible .jp-CodeCell")
        index = cells.count() - 1
        cells.nth(index).locator(".cm-content").click()
        self.page.keyboard.insert_text(code)
        self.page.keyboard.press("Shift+Enter")
        return cells.nth(index).locator(".jp-Cell-outputArea")


@pytest.fixture(scope="module")
def journey(ada: str, artifacts: Path) -> Iterator[Journey]:
    with Portal(LAB) as portal, sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=list(WEBGL))
        yield Journey(portal, ada, browser, artifacts)
        browser.close()


def test_log_in(journey: Journey) -> None:
    page = journey.page
    page.goto(journey.portal.url)
    expect(page.get_by_label("User name")).to_be_focused()
    journey.picture("login")
    page.get_by_label("User name").fill(journey.name)
    page.get_by_label("Password").fill(PASSWORD)
    page.keyboard.press("Enter")
    page.wait_for_url("**/hub/home")
    pictures = page.locator("#apps img.card-picture")
    expect(pictures).not_to_have_count(0)
    for picture in pictures.all():
        picture.scroll_into_view_if_needed()
        expect(picture).to_have_js_property("complete", True)
        assert picture.evaluate("image => image.naturalWidth") > 0
    expect(page.locator("#apps .card-letter")).to_have_count(0)
    journey.picture("home")


def test_start_a_server(journey: Journey) -> None:
    page = journey.page
    page.get_by_role("link", name="Start my server").click()
    expect(page.get_by_role("radio", name=re.compile("^Standard"))).to_be_checked()
    journey.picture("profiles")
    page.get_by_role("button", name="Start").click()
    page.wait_for_url("**/hub/spawn-pending/**")
    expect(page.get_by_text("Waiting for the server to answer")).to_be_visible()
    journey.picture("pending")
    page.wait_for_url(re.compile(re.escape(journey.url("lab"))))
    page.locator(".jp-Launcher").wait_for()


def test_the_launcher_offers_the_labs_apps_and_no_news(journey: Journey) -> None:
    page = journey.page
    for tile in ("CellxGene", "My server"):
        icon = page.locator(".jp-LauncherCard", has_text=tile).locator("img")
        expect(icon).to_be_visible()
        expect(icon).to_have_js_property("complete", True)
        assert icon.evaluate("image => image.naturalWidth > 0")
    page.wait_for_timeout(1500)  # the question about news comes after the start
    expect(page.locator(".Toastify__toast")).to_have_count(0)
    journey.picture("launcher")
    # The environment is the lab's: an extension that a person installs would go nowhere.
    config = json.loads(page.locator("#jupyter-config-data").text_content() or "")
    assert config["extensionManager"]["can_install"] is False


def test_the_tutorials_are_there(journey: Journey) -> None:
    page = journey.page
    files = page.locator(".jp-DirListing-content")
    files.get_by_text("tutorials", exact=True).dblclick()
    expect(files.get_by_text("00-welcome.ipynb")).to_be_visible()
    expect(files.get_by_text("01-single-cell.ipynb")).to_be_visible()
    journey.picture("tutorials")
    page.locator(".jp-BreadCrumbs-home").click()


def test_a_cell_makes_a_plot(journey: Journey) -> None:
    page = journey.page
    page.locator(".jp-LauncherCard[data-category=Notebook]").first.click()
    expect(page.locator(".jp-Notebook:visible .jp-CodeCell")).to_have_count(1)
    # What is run before the kernel answers, JupyterLab forgets.
    expect(page.get_by_role("button", name="(ipykernel) | Idle")).to_be_visible(timeout=30_000)
    picture = journey.run(PLOT).locator("img")
    expect(picture).to_be_visible(timeout=60_000)
    expect(picture).to_have_js_property("complete", True)
    assert picture.evaluate("image => image.naturalWidth > 300")
    journey.picture("plot")


def test_the_card_leads_to_cells_in_cellxgene(journey: Journey) -> None:
    before = journey.cookies()
    output = journey.run(CELLS)
    link = output.get_by_role("link", name="Open CellxGene")
    expect(link).to_be_visible(timeout=90_000)
    expect(link).to_have_attribute("href", f"/user/{journey.name}/proxy/5005/")
    link.scroll_into_view_if_needed()
    journey.picture("card")
    with journey.context.expect_page() as opened:
        link.click()
    viewer = opened.value
    assert viewer.url == journey.url("proxy/5005/")
    assert_cells_are_drawn(viewer)
    journey.picture("cellxgene", viewer)
    # CellxGene asks for a cookie of the whole origin and fifty years.
    new = journey.cookies() - before
    assert {path for _, _, path in new} == {f"/user/{journey.name}/proxy/5005/"}, new
    assert {domain for _, domain, _ in new} == {f"{journey.name}.localhost"}, new
    viewer.close()


def test_a_cell_runs_a_job_within_the_servers_limits(journey: Journey) -> None:
    output = journey.run(JOB)
    expect(output).to_contain_text("SUCCEEDED with 6 records of 4 GiB")
    journey.picture("job")


def test_packages_of_ones_own_are_there_in_notebook_and_terminal(journey: Journey) -> None:
    page = journey.page
    expect(journey.run(WHEEL)).to_contain_text("Successfully installed labprobe-1.5")
    expect(journey.run("import labprobe; print('the answer is', labprobe.ANSWER)")).to_have_text(
        re.compile("the answer is 42")
    )
    expect(journey.run("!labkit env list")).to_contain_text("1 package over the lab's notebook")
    notebook = page.get_by_role("tab", name=re.compile("^Untitled"))
    page.locator("jp-button[data-command='launcher:create']").click()
    page.locator(".jp-LauncherCard:visible", has_text="Terminal").click()
    terminal = page.locator(".jp-Terminal:visible .xterm-helper-textarea")
    terminal.focus()
    page.keyboard.type(f"{TERMINAL}\n")
    notebook.click()
    said = journey.run(SAID)
    expect(said).to_contain_text("1 package over the lab's notebook")
    expect(said).to_contain_text("/bin/pip")
    expect(said).to_contain_text("/notebook/bin/labkit")
    expect(said).to_contain_text("/bin/cellxgene")
    expect(said).to_contain_text("42")
    journey.picture("packages")


def test_packages_of_ones_own_are_taken_away_on_the_servers_page(journey: Journey) -> None:
    page = tile(journey, "My server", "labkit/")
    expect(page.locator("#packages")).to_have_text("labprobe 1.5")
    page.locator("#packages").scroll_into_view_if_needed()
    journey.picture("own-packages", page)
    page.once("dialog", lambda dialog: dialog.accept())
    page.get_by_role("button", name="Take them all away").click()
    expect(page.locator("#reset-done")).to_contain_text("pip install labprobe==1.5")
    expect(page.locator("#packages")).to_have_text("None: you have the lab's.")
    page.close()


def test_the_tile_lists_saved_data_and_opens_it(journey: Journey) -> None:
    page = tile(journey, "CellxGene", "labkit/cellxgene/")
    expect(page.get_by_text("blood.h5ad")).to_be_visible()
    journey.picture("tile", page)
    page.get_by_role("button", name="Open blood.h5ad").click()
    page.get_by_role("heading", name="Opening blood.h5ad").wait_for()
    link = page.get_by_role("link", name="Open it")
    link.or_(page.get_by_text("bulk_labels")).first.wait_for(timeout=60_000)
    if link.is_visible():  # something was noted, to be read first
        journey.picture("opened", page)
        link.click()
    assert re.fullmatch(re.escape(journey.url("proxy/")) + r"500\d/", page.url), page.url
    assert_cells_are_drawn(page)
    page.close()


def test_the_server_is_kept_when_asked(journey: Journey) -> None:
    page = tile(journey, "My server", "labkit/")
    stops = page.locator("#stops")
    expect(stops).to_have_text(re.compile(r"stops at .*, in (2 h|1 h 59 min)\."))
    expect(page.locator("#processes")).to_have_text(re.compile("^[4-9]"))  # the viewers, too
    journey.picture("server", page)
    page.get_by_role("button", name="Keep for 8 h").click()
    expect(stops).to_have_text(re.compile(r"stops at .*, in (8 h|7 h 59 min)\. You have asked"))
    journey.picture("server-kept", page)
    page.close()


def test_home_shows_the_server_and_stops_it(journey: Journey) -> None:
    page = journey.page
    page.goto(f"{journey.portal.url}/hub/home")
    card = page.locator("#servers article")
    expect(card.get_by_text("Running", exact=True)).to_be_visible()
    # Somebody has asked to keep it: the hub, which is told of use only, must not promise an end.
    expect(card.get_by_text("not before")).to_be_visible()
    journey.picture("home-running")
    page.get_by_role("button", name="Stop my server").click()
    expect(page.get_by_role("link", name="Start my server")).to_be_visible(timeout=30_000)
    journey.picture("home-stopped")


def test_log_out(journey: Journey) -> None:
    page = journey.page
    page.get_by_role("link", name="Log out").click()
    expect(page.get_by_label("User name")).to_be_visible()
    journey.picture("out")
    page.goto(f"{journey.portal.url}/hub/home")
    expect(page.get_by_label("User name")).to_be_visible()
    # CellxGene's page names a script for old browsers that its server does not have.
    assert [one for one in journey.failed if not one.endswith("/obsolete.js")] == []


def tile(journey: Journey, title: str, path: str) -> Page:
    """Click a tile of the launcher; return the page that it opens."""
    page = journey.page
    page.locator("jp-button[data-command='launcher:create']").click()
    with journey.context.expect_page() as opened:
        page.locator(".jp-LauncherCard:visible", has_text=title).click()
    opened.value.wait_for_url(journey.url(path))
    return opened.value


def assert_cells_are_drawn(page: Page) -> None:
    """Colour the cells by their type; there must be many pixels in many colours."""
    expect(page.get_by_text("bulk_labels")).to_be_visible(timeout=30_000)
    page.get_by_test_id("colorby-bulk_labels").click()
    end = time.monotonic() + 120
    while (drawn := colours_drawn(page))[1] < 8 and time.monotonic() < end:
        page.wait_for_timeout(300)
    pixels, colours = drawn
    assert pixels > 3000
    assert colours >= 8, "ten kinds of cells have more colours than one"
