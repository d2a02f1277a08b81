"""A page of one origin against the hub and other people's servers, in a real browser.

The page that attacks is on the victim's own server (a notebook's output, a downloaded HTML
file): it runs with the victim's cookies at hand, and the victim is an administrator.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from playwright.sync_api import Page, sync_playwright

from tests.conftest import CHROMIUM, needs_chromium, needs_root
from tests.support.portal import PASSWORD, Portal

pytestmark = [needs_root, needs_chromium]

# Each tries to make a token for the administrator and returns what it could read.
ATTACKS = {
    "fetch": "fetch(url, {method: 'POST', credentials: 'include', body: '{}'})",
    "fetch with a JSON type": """fetch(url, {method: 'POST', credentials: 'include',
        body: '{}', headers: {'Content-Type': 'application/json'}})""",
    "no-cors": """fetch(url, {method: 'POST', credentials: 'include', mode: 'no-cors',
        body: '{}', headers: {'Content-Type': 'text/plain'}})""",
    "guessed _xsrf": """fetch(url + '?_xsrf=' + (document.cookie.match(/_xsrf=([^;]+)/) || [])[1],
        {method: 'POST', credentials: 'include', mode: 'no-cors', body: '{}'})""",
    "set cookie": """(document.cookie = '_xsrf=forged; domain=localhost; path=/hub/',
        fetch(url + '?_xsrf=forged', {method: 'POST', credentials: 'include',
        mode: 'no-cors', body: '{}'}))""",
}


@pytest.fixture(scope="module")
def scene(ada: str, bob: str) -> Iterator[tuple[Portal, Page, str, str]]:
    with Portal({"admins": [ada]}) as portal, sync_playwright() as playwright:
        for name in (ada, bob):
            portal.spawn(name)
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        page = browser.new_page()
        page.goto(f"{portal.url}/hub/login")
        page.get_by_label("User name").fill(ada)
        page.get_by_label("Password").fill(PASSWORD)
        page.keyboard.press("Enter")
        page.wait_for_url("**/hub/home")
        yield portal, page, ada, bob
        browser.close()


def tokens(portal: Portal, name: str) -> int:
    return len(portal.api("GET", f"/users/{name}/tokens").json()["api_tokens"])


def run(page: Page, attack: str, url: str) -> Any:
    script = f"""async (url) => {{
        try {{ const answer = await {attack};
               return [answer.type, answer.status, await answer.text()]; }}
        catch (error) {{ return ["refused", 0, String(error)]; }} }}"""
    return page.evaluate(script, url)


def test_the_attack_works_from_the_hubs_own_page(scene: tuple[Portal, Page, str, str]) -> None:
    """Else the refusals below would prove nothing: with the page's own proof it is allowed."""
    portal, page, ada, _ = scene
    page.goto(f"{portal.url}/hub/home")
    before = tokens(portal, ada)
    attack = """fetch(url, {method: 'POST', credentials: 'include', body: '{}',
        headers: {'X-XSRFToken': document.body.dataset.xsrf,
                  'Content-Type': 'application/json'}})"""
    kind, status, _ = run(page, attack, f"{portal.url}/hub/api/users/{ada}/tokens")
    assert (kind, status) == ("basic", 201)
    assert tokens(portal, ada) == before + 1


@pytest.mark.parametrize("attack", ATTACKS.values(), ids=ATTACKS.keys())
def test_no_token_from_another_origin(scene: tuple[Portal, Page, str, str], attack: str) -> None:
    portal, page, ada, _ = scene
    page.goto(portal.user_url(ada))
    before = tokens(portal, ada)
    kind, status, text = run(page, attack, f"{portal.url}/hub/api/users/{ada}/tokens")
    assert tokens(portal, ada) == before
    assert kind in ("refused", "opaque")
    assert status == 0
    assert "token" not in text.lower() or kind == "refused"


def test_the_hub_cannot_be_read_or_framed(scene: tuple[Portal, Page, str, str]) -> None:
    portal, page, ada, _ = scene
    page.goto(portal.user_url(ada))
    for path in ("/hub/api/users", "/hub/home", "/hub/token"):
        kind, _, _ = run(page, "fetch(url, {credentials: 'include'})", f"{portal.url}{path}")
        assert kind == "refused", path
    framed = page.evaluate(
        """async (url) => {
            const frame = document.createElement('iframe');
            frame.src = url; document.body.append(frame);
            await new Promise(done => { frame.onload = done; setTimeout(done, 3000); });
            try { return frame.contentDocument.body.innerText; }
            catch (error) { return 'refused'; } }""",
        f"{portal.url}/hub/home",
    )
    assert framed in ("refused", ""), framed
    assert not [f for f in page.frames[1:] if "My servers" in f.content()]


def test_the_hubs_cookies_are_not_at_hand(scene: tuple[Portal, Page, str, str]) -> None:
    portal, page, ada, bob = scene
    page.goto(portal.user_url(ada))
    assert "jupyterhub" not in page.evaluate("document.cookie")
    assert "_xsrf" not in page.evaluate("document.cookie")
    page.goto(f"{portal.url}/hub/home")
    hub = page.context.cookies(f"{portal.url}/hub/")
    login = [c for c in hub if c["name"].startswith("jupyterhub-hub-login")]
    assert login and all(c["httpOnly"] and c["sameSite"] == "Lax" for c in login)
    for host in (portal.user_url(ada), portal.user_url(bob)):
        sent = {c["name"] for c in page.context.cookies(host)}
        assert not any(name.startswith("jupyterhub-hub-login") for name in sent), host


@pytest.mark.parametrize("origin", ["http://evil.example", "null", "http://bob.localhost"])
def test_a_foreign_origin_is_refused(
    scene: tuple[Portal, Page, str, str], bob: str, origin: str
) -> None:
    """The same without a browser, which need not be honest: with cookies, without _xsrf."""
    portal = scene[0]
    client = portal.browser()
    client.login(bob)
    before = tokens(portal, bob)
    for headers in ({"Origin": origin}, {"Referer": f"{origin}/x"}, {}):
        answer = client.post(f"/hub/api/users/{bob}/tokens", json={}, headers=headers)
        assert answer.status_code == 403, headers
        answer = client.post("/hub/spawn", data={"profile": "stub"}, headers=headers)
        assert answer.status_code == 403, headers
    assert tokens(portal, bob) == before
    preflight = httpx.options(
        f"{portal.url}/hub/api/users/{bob}/tokens",
        headers={"Origin": origin, "Access-Control-Request-Method": "POST"},
    )
    assert "Access-Control-Allow-Origin" not in preflight.headers


def test_nobody_logs_in_on_a_users_origin(scene: tuple[Portal, Page, str, str], bob: str) -> None:
    """JupyterHub answers there, too: a session would be at hand for that server's pages."""
    portal, _, ada, _ = scene
    elsewhere = f"http://{ada}.localhost:{portal.port}"
    client = portal.browser()
    client.base_url = httpx.URL(elsewhere)
    client.get("/hub/login")
    xsrf = next(str(c.value) for c in client.cookies.jar if c.name == "_xsrf")
    answer = client.post("/hub/login", data={"username": bob, "password": PASSWORD, "_xsrf": xsrf})
    assert answer.status_code == 403
    assert f"Log in at {portal.url}" in answer.text
    assert not [c for c in client.cookies.jar if c.name.startswith("jupyterhub-hub-login")]
