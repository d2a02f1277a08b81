"""The portal's pages in a real browser: as a newcomer, by keyboard, on a phone, in the dark."""

from __future__ import annotations

import re
import signal
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, BrowserContext, Page, expect

from hub.state.messages import MessageBoard
from hub.state.paths import Paths
from tests.conftest import needs_chromium, needs_root
from tests.support.portal import PASSWORD, People, Portal

pytestmark = [needs_root, needs_chromium]

LAB = {
    "lab": {
        "name": "Sequoia lab",
        "contact": "help@lab.example",
        "message": "The sequencer rests on Friday.",
    },
    "groups": {"imaging": []},
    "named_servers": 2,
    "apps": [
        {"name": "wiki", "title": "Lab wiki", "url": "https://wiki.lab.example"},
        {"name": "rota", "title": "Rota", "url": "https://r.lab.example", "groups": ["imaging"]},
    ],
    "profiles": [
        {
            "name": "stub",
            "title": "Standard",
            "description": "For everyday work.",
            "environment": "stub",
            "memory": "512M",
            "default": True,
        },
        {"name": "slow", "title": "Slow", "environment": "stub-slow", "memory": "512M"},
        {"name": "dies", "title": "Dies", "environment": "stub-dies", "memory": "512M"},
        {"name": "late", "title": "Dies late", "environment": "stub-late", "memory": "512M"},
        {"name": "gpu", "title": "GPU", "environment": "stub", "groups": ["imaging"]},
    ],
}


@pytest.fixture(scope="module")
def boss(people: People) -> str:
    return people.add("boss")


@pytest.fixture(scope="module")
def portal(boss: str) -> Iterator[Portal]:
    running = Portal({**LAB, "admins": [boss]})
    late = running.envs / "stub-late" / "bin" / "jupyterhub-singleuser"
    late.parent.mkdir(parents=True)
    text = (running.envs / "stub-dies" / "bin" / "jupyterhub-singleuser").read_text()
    late.write_text(text.replace("STUB_EXIT", "STUB_DELAY=2 STUB_EXIT"))
    late.chmod(0o755)
    with running:
        yield running


LogIn = Callable[..., Page]


@pytest.fixture(scope="module")
def log_in(chromium: Browser, portal: Portal) -> Iterator[LogIn]:
    """Log somebody in through the login page; what it returns fails on a script's error."""
    contexts: list[BrowserContext] = []
    errors: list[str] = []

    def enter(name: str, **options: Any) -> Page:
        context = chromium.new_context(**options)
        contexts.append(context)
        page = context.new_page()
        page.set_default_timeout(60_000)
        page.on("pageerror", lambda error: errors.append(str(error)))
        page.goto(f"{portal.url}/hub/login")
        page.get_by_label("User name").fill(name)
        page.get_by_label("Password").fill(PASSWORD)
        page.keyboard.press("Enter")
        page.wait_for_url("**/hub/home")
        return page

    yield enter
    for context in contexts:
        context.close()
    assert errors == []


@pytest.fixture(scope="module")
def page(log_in: LogIn, people: People, portal: Portal) -> Page:
    name = people.add("ada")
    page = log_in(name)
    page.owner = name  # type: ignore[attr-defined]
    return page


@pytest.fixture
def owner(page: Page, portal: Portal) -> Iterator[str]:
    name: str = page.owner  # type: ignore[attr-defined]
    yield name
    for server in portal.api("GET", f"/users/{name}").json()["servers"]:
        portal.stop_server(name, server)


def start(page: Page, portal: Portal, profile: str, server: str = "") -> None:
    page.goto(f"{portal.url}/hub/spawn/{page.owner}/{server}".rstrip("/"))  # type: ignore[attr-defined]
    page.get_by_label(profile, exact=False).first.check()
    page.get_by_role("button", name="Start").or_(page.get_by_role("button", name="Try")).click()


# -- home -----------------------------------------------------------------------------


def test_a_newcomer_sees_what_to_do_first(
    log_in: LogIn, people: People, portal: Portal, artifacts: Path
) -> None:
    page = log_in(people.add("new"))
    expect(page.get_by_role("heading", name="Welcome to Sequoia lab")).to_be_visible()
    expect(page.get_by_text("New here?")).to_be_visible()
    expect(page.get_by_text("The sequencer rests on Friday.")).to_be_visible()
    expect(page.get_by_role("link", name="help@lab.example")).to_have_attribute(
        "href", "mailto:help@lab.example"
    )
    expect(page.get_by_role("link", name="Lab wiki")).to_be_visible()
    expect(page.get_by_role("link", name="Rota")).to_have_count(0)
    page.screenshot(path=artifacts / "home-new.png", full_page=True)
    page.get_by_role("link", name="Start my server").click()
    expect(page.get_by_label("Standard")).to_be_checked()
    expect(page.get_by_label("GPU")).to_have_count(0)
    page.screenshot(path=artifacts / "spawn.png", full_page=True)


def test_pages_are_light_and_ask_nobody_else(page: Page, portal: Portal) -> None:
    context = page.context.browser.new_context(storage_state=page.context.storage_state())  # type: ignore[union-attr]
    fresh = context.new_page()
    weights: dict[str, int] = {}
    fresh.on("response", lambda r: weights.update({r.url: len(r.body()) if r.ok else 0}))
    fresh.goto(f"{portal.url}/hub/home", wait_until="networkidle")
    assert weights
    assert all(url.startswith(portal.url) for url in weights)
    assert sum(weights.values()) < 50_000, weights
    weights.clear()
    fresh.goto(f"{portal.url}/hub/home", wait_until="networkidle")
    again = sum(
        fresh.evaluate(
            "performance.getEntries().filter(e => e.transferSize).map(e => e.transferSize)"
        )
    )
    context.close()
    assert again < 15_000


def test_a_running_server_is_shown_and_can_be_stopped(
    page: Page, portal: Portal, owner: str, artifacts: Path
) -> None:
    portal.spawn(owner)
    page.goto(f"{portal.url}/hub/home")
    card = page.locator("#servers article").first
    expect(card.get_by_text("Running", exact=True)).to_be_visible()
    expect(card.get_by_text("Stops if unused")).to_be_visible()
    expect(card.locator("time").last).to_have_text(re.compile(r"\(in (2 h|1 h 59 min)\)"))
    expect(card.get_by_role("link", name="Keep it running")).to_have_attribute(
        "href", portal.user_url(owner, "labkit/")
    )
    page.screenshot(path=artifacts / "home-running.png", full_page=True)
    card.get_by_role("link", name="Open").click()
    page.wait_for_url(portal.user_url(owner))
    page.goto(f"{portal.url}/hub/home")
    page.get_by_role("button", name="Stop my server").click()
    expect(page.get_by_role("link", name="Start my server")).to_be_visible()


def test_a_server_started_elsewhere_appears_by_itself(
    page: Page, portal: Portal, owner: str
) -> None:
    request = threading.Thread(target=portal.spawn, args=(owner, "slow"))
    request.start()
    while not portal.api("GET", f"/users/{owner}").json()["servers"]:
        page.wait_for_timeout(50)
    page.goto(f"{portal.url}/hub/home")
    expect(page.get_by_text("Starting", exact=True)).to_be_visible()
    expect(page.get_by_text("Running", exact=True)).to_be_visible(timeout=15_000)
    request.join()


def test_named_servers_are_added_with_a_strict_name_and_removed(
    page: Page, portal: Portal, owner: str, artifacts: Path
) -> None:
    page.goto(f"{portal.url}/hub/home")
    page.get_by_text("Add another server").click()
    field = page.get_by_label("Name", exact=True)
    for bad in ("Big", "a_b", "1st", "a--b", "-a", "a-", "a/b", "../x", "a b", "ä"):
        field.fill(bad)
        assert not field.evaluate("e => e.checkValidity()"), bad
        page.get_by_role("button", name="Add").click()
        assert page.url == f"{portal.url}/hub/home"
    field.fill("second-one")
    page.get_by_role("button", name="Add").click()
    page.wait_for_url(f"**/hub/spawn/{owner}/second-one")
    expect(page.get_by_text("second-one")).to_be_visible()
    page.get_by_role("button", name="Start").click()
    page.wait_for_url(portal.user_url(owner, server="second-one"))
    page.goto(f"{portal.url}/hub/home")
    card = page.locator("#servers article", has=page.get_by_role("heading", name="second-one"))
    expect(card.get_by_text("Running", exact=True)).to_be_visible()
    page.screenshot(path=artifacts / "home-named.png", full_page=True)
    card.get_by_role("button", name="Stop").click()
    page.once("dialog", lambda dialog: dialog.accept())
    card.get_by_role("button", name="Remove").click()
    expect(card).to_have_count(0)


def test_an_app_of_the_server_starts_it_and_goes_on_there(
    page: Page, portal: Portal, owner: str
) -> None:
    page.goto(f"{portal.url}/hub/home")
    page.get_by_role("link", name=re.compile("^CellxGene")).click()
    page.wait_for_url("**/hub/spawn/**")
    page.get_by_label("Standard").check()
    page.get_by_role("button", name="Start").click()
    page.wait_for_url(portal.user_url(owner, "labkit/cellxgene/") + "*")


# -- starting -------------------------------------------------------------------------


def test_a_start_by_keyboard_alone_shows_phases_survives_a_reload_and_goes_on(
    page: Page, portal: Portal, owner: str, artifacts: Path
) -> None:
    page.goto(f"{portal.url}/hub/home")
    press_until(page, "Tab", "#start-default")
    page.keyboard.press("Enter")
    page.wait_for_url("**/hub/spawn/**")
    press_until(page, "Tab", "input[name=profile]:checked")
    press_until(page, "ArrowDown", "input[value=slow]")
    assert visible_focus(page)
    press_until(page, "Tab", "button[type=submit]")
    assert visible_focus(page)
    page.keyboard.press("Enter")
    page.wait_for_url("**/hub/spawn-pending/**")
    phases = page.get_by_role("log", name="What happens")
    expect(phases.get_by_text("Waiting for the server to answer")).to_be_visible()
    expect(page.get_by_label("The end of the server's log")).to_contain_text("stub server starts")
    page.screenshot(path=artifacts / "pending.png", full_page=True)
    page.reload()
    expect(phases.get_by_text("Starting the server")).to_be_visible()
    expect(phases.get_by_text("Waiting for the server to answer")).to_be_visible()
    page.wait_for_url(portal.user_url(owner))


def test_a_start_can_be_cancelled(page: Page, portal: Portal, owner: str) -> None:
    start(page, portal, "Slow")
    page.get_by_role("button", name="Cancel").click()
    page.wait_for_url("**/hub/home")
    expect(page.get_by_role("link", name=re.compile("Start|Try again"))).to_be_visible()
    assert portal.api("GET", f"/users/{owner}").json()["servers"] == {}


def test_a_start_that_fails_late_shows_why_and_offers_a_retry(
    page: Page, portal: Portal, owner: str, artifacts: Path
) -> None:
    start(page, portal, "Dies late")
    expect(page.get_by_role("heading", name="Your server did not start")).to_be_visible()
    expect(page.get_by_role("alert")).to_contain_text("exit status 3")
    expect(page.get_by_label("The end of the server's log")).to_contain_text("disk is on fire")
    page.screenshot(path=artifacts / "failed.png", full_page=True)
    page.reload()
    expect(page.get_by_role("alert")).to_contain_text("exit status 3")
    page.get_by_role("button", name="Retry").click()
    page.wait_for_url("**/hub/spawn-pending/**")
    expect(page.get_by_text("Waiting for the server to answer")).to_be_visible()
    expect(page.get_by_role("heading", name="Your server did not start")).to_be_visible()
    page.goto(f"{portal.url}/hub/home")
    expect(page.get_by_text("Did not start", exact=True)).to_be_visible()
    page.go_back()
    page.get_by_role("link", name="Choose another profile").click()
    expect(page.get_by_label("Dies late")).to_be_checked()  # the last choice


def test_a_start_that_fails_at_once_shows_why_and_can_be_tried_again(
    page: Page, portal: Portal, owner: str
) -> None:
    page.goto(f"{portal.url}/hub/spawn")
    page.locator("input[value=dies]").check()
    page.get_by_role("button", name="Start").click()
    # Beside the choice where it took less than JupyterHub's second, else on the waiting page.
    expect(page.get_by_role("alert")).to_contain_text("exit status 3")
    expect(page.get_by_text("the disk is on fire")).to_be_visible()
    expect(page.get_by_role("button", name=re.compile("Try again|Retry"))).to_be_enabled()


@pytest.mark.slow
def test_a_hub_that_is_killed_meanwhile_leaves_no_page_waiting_for_ever(
    page: Page, portal: Portal, owner: str
) -> None:
    start(page, portal, "Slow")
    expect(page.get_by_text("Waiting for the server to answer")).to_be_visible()
    portal.restart_hub(signal.SIGKILL)
    expect(page.get_by_role("heading", name="not running")).to_be_visible(timeout=40_000)
    page.get_by_role("link", name="Start", exact=True).click()
    expect(page.get_by_label("Slow")).to_be_checked()


# -- what goes wrong ------------------------------------------------------------------


@pytest.mark.parametrize(
    ("path", "status", "says"),
    [
        ("/hub/nowhere", 404, "There is nothing here"),
        ("/hub/admin", 403, "You may not open this"),
        ("/user/somebody-else/lab", 404, "There is nothing here"),
        ("/hub/error/503", 503, "That server does not answer"),
        ("/hub/spawn?profile=gpu", 403, "You may not use the profile"),
        ("/hub/spawn?_xsrf=x", 400, "Only 'profile' can be chosen"),
    ],
)
def test_errors_say_what_happened_and_where_to_go(
    page: Page, portal: Portal, path: str, status: int, says: str
) -> None:
    answer = page.goto(f"{portal.url}{path}")
    assert answer is not None
    if path != "/hub/error/503":  # JupyterHub sends the proxy's pages with 200
        assert answer.status == status
    expect(page.get_by_text(says).first).to_be_visible()
    page.get_by_role("link", name="Home").first.click()
    page.wait_for_url("**/hub/home")


def test_a_server_that_is_gone_says_so_on_its_own_address(
    page: Page, portal: Portal, owner: str, artifacts: Path
) -> None:
    portal.spawn(owner)
    with pytest.raises(ValueError):  # the proxy answers, and not in JSON
        portal.run(owner, "import os; os._exit(1)")
    page.goto(portal.user_url(owner, "lab"))
    expect(
        page.get_by_role("heading", name=re.compile("does not answer|not running"))
    ).to_be_visible()
    assert page.evaluate("getComputedStyle(document.querySelector('.button')).minHeight") == "44px"
    page.screenshot(path=artifacts / "gone.png", full_page=True)
    page.get_by_role("link", name="Home").first.click()
    page.wait_for_url(f"{portal.url}/hub/home")


# -- for everybody --------------------------------------------------------------------

LOOKS: dict[str, dict[str, Any]] = {
    "light": {"color_scheme": "light"},
    "dark": {"color_scheme": "dark"},
    "phone": {"viewport": {"width": 390, "height": 844}, "has_touch": True},
    "phone-dark": {"viewport": {"width": 390, "height": 844}, "color_scheme": "dark"},
}
PLACES = {
    "home": "/hub/home",
    "spawn": "/hub/spawn/{owner}/other",
    "refused": "/hub/spawn/{owner}/other?profile=nothing",
    "error": "/hub/nowhere",
    "token": "/hub/token",
    "login": "/hub/logout",
}
ADMIN_PLACES = {"messages": "/hub/messages"}
FAULTS = (Path(__file__).parent / "faults.js").read_text()


@pytest.mark.parametrize("look", LOOKS)
def test_every_page_can_be_read_and_used_in_every_look(
    log_in: LogIn, page: Page, portal: Portal, owner: str, artifacts: Path, look: str
) -> None:
    portal.spawn(owner)
    mine = log_in(owner, **LOOKS[look])
    found = {}
    for place, path in PLACES.items():
        mine.goto(portal.url + path.format(owner=owner))
        mine.screenshot(path=artifacts / f"{place}-{look}.png", full_page=True)
        faults = mine.evaluate(FAULTS, place != "token")  # JupyterHub's own page below our header
        if faults:
            found[place] = faults
    assert found == {}


@pytest.mark.parametrize("look", LOOKS)
def test_administrators_pages_can_be_read_and_used_in_every_look(
    log_in: LogIn, portal: Portal, owner: str, boss: str, artifacts: Path, look: str
) -> None:
    portal.spawn(owner)
    board = MessageBoard(Paths(portal.state, portal.envs))
    message = board.add("We update the portal tonight.", "root", begins=time.time() + 3600)
    mine = log_in(boss, **LOOKS[look])
    found = {}
    for place, path in ADMIN_PLACES.items():
        mine.goto(portal.url + path)
        expect(mine.locator("#lab-messages")).to_contain_text("Maintenance begins at")
        mine.screenshot(path=artifacts / f"{place}-{look}.png", full_page=True)
        faults = mine.evaluate(FAULTS, True)
        if faults:
            found[place] = faults
    board.remove(message.id)
    assert found == {}


def test_the_switch_for_dark_is_kept_and_is_jupyterhubs(page: Page, portal: Portal) -> None:
    ground = "getComputedStyle(document.body).backgroundColor"
    page.goto(f"{portal.url}/hub/home")
    before = page.evaluate(ground)
    page.get_by_role("button", name="Switch between light and dark").click()
    after = page.evaluate(ground)
    assert after != before
    page.goto(f"{portal.url}/hub/spawn?profile=x")
    assert page.evaluate(ground) == after
    page.goto(f"{portal.url}/hub/token")
    assert page.evaluate(ground) == after
    page.get_by_role("button", name="Switch between light and dark").click()
    page.goto(f"{portal.url}/hub/home")
    assert page.evaluate(ground) == before


def test_motion_is_reduced_where_asked(chromium: Browser, portal: Portal) -> None:
    context = chromium.new_context(reduced_motion="reduce")
    page = context.new_page()
    page.goto(f"{portal.url}/hub/login")
    page.evaluate("document.body.innerHTML = '<ol class=phases><li>x</li></ol>'")
    turn = "getComputedStyle(document.querySelector('.phases li'), '::before').animationName"
    assert page.evaluate(turn) == "none"
    context.close()


def press_until(page: Page, key: str, selector: str) -> None:
    for _ in range(40):
        page.keyboard.press(key)
        if page.evaluate("s => document.activeElement.matches(s)", selector):
            return
    raise AssertionError(f"{key} does not lead to {selector}")


def visible_focus(page: Page) -> bool:
    """Whether the focused element, or the card around it, has a strong outline."""
    return bool(
        page.evaluate(
            "[document.activeElement, document.activeElement.closest('label')].some(e => e &&"
            " parseFloat(getComputedStyle(e).outlineWidth) >= 2"
            " && getComputedStyle(e).outlineStyle === 'solid')"
        )
    )
