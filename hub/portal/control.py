"""What the command line asks the running hub: one service with a few narrow scopes."""

from __future__ import annotations

import json
import os
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from hub import targets
from hub.apps import jupyterhub_services
from hub.labfile.schema import Settings
from hub.state.create import read_secret
from hub.state.database import HubDatabase
from hub.state.paths import Paths
from labkit.base.problems import LabkitError

SERVICE = "labhub-control"
TOKEN = "LABHUB_CONTROL_TOKEN"  # noqa: S105 - the variable's name
SCOPES = (
    "proxy",
    "list:users",
    "read:servers",
    "delete:servers",
    "delete:users",
    jupyterhub_services.SYNC,
)


def services() -> list[dict[str, Any]]:
    """Return the service, for ``JupyterHub.services``; none where it has no token."""
    token = os.environ.get(TOKEN)
    return [{"name": SERVICE, "api_token": token, "display": False}] if token else []


def roles() -> list[dict[str, Any]]:
    """Return its rights, for ``JupyterHub.load_roles``."""
    return [{"name": SERVICE, "scopes": list(SCOPES), "services": [SERVICE]}] if services() else []


class ControlError(LabkitError):
    """The hub does not answer, or refused."""


@dataclass(frozen=True)
class UserServer:
    """One running user server, as the hub's database knows it.

    Attributes
    ----------
    user, name : str
        Whose, and which: the default server's name is empty.
    started, last_activity : str
        UTC, as the database writes it; may be empty.
    """

    user: str
    name: str
    started: str = ""
    last_activity: str = ""

    def __str__(self) -> str:
        return f"{self.user}/{self.name}" if self.name else self.user


def user_servers(paths: Paths) -> list[UserServer]:
    """Return the servers that the hub has started, also while it is down."""
    query = (
        "SELECT users.name, spawners.name, spawners.started, spawners.last_activity"
        " FROM spawners JOIN users ON users.id = spawners.user_id"
        " WHERE spawners.server_id IS NOT NULL ORDER BY users.name, spawners.name"
    )
    rows = HubDatabase.in_force(paths).rows(query)
    return [UserServer(*(str(part or "") for part in row)) for row in rows]


class Control:
    """Calls to the hub's REST API.

    Parameters
    ----------
    settings : Settings
        Says where the hub listens.
    paths : Paths
        Has the secret.
    """

    def __init__(self, settings: Settings, paths: Paths) -> None:
        self._url = targets.of(settings, paths).addresses.hub
        self._paths = paths
        self._mounted = settings.secrets.mounted

    def call(self, method: str, path: str, timeout: float = 30) -> Any:
        """Call the API and return its answer, or None where it is empty.

        Raises
        ------
        ControlError
            No answer, or an error.
        """
        token = read_secret(self._paths, "control_token", self._mounted)
        request = urllib.request.Request(  # noqa: S310 - always http
            f"{self._url}/api{path}", method=method, headers={"Authorization": f"token {token}"}
        )
        try:
            with _open(request, timeout) as answer:
                body = answer.read()
        except urllib.error.HTTPError as error:
            raise ControlError(f"the hub answered {error.code} to {method} {path}") from None
        except OSError as error:
            reason = getattr(error, "reason", error)
            raise ControlError(f"the hub does not answer: {reason}") from None
        return json.loads(body) if body else None

    def stop_servers(
        self, servers: list[UserServer], say: Callable[[list[UserServer]], None], timeout: float
    ) -> list[UserServer]:
        """Stop user servers and wait until they are gone.

        Parameters
        ----------
        servers : list of UserServer
            Which.
        say : callable
            Is told which are left, each time that one is gone.
        timeout : float
            Seconds to wait for all of them.

        Returns
        -------
        list of UserServer
            Those that did not stop in time.

        Raises
        ------
        ControlError
            The hub does not answer.
        """
        for server in servers:
            user = urllib.parse.quote(server.user, safe="")
            path = f"/users/{user}/server"
            if server.name:
                path += f"s/{urllib.parse.quote(server.name, safe='')}"
            self.call("DELETE", path)
        wanted = {str(server) for server in servers}
        end = time.monotonic() + timeout
        while True:
            left = [server for server in user_servers(self._paths) if str(server) in wanted]
            say(left)
            if not left or time.monotonic() > end:
                return left
            time.sleep(0.2)

    def delete_user(self, name: str) -> bool:
        """Stop a user's servers and delete the user; False where the hub knows none."""
        try:
            self.call("DELETE", f"/users/{urllib.parse.quote(name, safe='')}", timeout=60)
        except ControlError as error:
            if "answered 404" in str(error):
                return False
            raise
        return True

    def sync_apps(self) -> dict[str, Any]:
        """Let the hub take up the apps that are declared now."""
        done: dict[str, Any] = self.call("POST", "/labhub/services", timeout=60)
        return done

    def check_routes(self) -> None:
        """Let the hub put its routes into a proxy that has just started."""
        self.call("POST", "/proxy")


def _open(request: urllib.request.Request, timeout: float) -> Any:
    # Loopback never goes by way of a web proxy of the environment.
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    return opener.open(request, timeout=timeout)
