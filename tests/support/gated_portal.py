"""A portal with apps behind its gate, and what a client does there."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Self

import httpx
from websockets.sync.client import ClientConnection, connect

from hub.state.paths import Paths
from tests.support.cli_portal import LabhubPortal, eventually
from tests.support.http_client import LocalhostTransport
from tests.support.portal import Browser

HTML = {"Accept": "text/html,application/xhtml+xml,*/*;q=0.8"}


class AppPortal(LabhubPortal):
    """A portal run by ./labhub, with apps; use as a context manager.

    Parameters
    ----------
    lab : mapping, optional
        The lab file's content, over the tests' own.
    apps : sequence of Path or str
        Folders, or names of shipped apps, that are added.
    groups : mapping
        For each app, who may open it instead of those its file names.
    """

    def __init__(
        self,
        lab: Mapping[str, Any] | None = None,
        apps: Sequence[Path | str] = (),
        groups: Mapping[str, Sequence[str]] | None = None,
    ) -> None:
        super().__init__(lab)
        self._apps = apps
        self._app_groups = dict(groups or {})

    def __enter__(self) -> Self:
        try:
            self.labhub("up")
            for app in self._apps:
                chosen = self._app_groups.get(Path(app).name, ())
                options = [word for group in chosen for word in ("--group", group)]
                self.labhub("app", "add", str(app), *options)
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def app_origin(self, app: str) -> str:
        """Return an app's own origin."""
        return f"http://{app}--service.localhost:{self.port}"

    def app_url(self, app: str, path: str = "") -> str:
        """Return an address of an app."""
        return f"{self.app_origin(app)}/services/{app}/{path}"

    def person(self, name: str) -> Browser:
        """Return a client of somebody who has logged in at the hub."""
        client = self.browser()
        client.login(name)
        return client

    def token(self, name: str, **spec: Any) -> str:
        """Return a token of somebody's."""
        self.api("POST", f"/users/{name}")
        return str(self.api("POST", f"/users/{name}/tokens", json=spec).json()["token"])

    def program(self, token: str = "") -> httpx.Client:
        """Return a client without cookies, as a program is, with a token or without."""
        headers = {"Authorization": f"token {token}"} if token else {}
        return httpx.Client(transport=LocalhostTransport(), headers=headers, timeout=60)

    def stop_app(self, app: str) -> None:
        """Let an app sleep, as the gate does when nobody uses it."""
        from hub.supervisor.client import Supervisor
        from hub.supervisor.programs import program_name

        Supervisor(Paths(self.state, self.envs)).stop([program_name(app)])

    def app_state(self, app: str) -> str:
        """Return an app's state, as `labhub app list` shows it."""
        import json

        rows = json.loads(self.labhub("app", "list", "--json").stdout)["apps"]
        return str(next(row["state"] for row in rows if row["name"] == app))

    @contextlib.contextmanager
    def websocket(self, app: str, path: str, **headers: str) -> Iterator[ClientConnection]:
        """Open a WebSocket of an app; headers by their names, with underscores for hyphens."""
        end = socket.create_connection(("127.0.0.1", self.port))
        host = f"{app}--service.localhost:{self.port}"
        sent = {name.replace("_", "-"): value for name, value in headers.items()}
        with connect(
            f"ws://{host}/services/{app}/{path}",
            sock=end,
            additional_headers=sent,
            open_timeout=30,
            max_size=None,
        ) as ws:
            yield ws

    def cookies(self, client: Browser, app: str) -> str:
        """Return the ``Cookie`` header that a client sends to an app."""
        return str(client.build_request("GET", self.app_url(app)).headers.get("Cookie", ""))


__all__ = ["HTML", "AppPortal", "eventually"]
