"""Every token against every route of the hub's API: an asserted table, deny by default."""

from __future__ import annotations

import json
import re
import secrets
from collections.abc import Iterator
from functools import partial
from typing import Any

import httpx
import pytest

from tests.conftest import needs_root
from tests.support.cli_portal import eventually
from tests.support.portal import People, Portal

pytestmark = needs_root
METHODS = ("GET", "POST", "PUT", "PATCH", "DELETE")

# What each token may do to *another* person, beyond what anybody without a token may do.
# A route that is not here must answer 401, 403 or 404 (the hub hides what may not be seen).
EVERY_TOKEN = {("GET", "/api/user")}  # who am I
READ_SERVERS = {
    ("GET", "/api/users/VICTIM/server"),
    ("GET", "/api/users/VICTIM/server/progress"),
    ("GET", "/api/users/VICTIM/servers/NAMED"),
    ("GET", "/api/users/VICTIM/servers/NAMED/progress"),
}
ALLOWED: dict[str, set[tuple[str, str]]] = {
    "culler": READ_SERVERS
    | {
        ("GET", "/api/users"),
        ("GET", "/api/users/VICTIM"),
        ("DELETE", "/api/users/VICTIM/server"),
        ("DELETE", "/api/users/VICTIM/servers/NAMED"),
    },
    "control": READ_SERVERS
    | {
        ("GET", "/api/proxy"),
        ("POST", "/api/proxy"),
        ("PATCH", "/api/proxy"),
        ("GET", "/api/users"),
        ("GET", "/api/users/VICTIM"),
        ("DELETE", "/api/users/VICTIM"),
        ("DELETE", "/api/users/VICTIM/server"),
        ("DELETE", "/api/users/VICTIM/servers/NAMED"),
    },
    "member": set(),
    "member's server": set(),
}
# Open to everybody, and harmless: the version, and sign-in itself (which asks for more).
ANYBODY = {
    ("GET", "/api/"),
    ("GET", "/api/oauth2/authorize"),
    ("POST", "/api/oauth2/authorize"),
    ("POST", "/api/oauth2/token"),
}
# Removed in JupyterHub 2, left as stubs that fail for everybody before they do anything.
REMOVED = {("GET", "/api/authorizations/token"), ("POST", "/api/authorizations/token/nothing")}
DENIED = (401, 403, 404, 405)


def _next(names: Iterator[str], _: re.Match[str]) -> str:
    return next(names)


def routes() -> Iterator[tuple[str, str]]:
    """Every method of every route of this JupyterHub, with a victim's names filled in."""
    from jupyterhub.apihandlers import default_handlers

    for pattern, handler in default_handlers:
        path = re.sub(r"\(\?:/\(\[\^/\]\+\)\)\?", "", pattern).replace("/?", "/")
        names = iter(_names(path))
        path = re.sub(r"\(\[\^/\][+*]\)", partial(_next, names), path)
        for method in METHODS:
            if method.lower() in handler.__dict__:
                yield method, path


def _names(path: str) -> list[str]:
    first = path.split("/")[2]
    return {
        "users": ["VICTIM", "NAMED", "NAMED"],
        "groups": ["GROUP", "VICTIM", "NAMED"],
        "services": ["test-admin"],
        "shares": ["VICTIM", "NAMED"],
        "share-codes": ["VICTIM", "NAMED"],
    }.get(first, ["nothing", "nothing"])


@pytest.fixture(scope="module")
def cast(people: People) -> Iterator[dict[str, Any]]:
    """A portal with all services' tokens, a member, and a victim with running servers."""
    tokens = {name: secrets.token_hex(24) for name in ("culler", "control")}
    env = {
        "LABHUB_CULLER_TOKEN": tokens["culler"],
        "LABHUB_CONTROL_TOKEN": tokens["control"],
    }
    member, victim = people.add("member"), people.add("victim")
    lab = {"groups": {"imaging": [victim]}}
    with Portal(lab, env=env) as portal:
        portal.spawn(member)
        made = portal.api("POST", f"/users/{member}/tokens", json={"note": "own"})
        tokens["member"] = made.json()["token"]
        tokens["member's server"] = portal.run(
            member, "import os; print(os.environ['JUPYTERHUB_API_TOKEN'], end='')"
        )
        yield {"portal": portal, "tokens": tokens, "victim": victim, "member": member}


def restore(cast: dict[str, Any]) -> None:
    """Make the victim whole again after a call that was allowed."""
    portal, victim = cast["portal"], cast["victim"]
    if portal.api("GET", f"/users/{victim}").status_code == 404:
        portal.api("POST", f"/users/{victim}")
        portal.api("POST", "/groups/imaging/users", json={"users": [victim]})
    servers = portal.api("GET", f"/users/{victim}").json()["servers"]
    for name in ("", "named"):
        if not servers.get(name, {}).get("ready"):
            portal.spawn(victim, server=name)


def call(cast: dict[str, Any], token: str | None, method: str, path: str) -> httpx.Response:
    full = path.replace("VICTIM", cast["victim"]).replace("NAMED", "named")
    full = full.replace("GROUP", "imaging")
    headers = {"Authorization": f"token {token}"} if token else {}
    body: dict[str, Any] | None = None if method in ("GET", "DELETE") else {}
    return httpx.request(
        method, f"{cast['portal'].url}/hub{full}", headers=headers, json=body, timeout=60
    )


@pytest.mark.parametrize("who", [*ALLOWED, "nobody", "a wrong token"])
def test_only_what_the_table_says(cast: dict[str, Any], who: str) -> None:
    restore(cast)
    token = {"nobody": None, "a wrong token": secrets.token_hex(24)}.get(
        who, cast["tokens"].get(who)
    )
    allowed = ALLOWED.get(who, set()) | ANYBODY | (EVERY_TOKEN if who in ALLOWED else set())
    reached = set()
    for method, path in routes():
        answer = call(cast, token, method, path)
        if (method, path) in REMOVED:
            assert answer.status_code in (*DENIED, 500)
        elif answer.status_code not in DENIED:
            reached.add((method, path))
        if (method, path) in allowed and method == "DELETE":
            restore(cast)
    extra = {route for route in reached - allowed if not harmless(cast, token, *route)}
    assert not extra, f"{who} reaches more than the table says"
    missing = {route for route in ALLOWED.get(who, set()) if route not in reached}
    assert not missing, f"{who} cannot do its work"


def harmless(cast: dict[str, Any], token: str | None, method: str, path: str) -> bool:
    """Whether an answer shows nothing and changed nothing: an empty list of one's own view."""
    if method != "GET":
        return False
    answer = call(cast, token, method, path)
    if answer.status_code == 200 and path in ("/api/users", "/api/groups", "/api/services"):
        text = answer.text
        return cast["victim"] not in text and "imaging" not in text and "test-admin" not in text
    return False


def test_the_table_knows_every_route() -> None:
    """The walk above covers this JupyterHub: a new version's routes are tried, too."""
    found = set(routes())
    assert len(found) >= 55
    for table in ALLOWED.values():
        assert table <= found
    assert all("(" not in path for _, path in found)


def test_an_escalation_by_a_new_token_is_refused(cast: dict[str, Any]) -> None:
    """A server's own token cannot make a stronger one."""
    token = cast["tokens"]["member's server"]
    for name in (cast["member"], cast["victim"]):
        answer = httpx.post(
            f"{cast['portal'].url}/hub/api/users/{name}/tokens",
            headers={"Authorization": f"token {token}"},
            json={"scopes": ["admin:users"], "roles": ["admin"]},
        )
        assert answer.status_code in (400, 403, 404)


# -- who did what -----------------------------------------------------------------------------


def audited(cast: dict[str, Any], who: str, action: str) -> list[dict[str, str]]:
    """Return the lines of the audit log once its last one is that of somebody's action.

    The hub writes a line when it has sent the answer, which may be read before.
    """

    def lines() -> list[dict[str, str]]:
        log = cast["portal"].state / "log" / "audit.log"
        # What follows the last line break is being written.
        return [json.loads(line) for line in log.read_text().split("\n")[:-1]]

    def last() -> tuple[str, str]:
        return lines()[-1]["who"], lines()[-1]["action"]

    eventually(lambda: last() == (who, action), 60, f"the last line is that of {last()}")
    return lines()


def test_what_changes_something_is_in_the_audit_log(cast: dict[str, Any]) -> None:
    portal, member = cast["portal"], cast["member"]
    restore(cast)
    with portal.browser() as browser:
        browser.login(member, "wrong password")
        browser.login(member)
        browser.hub("POST", f"/users/{member}/tokens", json={"note": "audited"})
        browser.hub("POST", "/groups/imaging/users", json={"users": [member]})
        browser.get("/hub/logout")
    portal.api("POST", "/groups/imaging/users", json={"users": [member]})
    portal.api("DELETE", "/groups/imaging/users", json={"users": [member]})
    lines = audited(cast, "test-admin", "change a group")
    seen = [(line["who"], line["as"], line["action"], line["status"]) for line in lines]
    for wanted in (
        ("", f"nobody, as '{member}'", "log in", "403"),
        (member, "user, in a browser", "log in", "302"),
        (member, "user, in a browser", "make a token", "201"),
        (member, "user, in a browser", "change a group", "403"),
        (member, "user, in a browser", "log out", "302"),
        ("test-admin", "service", "start a server", "201"),
        ("test-admin", "service", "change a group", "200"),
    ):
        assert wanted in seen, wanted
    text = (portal.state / "log" / "audit.log").read_text()
    assert not [token for token in cast["tokens"].values() if token in text]
    assert "wrong password" not in text


def test_the_audit_log_is_for_administrators_alone(cast: dict[str, Any]) -> None:
    portal = cast["portal"]
    log = portal.state / "log" / "audit.log"
    assert log.stat().st_mode & 0o777 == 0o600
    assert log.stat().st_uid == 0
    code = f"import os; print(os.path.exists({str(log)!r}), os.path.exists({str(log.parent)!r}))"
    assert portal.run(cast["member"], code).split() == ["False", "False"]


def test_nobody_floods_others_out_of_the_audit_log(cast: dict[str, Any]) -> None:
    portal, member = cast["portal"], cast["member"]
    log = portal.state / "log" / "audit.log"
    before = log.stat().st_size
    with httpx.Client(base_url=portal.url, timeout=60) as stranger:
        for number in range(1500):
            stranger.post("/hub/api/users/" + "x" * 190 + str(number))
    assert log.stat().st_size - before < 1 << 20
    with portal.browser() as browser:
        browser.login(member)
        browser.hub("POST", f"/users/{member}/tokens", json={"note": "after the flood"})
    assert audited(cast, member, "make a token")
