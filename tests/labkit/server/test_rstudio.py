"""RStudio in a real Jupyter server, by jupyter-rsession-proxy, with a stand-in for `rserver`."""

from __future__ import annotations

import json
import os
import re
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest

from labkit.server.rstudio import Sessions
from tests.conftest import needs_env, needs_root
from tests.labkit.server.conftest import BASE, FOREIGN, TOKEN, Server, knock, wait_for
from tests.support.portal import built_envs

pytestmark = needs_env("r")
STANDIN = Path(__file__).parent / "rstudio"
ROOT = f"{BASE}rstudio/"
BIG = 120_000_000  # above 100 MiB, where jupyter-server-proxy gives up


def r_server(path: str, **env: str) -> Server:
    """Return a server in the R environment, which finds programs on a path."""
    return Server(
        "c.ServerApp.allow_remote_access = True\n",  # behind a proxy the host has another name
        env={"PATH": path, "LABHUB_CULL_IDLE_SECONDS": "7200", **env},
        python=built_envs() / "r" / "bin" / "python",
    )


@pytest.fixture(scope="module")
def studio() -> Iterator[Server]:
    path = f"{STANDIN}{os.pathsep}{os.environ['PATH']}"
    running = r_server(path, JUPYTER_RSESSION_PROXY_USE_SOCKET="no")  # asks for a port
    try:
        running.start()
        yield running
    finally:
        running.stop()


@pytest.fixture
def browser(studio: Server) -> Iterator[httpx.Client]:
    """Somebody who has opened RStudio."""
    with studio.client(follow_redirects=True) as client:
        assert client.get("rstudio/").status_code == 200
        yield client


def told(page: httpx.Response) -> dict[str, Any]:
    """Return what the stand-in says of itself on its page."""
    found = re.search("<pre>(.*)</pre>", page.text)
    assert found, page.text
    return dict(json.loads(found[1]))


def csrf(client: httpx.Client) -> dict[str, str]:
    """Return the header that RStudio's page sends with each call."""
    return {"X-CSRF-Token": client.cookies["csrf-token"]}


def test_sign_in_leads_there_and_back_within_the_prefix(studio: Server) -> None:
    with studio.client() as client:
        first = client.get("rstudio/")
        assert first.status_code == 302
        assert first.headers["Location"] == f"{ROOT}auth-sign-in?appUri=%2F"
        origin = studio.base.removesuffix(BASE)
        second = client.get(origin + first.headers["Location"])
        assert second.headers["Location"] == ROOT
        cookies = [c for c in second.headers.get_list("Set-Cookie") if "_xsrf" not in c]
        assert [c.split("=")[0] for c in cookies] == ["user-id", "csrf-token"]
        assert all(f"Path={ROOT};" in c for c in cookies)
        assert client.get(origin + ROOT).status_code == 200
        assert client.get("rstudio").headers["Location"] == ROOT


@pytest.mark.parametrize("port", ["80", "8443", ""])
def test_redirects_behind_a_proxy_that_ends_tls(studio: Server, port: str) -> None:
    forwarded = {
        "Host": "lab.example",
        "X-Forwarded-Host": "lab.example",
        "X-Forwarded-Proto": "https",
        **({"X-Forwarded-Port": port} if port else {}),
    }
    with studio.client(headers=forwarded) as client:
        answer = client.get("rstudio/")
    assert answer.headers["Location"] == f"{ROOT}auth-sign-in?appUri=%2F"


def test_flags_and_socket(browser: httpx.Client, studio: Server) -> None:
    page = told(browser.get("rstudio/"))
    flags = page["flags"]
    assert flags["www-root-path"] == ROOT
    assert flags["auth-none"] == "1"
    assert "www-port" not in flags
    place = Path(flags["www-socket"])
    assert place.is_socket()
    assert place.parent.stat().st_mode & 0o777 == 0o700
    listening = psutil.Process(page["rserver"]).net_connections("inet")
    assert listening == []
    assert Path(flags["secure-cookie-key-file"]).stat().st_mode & 0o077 == 0


@needs_root
def test_another_account_does_not_reach_its_socket(browser: httpx.Client) -> None:
    place = Path(told(browser.get("rstudio/"))["flags"]["www-socket"])
    assert knock(place) == "PermissionError"
    assert knock(place, "root") == "open"


def test_two_tabs_share_one_session(browser: httpx.Client, studio: Server) -> None:
    with studio.client(follow_redirects=True) as other:
        first, second = told(browser.get("rstudio/")), told(other.get("rstudio/"))
    assert first["rsession"] == second["rsession"]
    assert first["rserver"] == second["rserver"]


def test_no_token_and_no_login_reaches_it(browser: httpx.Client) -> None:
    browser.cookies.set("jupyterhub-session-id", "abc")
    page = browser.get(f"rstudio/?token={TOKEN}&a=b")
    assert told(page)["asked"] == "/?a=b"
    assert TOKEN not in page.text
    assert "jupyterhub-session-id" not in page.text
    assert "user-id" in page.text  # its own came along


def test_strangers_do_not_reach_it(studio: Server) -> None:
    for method in ("GET", "POST", "PUT", "DELETE"):
        answer = httpx.request(method, f"{studio.base}rstudio/rpc/console_input", content="busy")
        assert answer.status_code in (302, 403)
        assert "rserver" not in answer.text


def test_calls_need_rstudios_own_token(browser: httpx.Client) -> None:
    assert browser.post("rstudio/rpc/console_input", content="idle").status_code == 401
    answer = browser.post("rstudio/rpc/console_input", content="idle", headers=csrf(browser))
    assert answer.status_code == 200


@pytest.mark.parametrize("headers", FOREIGN)
def test_a_foreign_page_cannot_act_in_it(studio: Server, headers: dict[str, str]) -> None:
    """Also where it knows RStudio's own token: it is the proxy that refuses."""
    with studio.cookie_client() as victim:
        assert victim.get("rstudio/").status_code == 200
        own = {"Origin": studio.base.removesuffix(BASE), "Sec-Fetch-Site": "same-origin"}
        url, token = "rstudio/rpc/console_input", csrf(victim)
        answer = victim.post(url, content="idle", headers={**headers, **token})
        assert answer.status_code == 403
        assert "another page" in answer.text
        assert victim.post(url, content="idle", headers={**own, **token}).status_code == 200


def test_files_of_any_size_pass(browser: httpx.Client, studio: Server) -> None:
    studio.reset_rss()
    before = studio.rss()
    answer = browser.post("rstudio/upload", content=bytes(BIG), headers=csrf(browser))
    assert answer.json() == {"size": BIG}
    got = 0
    with browser.stream("GET", f"rstudio/export?{BIG}") as stream:
        for piece in stream.iter_raw(1 << 20):
            got += len(piece)
    assert got == BIG
    assert studio.rss() - before < 60 << 20


def test_what_its_page_asks_by_itself_is_no_use(browser: httpx.Client, studio: Server) -> None:
    before = studio.status()["last_activity"]
    browser.post("rstudio/events/get_events", content="{}", headers=csrf(browser))
    assert studio.status()["last_activity"] == before
    browser.post("rstudio/rpc/console_input", content="idle", headers=csrf(browser))
    assert studio.status()["last_activity"] > before


def test_a_session_that_computes_keeps_the_server(browser: httpx.Client, studio: Server) -> None:
    def busy() -> list[str]:
        return [one["text"] for one in studio.status()["busy"]]

    assert busy() == []
    browser.post("rstudio/rpc/console_input", content="busy", headers=csrf(browser))
    try:
        wait_for(lambda: busy() == ["R computes in RStudio"])
    finally:
        browser.post("rstudio/rpc/console_input", content="idle", headers=csrf(browser))
    wait_for(lambda: busy() == [])


def test_its_tile_stands_in_the_launcher(studio: Server) -> None:
    with studio.client() as client:
        listed = client.get("server-proxy/servers-info").json()["server_processes"]
        tile = next(one["launcher_entry"] for one in listed if one["name"] == "rstudio")
        assert tile["title"] == "RStudio"
        assert tile["path_info"] == "rstudio/"
        assert "<svg" in client.get(tile["icon_url"].removeprefix(BASE)).text


@pytest.mark.skipif(
    Path("/usr/lib/rstudio-server/bin/rserver").exists(), reason="RStudio Server is installed here"
)
def test_without_the_programs_there_are_no_tiles_but_reasons() -> None:
    server = r_server("/nonexistent")
    try:
        server.start()
        with server.client() as client:
            listed = client.get("server-proxy/servers-info").json()["server_processes"]
            assert {one["name"] for one in listed} == {"labkit-cellxgene", "labkit-server"}
            for path in ("rstudio", "rstudio/", "rstudio/rpc/x"):
                page = client.get(path)
                assert page.status_code == 404
                assert "labhub doctor" in page.text
            assert "R is not installed" in client.get("labkit/shiny/").text
            refused = client.post("labkit/api/shiny/open", json={"path": "app.R"})
            assert refused.status_code == 409
        assert httpx.get(f"{server.base}rstudio/").status_code == 302  # strangers log in first
    finally:
        server.stop()


def test_little_processor_time_is_no_computing(monkeypatch: pytest.MonkeyPatch) -> None:
    used: dict[int, float] = {}
    now = [100.0]
    monkeypatch.setattr("labkit.server.rstudio._processor_time", lambda: dict(used))
    sessions = Sessions(clock=lambda: now[0])

    def after(seconds: float, **processor: float) -> bool:
        now[0] += seconds
        used.update({int(name[1:]): value for name, value in processor.items()})
        return bool(sessions.reasons())

    assert not after(5, p1=50.0)  # what was before the first look does not count
    assert after(5, p1=55.0)
    assert after(0.1, p1=55.0)  # too soon to tell anew
    assert not after(5, p1=55.1)
    since = time.time()
    assert after(5, p1=60.0)
    assert sessions.reasons()[0].since == pytest.approx(since, abs=5)
