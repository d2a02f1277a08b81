"""The kit of an aiohttp app: the how-to's example as it stands there, and who must not get in."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import httpx
import pytest
from aiohttp import web
from aiohttp.test_utils import TestClient, TestServer

from services.appkit.app import create, with_slash
from services.appkit.keys import PERSON
from services.appkit.launch import Portal
from services.appkit.pages import Pages

REPOSITORY = Path(__file__).parents[3]
PREFIX, SECRET = "/services/plates/", "0123456789abcdef" * 2
HOST = "plates--service.lab.example"
Client = TestClient[web.Request, web.Application]


def gate(name: str = "ada", **more: str) -> dict[str, str]:
    """Return the gate's headers for a person."""
    return {
        "Accept": "text/html",
        "X-Labhub-User": name,
        "X-Labhub-Groups": "imaging,blood",
        "X-Labhub-Admin": "false",
        "X-Labhub-App-Secret": SECRET,
        "X-Forwarded-Proto": "https",
        "X-Forwarded-Host": HOST,
        **more,
    }


# -- the how-to's example ------------------------------------------------------------------


@pytest.fixture(scope="module")
def example() -> Iterator[httpx.Client]:
    """The example of docs/how-to/apps.md, started as the portal starts an app."""
    text = (REPOSITORY / "docs/how-to/apps.md").read_text(encoding="utf-8")
    [code] = re.findall(r"```python\n(from aiohttp.*?)```", text, re.DOTALL)
    with tempfile.TemporaryDirectory(prefix="kit-") as folder:
        script, place = Path(folder, "app.py"), Path(folder, "app.sock")
        script.write_text(code)
        variables = {
            "PYTHONPATH": str(REPOSITORY),
            "LABHUB_APP_PREFIX": PREFIX,
            "LABHUB_APP_SECRET": SECRET,
            "LABHUB_APP_DATA": folder,
            "LABHUB_APP_SOCKET": str(place),
            "LABHUB_LAB_NAME": "Lab of Ada",
        }
        process = subprocess.Popen([sys.executable, str(script)], env={**os.environ, **variables})
        try:
            end = time.monotonic() + 60
            while not place.exists() and process.poll() is None and time.monotonic() < end:
                time.sleep(0.05)
            transport = httpx.HTTPTransport(uds=str(place), retries=5)
            with httpx.Client(transport=transport, base_url=f"http://{HOST}{PREFIX}") as client:
                yield client
        finally:
            process.terminate()
            process.wait(20)


def test_the_example_of_the_how_to_says_hello(example: httpx.Client) -> None:
    answer = example.get("", headers=gate())
    assert answer.status_code == 200
    assert "Hello ada, of blood, imaging." in answer.text
    assert "<title>Plate maps · Lab of Ada</title>" in answer.text
    [style] = re.findall(r'rel="stylesheet" href="([^"]+)"', answer.text)
    assert (
        example.get(f"http://{HOST}{style}", headers=gate())
        .headers["Content-Type"]
        .startswith("text/css")
    )
    assert example.get("", headers=gate("<b>")).text.count("<b>") == 0


def test_the_example_answers_the_gate_alone(example: httpx.Client) -> None:
    for headers in ({}, gate(**{"X-Labhub-App-Secret": "x"}), gate("%20")):
        answer = example.get("", headers=headers)
        assert answer.status_code == 403 and "Hello" not in answer.text


# -- the kit -------------------------------------------------------------------------------


class Failing(RuntimeError):
    """Its text is nobody's business but the log's."""


async def _who(request: web.Request) -> web.Response:
    return web.Response(text=request[PERSON].name)


async def _fail(request: web.Request) -> web.Response:
    raise Failing("/srv/private/path")


@pytest.fixture
async def client() -> AsyncIterator[Client]:
    pages = Pages("Plates", overview="All plates", advice={404: "Look for it."})
    app = create(Portal(PREFIX, SECRET), pages, body_most=100)
    app.router.add_route("*", PREFIX + "who", _who)
    app.router.add_patch(PREFIX + "thing", _who)
    app.router.add_get(PREFIX + "fail", _fail)
    app.router.add_get(PREFIX + "folder", with_slash)
    async with TestClient(TestServer(app)) as client:
        yield client


async def test_every_answer_says_what_a_browser_may_do(client: Client) -> None:
    for path, status in (("who", 200), ("fail", 500), ("absent", 404), ("_/static/x.css", 404)):
        async with client.get(PREFIX + path, headers=gate()) as answer:
            assert answer.status == status, path
            assert answer.headers["X-Content-Type-Options"] == "nosniff"
            assert answer.headers["Cross-Origin-Resource-Policy"] == "same-origin"
            assert "default-src 'none'" in answer.headers["Content-Security-Policy"]
            assert answer.headers["Cache-Control"] in ("private, no-cache", "no-store")


async def test_an_error_is_a_page_for_people_and_json_for_programs(client: Client) -> None:
    async with client.get(PREFIX + "absent", headers=gate()) as answer:
        page = await answer.text()
        assert "Look for it." in page and ">All plates</a>" in page
    async with client.get(PREFIX + "absent", headers=gate(Accept="*/*")) as answer:
        assert (await answer.json())["advice"] == "Look for it."
    async with client.get(PREFIX + "fail", headers=gate(Accept="*/*")) as answer:
        assert "private/path" not in await answer.text()


@pytest.mark.parametrize(
    "headers",
    [
        {"Origin": "https://eve--user.lab.example"},
        {"Origin": "null"},
        {"Sec-Fetch-Site": "same-site"},
        {"Sec-Fetch-Site": "cross-site"},
    ],
)
async def test_another_origins_page_changes_nothing(
    client: Client, headers: dict[str, str]
) -> None:
    for method in ("POST", "PUT", "PATCH", "DELETE"):
        async with client.request(method, PREFIX + "who", headers=gate(**headers)) as answer:
            assert answer.status == 403, method
    async with client.post(PREFIX + "who", headers=gate(Origin=f"https://{HOST}")) as answer:
        assert (answer.status, await answer.text()) == (200, "ada")


async def test_the_log_says_who_changed_what(
    client: Client, caplog: pytest.LogCaptureFixture
) -> None:
    evil = 'eve"}\n{"who": "root'
    with caplog.at_level(logging.INFO, logger="labhub.audit"):
        for headers in (gate(), gate(Origin="null"), gate(evil.replace("\n", "%0A"))):
            async with client.patch(PREFIX + "thing", headers=headers):
                pass
        await client.get(PREFIX + "who", headers=gate())
        await client.post(PREFIX + "who", headers=gate())  # hands on: no change of the portal's
        await client.patch(PREFIX + "thing")  # not by the gate
    lines = [json.loads(line) for line in caplog.messages]
    assert [line["status"] for line in lines] == ["200", "403", "200"]
    assert lines[0] == {
        "who": "ada",
        "as": "user",
        "action": "PATCH",
        "target": PREFIX + "thing",
        "status": "200",
    }
    assert "root" in lines[2]["who"]


@pytest.mark.parametrize("path", ["..%2fapp.py", "%2e%2e/app.py", "labkit.css/x", "app.html"])
async def test_only_static_files_are_static(client: Client, path: str) -> None:
    async with client.get(f"{PREFIX}_/static/{path}", headers=gate()) as answer:
        assert answer.status == 404


async def test_relative_links_need_the_slash(client: Client) -> None:
    url = PREFIX + "folder?a=1"
    async with client.get(url, headers=gate(), allow_redirects=False) as answer:
        assert (answer.status, answer.headers["Location"]) == (301, f"{PREFIX}folder/?a=1")


def test_without_a_secret_it_does_not_start() -> None:
    for secret in ("", "short"):
        with pytest.raises(ValueError, match="secret"):
            Portal(PREFIX, secret)
    assert SECRET not in repr(Portal(PREFIX, SECRET))


def test_the_secret_is_taken_out_of_the_environment() -> None:
    variables = {
        "LABHUB_APP_PREFIX": PREFIX,
        "LABHUB_APP_SECRET": SECRET,
        "LABHUB_APP_DATA": "/data",
        "LABHUB_APP_SOCKET": "/run/app.sock",
    }
    environ = dict(variables)
    assert Portal.from_environment(environ).secret == SECRET
    assert SECRET not in environ.values(), "no program that the app starts inherits it"
    for name in variables:
        with contextlib.suppress(KeyError):
            Portal.from_environment({key: one for key, one in variables.items() if key != name})
            pytest.fail(f"{name} is missing")
