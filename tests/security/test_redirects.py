"""``?next=`` leads nowhere but to the portal."""

from __future__ import annotations

from collections.abc import Iterator
from urllib.parse import quote, urljoin, urlsplit

import pytest

from hub.auth.signup_people import opened
from hub.state.paths import Paths
from tests.conftest import needs_root
from tests.support.portal import PASSWORD, Portal

pytestmark = needs_root
ELSEWHERE = [
    "https://evil.example/",
    "//evil.example",
    "///evil.example",
    "////evil.example/x",
    "/\\evil.example",
    "\\\\evil.example",
    "/\\/evil.example",
    "\\/evil.example",
    "/\t/evil.example",
    "\t//evil.example",
    " //evil.example",
    "/%09/evil.example",
    "https:evil.example",
    "https:/evil.example",
    "http:///evil.example",
    "javascript:alert(1)",
    "data:text/html,x",
    "//localhost@evil.example",
    "http://localhost:PORT@evil.example/",
    "http://localhost:PORT.evil.example/",
    "http://evil-localhost:PORT/",
    "http://evil.example/?x=http://localhost:PORT/",
    "http://evil.localhost:PORT//evil.example",
    "http://localhost:PORT//evil.example",
    "http://localhost:PORT/\\evil.example",
    "//localhost:PORT//evil.example",
    "/hub/../..//evil.example",
]


@pytest.fixture(scope="module")
def lab() -> Iterator[Portal]:
    with Portal({"authentication": {"method": "signup"}}) as portal:
        with opened(Paths(portal.state, portal.envs)) as people:
            people.add("ada", PASSWORD, approved=True)
        yield portal


def stays(portal: Portal, base: str, location: str) -> bool:
    """Whether a browser that follows a Location header stays; it reads \\ as / and drops tabs."""
    seen = location.replace("\\", "/").replace("\t", "").replace("\n", "").strip()
    target = urlsplit(urljoin(base, seen))
    return target.scheme == "http" and target.netloc == urlsplit(portal.url).netloc


@pytest.mark.parametrize("place", ELSEWHERE, ids=ascii)
def test_after_login(lab: Portal, place: str) -> None:
    place = place.replace("PORT", str(lab.port))
    browser = lab.browser()
    form = browser.get(f"/hub/login?next={quote(place, safe='')}")
    action = form.text.partition('<form action="')[2].partition('"')[0]
    assert stays(lab, str(form.url), action.replace("&amp;", "&"))
    data = {"username": "ada", "password": PASSWORD, "_xsrf": browser.xsrf}
    answer = browser.post(action.replace("&amp;", "&"), data=data, follow_redirects=False)
    assert answer.status_code == 302
    assert stays(lab, str(answer.url), answer.headers["Location"]), answer.headers["Location"]


@pytest.mark.parametrize("place", ELSEWHERE, ids=ascii)
def test_when_logged_in_already(lab: Portal, place: str) -> None:
    place = quote(place.replace("PORT", str(lab.port)), safe="")
    browser = lab.browser()
    browser.login("ada")
    for page in ("login", "signup"):
        answer = browser.get(f"/hub/{page}?next={place}", follow_redirects=False)
        assert answer.status_code == 302
        assert stays(lab, str(answer.url), answer.headers["Location"]), answer.headers["Location"]


def test_a_place_of_the_portal_is_reached(lab: Portal) -> None:
    browser = lab.browser()
    form = browser.get("/hub/token")
    assert form.url.path == "/hub/login"
    action = form.text.partition('<form action="')[2].partition('"')[0]
    data = {"username": "ada", "password": PASSWORD, "_xsrf": browser.xsrf}
    assert browser.post(action, data=data).url.path == "/hub/token"
