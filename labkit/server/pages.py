"""The page "My server" and the small API beneath it."""

from __future__ import annotations

import asyncio
import math
import os
from dataclasses import asdict
from pathlib import Path
from typing import Any, ClassVar

from jupyter_server.auth.decorator import authorized
from jupyter_server.base.handlers import APIHandler, JupyterHandler
from jupyter_server.extension.handler import (
    ExtensionHandlerJinjaMixin,
    ExtensionHandlerMixin,
)
from tornado import web

from labkit.relay.unreachable import PAGE_POLICY
from labkit.server import previews
from labkit.server.activity import Activity
from labkit.server.ending import Ending
from labkit.server.usage import Meter
from labkit.viewers import sockets

ACTIVITY = "labkit_activity"
ENDING = "labkit_ending"
METER = "labkit_meter"
_PROBE_SECONDS = 2.0
_LISTEN_SECONDS = 25.0  # proxies close what is silent for longer


class Page(ExtensionHandlerJinjaMixin, ExtensionHandlerMixin, JupyterHandler):
    """A page of this server: HTML with its own style and script files, nothing from outside."""

    auth_resource: ClassVar[str] = "server"
    template: ClassVar[str]
    status: ClassVar[int] = 200

    @property
    def content_security_policy(self) -> str:
        """Allow the page its own files and addresses only."""
        return PAGE_POLICY

    @web.authenticated
    @authorized
    async def get(self) -> None:
        """Show the page."""
        self.set_status(self.status)
        self.set_header("Cache-Control", "no-store")
        self.finish(
            self.get_template(self.template).render(
                base_url=self.base_url,
                static=f"{self.base_url}static/labkit/",
                xsrf=self.xsrf_token.decode(),
                lab=os.environ.get("LABHUB_LAB_NAME", ""),
                home=_hub_home(),
                has_r=bool(previews.program()),
                **self.more(),
            )
        )

    def more(self) -> dict[str, Any]:
        """Return what this page's template gets besides."""
        return {}


class Api(ExtensionHandlerMixin, APIHandler):
    """JSON for the pages; login, origin and ``_xsrf`` are checked by Jupyter Server."""

    auth_resource: ClassVar[str] = "server"

    def fields(self) -> dict[str, Any]:
        """Return the JSON object of the request's body.

        Raises
        ------
        tornado.web.HTTPError
            400: it is none.
        """
        body = self.get_json_body()
        if not isinstance(body, dict):
            raise web.HTTPError(400, "a JSON object is needed")
        return body

    def place(self, path: Any) -> Path:
        """Return the file or folder that a page names, relative to the home or in full.

        Raises
        ------
        tornado.web.HTTPError
            400: it is no name of one; 404: there is none.
        """
        if not isinstance(path, str) or not path.strip() or "\0" in path or len(path) > 4096:
            raise web.HTTPError(400, "path: the name of a file or folder is needed")
        try:
            place = Path.home() / Path(path.strip()).expanduser()
            found = place.exists()
        except (OSError, RuntimeError) as error:  # RuntimeError: ~nobody
            raise web.HTTPError(400, "%s cannot be read: %s", path[:200], error) from None
        if not found:
            raise web.HTTPError(404, "There is no %s", path)
        return place


class ServerPage(Page):
    """What this server does, and how long it will stay."""

    template = "server.html"


class Status(Api):
    """The page's numbers; asking for them is no activity."""

    _track_activity = False

    @web.authenticated
    @authorized
    async def get(self) -> None:
        """Answer with what goes on, when the server would stop, and what it uses."""
        activity: Activity = self.settings[ACTIVITY]
        meter: Meter = self.settings[METER]
        sessions = await self.settings["session_manager"].list_sessions()
        notebooks = {one["kernel"]["id"]: one["path"] for one in sessions if one.get("kernel")}
        usage = await asyncio.to_thread(meter.read)
        self.finish(
            {
                "busy": [asdict(reason) for reason in activity.reasons(notebooks)],
                "last_activity": activity.last(),
                "stops": activity.stops(),
                "idle_seconds": activity.rules.idle,
                "max_age_seconds": activity.rules.max_age,
                "ends": activity.rules.ends or None,
                "warn_seconds": activity.rules.warn,
                "started": self.settings["started"].timestamp(),
                "keep_until": activity.keep.until,
                "keep_most_seconds": activity.keep_most(),
                "usage": asdict(usage),
            }
        )


class KeepHandler(Api):
    """Keep this server for some time, or let it go."""

    @web.authenticated
    @authorized
    async def put(self) -> None:
        """Keep it for ``{"seconds": ...}`` from now."""
        seconds = self.fields().get("seconds")
        if isinstance(seconds, bool) or not isinstance(seconds, int | float):
            raise web.HTTPError(400, "seconds: a number is needed")
        if not math.isfinite(seconds):
            raise web.HTTPError(400, "seconds: a finite number is needed")
        activity: Activity = self.settings[ACTIVITY]
        try:
            until = activity.keep.set(float(seconds), activity.keep_most())
        except ValueError as error:
            raise web.HTTPError(400, "%s", str(error)) from None
        except OSError as error:
            raise web.HTTPError(507, "It could not be written: %s", error.strerror) from None
        activity.look()
        self.finish({"keep_until": until})

    @web.authenticated
    @authorized
    async def delete(self) -> None:
        """Let it go when it is idle."""
        activity: Activity = self.settings[ACTIVITY]
        activity.keep.clear()
        self.set_status(204)
        self.finish()


class EndingHandler(Api):
    """Answers when the cluster ends this server, for the pages that are open."""

    _track_activity = False

    @web.authenticated
    @authorized
    async def get(self) -> None:
        """Answer with ``{"why": ...}``, empty after a while without news."""
        ending: Ending = self.settings[ENDING]
        self.finish({"why": await ending.wait(_LISTEN_SECONDS)})


class Port(Api):
    """Whether something listens on a port: what the page of an absent app waits for."""

    _track_activity = False

    @web.authenticated
    @authorized
    async def get(self, port: str) -> None:
        """Answer with ``{"listening": true}`` or false."""
        if not 1 <= int(port) <= 65535:
            raise web.HTTPError(404)
        self.finish({"listening": await _listens(int(port))})


async def _listens(port: int) -> bool:
    path = sockets.listening(port)
    try:
        async with asyncio.timeout(_PROBE_SECONDS):
            if path:
                _, writer = await asyncio.open_unix_connection(path)
            else:
                _, writer = await asyncio.open_connection("localhost", port)
    except OSError:  # a TimeoutError is one
        return False
    writer.close()
    return True


def _hub_home() -> str:
    """Return the address of the portal's home page, or an empty text without a hub."""
    prefix = os.environ.get("JUPYTERHUB_BASE_URL")
    if not prefix:
        return ""
    return f"{os.environ.get('JUPYTERHUB_HOST', '')}{prefix.rstrip('/')}/hub/home"


def rules() -> list[tuple[str, type]]:
    """Return the addresses, below the server's base address."""
    return [
        (r"/labkit/?", ServerPage),
        (r"/labkit/api/status", Status),
        (r"/labkit/api/keep", KeepHandler),
        (r"/labkit/api/ending", EndingHandler),
        (r"/labkit/api/port/(\d{1,5})", Port),
    ]
