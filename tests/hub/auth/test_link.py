"""The one-time link: the first administrator, and the owner of a portal without root."""

from __future__ import annotations

import json
import os
import pwd
import stat
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import httpx
import pytest
from traitlets.config import Config

from hub import auth
from hub.auth import first_admin
from hub.labfile.read import parse, read
from hub.labfile.schema import Settings
from hub.state.paths import Paths
from labkit.base.problems import ProblemsError
from tests.conftest import needs_root
from tests.support.portal import PASSWORD, REPOSITORY, Browser, People, Portal, secrets_in

GOOD = "three red bicycles"


@pytest.fixture
def paths(tmp_path: Path) -> Paths:
    (tmp_path / "secrets").mkdir(mode=0o700)
    return Paths(tmp_path, tmp_path / "envs")


@pytest.fixture
def settings() -> Settings:
    return parse("authentication: {method: signup}")


def token_of(link: str) -> str:
    return link.partition("#")[2]


def test_only_a_hash_is_kept_in_a_file_of_the_portals_own(paths: Paths, settings: Settings) -> None:
    link = first_admin.new_link(paths, settings)
    assert link.startswith("http://localhost:8000/hub/link#")
    token = token_of(link)
    assert len(token) == 43  # 256 bits
    files = [p for p in paths.state.rglob("*") if p.is_file()]
    assert [p.name for p in files] == ["login_link.json"]
    assert token not in files[0].read_text()
    assert stat.S_IMODE(files[0].stat().st_mode) == 0o600


def test_it_works_once_and_looking_at_it_does_not_count(paths: Paths, settings: Settings) -> None:
    token = token_of(first_admin.new_link(paths, settings))
    assert first_admin.is_good(paths, token)
    assert not first_admin.is_good(paths, token[:-1])
    assert not first_admin.spend(paths, "")
    assert first_admin.spend(paths, token)
    assert not first_admin.spend(paths, token)
    assert not first_admin.is_good(paths, token)


def test_a_newer_link_ends_the_older_and_a_day_ends_any(paths: Paths, settings: Settings) -> None:
    old = token_of(first_admin.new_link(paths, settings))
    new = token_of(first_admin.new_link(paths, settings))
    assert not first_admin.is_good(paths, old)
    assert first_admin.is_good(paths, new)
    file = paths.secrets / "login_link.json"
    record = json.loads(file.read_text())
    assert 23.9 * 3600 < record["expires"] - time.time() <= 24 * 3600
    file.write_text(json.dumps({**record, "expires": time.time() - 1}))
    assert not first_admin.spend(paths, new)


def test_a_damaged_file_is_no_key(paths: Paths) -> None:
    for text in ("", "[]", "null", "{}", '{"hash": null, "expires": 9e99}'):
        (paths.secrets / "login_link.json").write_text(text)
        assert not first_admin.is_good(paths, "")
        assert not first_admin.is_good(paths, "None")


def follow(browser: Browser, token: str, **fields: str) -> httpx.Response:
    browser.get("/hub/link")
    return browser.post("/hub/link", data={"token": token, "_xsrf": browser.xsrf, **fields})


def twice(password: str) -> dict[str, str]:
    return {"password": password, "password_again": password}


@needs_root
def test_first_admin_with_unix_accounts(people: People) -> None:
    name = f"{people.prefix}-first"
    people.names.append(name)  # removed at the end
    with Portal() as portal:
        paths = Paths(portal.state, portal.envs)
        lab = read(paths.lab_file)
        assert first_admin.administrators(paths, lab) == []
        token = token_of(first_admin.new_link(paths, lab))
        browser = portal.browser()
        # Previews and mistakes do not use it up.
        for _ in range(3):
            assert browser.get("/hub/link").status_code == 200
        # Without the code nothing is told of the machine's accounts.
        page = follow(portal.browser(), "made-up", username="daemon", **twice(GOOD))
        assert page.status_code == 403
        assert "system account" not in page.text
        page = follow(browser, token, username="root", **twice(GOOD))
        assert "A user name is 1 to 31" in page.text
        page = follow(browser, token, username="daemon", **twice(GOOD))
        assert "it is a system account" in page.text
        page = follow(browser, token, username=name, password=GOOD, password_again="other")
        assert page.status_code == 400
        assert "differ" in page.text
        assert f'value="{name}"' in page.text
        assert browser.post("/hub/link", data={"token": token}).status_code == 403  # no _xsrf
        with pytest.raises(KeyError):
            pwd.getpwnam(name)

        page = follow(browser, token, username=name, **twice(GOOD))
        assert page.url.path == "/hub/home"
        assert browser.hub("GET", "/user").json()["admin"] is True
        entry = pwd.getpwnam(name)
        assert entry.pw_uid >= 1000
        assert stat.S_IMODE(Path(entry.pw_dir).stat().st_mode) == 0o700
        assert portal.browser().login(name, GOOD).url.path == "/hub/home"

        page = follow(portal.browser(), token, username=f"{name}2", **twice(GOOD))
        assert page.status_code == 403
        assert "used already" in page.text
        with pytest.raises(ProblemsError, match=f"{name} can log in already"):
            first_admin.new_link(paths, lab)
        assert first_admin.new_link(paths, lab, again=True)

        portal.restart_hub()
        again = portal.browser()
        again.login(name, GOOD)
        assert again.hub("GET", "/user").json()["admin"] is True
        logs = "".join(p.read_text(errors="replace") for p in (portal.state / "log").glob("*.log"))
        assert "came in by the one-time link" in logs
        assert not secrets_in(logs, [token, GOOD])


@needs_root
def test_an_account_of_the_machine_becomes_admin_with_its_own_password_alone(
    people: People,
) -> None:
    name = people.add(f"own{len(people.names)}", member=False)
    with Portal() as portal:
        paths = Paths(portal.state, portal.envs)
        token = token_of(first_admin.new_link(paths, read(paths.lab_file)))
        page = follow(portal.browser(), token, username=name, **twice(GOOD))
        assert page.status_code == 400
        assert "give its own password" in page.text
        page = follow(portal.browser(), token, username=name, **twice(PASSWORD))
        assert page.url.path == "/hub/home"
        assert portal.browser().login(name).status_code == 200


@needs_root
def test_first_admin_with_sign_up() -> None:
    with Portal({"authentication": {"method": "signup"}}) as portal:
        paths = Paths(portal.state, portal.envs)
        lab = read(paths.lab_file)
        token = token_of(first_admin.new_link(paths, lab))
        browser = portal.browser()
        page = follow(browser, token, username="ltfirst", **twice("password1!"))
        assert page.status_code == 400
        assert "everybody tries first" in page.text
        page = follow(browser, token, username="ltfirst", **twice(GOOD))
        assert page.url.path == "/hub/home"
        assert first_admin.administrators(paths, lab) == ["ltfirst"]
        # A further link does not take over somebody's account.
        token = token_of(first_admin.new_link(paths, lab, again=True))
        page = follow(portal.browser(), token, username="ltfirst", **twice("seven green kettles"))
        assert page.status_code == 400
        assert "There is an account ltfirst already" in page.text
        assert follow(portal.browser(), token, username="ltfirst", **twice(GOOD)).is_success
        # The administrator stays one after a restart.
        portal.restart_hub()
        browser = portal.browser()
        browser.login("ltfirst", GOOD)
        assert "May log in" in browser.get("/hub/people").text
        assert not secrets_in(portal.hub_log(), [token, GOOD, "password1!"])


class OwnersPortal(Portal):
    """A portal that a person without root runs."""

    def __init__(self, owner: str) -> None:
        self.owner = pwd.getpwnam(owner)
        super().__init__({"isolation": "path"})

    def _start(self, name: str, command: Sequence[str]) -> None:
        subprocess.run(["chown", "-R", f"{self.owner.pw_uid}", str(self.folder)], check=True)
        log = self.state / "log" / f"{name}.log"
        with log.open("ab") as stream:
            self.processes[name] = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=stream,
                stderr=subprocess.STDOUT,
                env={**self.environ, "HOME": self.owner.pw_dir, "USER": self.owner.pw_name},
                cwd=REPOSITORY,
                user=self.owner.pw_uid,
                group=self.owner.pw_gid,
                extra_groups=[],
            )


def readable_by_others(program: str) -> bool:
    return all(p.stat().st_mode & 0o001 for p in Path(program).resolve().parents)


@needs_root
@pytest.mark.skipif(
    not (readable_by_others(sys.executable) and readable_by_others(__file__)),
    reason="needs a Python and a repository that other accounts can read",
)
def test_the_owner_comes_in_by_link_and_nobody_by_password(people: People) -> None:
    owner = people.add(f"owner{len(people.names)}", member=False)
    with OwnersPortal(owner) as portal:
        paths = Paths(portal.state, portal.envs)
        lab = parse((portal.state / "lab.yaml").read_text())
        page = portal.browser().get("/hub/login")
        assert "labhub login" in page.text
        assert 'type="password"' not in page.text
        for password in ("", PASSWORD):
            assert portal.browser().login(owner, password).status_code == 403
        token = token_of(first_admin.new_link(paths, lab, again=True))
        os.chown(paths.secrets / "login_link.json", portal.owner.pw_uid, -1)
        assert follow(portal.browser(), "made-up").status_code == 403
        browser = portal.browser()
        assert follow(browser, token).url.path == "/hub/home"
        model = browser.hub("GET", "/user").json()
        assert (model["name"], model["admin"]) == (owner, True)
        assert follow(portal.browser(), token).status_code == 403
        assert portal.api("POST", "/users/somebody-else").status_code == 400
        assert not secrets_in(portal.hub_log(), [token])


def problems_of(text: str, paths: Paths) -> str:
    with pytest.raises(ProblemsError) as caught:
        auth.configure(Config(), parse(text), paths, as_one_account=True)
    return str(caught.value)


@needs_root
def test_a_lab_file_that_would_let_the_wrong_people_in_is_refused(paths: Paths) -> None:
    assert "owner is for a portal without root" in problems_of(
        "authentication: {method: owner}", paths
    )
    text = problems_of("admins: [root]\ngroups: {imaging: [ada, root]}", paths)
    assert "admins: root cannot be a user" in text
    assert "groups.imaging: root cannot be a user" in text


def test_what_the_pages_are_told(settings: Settings) -> None:
    told: dict[str, Any] = auth.template_vars(settings)
    assert told == {"login_method": "signup"}
