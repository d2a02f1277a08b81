"""Hostile user names at every door: login, sign-up, REST, the claim of an OIDC provider.

A name becomes a Unix account, a host name, a path and an argument: one rule for all.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from urllib.parse import quote

import httpx
import pytest

from hub.auth import first_admin
from hub.auth.names import is_valid, shown
from hub.auth.strict_names import StrictNames
from hub.labfile.read import read
from hub.state.paths import Paths
from tests.conftest import needs_root
from tests.hub.auth.test_oidc import Provider, member, sign_in, sign_on
from tests.support.portal import PASSWORD, Browser, People, Portal

KELVIN = "\N{KELVIN SIGN}elvin"  # its lower case is "kelvin"
CYRILLIC = "\N{CYRILLIC SMALL LETTER A}da"
FULLWIDTH = "\N{FULLWIDTH LATIN SMALL LETTER A}da"
HOSTILE = [
    "",
    " ",
    ".",
    "..",
    "../x",
    "..%2fx",
    "%2e%2e",
    "a/b",
    "a\\b",
    "root",
    "Root",
    "ROOT",
    "$(id)",
    "`id`",
    "a;id",
    "a|id",
    "a&b",
    "a b",
    "a\tb",
    "-rf",
    "--help",
    "_x",
    "0day",
    "1000",
    "a" * 32,
    "a" * 300,
    "a" * 5000,
    "ada.",
    ".ada",
    "ada\u200b",
    "ada\u202e",
    "a@b",
    "a:b",
    "a,b",
    "a=b",
    "a#b",
    "a?b",
    "a*",
    "<script>",
    "{{7*7}}",
    "%s%n",
    "'",
    '"',
    KELVIN,
    CYRILLIC,
    FULLWIDTH,
    "ädä",
    "ß",
    "İstanbul",
    "admin\x00",
    "ada\x00bob",
    "ada\x7f",
    "🧬",
]
# These lose their end on the way through an HTML form (JupyterHub strips it): harmless, since
# the password of who is left is asked for. Everywhere else they must not pass.
WITH_ENDS = ["ada ", " ada", "ada\n", "ada\r\n", "ada\t"]


@pytest.mark.parametrize("name", HOSTILE + WITH_ENDS, ids=ascii)
def test_the_rule_refuses(name: str) -> None:
    names = StrictNames()
    assert not names.validate_username(names.normalize_username(name))


def test_the_rule_lets_through_and_joins_case_variants() -> None:
    names = StrictNames()
    for name in ("a", "ada", "a-b_c9", "a" * 31):
        assert names.validate_username(name)
    assert names.normalize_username("AdA") == "ada"
    assert names.normalize_username(KELVIN) == KELVIN
    assert is_valid("ada")


def test_messages_carry_no_control_characters() -> None:
    assert shown("ada\n\x1b[2J\u202e") == "'ada\\n\\x1b[2J\\u202e'"
    assert len(shown("a" * 5000)) < 100


@pytest.fixture(scope="module")
def signup() -> Iterator[Portal]:
    config = "c.PasswordGuard.slowest_answer = 0.0\n"
    authentication = {"method": "signup", "lockout": {"failures": 100, "wait": "1s"}}
    with Portal({"authentication": authentication}, config=config) as portal:
        paths = Paths(portal.state, portal.envs)
        token = first_admin.new_link(paths, read(paths.lab_file)).partition("#")[2]
        browser = portal.browser()
        browser.get("/hub/link")
        data = {"token": token, "username": "ada", "_xsrf": browser.xsrf}
        data |= {"password": PASSWORD, "password_again": PASSWORD}
        assert browser.post("/hub/link", data=data).url.path == "/hub/home"
        yield portal


def users(portal: Portal) -> list[str]:
    return sorted(model["name"] for model in portal.api("GET", "/users").json())


def nobody_entered(browser: Browser, answer: httpx.Response) -> None:
    assert 400 <= answer.status_code < 500, answer.status_code
    assert browser.hub("GET", "/user").status_code == 403


@needs_root
def test_login_form(signup: Portal) -> None:
    for name in HOSTILE:
        browser = signup.browser()
        nobody_entered(browser, browser.login(name))
    for data in ({}, {"username": "ada"}, {"password": PASSWORD}):
        browser = signup.browser()
        browser.get("/hub/login")
        nobody_entered(browser, browser.post("/hub/login", data={"_xsrf": browser.xsrf, **data}))
    for name in WITH_ENDS:
        browser = signup.browser()
        browser.login(name)
        assert browser.hub("GET", "/user").json()["name"] == "ada"
    browser = signup.browser()
    browser.login("ADA")
    assert browser.hub("GET", "/user").json()["name"] == "ada"
    assert users(signup) == ["ada"]
    assert " 500 " not in signup.hub_log()


@needs_root
def test_signup_form(signup: Portal) -> None:
    for name in HOSTILE + WITH_ENDS + ["ada", "Ada", "ADA"]:
        browser = signup.browser()
        browser.get("/hub/signup")
        data = {"username": name, "_xsrf": browser.xsrf}
        data |= {"password": PASSWORD, "password_again": PASSWORD}
        answer = browser.post("/hub/signup", data=data)
        assert answer.status_code == 400, ascii(name)
        if "<" in name:
            assert name not in answer.text.replace("<script src", "")
    assert users(signup) == ["ada"]
    assert " 500 " not in signup.hub_log()


@needs_root
def test_rest(signup: Portal) -> None:
    for name in HOSTILE + WITH_ENDS:
        path = f"/users/{quote(name, safe='')}"
        answer = signup.api("POST", path)
        assert 400 <= answer.status_code < 500, (ascii(name), answer.status_code)
        answer = signup.api("POST", "/users", json={"usernames": [name]})
        assert 400 <= answer.status_code < 500, (ascii(name), answer.status_code)
        answer = signup.api("PATCH", "/users/ada", json={"name": name})
        assert 400 <= answer.status_code < 500, (ascii(name), answer.status_code)
    # A case variant is no second person.
    assert signup.api("POST", "/users/Ada").status_code == 400
    assert signup.api("POST", "/users", json={"usernames": ["ADA"]}).status_code == 409
    assert users(signup) == ["ada"]


@needs_root
def test_pam_login_form(people: People) -> None:
    ada = people.add(f"n{len(people.names)}")
    hostile = ["root", "../x", "$(id)", "a" * 300, KELVIN, f"{ada}/../root", f"{ada}\x00root"]
    lab = {"authentication": {"lockout": {"failures": 100}}}
    with Portal(lab, config="c.PasswordGuard.slowest_answer = 0.0\n") as portal:
        for name in hostile:
            browser = portal.browser()
            nobody_entered(browser, browser.login(name))
        browser = portal.browser()
        browser.login(ada.upper())
        assert browser.hub("GET", "/user").json()["name"] == ada
        assert users(portal) == [ada]
        # PAM was asked about none of them.
        assert "PAM" not in portal.hub_log()


@needs_root
def test_claim_of_an_oidc_provider() -> None:
    with sign_on({"allow_all": True}) as (portal, provider):
        assert isinstance(provider, Provider)
        values = [*HOSTILE, *WITH_ENDS, 7, True, ["ada"], {"name": "ada"}]
        for value in values:
            member(provider, "person", sub=f"id-{json.dumps(value)}", preferred_username=value)
            browser = portal.browser()
            nobody_entered(browser, sign_in(browser, "person"))
        assert users(portal) == []
        member(provider, "person", sub="the-one", preferred_username="LtAda")
        assert sign_in(portal.browser(), "person").status_code == 200
        assert users(portal) == ["ltada"]
        assert " 500 " not in portal.hub_log()
