"""jupyter-server-proxy's addresses, with the streaming data plane behind them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jupyter_server_proxy
from jupyter_server.utils import url_path_join
from jupyter_server_proxy.api import IconHandler, ServersInfoHandler
from jupyter_server_proxy.config import ServerProcess, ServerProxy, make_handlers
from jupyter_server_proxy.config import get_entrypoint_server_processes as entry_points
from jupyter_server_proxy.handlers import setup_handlers

from labkit.server import rstudio
from labkit.server.proxy import streaming

Rule = tuple[Any, ...]


class _Recorder:
    """Stands in for the web application: notes what jupyter-server-proxy would register."""

    def __init__(self, settings: dict[str, Any]) -> None:
        self.settings = settings
        self.rules: list[Rule] = []

    def add_handlers(self, _host: str, rules: Sequence[Rule]) -> None:
        self.rules += rules


def proxy_rules(serverapp: Any, tiles: Sequence[ServerProcess]) -> list[Rule]:
    """Return the handlers of jupyter-server-proxy for this server's configuration.

    Parameters
    ----------
    serverapp : jupyter_server.serverapp.ServerApp
        Its configuration names the proxied servers (``c.ServerProxy.servers``), and so do the
        entry points of installed packages.
    tiles : sequence of ServerProcess
        Launcher tiles without a process of their own.
    """
    settings = serverapp.web_app.settings
    base_url = settings["base_url"]
    config = ServerProxy(parent=serverapp)
    processes = [*config.servers.values(), *rstudio.adapted(entry_points())]
    recorder = _Recorder(settings)
    setup_handlers(recorder, config)
    rules = [*make_handlers(base_url, processes), *recorder.rules]
    listed = [*tiles, *processes]
    icons = {
        one.name: one.launcher_entry.icon_path
        for one in listed
        if one.launcher_entry.enabled and one.launcher_entry.icon_path
    }
    served = [
        (
            url_path_join(base_url, "server-proxy/servers-info"),
            ServersInfoHandler,
            {"server_processes": listed},
        ),
        (url_path_join(base_url, "server-proxy/icon/(.*)"), IconHandler, {"icons": icons}),
    ]
    if rstudio.NAME not in {process.name for process in processes}:
        place = url_path_join(base_url, rf"{rstudio.NAME}(?:/.*)?")
        served.append((place, rstudio.NoRStudio, {"name": "labkit"}))
    return [(rule[0], streaming(rule[1]), *rule[2:]) for rule in rules] + served


def version() -> str:
    """Return jupyter-server-proxy's version, for the log."""
    return str(jupyter_server_proxy.__version__)
