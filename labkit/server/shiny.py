"""The page that runs a Shiny app of the user's, and the way to the app."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path
from typing import Any

from jupyter_server.auth.decorator import authorized
from jupyter_server_proxy import handlers as stock
from tornado import web

from labkit.server import previews
from labkit.server.file_finder import SECONDS, find_everywhere
from labkit.server.pages import Api, Page
from labkit.server.previews import Preview, Previews
from labkit.server.proxy import streaming

PREVIEWS = "labkit_previews"
_NAME = "([0-9a-f]{16})"


class ShinyPage(Page):
    """Choose an app, run it, stop it."""

    template = "shiny.html"


class Apps(Api):
    """The Shiny apps in the user's home, and those that run."""

    @web.authenticated
    @authorized
    async def get(self) -> None:
        """Answer with what was found."""
        found, complete = await asyncio.to_thread(
            find_everywhere, Path.home(), time.monotonic() + SECONDS, previews.APPS.__contains__
        )
        running: Previews = self.settings[PREVIEWS]
        self.finish(
            {
                "apps": [{"path": one.path, "modified": one.modified} for one in found],
                "complete": complete,
                "previews": [
                    _shown(one) for one in running.all() if one.state in ("starting", "running")
                ],
            }
        )


class Openings(Api):
    """Previews."""

    @web.authenticated
    @authorized
    async def post(self) -> None:
        """Begin one: ``{"path": ...}``, a folder or file, relative to the home."""
        if not previews.program():
            raise web.HTTPError(409, "R is not installed where this server runs")
        app = previews.app_at(self.place(self.fields().get("path")))
        if app is None:
            raise web.HTTPError(400, "A Shiny app is a folder with app.R or server.R, or a .R file")
        running: Previews = self.settings[PREVIEWS]
        try:
            preview = running.begin(app)
        except previews.TooManyError as error:
            raise web.HTTPError(409, "%s", str(error)) from None
        self.set_status(202)
        self.finish(_shown(preview))


class OneOpening(Api):
    """One preview."""

    def _preview(self, name: str) -> Preview:
        running: Previews = self.settings[PREVIEWS]
        preview = running.get(name)
        if preview is None:
            raise web.HTTPError(404, "This preview is no longer known")
        return preview

    @web.authenticated
    @authorized
    async def get(self, name: str) -> None:
        """Answer with its state and what it has written."""
        self.finish(_shown(self._preview(name)))

    @web.authenticated
    @authorized
    async def delete(self, name: str) -> None:
        """Stop it."""
        running: Previews = self.settings[PREVIEWS]
        await running.stop(self._preview(name))
        self.set_status(204)
        self.finish()


def _shown(preview: Preview) -> dict[str, str]:
    home = Path.home()
    app = preview.app
    return {
        "id": preview.name,
        "path": str(app.relative_to(home) if app.is_relative_to(home) else app),
        "state": preview.state,
        "log": preview.log,
        "advice": preview.advice if preview.state == "failed" else "",
    }


class ToPreview(stock.LocalProxyHandler):  # type: ignore[misc]
    """Passes requests on to a preview's socket."""

    async def prepare(self, *args: Any, **kwargs: Any) -> None:
        """Log in as ever, then find the preview.

        Raises
        ------
        tornado.web.HTTPError
            404: it no longer runs.
        """
        await super().prepare(*args, **kwargs)
        if self._finished:
            return
        name = self.path_args[0]
        running: Previews = self.settings[PREVIEWS]
        preview = running.get(name)
        if preview is None or preview.state != "running":
            text = f"This preview does not run: start it again at {self.base_url}labkit/shiny/"
            raise web.HTTPError(404, text)
        self.unix_socket = str(preview.socket)
        self.proxy_base = f"labkit/shiny/{name}"

    def proxy(self, _name: str, path: str) -> Any:
        """Pass a request on."""
        return super().proxy(0, path)

    async def open(self, _name: str, path: str) -> None:
        """Pass a WebSocket on."""
        await self.proxy_open("localhost", 0, path)


def rules() -> list[tuple[str, type]]:
    """Return the addresses, below the server's base address."""
    return [
        (r"/labkit/shiny/?", ShinyPage),
        (r"/labkit/api/shiny/apps", Apps),
        (r"/labkit/api/shiny/open", Openings),
        (rf"/labkit/api/shiny/open/{_NAME}", OneOpening),
        (rf"/labkit/shiny/{_NAME}(?:/(.*))?", streaming(ToPreview)),
    ]
