"""Apps behind the gate in a real browser: two people in different groups, and the gate's pages."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, expect, sync_playwright

from tests.conftest import CHROMIUM, needs_chromium, needs_env, needs_root
from tests.support.gated_portal import AppPortal, eventually
from tests.support.portal import PASSWORD, People

pytestmark = [needs_root, needs_chromium, needs_env("proxy")]

APP = Path(__file__).resolve().parents[1] / "support" / "testapp"


@pytest.fixture(scope="module")
def scene(people: People) -> Iterator[tuple[AppPortal, Browser, str, str]]:
    ada, bob = people.add("ada"), people.add("bob")
    lab = {"groups": {"imaging": [ada], "other": [bob]}}
    with AppPortal(lab, [APP]) as portal, sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield portal, chromium, ada, bob
        chromium.close()


def log_in(chromium: Browser, portal: AppPortal, name: str) -> Page:
    page = chromium.new_context().new_page()
    page.goto(f"{portal.url}/hub/login")
    page.get_by_label("User name").fill(name)
    page.get_by_label("Password").fill(PASSWORD)
    page.keyboard.press("Enter")
    page.wait_for_url("**/hub/home")
    return page


def test_an_app_opens_from_the_home_page(
    scene: tuple[AppPortal, Browser, str, str], artifacts: Path
) -> None:
    portal, chromium, ada, _ = scene
    page = log_in(chromium, portal, ada)
    card = page.locator("a.card", has_text="Test app")
    expect(card.locator(".state")).to_have_text("Stopped")
    picture = card.locator("img")
    expect(picture).to_have_js_property("complete", True)
    assert picture.evaluate("img => img.naturalWidth > 0")
    page.screenshot(path=artifacts / "apps-home.png", full_page=True)
    wait = portal.state / "appdata" / "testapp" / "wait"
    wait.write_text("6")
    card.click()
    expect(page.get_by_role("heading", name="Test app is starting")).to_be_visible()
    page.screenshot(path=artifacts / "apps-starting.png")
    wait.unlink()
    # By itself: the app, its script, its WebSocket and its upload.
    expect(page.locator("#who")).to_have_text(ada)
    expect(page.locator("#out")).to_have_text("ping 1000")
    assert page.url.startswith(portal.app_url("testapp"))
    assert "service-testapp" not in page.evaluate("document.cookie")
    page.goto(f"{portal.url}/hub/home")
    expect(page.locator("a.card", has_text="Test app").locator(".state")).to_have_text("Running")
    page.context.close()


def test_who_is_in_another_group_sees_and_opens_nothing(
    scene: tuple[AppPortal, Browser, str, str], artifacts: Path
) -> None:
    portal, chromium, _, bob = scene
    page = log_in(chromium, portal, bob)
    assert page.locator("a.card", has_text="Test app").count() == 0
    page.goto(portal.app_url("testapp"))
    expect(page.get_by_role("heading", name="You may not open this")).to_be_visible()
    page.context.close()


def test_an_app_that_is_down_says_so(
    scene: tuple[AppPortal, Browser, str, str], artifacts: Path
) -> None:
    portal, chromium, ada, _ = scene
    portal.stop_app("testapp")
    fail = portal.state / "appdata" / "testapp" / "fail"
    fail.touch()
    page = log_in(chromium, portal, ada)
    page.goto(portal.app_url("testapp"))
    expect(page.get_by_role("heading", name="Test app is down")).to_be_visible(timeout=30_000)
    page.screenshot(path=artifacts / "apps-down.png")
    page.goto(f"{portal.url}/hub/home")
    expect(page.locator("a.card", has_text="Test app").locator(".state")).to_have_text("Down")
    page.goto(portal.app_url("testapp"))
    expect(page.get_by_role("heading", name="Test app is down")).to_be_visible(timeout=30_000)
    fail.unlink()

    def comes_back() -> bool:
        if page.locator("#again").count():
            page.locator("#again").click()
        return page.locator("#who").count() == 1

    eventually(comes_back, 40)
    expect(page.locator("#who")).to_have_text(ada)
    page.context.close()


def test_a_page_on_another_origin_gets_nothing(
    scene: tuple[AppPortal, Browser, str, str],
) -> None:
    """Ada has the app open; a page of hers elsewhere tries to read and change it as her."""
    portal, chromium, ada, _ = scene
    page = log_in(chromium, portal, ada)
    page.goto(portal.app_url("testapp"))
    expect(page.locator("#who")).to_have_text(ada)
    page.goto(f"{portal.url}/hub/home")
    for request in (
        "fetch(url, {credentials: 'include'}).then(a => a.text())",
        "fetch(url, {credentials: 'include', mode: 'no-cors'}).then(a => a.type + a.status)",
        "fetch(url, {method: 'POST', credentials: 'include', mode: 'no-cors', body: 'x'})"
        ".then(a => a.type + a.status)",
        "new Promise((done, fail) => { const ws = new WebSocket(url.replace('http', 'ws') + 'ws');"
        " ws.onopen = () => done('open'); ws.onerror = () => fail('refused'); })",
    ):
        script = f"async (url) => {{ try {{ return await {request} }} catch {{ return 'no' }} }}"
        assert page.evaluate(script, portal.app_url("testapp")) in ("no", "opaque0"), request
    page.context.close()
