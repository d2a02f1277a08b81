"""The tiles and the pages in a real browser, with the real JupyterLab and CellxGene."""

from __future__ import annotations

import json
import re
import shutil
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

import pytest

from labkit.base.ports import free_port
from tests.conftest import CHROMIUM, needs_chromium, needs_env
from tests.labkit.server.conftest import TOKEN, Server
from tests.support.portal import REPOSITORY

if TYPE_CHECKING:
    from playwright.sync_api import Page

pytestmark = [needs_chromium, pytest.mark.slow]
playwright = pytest.importorskip("playwright.sync_api", reason="needs playwright")


class Hub(ThreadingHTTPServer):
    """The hub's API of messages, and nothing else."""

    messages: ClassVar[list[dict[str, object]]] = []

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), HubHandler)
        threading.Thread(target=self.serve_forever, daemon=True).start()


class HubHandler(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        known = self.headers["Authorization"] == "token of-the-server"
        found = self.path == "/hub/api/labhub/messages" and known
        self.send_response(200 if found else 404)
        self.end_headers()
        self.wfile.write(json.dumps(Hub.messages if found else {}).encode())

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@pytest.fixture(scope="module")
def hub() -> Iterator[Hub]:
    hub = Hub()
    yield hub
    hub.shutdown()
    hub.server_close()


@pytest.fixture(scope="module")
def lab(hub: Hub) -> Iterator[Server]:
    server = Server(
        env={
            "LABHUB_CULL_IDLE_SECONDS": "7200",
            "LABHUB_MEMORY_BYTES": str(64 << 30),  # all of this account count
            "JUPYTERHUB_API_URL": f"http://127.0.0.1:{hub.server_port}/hub/api",
            "JUPYTERHUB_API_TOKEN": "of-the-server",
        },
        config='c.ServerApp.default_url = "/lab"\n',
    )
    # What the wheel brings to share/jupyter.
    extensions = server.folder / "share" / "labextensions"
    extensions.mkdir(parents=True)
    source = REPOSITORY / "labkit" / "server" / "data" / "labextension"
    (extensions / "labkit-notices").symlink_to(source)
    server.env["JUPYTER_PATH"] = str(extensions.parent)
    folder = server.folder / "config"
    (folder / "jupyter_server_config.d" / "tests.json").write_text(
        json.dumps({"ServerApp": {"jpserver_extensions": {"jupyterlab": True}}})
    )
    # What the wheel brings to share/jupyter/lab/settings.
    (folder / "labconfig").mkdir()
    shutil.copy(
        REPOSITORY / "labkit/server/data/lab/overrides.json",
        folder / "labconfig" / "default_setting_overrides.json",
    )
    scanpy = pytest.importorskip("scanpy", reason="needs scanpy's example data")
    data = Path(scanpy.__file__).parent / "datasets" / "10x_pbmc68k_reduced.h5ad"
    shutil.copy(data, server.home / "pbmc.h5ad")
    try:
        server.start()
        yield server
    finally:
        from labkit.viewers.cellxgene import process

        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("HOME", str(server.home))
            patch.delenv("XDG_STATE_HOME", raising=False)
            for record in process.running():
                process.stop(record)
        server.stop()


@pytest.fixture
def page(lab: Server, artifacts: Path, request: pytest.FixtureRequest) -> Iterator[Page]:
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(
            executable_path=CHROMIUM,
            args=[
                "--no-sandbox",
                "--use-gl=angle",
                "--use-angle=swiftshader",
                "--enable-unsafe-swiftshader",
            ],
        )
        context = browser.new_context(viewport={"width": 1000, "height": 800})
        context.set_default_timeout(60_000)
        page = context.new_page()
        errors: list[str] = []
        page.on("pageerror", lambda error: errors.append(str(error)))
        page.goto(f"{lab.base}api/status?token={TOKEN}")  # sets the login cookie
        yield page
        page.screenshot(path=artifacts / f"server-{request.node.name}.png")
        browser.close()
        assert errors == []


def test_tiles_stand_in_the_launcher(lab: Server, page: Page) -> None:
    page.goto(f"{lab.base}lab?reset")
    card = page.locator(".jp-LauncherCard", has_text="CellxGene")
    card.wait_for()
    page.locator(".jp-LauncherCard", has_text="My server").wait_for()
    image = card.locator("img").first
    assert image.evaluate("i => i.naturalWidth") > 0
    with page.context.expect_page() as opened:
        card.click()
    opened.value.get_by_role("heading", name="Open cells in CellxGene").wait_for()
    page.wait_for_timeout(3000)
    assert (
        page.get_by_text("Would you like to get notified about official Jupyter news?").count() == 0
    )


def test_messages_of_administrators_are_told_in_the_lab_and_on_the_pages(
    lab: Server, page: Page, hub: Hub
) -> None:
    page.goto(f"{lab.base}lab?reset")
    page.locator(".jp-LauncherCard").first.wait_for()
    long = "The <b>portal</b> is updated tonight. " * 8
    hub.messages[:] = [
        {"id": "a", "text": "The freezer is <i>warm</i>.", "until": None, "begins": None},
        {"id": "b", "text": "We update.", "until": None, "begins": time.time() + 3600},
        {"id": "c", "text": long, "until": None, "begins": None},
    ]
    toast = page.locator(".jp-toastContainer, .Toastify")
    toast.get_by_text("The freezer is <i>warm</i>.").wait_for()
    toast.get_by_text("Maintenance begins at").wait_for()
    toast.get_by_role("button", name="Read all").click()
    dialog = page.get_by_role("dialog").filter(has_text="updated tonight")
    assert long.strip() in dialog.inner_text()
    dialog.get_by_role("button", name="Close").click()
    hub.messages[1]["begins"] = time.time() - 60
    toast.get_by_text("no new servers").wait_for()
    hub.messages[:] = hub.messages[:1]
    toast.get_by_text("no new servers").wait_for(state="detached")
    page.goto(f"{lab.base}labkit/")
    page.locator("#lab-messages p", has_text="The freezer is <i>warm</i>.").wait_for()
    hub.messages.clear()
    page.locator("#lab-messages p").wait_for(state="detached")


def test_keep_and_let_go(lab: Server, page: Page) -> None:
    page.goto(f"{lab.base}labkit/")
    stops = page.locator("#stops")
    playwright.expect(stops).to_contain_text("If nothing happens, this server stops at")
    page.get_by_role("button", name="Keep for 8 h").click()
    playwright.expect(stops).to_contain_text("You have asked to keep it until then")
    assert lab.status()["keep_until"] is not None
    page.get_by_role("button", name="Let go").click()
    playwright.expect(stops).not_to_contain_text("You have asked")
    assert lab.status()["keep_until"] is None
    playwright.expect(page.locator("#memory")).to_contain_text("of 64 GB")
    page.set_viewport_size({"width": 340, "height": 700})
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")


@needs_env("cellxgene")
def test_data_of_the_home_opens_in_cellxgene(lab: Server, page: Page) -> None:
    page.goto(f"{lab.base}labkit/cellxgene/")
    page.get_by_role("button", name="Open pbmc.h5ad").click()
    page.locator("#steps li").first.wait_for()
    ready, failed = page.locator("#ready"), page.locator("#failed")
    for _ in range(240):
        if "/proxy/" in page.url:
            break
        assert not failed.is_visible(), page.locator("#error").inner_text()
        if ready.is_visible():
            page.locator("#link").click()
            break
        page.wait_for_timeout(500)
    else:
        pytest.fail(f"not open after two minutes: {page.locator('#steps').inner_text()}")
    page.wait_for_url(re.compile(r"/proxy/\d+/$"))
    page.get_by_text("louvain").first.wait_for(timeout=60_000)
    cookies = [c for c in page.context.cookies() if c["name"] == "session"]
    assert all("/proxy/" in c["path"] for c in cookies)


def test_a_page_for_an_app_that_comes_later(lab: Server, page: Page) -> None:
    from aiohttp import web

    from tests.labkit.server.conftest import App

    port = free_port()
    page.goto(f"{lab.base}proxy/{port}/")
    page.get_by_role("heading", name=f"Nothing listens on port {port}").wait_for()
    app = App()
    app.port = port

    @app.on("GET", "/")
    async def hello(_: web.Request) -> web.Response:
        return web.Response(text="<h1>Here I am</h1>", content_type="text/html")

    app.start()
    page.get_by_role("heading", name="Here I am").wait_for()
    app.stop()
