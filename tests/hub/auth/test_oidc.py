"""Sign-on against a real OpenID provider: `tests.support.oidc_provider`."""

from __future__ import annotations

import contextlib
import html
import json
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import httpx
import pytest

from hub.auth import first_admin
from hub.labfile.read import read
from hub.state.paths import Paths
from labkit.base.ports import free_port
from tests.conftest import needs_root
from tests.support.portal import SUPPORT, Browser, Portal, secrets_in

SECRET = "a-client-secret-for-tests-0123456789abcdef"


class Provider:
    """The provider's process and its people."""

    def __init__(self, redirect_uri: str, port: int, auth: str = "client_secret_post") -> None:
        self.port = port
        self.issuer = f"http://127.0.0.1:{port}"
        self.folder = tempfile.TemporaryDirectory(prefix="labhub-oidc-")
        self.file = Path(self.folder.name) / "people.json"
        self.people: dict[str, Any] = {}
        self.env = {
            **os.environ,
            "OIDC_CLIENT_SECRET": SECRET,
            "OIDC_REDIRECT_URI": redirect_uri,
            "OIDC_CLIENT_AUTH": auth,
        }
        self.process: subprocess.Popen[bytes] | None = None

    def add(self, name: str, **claims: Any) -> str:
        self.people[name] = {"sub": f"id-of-{name}", "preferred_username": name, **claims}
        self.file.write_text(json.dumps(self.people))
        return name

    def start(self) -> None:
        program = SUPPORT / "oidc_provider.py"
        self.file.write_text(json.dumps(self.people))
        self.process = subprocess.Popen(
            [sys.executable, str(program), str(self.port), str(self.file)], env=self.env
        )
        end = time.monotonic() + 120
        while time.monotonic() < end:
            with contextlib.suppress(httpx.HTTPError):
                httpx.get(f"{self.issuer}/jwks", timeout=2).raise_for_status()
                return
            time.sleep(0.05)
        raise RuntimeError("the provider does not answer")

    def stop(self) -> None:
        if self.process:
            self.process.terminate()
            self.process.wait(10)
        self.folder.cleanup()


@contextlib.contextmanager
def sign_on(
    oauth: Mapping[str, Any],
    auth: str = "client_secret_post",
    start: bool = True,
    config: str = "",
) -> Iterator[tuple[Portal, Provider]]:
    """Run a portal with a provider."""
    port = free_port()
    settings = {
        "client_id": "labhub",
        "issuer": f"http://127.0.0.1:{port}",
        "login_service": "the test provider",
        **oauth,
    }
    lab = {"authentication": {"method": "oidc", "oauth": settings}}
    portal = Portal(lab, config=config)
    secret = portal.state / "secrets" / "oauth_client_secret"
    secret.write_text(SECRET + "\n")
    secret.chmod(0o600)
    provider = Provider(f"{portal.url}/hub/oauth_callback", port, auth)
    try:
        if start:
            provider.start()
        with portal:
            yield portal, provider
    finally:
        provider.stop()


def sign_in(browser: Browser, person: str, next_url: str = "") -> httpx.Response:
    """Do what a person does: the button, the provider's form, and back."""
    query = {"next": next_url} if next_url else None
    page = browser.get("/hub/oauth_login", params=query)
    assert page.url.path == "/authorize", page.text
    request = re.search(r'name="request" value="([^"]*)"', page.text)
    assert request, page.text
    issuer = f"{page.url.scheme}://{page.url.host}:{page.url.port}"
    data = {"request": html.unescape(request[1]), "person": person}
    return browser.post(f"{issuer}/login", data=data)


pytestmark = needs_root


@pytest.fixture(scope="module")
def both() -> Iterator[tuple[Portal, Provider]]:
    oauth = {"allowed_groups": ["lab-members"], "groups_claim": "realm.groups"}
    with sign_on(oauth) as (portal, provider):
        yield portal, provider


def member(provider: Provider, name: str, **claims: Any) -> str:
    return provider.add(name, **{"realm": {"groups": ["lab-members"]}, **claims})


def test_the_login_page_has_the_button(both: tuple[Portal, Provider]) -> None:
    page = both[0].browser().get("/hub/login")
    assert "Sign in with the test provider" in page.text
    assert 'type="password"' not in page.text


def test_a_member_signs_on_and_has_the_groups_of_the_claim(both: tuple[Portal, Provider]) -> None:
    portal, provider = both
    member(provider, "ltola", realm={"groups": ["lab-members", "imaging", 7, "", "x" * 300]})
    browser = portal.browser()
    page = sign_in(browser, "ltola")
    assert page.status_code == 200
    assert page.url.path == "/hub/home"
    model = portal.api("GET", "/users/ltola").json()
    assert sorted(model["groups"]) == ["imaging", "lab-members"]
    assert model["admin"] is False
    # Out of a group at the provider: out of it here at the next sign-on.
    member(provider, "ltola")
    sign_in(portal.browser(), "ltola")
    assert portal.api("GET", "/users/ltola").json()["groups"] == ["lab-members"]


def test_who_is_in_no_allowed_group_is_refused_in_plain_words(
    both: tuple[Portal, Provider],
) -> None:
    portal, provider = both
    provider.add("ltstranger", realm={"groups": ["others"]})
    page = sign_in(portal.browser(), "ltstranger")
    assert page.status_code == 403
    assert "not on the list of people" in page.text
    assert portal.api("GET", "/users/ltstranger").status_code == 404


def test_a_name_that_cannot_be_one_is_refused_with_the_claim_and_the_next_step(
    both: tuple[Portal, Provider],
) -> None:
    portal, provider = both
    member(provider, "p1", preferred_username="<b>Ada Lovelace</b>")
    page = sign_in(portal.browser(), "p1")
    assert page.status_code == 403
    text = html.unescape(page.text)
    assert "preferred_username" in text
    assert "Ada Lovelace" in text
    assert "authentication.oauth.username_claim" in text
    assert "<b>Ada" not in page.text


def test_a_missing_claim_says_which_one(both: tuple[Portal, Provider]) -> None:
    portal, provider = both
    provider.people["p2"] = {"sub": "p2", "realm": {"groups": ["lab-members"]}}
    provider.add("p3")
    page = sign_in(portal.browser(), "p2")
    assert page.status_code == 403
    assert "sent no &#39;preferred_username&#39;" in page.text


def test_another_person_with_the_same_name_does_not_become_the_user(
    both: tuple[Portal, Provider],
) -> None:
    portal, provider = both
    member(provider, "ltgrace", sub="grace-1")
    assert sign_in(portal.browser(), "ltgrace").status_code == 200
    # Given to somebody else later, or the same after normalization.
    for key, claims in (
        ("again", {"sub": "grace-2", "preferred_username": "ltgrace"}),
        ("upper", {"sub": "grace-3", "preferred_username": "LTGrace"}),
    ):
        member(provider, key, **claims)
        browser = portal.browser()
        page = sign_in(browser, key)
        assert page.status_code == 403
        assert "belongs to somebody else" in page.text
        assert browser.hub("GET", "/user").status_code == 403
    assert sign_in(portal.browser(), "ltgrace").status_code == 200


def test_an_account_of_the_machine_is_nobodys_by_name(both: tuple[Portal, Provider]) -> None:
    portal, provider = both
    member(provider, "p4", preferred_username="daemon")
    page = sign_in(portal.browser(), "p4")
    assert page.status_code == 403
    assert "account daemon of its own" in page.text


@pytest.mark.parametrize(
    "broken",
    [
        {"key": True},
        {"claims": {"aud": "another-client"}},
        {"claims": {"iss": "https://evil.example"}},
        {"claims": {"exp": 1}},
        {"claims": {"azp": "another-client"}},
        {"algorithm": "none"},
        {"algorithm": "HS256"},
        {"no_id_token": True},
    ],
    ids=["key", "audience", "issuer", "expired", "azp", "none", "hs256", "missing"],
)
def test_an_id_token_that_is_not_the_issuers_own_is_refused(
    both: tuple[Portal, Provider], broken: dict[str, Any]
) -> None:
    portal, provider = both
    member(provider, "ltmallory", **{"break": broken})
    browser = portal.browser()
    page = sign_in(browser, "ltmallory")
    assert page.status_code == 403
    assert "sign-on service" in page.text
    assert browser.hub("GET", "/user").status_code == 403


def test_userinfo_of_another_person_is_refused(both: tuple[Portal, Provider]) -> None:
    portal, provider = both
    member(provider, "ltmix", userinfo={"sub": "id-of-ltola", "preferred_username": "ltola"})
    page = sign_in(portal.browser(), "ltmix")
    assert page.status_code == 403
    assert "two different people" in page.text


def test_a_callback_that_this_browser_did_not_ask_for_is_refused(
    both: tuple[Portal, Provider],
) -> None:
    portal, provider = both
    member(provider, "ltvictim")
    page = portal.browser().get("/hub/oauth_login")
    request = html.unescape(re.search(r'name="request" value="([^"]*)"', page.text)[1])  # type: ignore[index]
    answer = httpx.post(f"{provider.issuer}/login", data={"request": request, "person": "ltvictim"})
    stolen = answer.headers["Location"]
    other = portal.browser()  # with no state, then with a state of its own
    assert other.get(stolen).status_code == 400
    other.get("/hub/oauth_login")
    assert other.get(stolen).status_code == 400
    assert other.hub("GET", "/user").status_code == 403


def test_the_secret_is_in_no_log(both: tuple[Portal, Provider]) -> None:
    portal, provider = both
    member(provider, "ltola")
    sign_in(portal.browser(), "ltola")
    assert not secrets_in(portal.hub_log(), [SECRET])


@pytest.mark.parametrize(
    "place",
    [
        "//evil.example/x",
        "https://evil.example/x",
        "/\\evil.example",
        "///evil.example",
        "\\\\evil",
    ],
)
def test_next_stays_on_the_portal(both: tuple[Portal, Provider], place: str) -> None:
    portal, provider = both
    member(provider, "ltola")
    browser = portal.browser()
    answer = sign_in(browser, "ltola", place)
    assert str(answer.url).startswith(f"{portal.url}/")


def test_first_admin_by_link_then_by_the_hubs_database() -> None:
    with sign_on({"allowed_users": ["ltsomebody"]}, auth="client_secret_basic") as (
        portal,
        provider,
    ):
        provider.add("ltboss")
        provider.add("ltsomebody")
        paths = Paths(portal.state, portal.envs)
        token = first_admin.new_link(paths, read(paths.lab_file)).partition("#")[2]
        browser = portal.browser()
        page = browser.get("/hub/link")
        assert "Sign in with the test provider" in page.text
        answer = browser.post(
            "/hub/link", data={"token": token, "_xsrf": browser.xsrf}, follow_redirects=False
        )
        assert answer.status_code == 302
        # Another browser gets nothing of it.
        sign_in(portal.browser(), "ltsomebody")
        assert portal.api("GET", "/users/ltsomebody").json()["admin"] is False
        assert sign_in(browser, "ltboss").status_code == 200
        assert portal.api("GET", "/users/ltboss").json()["admin"] is True
        # It was for one login.
        assert sign_in(browser, "ltsomebody").status_code == 200
        assert portal.api("GET", "/users/ltsomebody").json()["admin"] is False


def test_the_hub_lives_while_the_provider_is_away() -> None:
    with sign_on({"allow_all": True}, start=False) as (portal, provider):
        assert portal.browser().get("/hub/login").status_code == 200
        page = portal.browser().get("/hub/oauth_login")
        assert page.status_code == 503
        assert "cannot be used right now" in page.text
        assert f"{provider.issuer}/.well-known/openid-configuration cannot be read" in (
            portal.hub_log()
        )
        provider.start()
        provider.add("ltlate")
        assert sign_in(portal.browser(), "ltlate").status_code == 200


def test_mail_addresses_of_the_labs_domain_become_names() -> None:
    oauth = {"username_claim": "email", "hosted_domains": ["uni.example"]}
    with sign_on(oauth) as (portal, provider):
        provider.add("p1", email="Ltada.Lovelace@Uni.Example", email_verified=True)
        provider.add("p2", email="ltada@elsewhere.example", email_verified=True)
        provider.add("p3", email="ltbob@uni.example", email_verified=False)
        provider.add("p4", email="ltbob@uni.example")
        assert sign_in(portal.browser(), "p1").status_code == 200
        assert portal.api("GET", "/users/ltada-lovelace").status_code == 200
        page = sign_in(portal.browser(), "p2")
        assert page.status_code == 403
        assert "cannot be a user name here" in html.unescape(page.text)
        for person in ("p3", "p4"):
            assert "not verified" in sign_in(portal.browser(), person).text


def test_a_sign_on_lasts_a_day() -> None:
    config = (
        "import hub.auth.identity\n"
        "hub.auth.identity.SESSION_DAYS = 2 / 86400\n"
        "c.OidcAuthenticator.auth_refresh_age = 1\n"
    )
    with sign_on({"allow_all": True}, config=config) as (portal, provider):
        provider.add("ltada")
        browser = portal.browser()
        sign_in(browser, "ltada")
        assert browser.get("/hub/home").url.path == "/hub/home"
        time.sleep(3.1)
        assert browser.get("/hub/home").url.path == "/hub/login"
        sign_in(browser, "ltada")
        assert browser.get("/hub/home").url.path == "/hub/home"
