"""R in a portal: kernel, Shiny and RStudio in a browser, and a neighbour who wants in.

RStudio Server is in no package archive: `rserver` is a stand-in (tests/labkit/server/rstudio).
"""

from __future__ import annotations

import json
import os
import pwd
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, expect

from tests.conftest import needs_chromium, needs_env, needs_root
from tests.labkit.server.test_r import needs_r, write_app
from tests.support.portal import PASSWORD, Portal

pytestmark = [
    needs_root,
    needs_chromium,
    needs_env("proxy"),
    needs_env("r"),
    needs_r,
    pytest.mark.slow,
]
STANDIN = Path(__file__).parents[1] / "labkit" / "server" / "rstudio"
LAB = {
    "profiles": [
        {"name": "r", "title": "R", "environment": "r", "cpu": 2, "memory": "2G", "default": True},
        {"name": "stub", "title": "Stub", "environment": "stub", "memory": "512M"},
    ]
}
PLOT = {
    "cells": [
        {
            "cell_type": "code",
            "id": "a",
            "execution_count": None,
            "metadata": {},
            "outputs": [],
            "source": "hist(c(1, 2, 2, 3), col = 'tomato')",
        }
    ],
    "metadata": {"kernelspec": {"display_name": "R", "language": "R", "name": "ir"}},
    "nbformat": 4,
    "nbformat_minor": 5,
}


@pytest.fixture(scope="module")
def portal(ada: str, bob: str) -> Iterator[Portal]:
    made = Portal(LAB)
    # Where people's servers can see it: beside the environments.
    shutil.copytree(STANDIN, made.envs / "rstudio" / "bin")
    made.env["PATH"] = f"{made.envs / 'rstudio' / 'bin'}{os.pathsep}{os.environ['PATH']}"
    account = pwd.getpwnam(ada)
    home = Path(account.pw_dir)
    write_app(home)
    (home / "plot.ipynb").write_text(json.dumps(PLOT))
    for path in (home / "plot.ipynb", *home.rglob("app.R"), *home.glob("*app")):
        os.chown(path, account.pw_uid, account.pw_gid)
    with made as running:
        running.spawn(ada, "r")
        running.spawn(bob, "stub")
        yield running


@pytest.fixture(scope="module")
def page(portal: Portal, chromium: Browser, ada: str) -> Iterator[Page]:
    yield log_in(chromium, portal, ada)


def log_in(chromium: Browser, portal: Portal, name: str) -> Page:
    page = chromium.new_context(viewport={"width": 1300, "height": 900}).new_page()
    page.set_default_timeout(60_000)
    page.goto(f"{portal.url}/hub/login")
    page.get_by_label("User name").fill(name)
    page.get_by_label("Password").fill(PASSWORD)
    page.keyboard.press("Enter")
    page.wait_for_url("**/hub/home")
    return page


@pytest.fixture(scope="module")
def studio(portal: Portal, page: Page, ada: str, artifacts: Path) -> dict[str, object]:
    """Open RStudio by its card; return what it says of itself."""
    page.goto(f"{portal.url}/hub/home")
    expect(page.locator("a.card", has_text="Shiny preview")).to_be_visible()
    page.screenshot(path=artifacts / "r-home.png", full_page=True)
    page.locator("a.card", has_text="RStudio").click()
    page.wait_for_url(re.compile(re.escape(portal.user_url(ada, "rstudio/"))))
    return dict(json.loads(page.locator("pre").inner_text()))


def test_rstudio_opens_from_the_home_page(
    portal: Portal, page: Page, studio: dict[str, object], ada: str
) -> None:
    assert studio["user"] == ada
    cookies = [c for c in page.context.cookies() if c["name"] in ("user-id", "csrf-token")]
    assert {c["path"] for c in cookies} == {f"/user/{ada}/rstudio/"}
    assert {c["domain"] for c in cookies} == {f"{ada}.localhost"}
    text = json.dumps(studio)
    assert "jupyterhub-" not in text
    assert "xsrf" not in text


def test_a_neighbour_does_not_reach_it(
    portal: Portal, chromium: Browser, studio: dict[str, object], ada: str, bob: str
) -> None:
    flags = dict(studio["flags"])  # type: ignore[call-overload]
    place = flags["www-socket"]
    attack = (
        "import glob, socket\n"
        "s = socket.socket(socket.AF_UNIX)\n"
        f"try:\n    s.connect({place!r}); print('open')\n"
        "except OSError as error: print(type(error).__name__)\n"
        "print(glob.glob('/tmp/jupyter-server-proxy-*'), glob.glob('/tmp/labkit-shiny-*'))\n"
    )
    assert portal.run(bob, attack).split("\n")[:2] == ["FileNotFoundError", "[] []"]
    other = log_in(chromium, portal, bob)
    for path in ("rstudio/", "labkit/shiny/", "labkit/api/shiny/apps"):
        answer = other.goto(portal.user_url(ada, path))
        assert answer is not None
        assert answer.status in (403, 404)
        assert "rserver" not in other.content()
    expect(other.locator("body")).not_to_contain_text(place)
    # His own server has no R: its address says so, in the stub's way.
    other.context.close()


def test_a_cell_of_r_makes_a_plot(portal: Portal, page: Page, ada: str, artifacts: Path) -> None:
    page.goto(portal.user_url(ada, "lab/tree/plot.ipynb"))
    expect(page.get_by_role("button", name="R | Idle")).to_be_visible(timeout=60_000)
    page.locator(".jp-CodeCell .cm-content").first.click()
    page.keyboard.press("Shift+Enter")
    picture = page.locator(".jp-Cell-outputArea img, .jp-Cell-outputArea svg").first
    expect(picture).to_be_visible(timeout=60_000)
    page.screenshot(path=artifacts / "r-kernel.png")


def test_tiles_of_r_stand_in_the_launcher(
    portal: Portal, page: Page, ada: str, artifacts: Path
) -> None:
    page.goto(portal.user_url(ada, "lab?reset"))
    for tile in ("RStudio", "Shiny preview", "CellxGene"):
        icon = page.locator(".jp-LauncherCard", has_text=tile).locator("img, svg").first
        expect(icon).to_be_visible()
    page.screenshot(path=artifacts / "r-launcher.png")


def test_a_shiny_app_runs_from_its_tile(portal: Portal, page: Page, artifacts: Path) -> None:
    with page.context.expect_page() as opened:
        page.locator(".jp-LauncherCard", has_text="Shiny preview").click()
    tile = opened.value
    expect(tile.get_by_role("heading", name="Try a Shiny app")).to_be_visible()
    expect(tile.locator("#summary")).to_contain_text("1 found")
    tile.screenshot(path=artifacts / "r-shiny-tile.png")
    tile.get_by_role("button", name="Run").first.click()
    expect(tile.locator("#doubled")).to_have_text("twice: 20")
    tile.locator(".irs-handle").first.focus()
    tile.locator(".irs-line").first.click()
    expect(tile.locator("#doubled")).not_to_have_text("twice: 20")
    tile.screenshot(path=artifacts / "r-shiny.png")
    tile.go_back()
    tile.reload()
    stop = tile.get_by_role("button", name="Stop")
    expect(stop).to_be_visible()
    tile.screenshot(path=artifacts / "r-shiny-running.png")
    stop.click()
    expect(stop).to_be_hidden()
    tile.set_viewport_size({"width": 340, "height": 700})
    assert tile.evaluate("document.documentElement.scrollWidth <= innerWidth")
    tile.close()
