"""Log in, sign up, be let in and use the one-time link in a real browser."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest
from playwright.sync_api import Browser, Page, expect

from hub.auth import first_admin
from hub.labfile.read import read
from hub.state.paths import Paths
from tests.conftest import needs_chromium, needs_root
from tests.support.portal import Portal, secrets_in

pytestmark = [needs_root, needs_chromium]
GOOD = "three red bicycles"
Opener = Callable[..., Page]


@pytest.fixture(scope="module")
def lab() -> Iterator[Portal]:
    with Portal({"authentication": {"method": "signup"}}) as running:
        yield running


@pytest.fixture
def opened(chromium: Browser) -> Iterator[Opener]:
    contexts = []

    def opener(**options: object) -> Page:
        contexts.append(chromium.new_context(**options))  # type: ignore[arg-type]
        return contexts[-1].new_page()

    yield opener
    for context in contexts:
        context.close()


def test_from_the_one_time_link_to_a_second_person(
    lab: Portal, opened: Opener, artifacts: Path
) -> None:
    paths = Paths(lab.state, lab.envs)
    link = first_admin.new_link(paths, read(paths.lab_file))
    token = link.partition("#")[2]
    asked: list[str] = []
    boss = opened()
    boss.on("request", lambda request: asked.append(request.url))
    boss.goto(link)
    boss.screenshot(path=artifacts / "first-admin.png")
    # The code is in the form, out of sight, and gone from the address.
    assert boss.url == f"{lab.url}/hub/link"
    expect(boss.get_by_label("Code")).to_be_hidden()
    boss.get_by_label("User name").fill("boss")
    boss.get_by_label("Password", exact=True).fill(GOOD)
    boss.get_by_label("The same again").fill(GOOD)
    boss.get_by_role("button", name="Become administrator").click()
    boss.wait_for_url("**/hub/home")
    assert not [url for url in asked if token in url]
    logs = "".join(p.read_text(errors="replace") for p in (lab.state / "log").glob("*.log"))
    assert not secrets_in(logs, [token, GOOD])

    ada = opened(viewport={"width": 390, "height": 800}, color_scheme="dark")
    ada.goto(f"{lab.url}/hub/login")
    ada.screenshot(path=artifacts / "login-phone-dark.png")
    ada.get_by_role("link", name="Ask for an account").click()
    ada.get_by_label("User name").fill("ada")
    ada.get_by_label("E-mail address").fill("ada@lab.example")
    ada.get_by_label("Password", exact=True).fill(GOOD)
    ada.keyboard.press("Tab")
    ada.keyboard.type(GOOD)
    ada.screenshot(path=artifacts / "signup-phone-dark.png", full_page=True)
    ada.keyboard.press("Enter")
    expect(ada.get_by_role("heading", name="Your request is in")).to_be_visible()

    boss.get_by_role("link", name="People").click()
    expect(boss.get_by_role("heading", name="Waiting (1)")).to_be_visible()
    boss.screenshot(path=artifacts / "people.png")
    boss.get_by_role("button", name="Let in ada").click()
    expect(boss.get_by_text("Nobody waits.")).to_be_visible()

    ada.get_by_role("link", name="To the login page").click()
    ada.get_by_label("User name").fill("ada")
    ada.get_by_label("Password").fill("not it at all")
    ada.get_by_role("button", name="Log in").click()
    expect(ada.get_by_role("alert")).to_have_text("Invalid username or password")
    expect(ada.get_by_label("Password")).to_be_focused()
    ada.keyboard.type(GOOD)
    ada.keyboard.press("Enter")
    ada.wait_for_url("**/hub/home")


def test_the_link_works_without_scripts(lab: Portal, opened: Opener) -> None:
    paths = Paths(lab.state, lab.envs)
    link = first_admin.new_link(paths, read(paths.lab_file), again=True)
    page = opened(java_script_enabled=False)
    page.goto(link)
    page.get_by_label("Code").fill(link.partition("#")[2])
    page.get_by_label("User name").fill("second")
    page.get_by_label("Password", exact=True).fill(GOOD)
    page.get_by_label("The same again").fill(GOOD)
    page.get_by_role("button", name="Become administrator").click()
    page.wait_for_url("**/hub/home")


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("page_name", ["login", "signup", "link"])
def test_nothing_overflows_a_phone_and_every_field_has_a_label(
    lab: Portal, opened: Opener, page_name: str, scheme: str
) -> None:
    page = opened(viewport={"width": 320, "height": 640}, color_scheme=scheme)
    faults: list[str] = []
    page.on("pageerror", lambda error: faults.append(str(error)))
    answer = page.goto(f"{lab.url}/hub/{page_name}")
    assert answer is not None
    assert answer.status == httpx.codes.OK
    assert page.evaluate("document.documentElement.scrollWidth") <= 320
    fields = page.locator("input:not([type=hidden])")
    assert fields.count() >= 2
    assert page.evaluate(
        "[...document.querySelectorAll('input:not([type=hidden])')].every(f => f.labels.length)"
    )
    assert not faults
