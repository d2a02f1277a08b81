"""The server extension: registers everything, starts and stops what runs."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from jupyter_server.extension.application import ExtensionApp, ExtensionAppJinjaMixin

from labkit.base import activity, scratch
from labkit.jobs.backends import local
from labkit.relay.upstream import Upstreams
from labkit.server import (
    foreground,
    messages,
    own_packages,
    pages,
    routes,
    rstudio,
    shared_folders,
    shiny,
    signatures,
    tutorials,
    viewer,
)
from labkit.server.activity import Activity, Reason, Rules
from labkit.server.cull_exemption import CullExemption
from labkit.server.ending import Ending
from labkit.server.previews import Previews
from labkit.server.proxy import UPSTREAMS
from labkit.server.revocation import Revocation
from labkit.server.tiles import DATA, tiles
from labkit.server.timelimit import TimeLimit
from labkit.server.usage import Meter


class LabkitServer(ExtensionAppJinjaMixin, ExtensionApp):
    """labkit's part of a user's Jupyter server."""

    name = "labkit"
    app_name = "labkit"
    description = "Fast proxy to web apps, honest activity, and the pages below labkit/"
    static_paths = [str(DATA / "static")]
    template_paths = [str(DATA / "templates")]

    @property
    def _web_app(self) -> Any:
        assert self.serverapp is not None  # noqa: S101 - linked before anything is called
        return self.serverapp.web_app

    @property
    def _identity_provider(self) -> Any:
        return self.serverapp.identity_provider if self.serverapp else None

    def initialize_settings(self) -> None:
        """Put what the handlers share into the web application's settings."""
        settings = self._web_app.settings
        self.activity = Activity(
            settings,
            CullExemption.from_environment(),
            Rules.from_environment(),
            more=(partial(foreground.reasons, settings), *self._sessions()),
        )
        self.time_limit = TimeLimit(self.activity)
        self.ending = settings[pages.ENDING] = Ending()
        if scratch.is_shared(Path.home()):
            signatures.keep_as_files(self.serverapp)
        hub_auth = getattr(self._identity_provider, "hub_auth", None)
        self.revocation = Revocation(self._web_app, hub_auth) if hub_auth else None
        settings[UPSTREAMS] = Upstreams()
        settings[pages.ACTIVITY] = self.activity
        settings[pages.METER] = Meter()
        settings[messages.SETTING] = messages.Messages()
        settings[viewer.OPENER] = viewer.Opener()
        settings[shiny.PREVIEWS] = Previews()
        own_packages.offer(self.serverapp, settings)

    @staticmethod
    def _sessions() -> tuple[Callable[[], list[Reason]], ...]:
        return () if rstudio.lacks() else (rstudio.Sessions().reasons,)

    def initialize_handlers(self) -> None:
        """Register the pages, then the proxy in jupyter-server-proxy's place."""
        for part in (pages, messages, own_packages, viewer, shiny):
            self.handlers.extend(part.rules())
        if self._stock_is_enabled():
            self.log.warning(
                "jupyter_server_proxy is enabled beside labkit.server: its slow proxy answers. "
                'Set "jupyter_server_proxy": false in jupyter_server_config.d.'
            )
            return
        self._web_app.add_handlers(".*", routes.proxy_rules(self.serverapp, tiles()))
        self.log.info("labkit proxies for jupyter-server-proxy %s", routes.version())

    def _stock_is_enabled(self) -> bool:
        manager: Any = self.serverapp.extension_manager if self.serverapp else None
        stock = manager.extensions.get("jupyter_server_proxy") if manager else None
        return stock is not None and stock.enabled

    async def _start_jupyter_server_extension(self, _serverapp: Any) -> None:
        self.activity.start()
        self.time_limit.start()
        if self.activity.rules.ends:  # it is a job, which the cluster may end
            self.ending.start()
        if self.revocation:
            self.revocation.start()
        await asyncio.to_thread(self._resume_jobs)
        await asyncio.to_thread(self._link_shared_folders)
        source = os.environ.get("LABHUB_TUTORIALS")
        if source:
            await asyncio.to_thread(self._copy_tutorials, Path(source))

    def _resume_jobs(self) -> None:
        """Take up the jobs that were waiting or running when the server was stopped."""
        try:
            if local.resume():
                self.log.info("Jobs of an earlier server go on")
        except OSError as error:
            self.log.warning("Earlier jobs could not be taken up: %s", error)

    def _link_shared_folders(self) -> None:
        try:
            shared_folders.link(Path.home())
        except OSError as error:
            self.log.warning("The shared folders are not in the file browser: %s", error)

    def _copy_tutorials(self, source: Path) -> None:
        try:
            copied = tutorials.copy_in(source, Path.home(), activity.folder())
        except OSError as error:
            self.log.warning("The tutorials could not be copied: %s", error)
        else:
            if copied:
                self.log.info("New tutorials: %s", ", ".join(copied))

    def current_activity(self) -> list[str] | None:
        """Return what is going on, for Jupyter Server's own shut-down when idle."""
        return [reason.text for reason in self.activity.reasons()] or None

    async def stop_extension(self) -> None:
        """Stop looking, end previews and close the connections to apps."""
        self.activity.stop()
        self.time_limit.stop()
        if self.revocation:
            self.revocation.stop()
        await self._web_app.settings[shiny.PREVIEWS].close()
        await self._web_app.settings[UPSTREAMS].close()
