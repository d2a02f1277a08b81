"""The documentation in a real portal: the contract, two people's browsers, documents that attack.

Pictures are kept as ``docs-*.png``.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from playwright.sync_api import Browser, Page, expect, sync_playwright

from tests.browser.test_apps import log_in
from tests.conftest import CHROMIUM, needs_chromium, needs_env, needs_root
from tests.services.docs.conftest import EVIL_HTML, fill
from tests.support.app_contract import LARGE, AppCase, AppContract
from tests.support.gated_portal import AppPortal, eventually
from tests.support.portal import People

pytestmark = [needs_root, needs_env("proxy")]
PORTAPP = Path(__file__).parents[2] / "support" / "portapp"
# What the browser tells a page that somebody comes back to: it looks how things are.
LOOK = "document.dispatchEvent(new Event('visibilitychange'))"
FAULTS = (Path(__file__).parents[2] / "browser" / "faults.js").read_text()


class DocsPortal(AppPortal):
    """A portal whose documents lie in a shared folder, as a lab's do."""

    def __init__(self, people: People) -> None:
        self.ada, self.bob, self.carl = (people.add(name) for name in ("ada", "bob", "carl"))
        super().__init__(
            {
                "lab": {"name": "Our lab", "contact": "help@lab.example"},
                "groups": {
                    "imaging": [self.ada],
                    "readers": [self.ada, self.carl],
                    "plants": [self.bob],
                },
            },
            ["docs"],
            {"docs": ["readers"]},
        )
        shared = fill(self.folder / "shared")
        with (shared / "sops" / "scan.czi").open("wb") as scan:
            scan.truncate(LARGE)
        shared.chmod(0o755)
        self.lab["storage"] = {"shared": [{"path": str(shared)}]}
        self.write_lab()
        sections = [
            {"name": "sops", "title": "Protocols", "folder": f"{shared}/sops"},
            {"name": "site", "title": "Site", "folder": f"{shared}/site", "groups": ["imaging"]},
        ]
        self.settings = json.dumps({"sections": sections})

    def __enter__(self) -> DocsPortal:
        super().__enter__()
        file = self.state / "appdata" / "docs" / "settings.json"
        file.write_text(self.settings)  # before it is opened for the first time
        file.chmod(0o644)
        return self


@pytest.fixture(scope="module")
def portal(people: People) -> Iterator[DocsPortal]:
    with DocsPortal(people) as running:
        yield running


@pytest.fixture(scope="module")
def app(portal: DocsPortal) -> AppCase:
    return AppCase(
        portal,
        "docs",
        member=portal.ada,
        outsider=portal.bob,
        group="readers",
        page="sops/pcr/01_setup.md",
        says="PCR set-up",
        assets=("_/static/docs.css", "sops/pictures/gel%20one.png"),
        download="sops/scan.czi",
        whoami="",
    )


@pytest.fixture(scope="module")
def chromium() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield started
        started.close()


@pytest.fixture(scope="module")
def page(chromium: Browser, portal: DocsPortal) -> Page:
    return log_in(chromium, portal, portal.ada)


@needs_chromium
def test_the_home_page_shows_what_each_may_open(
    portal: DocsPortal, page: Page, chromium: Browser, artifacts: Path
) -> None:
    """With its picture and how it is, which follows without a reload; nothing of other groups."""
    portal.stop_app("docs")
    page.goto(f"{portal.url}/hub/home")
    card = page.locator("a.card", has_text="Documentation")
    expect(card.locator(".state")).to_have_text("Stopped")
    expect(card.locator("img")).to_have_js_property("complete", True)
    assert card.locator("img").evaluate("image => image.naturalWidth > 0")
    page.screenshot(path=artifacts / "docs-1-home.png", full_page=True)
    with portal.program(portal.token(portal.ada)) as program:
        program.get(portal.app_url("docs"), timeout=60).raise_for_status()
    page.evaluate(LOOK)
    expect(card.locator(".state")).to_have_text("Running")
    # An app that is added comes, and goes, without a reload.
    new = page.locator("a.card", has_text="Port app")
    expect(new).to_have_count(0)
    portal.labhub("app", "add", str(PORTAPP))
    page.evaluate(LOOK)
    expect(new.locator(".state")).to_have_text("Stopped")
    expect(card.locator(".state")).to_have_text("Running")
    portal.labhub("app", "remove", "--yes", "portapp")
    page.evaluate(LOOK)
    expect(new).to_have_count(0)
    other = log_in(chromium, portal, portal.bob)
    expect(other.locator("a.card", has_text="JupyterLab")).to_be_visible()
    expect(other.locator("a.card", has_text="Datasets")).to_be_visible()
    expect(other.locator("a.card", has_text="Documentation")).to_have_count(0)
    other.screenshot(path=artifacts / "docs-2-home-of-another.png", full_page=True)
    picture = "async url => (await fetch(url)).status"
    assert page.evaluate(picture, "/hub/app-picture/docs") == 200
    assert other.evaluate(picture, "/hub/app-picture/docs") == 404
    other.goto(portal.app_url("docs"))
    expect(other.get_by_role("heading", name="You may not open this")).to_be_visible()
    other.context.close()


@needs_chromium
def test_ada_reads_and_finds(portal: DocsPortal, page: Page, artifacts: Path) -> None:
    page.goto(f"{portal.url}/hub/home")
    page.locator("a.card", has_text="Documentation").click()
    page.get_by_role("heading", name="Documentation", exact=True).wait_for(timeout=30_000)
    page.screenshot(path=artifacts / "docs-3-all.png")
    page.get_by_role("link", name="Protocols", exact=True).click()
    page.get_by_role("article").get_by_role("link", name="PCR").click()
    expect(page.get_by_role("heading", name="PCR set-up")).to_be_visible()
    gel = page.get_by_alt_text("a gel")
    expect(gel).to_have_js_property("complete", True)
    assert gel.evaluate("image => image.naturalWidth === 256")
    expect(page.get_by_label("On this page").get_by_role("link")).to_have_count(2)
    for name, scheme, width in (
        ("light", "light", 1300),
        ("dark", "dark", 1300),
        ("phone", "light", 390),
    ):
        page.emulate_media(color_scheme=scheme)  # type: ignore[arg-type]
        page.set_viewport_size({"width": width, "height": 850})
        page.screenshot(path=artifacts / f"docs-4-document-{name}.png", full_page=True)
        assert page.evaluate(FAULTS, True) == [], name
    page.emulate_media(color_scheme="light")
    page.set_viewport_size({"width": 1300, "height": 850})
    page.get_by_label("Search the documentation").fill("muller")
    page.keyboard.press("Enter")
    expect(page.locator("mark")).to_have_text("Müller")
    page.screenshot(path=artifacts / "docs-5-found.png")
    assert page.evaluate(FAULTS, True) == []
    page.get_by_role("link", name="PCR set-up").click()
    expect(page.get_by_role("heading", name="PCR set-up")).to_be_visible()


@needs_chromium
def test_no_script_of_a_document_runs(portal: DocsPortal, page: Page, artifacts: Path) -> None:
    page.goto("about:blank")
    stays = [line for line in EVIL_HTML.splitlines() if not line.startswith(("<meta", "<base"))]
    page.set_content("\n".join(stays))
    eventually(lambda: page.title() == "pwned", 20, say="the attack itself does nothing")
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    for path in ("sops/evil.md", "site/", "site/index.html", "site/evil.svg"):
        page.goto(portal.app_url("docs", path), wait_until="load")
        # A document that could act would have, before the next one is asked for.
        page.wait_for_load_state("networkidle")
        assert page.title() != "pwned", path
        assert page.url == portal.app_url("docs", path)
        if page.locator("#link").count():
            page.locator("#link").click(no_wait_after=True)
        if page.locator("#send").count():
            page.locator("#send").click(no_wait_after=True)
        page.wait_for_load_state("networkidle")
        assert page.title() != "pwned", path
        assert page.url.split("#")[0] == portal.app_url("docs", path)
    assert {urlsplit(url).netloc for url in asked} == {urlsplit(portal.app_origin("docs")).netloc}
    page.goto(portal.app_url("docs", "site/"))
    # What is harmless is there: its style and its picture.
    assert page.locator("h1").evaluate("e => getComputedStyle(e).color") == "rgb(1, 2, 3)"
    expect(page.locator("#gel")).to_have_js_property("complete", True)
    assert page.locator("#gel").evaluate("image => image.naturalWidth") == 256
    page.screenshot(path=artifacts / "docs-6-site.png")
    page.goto(portal.app_url("docs", "sops/evil.md"))
    page.screenshot(path=artifacts / "docs-7-evil.png")


def test_a_section_is_for_its_own_groups_and_changes_show(portal: DocsPortal) -> None:
    shared = portal.folder / "shared"
    ada, carl = (portal.program(portal.token(name)) for name in (portal.ada, portal.carl))
    with ada, carl:
        assert ada.get(portal.app_url("docs", "site/")).status_code == 200
        assert carl.get(portal.app_url("docs", "site/")).status_code == 404
        assert carl.get(portal.app_url("docs", "sops/")).status_code == 200
        (shared / "sops" / "new.md").write_text("# Centrifuge axolotls\n")
        (shared / "sops" / "pcr" / "02_run.md").write_text("# Run it backwards\n")
        found = portal.app_url("docs", "_/search?q=axolotl")
        eventually(lambda: "Centrifuge" in carl.get(found).text, 20)
        assert "backwards" in carl.get(portal.app_url("docs", "sops/pcr/02_run.md")).text


def test_labhub_s_own_help_is_there_for_all_who_may_open_the_app(portal: DocsPortal) -> None:
    with portal.program(portal.token(portal.carl)) as carl:
        assert "Labhub&#39;s help" in carl.get(portal.app_url("docs")).text
        page = carl.get(portal.app_url("docs", "labhub/how-to/documentation.md"))
        assert page.status_code == 200 and "Show the lab's documents" in page.text
    with portal.program(portal.token(portal.bob)) as bob:
        assert bob.get(portal.app_url("docs", "labhub/")).status_code == 403
    link = f'<a href="{portal.app_url("docs", "labhub/")}">Help</a>'
    for name, may_open in ((portal.carl, True), (portal.bob, False)):
        with portal.browser() as browser:
            assert (link in browser.login(name).text) == may_open


class TestDocumentation(AppContract):
    """What every app behind the gate must do."""
