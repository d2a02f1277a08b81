"""Bob on Ada's server, through the front door: pages, API, proxy, WebSocket; every credential.

The servers are real JupyterLab servers: their own login is what is attacked.
"""

from __future__ import annotations

import socket
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import psutil
import pytest
from websockets.exceptions import InvalidStatus
from websockets.sync.client import connect

from tests.conftest import needs_env, needs_root
from tests.support.http_client import LocalhostTransport
from tests.support.portal import Browser, Portal

pytestmark = [needs_root, needs_env("notebook")]

DOORS = (
    "",
    "lab",
    "tree",
    "api/contents",
    "api/kernels",
    "api/terminals",
    "files/secret.txt",
    "proxy/5005/",
    "proxy/absolute/5005/",
    "labkit/",
    "metrics",
)
REFUSED = (401, 403, 404)


@dataclass(frozen=True)
class Scene:
    """Two people with running servers, and all of Bob's credentials."""

    portal: Portal
    ada: str
    bob: str
    bobs_browser: Browser
    bobs_token: str
    bobs_server_token: str


@pytest.fixture(scope="module")
def scene(ada: str, bob: str) -> Iterator[Scene]:
    with Portal() as portal:
        for name in (ada, bob):
            portal.spawn(name, "notebook")
        browser = portal.browser()
        assert browser.login(bob).status_code == 200
        # He uses his own server first, so that he has its cookies, too.
        assert browser.get(portal.user_url(bob, "lab")).status_code == 200
        made = browser.hub("POST", f"/users/{bob}/tokens", json={})
        # What his server itself holds, as he can read it in a cell.
        with httpx.Client(transport=LocalhostTransport(), timeout=60) as client:
            headers = {"Authorization": f"token {made.json()['token']}"}
            kernel = client.post(portal.user_url(bob, "api/kernels"), headers=headers)
            assert kernel.status_code == 201
        yield Scene(portal, ada, bob, browser, made.json()["token"], _server_token(portal, bob))


def _server_token(portal: Portal, name: str) -> str:
    """The JUPYTERHUB_API_TOKEN of a running server, from its own environment."""
    for process in psutil.process_iter():
        try:
            if process.username() == name and process.environ().get("JUPYTERHUB_API_TOKEN"):
                return str(process.environ()["JUPYTERHUB_API_TOKEN"])
        except psutil.Error:
            continue
    raise LookupError(f"no server of {name}")


def test_the_doors_are_open_to_their_owner(scene: Scene) -> None:
    """Else the refusals below would prove nothing."""
    headers = {"Authorization": f"token {scene.bobs_token}"}
    with httpx.Client(transport=LocalhostTransport(), timeout=60, headers=headers) as client:
        for path in ("api/contents", "api/kernels", "labkit/"):
            assert client.get(scene.portal.user_url(scene.bob, path)).status_code == 200, path


@pytest.mark.parametrize("path", DOORS)
def test_not_with_bobs_cookies(scene: Scene, path: str) -> None:
    answer = scene.bobs_browser.get(scene.portal.user_url(scene.ada, path))
    assert answer.status_code in REFUSED, f"{answer.status_code} at {answer.url}\n{answer.text}"
    assert "JupyterLab" not in answer.text[:2000]


@pytest.mark.parametrize("path", DOORS)
@pytest.mark.parametrize("kind", ["own token", "server's token", "token in the query", "none"])
def test_not_with_bobs_tokens(scene: Scene, path: str, kind: str) -> None:
    url = scene.portal.user_url(scene.ada, path)
    headers = {}
    if kind == "own token":
        headers["Authorization"] = f"Bearer {scene.bobs_token}"
    elif kind == "server's token":
        headers["Authorization"] = f"token {scene.bobs_server_token}"
    elif kind == "token in the query":
        url += f"?token={scene.bobs_token}"
    with httpx.Client(transport=LocalhostTransport(), timeout=60, headers=headers) as client:
        answer = client.get(url)
        # Without a login a page leads to the login page, and an API refuses.
        for _ in range(3):
            if answer.status_code != 302 or "/hub/api/oauth2" in answer.headers["Location"]:
                break
            answer = client.get(httpx.URL(url).join(answer.headers["Location"]))
        assert answer.status_code in (*REFUSED, 302), answer.status_code


@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH", "DELETE"])
def test_nothing_is_changed(scene: Scene, method: str) -> None:
    headers = {"Authorization": f"token {scene.bobs_token}"}
    with httpx.Client(transport=LocalhostTransport(), timeout=60, headers=headers) as client:
        for path in ("api/contents/x.ipynb", "api/kernels", "api/shutdown", "proxy/5005/"):
            answer = client.request(method, scene.portal.user_url(scene.ada, path), json={})
            assert answer.status_code in (*REFUSED, 405), (path, answer.status_code)
    assert not (Path("/home") / scene.ada / "x.ipynb").exists()


@pytest.mark.parametrize("path", ["api/kernels/x/channels", "terminals/websocket/1", "proxy/5005/"])
@pytest.mark.parametrize("kind", ["cookies", "token", "none"])
def test_no_websocket(scene: Scene, path: str, kind: str) -> None:
    url = scene.portal.user_url(scene.ada, path).replace("http://", "ws://")
    headers = {"Origin": f"http://{scene.ada}.localhost:{scene.portal.port}"}
    if kind == "token":
        headers["Authorization"] = f"token {scene.bobs_token}"
    elif kind == "cookies":
        jar = scene.bobs_browser.cookies.jar
        headers["Cookie"] = "; ".join(f"{cookie.name}={cookie.value}" for cookie in jar)
    # websockets knows no *.localhost, so the connection is made for it.
    with (
        socket.create_connection(("127.0.0.1", scene.portal.port), timeout=20) as plain,
        pytest.raises(InvalidStatus) as refused,
    ):
        connect(url, sock=plain, additional_headers=headers, open_timeout=20).close()
    assert refused.value.response.status_code in (*REFUSED, 302)


def test_a_login_cookie_of_bobs_server_is_no_key_to_adas(scene: Scene) -> None:
    """The cookie is renamed as if it were hers: its content must still be refused."""
    own = {c.name: c.value for c in scene.bobs_browser.cookies.jar if scene.bob in c.name}
    assert own, "he has a cookie of his own server"
    forged = "; ".join(f"{k.replace(scene.bob, scene.ada)}={v}" for k, v in own.items())
    with httpx.Client(transport=LocalhostTransport(), timeout=60) as client:
        answer = client.get(
            scene.portal.user_url(scene.ada, "api/contents"), headers={"Cookie": forged}
        )
    assert answer.status_code in REFUSED


def test_bob_cannot_start_stop_or_see_adas_server(scene: Scene) -> None:
    name = scene.ada
    for method, path in (
        ("GET", f"/users/{name}"),
        ("POST", f"/users/{name}/server"),
        ("DELETE", f"/users/{name}/server"),
        ("POST", f"/users/{name}/servers/mine"),
        ("POST", f"/users/{name}/tokens"),
        ("GET", f"/users/{name}/tokens"),
        ("POST", f"/users/{name}/activity"),
        ("GET", "/users"),
        ("POST", f"/users/{name}/admin-access"),
    ):
        answer = scene.bobs_browser.hub(method, path, json={} if method == "POST" else None)
        if path == "/users":
            assert answer.status_code in REFUSED or name not in answer.text
        else:
            assert answer.status_code in REFUSED, (method, path, answer.status_code)
    for page in (f"/hub/spawn/{name}", f"/hub/spawn-pending/{name}", "/hub/admin"):
        assert scene.bobs_browser.get(page).status_code in REFUSED, page
    assert scene.portal.api("GET", f"/users/{name}").json()["servers"][""]["ready"]
