"""A Shiny and a Dash app of members in a real browser, for two people in different groups."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, expect, sync_playwright

from tests.browser.test_apps import log_in
from tests.conftest import CHROMIUM, needs_chromium, needs_env, needs_root
from tests.services.member_apps.conftest import Scene

pytestmark = [needs_root, needs_chromium, needs_env("proxy"), needs_env("dash")]


@pytest.fixture(scope="module")
def chromium() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser
        browser.close()


def test_a_dash_app_from_its_card_to_its_figure(
    scene: Scene, chromium: Browser, artifacts: Path
) -> None:
    page = log_in(chromium, scene.portal, scene.ada)
    page.screenshot(path=artifacts / "webapps-home.png", full_page=True)
    page.locator("a.card", has_text="doses").click()
    expect(page.locator("#who")).to_have_text(f"{scene.ada} looks at compound A")
    line = page.locator("#curve .scatterlayer path.js-line")
    expect(line).to_have_count(1)  # plotly's script has 5 MB
    assert page.url == scene.portal.app_url("doses")
    page.screenshot(path=artifacts / "webapps-dash.png")
    page.context.close()


@pytest.mark.skipif(shutil.which("Rscript") is None, reason="needs R with shiny")
def test_a_shiny_app_follows_its_slider(scene: Scene, chromium: Browser, artifacts: Path) -> None:
    page = log_in(chromium, scene.portal, scene.ada)
    page.goto(scene.portal.app_url("waves"))
    expect(page.locator("#who")).to_have_text(f"{scene.ada} looks at 2 periods")
    track = page.locator(".irs-line")
    box = track.bounding_box()
    assert box is not None
    track.click(position={"x": 0.76 * box["width"], "y": box["height"] / 2}, force=True)
    expect(page.locator("#who")).to_have_text(f"{scene.ada} looks at 7 periods")
    plot = page.locator("#plot img")
    expect(plot).to_be_visible()
    expect(plot).to_have_js_property("complete", True)
    assert plot.evaluate("img => img.naturalWidth > 100")
    page.screenshot(path=artifacts / "webapps-shiny.png")
    page.context.close()


def test_who_is_in_another_group_sees_and_opens_none(scene: Scene, chromium: Browser) -> None:
    page = log_in(chromium, scene.portal, scene.bob)
    for name in ("doses", "waves"):
        assert page.locator("a.card", has_text=name).count() == 0
        page.goto(scene.portal.app_url(name))
        expect(page.get_by_role("heading", name="You may not open this")).to_be_visible()
        page.goto(f"{scene.portal.url}/hub/home")
    page.context.close()
