"""What every app behind the gate must do. An app's test subclasses :class:`AppContract`::

    @pytest.fixture(scope="module")
    def app(people):
        ada, bob = people.add("ada"), people.add("bob")
        lab = {"groups": {"screening": [ada]}}
        with AppPortal(lab, ["plates"], {"plates": ["screening"]}) as portal:
            yield AppCase(portal, "plates", member=ada, outsider=bob, group="screening")

    class TestPlates(AppContract):
        pass

What an app has not got (no WebSocket, no upload) stays None, and its test is left out by name.
"""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import httpx
import pytest
from websockets.exceptions import InvalidStatus
from websockets.sync.client import ClientConnection

from hub.apps.app_paths import AppPaths
from hub.state.paths import Paths
from tests.support.cli_portal import eventually
from tests.support.gated_portal import HTML, AppPortal
from tests.support.portal import Browser

MB = 1 << 20
LARGE = 150 * MB
METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "PROPFIND")
REVOKED_WITHIN = 30.0  # seconds
FORGED = {
    "X-Labhub-User": "root",
    "X-Labhub-Groups": "admins",
    "X-Labhub-Admin": "true",
    "X-Labhub-App-Secret": "0" * 64,
    "X_Labhub_User": "root",
    "x-LABHUB-user": "root",
    "X-Forwarded-User": "root",
    "X-Forwarded-Prefix": "/evil",
    "X-Forwarded-Host": "evil.example",
    "X-Forwarded-Proto": "gopher",
    "Forwarded": "host=evil.example",
    "Remote-User": "root",
    "X-Remote-User": "root",
    "X-Script-Name": "/evil",
}
REACH = """
import socket, sys
end = socket.socket(socket.AF_UNIX)
end.settimeout(5)
try:
    end.connect(sys.argv[1])
    print("open")
except OSError as error:
    print(type(error).__name__)
"""


def echo(ws: ClientConnection) -> None:
    """Talk to an app that sends back what it gets."""
    for message in ("text", b"\0\1\2", "x" * 100_000):
        ws.send(message)
        assert ws.recv(timeout=20) == message


@dataclass
class AppCase:
    """One app, and what the contract needs to know of it.

    Attributes
    ----------
    portal : AppPortal
        It runs, with the app.
    name : str
        The app.
    member, outsider : str
        Somebody in the app's group, and somebody who is not.
    group : str
        The app's group.
    page, says : str
        A page below the prefix, and a text on it.
    assets : tuple of str
        What the page loads, below the prefix.
    websocket : str or None
        A WebSocket below the prefix.
    talk : callable
        Talks over it, and asserts that it is answered.
    upload : str or None
        Takes a POST of any bytes.
    uploaded : callable
        Whether the answer to an upload is right: (answer, size, SHA-256).
    download : str or None
        A path that answers with at least 150 MB.
    sets_cookie : str or None
        A path that sets a cookie.
    whoami : str or None
        A path whose answer names the person as the app knows them.
    """

    portal: AppPortal
    name: str
    member: str
    outsider: str
    group: str
    page: str = ""
    says: str = "<"
    assets: tuple[str, ...] = ()
    websocket: str | None = None
    talk: Callable[[ClientConnection], None] = echo
    upload: str | None = None
    uploaded: Callable[[httpx.Response, int, str], bool] = lambda answer, *_: answer.is_success
    download: str | None = None
    sets_cookie: str | None = None
    whoami: str | None = None

    def url(self, path: str = "") -> str:
        return self.portal.app_url(self.name, path)

    def has(self, what: str) -> str:
        """Return one of the paths above, or leave the test out."""
        path = getattr(self, what)
        if path is None:
            pytest.skip(f"{self.name} has no {what}")
        return str(path)

    @cached_property
    def browser(self) -> Browser:
        """The member's, logged in at the app."""
        return self.enter(self.portal.person(self.member))

    def enter(self, client: Browser) -> Browser:
        """Open the app as a browser does, until it is there."""
        eventually(
            lambda: client.get(self.url(self.page), headers=HTML).is_success,
            say=f"{self.name} does not open",
        )
        return client

    def socket_as(self, client: Browser, **headers: str) -> Any:
        """Open the app's WebSocket with a client's cookies, as its page does."""
        own = {"Origin": self.portal.app_origin(self.name), **headers}
        cookie = self.portal.cookies(client, self.name)
        return self.portal.websocket(self.name, self.has("websocket"), Cookie=cookie, **own)


def pieces(size: int) -> Iterator[bytes]:
    block = os.urandom(MB)
    for _ in range(size // MB):
        yield block


def refused(answer: httpx.Response) -> bool:
    """Whether a request was refused or sent to the login; nothing of the app came back."""
    return answer.status_code == 403 or (
        answer.status_code == 302 and "/hub/api/oauth2/authorize" in answer.headers["Location"]
    )


class AppContract:
    """What every app keeps; the module of a subclass brings the fixture ``app``."""

    def test_page_and_assets_are_on_its_own_origin(self, app: AppCase) -> None:
        answer = app.browser.get(app.url(app.page), headers=HTML)
        assert answer.status_code == 200
        assert app.says in answer.text
        assert str(answer.url).startswith(app.portal.app_origin(app.name))
        for path in app.assets:
            assert app.browser.get(app.url(path)).status_code == 200, path

    def test_the_address_without_a_slash_leads_to_it(self, app: AppCase) -> None:
        answer = app.browser.get(app.url().rstrip("/"), headers=HTML, follow_redirects=False)
        assert answer.status_code in (301, 302)
        assert answer.headers["Location"] == f"/services/{app.name}/"

    def test_websocket(self, app: AppCase) -> None:
        with app.socket_as(app.browser) as ws:
            app.talk(ws)

    def test_a_program_comes_in_with_a_token(self, app: AppCase) -> None:
        with app.portal.program(app.portal.token(app.member)) as program:
            answer = program.get(app.url(app.page))
            assert answer.status_code == 200
            assert app.says in answer.text

    def test_upload_of_150_mb(self, app: AppCase) -> None:
        path, digest = app.has("upload"), hashlib.sha256()

        def body() -> Iterator[bytes]:
            for piece in pieces(LARGE):
                digest.update(piece)
                yield piece

        headers = {"Content-Length": str(LARGE)}
        answer = app.browser.post(app.url(path), content=body(), headers=headers, timeout=120)
        assert app.uploaded(answer, LARGE, digest.hexdigest()), answer.text[:500]

    def test_download_of_150_mb(self, app: AppCase) -> None:
        size = 0
        with app.browser.stream("GET", app.url(app.has("download")), timeout=120) as answer:
            assert answer.status_code == 200
            for piece in answer.iter_raw():
                size += len(piece)
        assert size >= LARGE

    def test_cookies_are_bound_to_its_prefix(self, app: AppCase) -> None:
        answer = app.browser.get(app.url(app.has("sets_cookie")))
        cookies = answer.headers.get_list("Set-Cookie")
        assert cookies
        for cookie in cookies:
            parts = [part.strip().lower() for part in cookie.split(";")]
            path = next(part for part in parts if part.startswith("path="))
            assert path.removeprefix("path=").startswith(f"/services/{app.name}"), cookie
            assert not [part for part in parts if part.startswith("domain=")], cookie
            assert not parts[0].startswith(("jupyterhub-", "service-")), cookie

    # -- who is refused ---------------------------------------------------------------

    @pytest.mark.parametrize("method", METHODS)
    def test_anonymous_is_refused(self, app: AppCase, method: str) -> None:
        with app.portal.program() as nobody:
            for headers in ({}, HTML, FORGED):
                answer = nobody.request(method, app.url(app.page), headers=headers)
                assert refused(answer), (method, answer.status_code)
                assert app.says not in answer.text or app.says == "<"

    @pytest.mark.parametrize("method", METHODS)
    def test_the_wrong_group_is_refused(self, app: AppCase, method: str) -> None:
        with app.portal.program(app.portal.token(app.outsider)) as program:
            for headers in ({}, HTML, FORGED):
                answer = program.request(method, app.url(app.page), headers=headers)
                assert answer.status_code == 403, (method, answer.status_code)

    def test_the_wrong_group_is_refused_in_a_browser(self, app: AppCase) -> None:
        client = app.portal.person(app.outsider)
        answer = client.get(app.url(app.page), headers=HTML)
        assert answer.status_code == 403
        assert "You may not open this" in answer.text

    def test_nobody_else_opens_a_websocket(self, app: AppCase) -> None:
        outsider = app.portal.token(app.outsider)
        cookie = app.portal.cookies(app.browser, app.name)
        elsewhere = f"http://{app.outsider}.localhost:{app.portal.port}"
        for headers in (
            {},
            FORGED,
            {"Authorization": f"token {outsider}"},
            {"Authorization": "token 0123456789abcdef"},
            {"Cookie": cookie, "Origin": elsewhere},
            {"Cookie": cookie, "Origin": "null"},
        ):
            path = app.has("websocket")
            with (
                pytest.raises(InvalidStatus) as caught,
                app.portal.websocket(app.name, path, **headers),
            ):
                pass
            assert caught.value.response.status_code == 403, headers

    def test_another_pages_request_is_refused(self, app: AppCase) -> None:
        """The member's browser sends the cookie also for a page that somebody else wrote."""
        for site in ("cross-site", "same-site"):
            foreign = {"Sec-Fetch-Site": site, "Sec-Fetch-Mode": "cors"}
            assert app.browser.get(app.url(app.page), headers=foreign).status_code == 403
        for origin in ("http://evil.example", f"http://{app.outsider}.localhost", "null"):
            answer = app.browser.post(app.url(app.page), headers={"Origin": origin})
            assert answer.status_code == 403, origin

    def test_forged_identity_is_ignored(self, app: AppCase) -> None:
        path = app.has("whoami")
        with app.portal.program(app.portal.token(app.member)) as program:
            answer = program.get(app.url(path), headers=FORGED)
        assert answer.status_code == 200
        assert app.member in answer.text
        for value in set(FORGED.values()) - {"true"}:
            assert f'"{value}"' not in answer.text, value

    def test_its_socket_is_closed_to_others(self, app: AppCase) -> None:
        """Another account does not get to it; who does must know the secret."""
        places = AppPaths(Paths(app.portal.state, app.portal.envs))
        socket = str(places.socket(app.name))
        app.enter(app.browser)
        for account in (app.member, "nobody"):
            done = subprocess.run(
                [sys.executable, "-I", "-c", REACH, socket],
                user=account,
                group=account if account != "nobody" else "nogroup",
                extra_groups=[],
                capture_output=True,
                text=True,
                check=False,
            )
            assert done.stdout.strip() == "PermissionError", (account, done)
        headers = {**FORGED, "X-Labhub-User": app.member, "Host": "localhost"}
        with httpx.Client(transport=httpx.HTTPTransport(uds=socket), timeout=20) as root:
            for secret in ({}, {"X-Labhub-App-Secret": "0" * 64}):
                answer = root.get(
                    f"http://localhost/services/{app.name}/{app.page}",
                    headers={k: v for k, v in headers.items() if "Secret" not in k} | secret,
                )
                assert answer.status_code in (401, 403), answer.status_code

    # -- its life ---------------------------------------------------------------------

    def test_it_sleeps_and_starts_when_it_is_asked_for(self, app: AppCase) -> None:
        app.portal.stop_app(app.name)
        answer = app.browser.get(app.url(app.page), headers=HTML)
        if answer.status_code != 200:  # it takes longer than a page waits
            assert answer.status_code == 503
            assert "is starting" in answer.text
            assert answer.headers["Retry-After"]
        app.enter(app.browser)
        app.portal.stop_app(app.name)
        with app.portal.program(app.portal.token(app.member)) as program:
            answer = program.get(app.url(app.page), timeout=120)
            assert answer.status_code == 200, answer.text

    def test_signing_out_ends_it(self, app: AppCase) -> None:
        client = app.enter(app.portal.person(app.member))
        client.get("/hub/logout")
        eventually(
            lambda: refused(client.get(app.url(app.page), headers=HTML, follow_redirects=False)),
            REVOKED_WITHIN,
            say="who has signed out is still in",
        )
