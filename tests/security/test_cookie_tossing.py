"""Cookies that a member's page sets for the hub, on a real domain with https, in a real browser."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from playwright.sync_api import Browser, Page, sync_playwright

from tests.conftest import CHROMIUM, needs_chromium, needs_root
from tests.support.cli_portal import eventually
from tests.support.portal import PASSWORD, Portal

pytestmark = [needs_root, needs_chromium]
DOMAIN = "lab.example.org"
LOGIN = "jupyterhub-hub-login"


class SecurePortal(Portal):
    """A portal with a certificate, at a domain that only the test's browser knows."""

    def __init__(self) -> None:
        super().__init__()
        certificate, key = self.folder / "cert.pem", self.folder / "key.pem"
        command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2"]
        command += ["-subj", f"/CN={DOMAIN}", "-keyout", str(key), "-out", str(certificate)]
        command += ["-addext", f"subjectAltName=DNS:{DOMAIN},DNS:*.{DOMAIN}"]
        subprocess.run(command, check=True, capture_output=True)
        self.proxy_options = ("--ssl-cert", str(certificate), "--ssl-key", str(key))
        self.url = f"https://{DOMAIN}:{self.port}"
        self.lab["url"] = self.url
        self.lab["listen"] = f"127.0.0.1:{self.port}"
        self.write_lab()

    def user_url(self, name: str, path: str = "", server: str = "") -> str:
        return f"https://{name}.{DOMAIN}:{self.port}/user/{name}/{path}"

    def api(self, method: str, path: str, **kwargs: Any) -> httpx.Response:
        headers = {"Authorization": f"token {self.admin_token}"}
        url = f"http://127.0.0.1:{self.hub_port}/hub/api{path}"
        return httpx.request(method, url, headers=headers, timeout=60, **kwargs)

    def wait_ready(self, timeout: float = 60) -> None:
        end = time.monotonic() + timeout
        while time.monotonic() < end:
            try:
                if httpx.get(f"http://127.0.0.1:{self.hub_port}/hub/health").status_code == 200:
                    return
            except httpx.HTTPError:
                time.sleep(0.05)
        raise RuntimeError(f"the hub did not answer:\n{self.hub_log()[-4000:]}")


@pytest.fixture(scope="module")
def lab(bob: str) -> Iterator[SecurePortal]:
    with SecurePortal() as portal:
        portal.spawn(bob)
        yield portal


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    rules = f"MAP {DOMAIN} 127.0.0.1, MAP *.{DOMAIN} 127.0.0.1"
    with sync_playwright() as playwright:
        yield playwright.chromium.launch(
            executable_path=CHROMIUM, args=["--no-sandbox", f"--host-resolver-rules={rules}"]
        )


def logged_in(lab: SecurePortal, browser: Browser, name: str) -> Page:
    page = browser.new_context(ignore_https_errors=True).new_page()
    page.goto(f"{lab.url}/hub/login")
    page.get_by_label("User name").fill(name)
    page.get_by_label("Password").fill(PASSWORD)
    page.keyboard.press("Enter")
    page.wait_for_url("**/hub/home")
    return page


def person(lab: SecurePortal, page: Page) -> str:
    """Return whom the hub takes the browser for."""
    answer = page.goto(f"{lab.url}/hub/home")
    assert answer is not None
    assert answer.status == 200, answer.status
    logout = page.locator("#logout")
    return (logout.get_attribute("title") or "") if logout.count() else "nobody"


def test_a_members_page_cannot_log_anybody_in_as_another(
    lab: SecurePortal, browser: Browser, ada: str, bob: str
) -> None:
    page, attacker = logged_in(lab, browser, ada), logged_in(lab, browser, bob)
    of_bob = next(
        cookie["value"] for cookie in attacker.context.cookies() if LOGIN in cookie["name"]
    )
    page.goto(lab.user_url(bob, "stays"))
    for name in (LOGIN, f"__Host-{LOGIN}"):
        for path in ("/", "/hub", "/hub/", "/hub/home"):
            cookie = f"{name}={of_bob}; domain={DOMAIN}; path={path}; secure"
            page.evaluate("(cookie) => { document.cookie = cookie }", cookie)
    tossed = [cookie for cookie in page.context.cookies() if cookie["domain"] == f".{DOMAIN}"]
    assert tossed, "the attack was not made"
    assert person(lab, page) == f"Log out {ada}"


def test_a_members_page_cannot_lock_anybody_out(
    lab: SecurePortal, browser: Browser, ada: str, bob: str
) -> None:
    page = logged_in(lab, browser, ada)
    page.goto(lab.user_url(bob, "stays"))
    rest = f"={'y' * 3900}; domain={DOMAIN}; path=/; secure"
    page.evaluate(
        "(rest) => { for (let n = 0; n < 150; n++) document.cookie = `c${n}${rest}` }", rest
    )

    def are_tossed() -> bool:
        jar = page.context.cookies()  # Chromium stores them one after the other
        return sum(cookie["domain"] == f".{DOMAIN}" for cookie in jar) > 100

    eventually(are_tossed, say="the attack was not made")
    assert person(lab, page) == f"Log out {ada}"


@pytest.mark.parametrize(
    "attack",
    [
        "fetch(url, {mode: 'no-cors', credentials: 'include'})",
        "new Promise(done => { const i = new Image(); i.onerror = done; i.src = url })",
        "new Promise(done => { const f = document.createElement('iframe');"
        " f.onload = done; f.src = url; document.body.append(f) })",
    ],
)
def test_a_members_page_logs_nobody_out(
    lab: SecurePortal, browser: Browser, ada: str, bob: str, attack: str
) -> None:
    page = logged_in(lab, browser, ada)
    page.goto(lab.user_url(bob, "stays"))
    page.evaluate(f"async (url) => {{ await {attack} }}", f"{lab.url}/hub/logout")
    assert person(lab, page) == f"Log out {ada}"


def test_a_person_who_was_led_to_the_log_out_is_asked(
    lab: SecurePortal, browser: Browser, ada: str, bob: str
) -> None:
    page = logged_in(lab, browser, ada)
    page.goto(lab.user_url(bob, "stays"))
    page.evaluate("(url) => { location = url }", f"{lab.url}/hub/logout")
    page.get_by_role("heading", name="Log out?").wait_for()
    page.get_by_role("link", name="Log out", exact=True).last.click()
    page.wait_for_url("**/hub/login*")
    assert person(lab, page) == "nobody"
