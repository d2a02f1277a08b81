"""The gate before a real app, in a real portal: the contract, and what the test app shows."""

from __future__ import annotations

import hashlib
import json
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from websockets.exceptions import ConnectionClosed

from tests.conftest import needs_env, needs_root
from tests.support.app_contract import LARGE, REVOKED_WITHIN, AppCase, AppContract, refused
from tests.support.gated_portal import HTML, AppPortal, eventually
from tests.support.http_client import LocalhostTransport
from tests.support.portal import People

pytestmark = [needs_root, needs_env("proxy")]

APP = Path(__file__).parents[2] / "support" / "testapp"


@pytest.fixture(scope="module")
def case(people: People) -> Iterator[AppCase]:
    ada, bob = people.add("ada"), people.add("bob")
    lab = {"groups": {"imaging": [ada], "other": [bob]}}
    with AppPortal(lab, [APP]) as portal:
        yield AppCase(
            portal,
            "testapp",
            member=ada,
            outsider=bob,
            group="imaging",
            says=f'<span id="who">{ada}</span>',
            assets=("static/app.js",),
            websocket="ws",
            upload="upload",
            uploaded=lambda answer, size, digest: (
                answer.json() == {"bytes": size, "sha256": digest, "length": str(size)}
            ),
            download=f"download?bytes={LARGE}",
            sets_cookie="cookie",
            whoami="told",
        )


def told(case: AppCase, **request: object) -> dict[str, list[str]]:
    """Return the headers that the app gets."""
    answer = case.browser.get(case.url("told"), **request)  # type: ignore[arg-type]
    found: dict[str, list[str]] = {}
    for name, value in answer.json()["headers"]:
        found.setdefault(name, []).append(value)
    return found


@pytest.fixture(scope="module")
def app(case: AppCase) -> AppCase:
    return case


class TestApp(AppContract):
    """The test app keeps the contract."""


# -- what the app is told -----------------------------------------------------------------


def test_the_app_is_told_who_asks(case: AppCase) -> None:
    headers = told(case)
    assert headers["x-labhub-user"] == [case.member]
    assert headers["x-labhub-groups"] == ["imaging"]
    assert headers["x-labhub-admin"] == ["false"]
    assert headers["x-forwarded-prefix"] == ["/services/testapp"]
    assert headers["x-forwarded-host"] == headers["host"]
    assert headers["x-forwarded-proto"] == ["http"]


def test_no_cookie_or_token_of_the_hub_reaches_the_app(case: AppCase) -> None:
    """Strip ``Authorization`` only where the hub accepted that token: apps have their own."""
    portal = case.portal
    token = portal.token(case.member)
    with portal.program(token) as program:
        text = program.get(case.url(f"told?x=1&token={token}&y=2")).text
    assert token not in text
    assert json.loads(text)["url"] == "/services/testapp/told?x=1&y=2"
    for own in ("token of-the-app", "Bearer of-the-app", "Basic YTpi"):
        assert told(case, headers={"Authorization": own})["authorization"] == [own]
    sent = portal.cookies(case.browser, "testapp")
    assert "service-testapp=" in sent
    sent += "; jupyterhub-session-id=1; __Host-jupyterhub-x=2; _xsrf=3; own=4"
    (kept,) = told(case, headers={"Cookie": sent})["cookie"]
    assert {pair.split("=")[0] for pair in kept.split("; ")} <= {"own", "sid", "plain"}


def test_the_gate_says_what_administrators_say_to_who_may_open_the_app(case: AppCase) -> None:
    portal = case.portal
    portal.labhub("message", "To all <b>people</b>", "--until", "2h")
    portal.labhub("message", "To imaging", "--group", "imaging")
    portal.labhub("message", "To others", "--group", "other")
    try:
        answer = case.browser.get(case.url(".labhub/messages"))
        assert answer.headers["Content-Type"].startswith("application/json")
        assert [one["text"] for one in answer.json()] == ["To imaging", "To all <b>people</b>"]
        with portal.program() as stranger:
            assert stranger.get(case.url(".labhub/messages")).status_code == 403
        with portal.program(portal.token(case.outsider)) as outsider:
            assert outsider.get(case.url(".labhub/messages")).status_code == 403
        script = case.browser.get(case.url(".labhub/static/messages.js"))
        assert script.headers["Content-Type"].startswith("text/javascript")
    finally:
        portal.labhub("message", "--remove", "all")
    assert case.browser.get(case.url(".labhub/messages")).json() == []


def test_a_group_with_a_comma_is_one_group(case: AppCase) -> None:
    portal, name = case.portal, "x,admins"
    portal.api("POST", "/groups/x%2Cadmins")
    portal.api("POST", "/groups/x%2Cadmins/users", json={"users": [case.member]})
    try:
        with portal.program(portal.token(case.member)) as program:
            text = program.get(case.url("told")).json()["headers"]
        assert dict(text)["x-labhub-groups"] == "imaging,x%2Cadmins"
    finally:
        portal.api("DELETE", f"/groups/{name.replace(',', '%2C')}")


def test_only_what_an_app_may_set_passes_back(case: AppCase) -> None:
    answer = case.browser.get(case.url("cookie"))
    cookies = answer.headers.get_list("Set-Cookie")
    assert sorted(c.split(";")[0] for c in cookies) == ["plain=2", "sid=1"]
    assert "Clear-Site-Data" not in answer.headers
    assert told(case)["cookie"] == ["sid=1; plain=2"] or told(case)["cookie"] == ["plain=2; sid=1"]
    assert answer.headers["X-Frame-Options"] == "SAMEORIGIN"
    moved = case.browser.get(case.url("redirect"), follow_redirects=False)
    assert moved.headers["Location"] == "/services/testapp/told"


def test_cookies_of_an_app_do_not_outlive_the_person(case: AppCase) -> None:
    client = case.enter(case.portal.person(case.member))
    client.get(case.url("cookie"))
    own = [c.name for c in client.cookies.jar if c.name in ("sid", "plain")]
    assert sorted(own) == ["plain", "sid"]
    for cookie in list(client.cookies.jar):
        if cookie.name.startswith("service-testapp"):
            client.cookies.jar.clear(cookie.domain, cookie.path, cookie.name)
    case.enter(client)  # logs in at the app anew
    assert not [c.name for c in client.cookies.jar if c.name in ("sid", "plain")]


def test_the_apps_process_has_an_account_and_a_home_of_its_own(case: AppCase) -> None:
    account = case.browser.get(case.url("told")).json()["account"]
    assert account["uid"] not in (0, 65534)
    assert account["home"] == str(case.portal.state / "appdata" / "testapp")
    assert not [n for n in account["environ"] if "TOKEN" in n or "KEY" in n]


# -- the data plane: four bugs that a gate before this one had ------------------------------


def test_the_request_begins_before_the_body_is_complete(case: AppCase) -> None:
    """A raw socket: HTTP clients send first and read then."""
    token = case.portal.token(case.member)
    host = case.portal.app_origin("testapp").removeprefix("http://")
    text = b""
    with socket.create_connection(("127.0.0.1", case.portal.port), timeout=20) as end:
        end.sendall(
            f"POST /services/testapp/first-byte HTTP/1.1\r\nHost: {host}\r\n"
            f"Authorization: token {token}\r\nContent-Length: 1000000\r\n\r\na".encode()
        )
        while b"got a" not in text:
            piece = end.recv(4096)
            assert piece, text
            text += piece


def test_the_app_gets_the_length(case: AppCase) -> None:
    answer = case.browser.post(case.url("upload"), content=b"x" * 5000)
    assert answer.json()["length"] == "5000"


def test_a_refusal_does_not_spoil_the_next_persons_request(case: AppCase) -> None:
    """A 403 with an unread body must close the connection that proxies would use again."""
    portal = case.portal
    with portal.program(portal.token(case.outsider)) as outsider:
        for _ in range(20):
            answer = outsider.post(case.url("upload"), content=b"x" * 300_000)
            assert answer.status_code == 403
            assert case.browser.get(case.url("told")).status_code == 200


def test_an_app_that_refuses_an_upload_is_heard(case: AppCase) -> None:
    answer = case.browser.post(case.url("refuse"), content=b"x" * 3_000_000)
    assert answer.status_code == 413
    assert case.browser.get(case.url("told")).status_code == 200


# -- its life -----------------------------------------------------------------------------


def test_a_page_says_that_the_app_is_starting(case: AppCase) -> None:
    portal = case.portal
    portal.stop_app("testapp")
    wait = portal.state / "appdata" / "testapp" / "wait"
    wait.write_text("4")
    try:
        page = case.browser.get(case.url(), headers=HTML)
        assert page.status_code == 503
        assert "Test app is starting" in page.text
        state = case.browser.get(case.url(".labhub/state")).json()
        assert state["state"] == "starting"
        style = httpx.get(
            f"http://127.0.0.1:{portal.gate_port}/services/testapp/.labhub/static/labhub.css"
        )
        assert style.status_code == 200
        # Programs wait.
        assert case.browser.get(case.url("told")).status_code == 200
    finally:
        wait.unlink()


def test_a_page_says_that_the_app_is_down(case: AppCase) -> None:
    portal = case.portal
    portal.stop_app("testapp")
    fail = portal.state / "appdata" / "testapp" / "fail"
    fail.touch()
    try:
        answer = case.browser.get(case.url("told"))
        assert answer.status_code == 503
        assert "did not start" in answer.json()["message"]
        page = case.browser.get(case.url(), headers=HTML)
        assert "Test app is down" in page.text
        assert "Try again" in page.text
        assert portal.app_state("testapp") == "failed"
        assert "the disk is on fire" in portal.labhub("app", "status", "testapp").stdout
    finally:
        fail.unlink()
    case.enter(case.browser)  # and it comes back


def test_an_app_that_ends_comes_back(case: AppCase) -> None:
    answer = case.browser.get(case.url("end"))
    assert answer.status_code == 502
    assert case.browser.get(case.url("told")).status_code == 200


def test_an_app_that_takes_too_much_memory_is_ended(case: AppCase) -> None:
    assert case.browser.get(case.url("hog"), timeout=60).status_code == 502
    log = case.portal.state / "log" / "app-testapp.log"
    eventually(lambda: "more memory than service.yaml allows (256 MB)" in log.read_text())
    assert case.browser.get(case.url("told")).status_code == 200


def test_what_is_open_ends_within_30_seconds(case: AppCase) -> None:
    """Removed from the group: WebSockets and downloads that are under way end, too."""
    portal = case.portal
    client = case.enter(portal.person(case.member))
    bearer = {"Authorization": f"token {portal.token(case.member)}"}
    with (
        httpx.Client(transport=LocalhostTransport(), timeout=5) as program,
        case.socket_as(client) as ws,
        program.stream("GET", case.url("drip"), headers=bearer) as drip,
    ):
        ws.send("hello")
        assert ws.recv(timeout=10) == "hello"
        drops = drip.iter_raw()
        assert next(drops)
        portal.api("DELETE", "/groups/imaging/users", json={"users": [case.member]})
        began = time.monotonic()
        try:
            with pytest.raises(ConnectionClosed):
                ws.recv(timeout=REVOKED_WITHIN)
            # The proxy in front keeps its end open when the gate has closed the other.
            with pytest.raises((httpx.RemoteProtocolError, httpx.ReadTimeout)):
                for _ in drops:
                    assert time.monotonic() - began < REVOKED_WITHIN
            answer = client.get(case.url(), headers=HTML, follow_redirects=False)
            assert refused(answer)
            assert time.monotonic() - began < REVOKED_WITHIN
        finally:
            portal.api("POST", "/groups/imaging/users", json={"users": [case.member]})
    eventually(lambda: case.browser.get(case.url("told")).status_code == 200, 30)


def test_apps_outlive_the_hub_and_wait_for_it(case: AppCase) -> None:
    portal = case.portal
    with case.socket_as(case.browser) as ws:
        portal.labhub("restart", "hub")
        ws.send("still here")
        assert ws.recv(timeout=10) == "still here"
    assert case.browser.get(case.url("told")).status_code == 200


def test_apps_come_and_go_without_a_restart(case: AppCase, tmp_path: Path) -> None:
    portal = case.portal
    pids = portal.pids()
    folder = tmp_path / "guest"
    folder.mkdir()
    for name in ("app.py", "picture.svg"):
        (folder / name).write_bytes((APP / name).read_bytes())
    text = (APP / "service.yaml").read_text()
    (folder / "service.yaml").write_text(text.replace("Test app", "Guest"))
    portal.labhub("app", "add", str(folder))
    with portal.program(portal.token(case.member)) as ada:
        assert ada.get(portal.app_url("guest", "told")).status_code == 200
        with portal.program(portal.token(case.outsider)) as bob:
            assert bob.get(portal.app_url("guest", "told")).status_code == 403
            portal.labhub("app", "add", str(folder), "--group", "other")
            eventually(lambda: bob.get(portal.app_url("guest", "told")).status_code == 200, 30)
            eventually(lambda: ada.get(portal.app_url("guest", "told")).status_code == 403, 30)
        portal.labhub("app", "remove", "guest", "--yes", "--delete-data")
        assert ada.get(portal.app_url("guest", "told")).status_code in (302, 404)
    assert portal.pids() == pids
    assert not (portal.state / "appdata" / "guest").exists()
    assert case.browser.get(case.url("told")).status_code == 200


def test_the_large_body_is_right(case: AppCase) -> None:
    digest = hashlib.sha256()
    with case.browser.stream("GET", case.url("download?bytes=10000001")) as answer:
        for piece in answer.iter_raw():
            digest.update(piece)
    block = bytes(range(256)) * 256
    wanted = (block * (10_000_001 // len(block) + 1))[:10_000_001]
    assert digest.hexdigest() == hashlib.sha256(wanted).hexdigest()
