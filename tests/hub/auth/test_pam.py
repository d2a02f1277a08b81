"""Log in with Unix accounts: a real hub, real accounts, the real PAM stack."""

from __future__ import annotations

import statistics
import subprocess
import time
from collections.abc import Iterator

import httpx
import pytest

from tests.conftest import needs_root
from tests.support.portal import PASSWORD, People, Portal, secrets_in

pytestmark = needs_root
WRONG = "Invalid username or password"


@pytest.fixture(scope="module")
def lab(people: People) -> Iterator[Portal]:
    boss = people.add("boss", member=False)
    settings = {"admins": [boss, "lt-nor-this-one"], "groups": {"imaging": ["lt-not-here-yet"]}}
    with Portal(settings, config="c.UnixAuthenticator.auth_refresh_age = 1\n") as running:
        yield running


@pytest.fixture(scope="module")
def boss(lab: Portal) -> str:
    return str(lab.lab["admins"][0])


def test_members_log_in_and_have_safe_cookies(lab: Portal, ada: str) -> None:
    browser = lab.browser()
    page = browser.login(ada)
    assert page.url.path == "/hub/home"
    assert browser.hub("GET", "/user").json()["name"] == ada
    cookies = set_cookies([browser.get("/hub/login"), page])
    assert cookies.keys() >= {"jupyterhub-hub-login", "labhub-browser", "_xsrf"}
    for name, attributes in cookies.items():
        assert "samesite=lax" in attributes, name
        if name != "_xsrf":  # scripts of the portal's pages read that one
            assert "httponly" in attributes, name
        if name != "jupyterhub-session-id":
            assert "path=/hub/" in attributes, name


def test_with_https_every_cookie_is_for_https_alone(people: People) -> None:
    ada = people.add(f"tls{len(people.names)}")
    # A proxy in front has the certificate.
    with Portal({"url": "https://lab.example", "isolation": "path"}) as portal:
        with httpx.Client(base_url=f"http://127.0.0.1:{portal.port}") as client:
            form = client.get("/hub/login")
            xsrf = form.cookies["_xsrf"]
            answer = client.post(
                "/hub/login",
                data={"username": ada, "password": PASSWORD, "_xsrf": xsrf},
                headers={"Cookie": f"_xsrf={xsrf}"},
            )
        assert answer.status_code == 302
        cookies = set_cookies([form, answer])
        assert cookies.keys() >= {"jupyterhub-hub-login", "labhub-browser", "_xsrf"}
        for name, attributes in cookies.items():
            assert "secure" in attributes, name


def set_cookies(answers: list[httpx.Response]) -> dict[str, list[str]]:
    """Return the attributes of each cookie that the portal set on the way."""
    found = {}
    for answer in [step for last in answers for step in [*last.history, last]]:
        for line in answer.headers.get_list("set-cookie"):
            pair, *attributes = line.split(";")
            found[pair.partition("=")[0]] = [a.strip().lower() for a in attributes]
    return found


def test_admins_of_the_lab_file_need_not_be_in_the_group(lab: Portal, boss: str) -> None:
    browser = lab.browser()
    assert browser.login(boss).status_code == 200
    assert browser.hub("GET", "/user").json()["admin"] is True


def test_who_is_not_in_the_group_learns_it_with_the_right_password_alone(
    lab: Portal, people: People
) -> None:
    eve = people.add(f"eve{len(people.names)}", member=False)
    page = lab.browser().login(eve)
    assert page.status_code == 403
    assert "is not in the group labhub" in page.text
    page = lab.browser().login(eve, "wrong")
    assert WRONG in page.text
    assert "group" not in page.text


def test_root_and_accounts_without_a_shell_never_get_to_their_password(
    lab: Portal, people: People
) -> None:
    closed = people.add(f"closed{len(people.names)}")
    subprocess.run(["usermod", "--shell", "/usr/sbin/nologin", closed], check=True)
    system = people.add(f"sys{len(people.names)}")
    subprocess.run(["pkill", "-KILL", "-u", system], check=False)
    subprocess.run(["usermod", "--uid", "987", "--non-unique", system], check=True)
    for name in (closed, system):
        page = lab.browser().login(name)
        assert page.status_code == 403
        assert WRONG in page.text
    assert lab.browser().login("root", "root").status_code == 403
    assert f"Login as {closed} refused: its shell is /usr/sbin/nologin" in lab.hub_log()
    assert f"Login as {system} refused: it is a system account (uid 987)" in lab.hub_log()


def test_who_leaves_the_group_is_out(lab: Portal, people: People) -> None:
    leaver = people.add(f"leaver{len(people.names)}")
    browser = lab.browser()
    browser.login(leaver)
    assert browser.get("/hub/home").url.path == "/hub/home"
    token = browser.hub("POST", f"/users/{leaver}/tokens").json()["token"]

    def own() -> int:
        headers = {"Authorization": f"token {token}"}
        return lab.http.get(f"{lab.url}/hub/api/user", headers=headers).status_code

    assert own() == 200
    subprocess.run(["gpasswd", "--delete", leaver, "labhub"], check=True)
    time.sleep(1.2)
    assert browser.get("/hub/home").url.path == "/hub/login"
    assert own() == 403


def test_lock_out_is_alike_for_names_that_exist_and_others_and_spares_known_browsers(
    people: People,
) -> None:
    ada = people.add(f"lock{len(people.names)}")
    with Portal({"authentication": {"lockout": {"failures": 2, "wait": "1m"}}}) as portal:
        known = portal.browser()
        assert known.login(ada).status_code == 200
        known.get("/hub/logout")
        for name in (ada, f"{ada}-none"):
            stranger = portal.browser()
            assert [stranger.login(name, "wrong").status_code for _ in range(2)] == [403, 403]
            # Closed: even the right password, at once, from any browser that is not known.
            page = portal.browser().login(name)
            assert page.status_code == 429
            assert 0 < int(page.headers["Retry-After"]) <= 60
            assert "Too many failed attempts. Try again in 1 min or from" in page.text
        # The owner, in the browser that logged in before, is not locked out.
        assert known.login(ada).status_code == 200
        assert not secrets_in(portal.hub_log(), [PASSWORD])


def test_an_address_that_tries_many_names_is_closed_whatever_it_says_it_is() -> None:
    lab = {"authentication": {"lockout": {"failures": 1, "wait": "1m"}}}
    with Portal(lab) as portal:
        answers = []
        for n in range(6):
            browser = portal.browser()
            browser.headers["X-Real-IP"] = f"203.0.113.{n}"
            browser.headers["X-Forwarded-For"] = "nonsense"
            answers.append(browser.login(f"nobody{n}", "wrong").status_code)
        assert answers == [403, 403, 403, 403, 429, 429]


def test_a_known_browsers_cookie_is_for_one_account_and_cannot_be_made_up(people: People) -> None:
    ada = people.add(f"dev{len(people.names)}")
    with Portal({"authentication": {"lockout": {"failures": 1, "wait": "1m"}}}) as portal:
        assert portal.browser().login(ada, "wrong").status_code == 403
        for value in (f"{ada}:0123456789", f'"2|1:0|10:1|14:labhub-browser|8:{ada}|0"'):
            forger = portal.browser()
            forger.cookies.set("labhub-browser", value, domain="localhost.local", path="/hub/")
            assert forger.login(ada).status_code == 429


def test_an_unknown_name_takes_as_long_as_a_wrong_password(lab: Portal, ada: str) -> None:
    def seconds(name: str) -> float:
        begin = time.monotonic()
        assert lab.browser().login(name, "wrong").status_code == 403
        return time.monotonic() - begin

    def differ() -> bool:
        known = [seconds(ada) for _ in range(3)]
        unknown = [seconds(f"{ada}-none") for _ in range(3)]
        assert min(known + unknown) > 0.9
        # PAM itself draws each delay by lot (2 to 4 seconds): compare the middles.
        return abs(statistics.median(known) - statistics.median(unknown)) >= 1.5

    # What others do on this machine may make a difference once; a leak makes it each time.
    assert not all(differ() for _ in range(3))


def test_adding_a_user_without_an_account_is_refused_but_one_in_the_lab_file_is_waited_for(
    lab: Portal, ada: str
) -> None:
    assert lab.api("POST", "/users/lt-no-such-account").status_code == 400
    assert lab.api("POST", "/users/daemon").status_code == 400
    assert lab.api("POST", f"/users/{ada}").status_code in (201, 409)
    assert "User lt-not-here-yet cannot log in: there is no such Unix" in lab.hub_log()
