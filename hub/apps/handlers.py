"""What the running hub is asked about apps: take up changes, start and stop one, how they are."""

from __future__ import annotations

import asyncio
import time
from typing import Any

from jupyterhub import orm
from jupyterhub.apihandlers.base import APIHandler
from jupyterhub.handlers.base import BaseHandler
from tornado import web

from hub.apps import jupyterhub_services, roles
from hub.apps.declaration import thumbnail_of
from hub.apps.runtime import AppRuntime, AppRuntimeError, AppStatus
from hub.labfile.schema import Settings
from hub.state.paths import Paths

_FRESH = 1.0  # seconds for which the runtime's answer is good
_known_statuses: dict[Paths, tuple[float, dict[str, AppStatus]]] = {}
_syncing = asyncio.Lock()
_PICTURE_BYTES = 4 << 20
_PICTURES = {
    ".png": "image/png",
    ".jpg": "image/jpeg",
    ".jpeg": "image/jpeg",
    ".svg": "image/svg+xml",
}


class Handler(APIHandler):
    """What every handler here knows."""

    settings_of_lab: Settings
    paths: Paths
    runtime: AppRuntime
    gate_url: str

    def initialize(
        self, settings: Settings, paths: Paths, runtime: AppRuntime, gate_url: str
    ) -> None:
        """Remember the lab file, the portal's paths, what runs the apps, and where the gate is."""
        self.settings_of_lab = settings
        self.paths = paths
        self.runtime = runtime
        self.gate_url = gate_url

    async def state(self, name: str) -> str:
        """Return an app's state; the runtime is asked once in a while."""
        known = _known_statuses.get(self.paths)
        if known is None or time.monotonic() - known[0] > _FRESH:
            known = (time.monotonic(), await asyncio.to_thread(self.runtime.statuses))
            _known_statuses[self.paths] = known
        return known[1].get(name, AppStatus()).state

    async def sync(self) -> dict[str, list[str]]:
        """Take up the apps that are declared now: services, rights and routes.

        Returns
        -------
        dict
            The names that were ``added`` and ``removed``.

        Raises
        ------
        tornado.web.HTTPError
            The hub has another service of that name.
        """
        async with _syncing:
            return await self._sync()

    async def _sync(self) -> dict[str, list[str]]:
        app = self.settings["app"]
        wanted = {
            service["name"]: service
            for service in jupyterhub_services.services(
                self.settings_of_lab, self.paths, self.gate_url
            )
        }
        known = {
            name
            for name, service in app._service_map.items()
            if service.info.get("labhub") == jupyterhub_services.MARK["labhub"]
        }
        taken = sorted(name for name in wanted if name in app._service_map and name not in known)
        if taken:
            raise web.HTTPError(409, f"The hub has another service named {', '.join(taken)}")
        for name in sorted(known - set(wanted)):
            await self._remove(app, name)
        for name in sorted(set(wanted) - known):
            await self._add(app, wanted[name])
        roles.give(self.db, jupyterhub_services.roles(self.settings_of_lab, self.paths))
        roles.give_to_servers(self.db)
        return {"added": sorted(set(wanted) - known), "removed": sorted(known - set(wanted))}

    async def _add(self, app: Any, spec: dict[str, Any]) -> None:
        # As at the hub's start, where it will come from the same files.
        service = app.service_from_spec(spec, from_config=True)
        self.db.commit()
        await app._add_tokens({spec["api_token"]: spec["name"]}, kind="service")
        self.settings.setdefault("oauth_no_confirm_list", set()).add(service.oauth_client_id)
        await app.proxy.add_service(service)

    async def _remove(self, app: Any, name: str) -> None:
        service = app._service_map.pop(name)
        await app.proxy.delete_service(service)
        if service.oauth_client:
            self.oauth_provider.remove_client(service.oauth_client_id)
        self.settings.setdefault("oauth_no_confirm_list", set()).discard(service.oauth_client_id)
        app.service_tokens.pop(service.api_token, None)
        stored = orm.Service.find(self.db, name)
        if stored is not None:
            self.db.delete(stored)  # its tokens go with it
        self.db.commit()


class Sync(Handler):
    """``/hub/api/labhub/services``: all apps."""

    @web.authenticated
    async def get(self) -> None:
        """Return the state of each app that the person may open: by name, for the home page."""
        if isinstance(self.current_user, orm.Service):
            raise web.HTTPError(403)
        known = [app.name for app in jupyterhub_services.apps(self.settings_of_lab, self.paths)]
        self.write({name: await self.state(name) for name in known if self._may_open(name)})

    def _may_open(self, name: str) -> bool:
        wanted = {"access:services", f"access:services!service={name}"}
        return bool(wanted & set(self.expanded_scopes))

    @web.authenticated
    async def post(self) -> None:
        """Take up the apps that are declared now: services, rights and routes."""
        # JupyterHub's decorator knows no scopes of the configuration's at import.
        if jupyterhub_services.SYNC not in self.expanded_scopes:
            raise web.HTTPError(403)
        self.write(await self.sync())


class Run(Handler):
    """``/hub/api/labhub/services/NAME/run``: one app's process, for the app's own token alone."""

    async def _ask(self, name: str, action: str) -> None:
        asking = self.current_user
        if not isinstance(asking, orm.Service) or asking.name != name:
            raise web.HTTPError(403, "Only the app itself is started and stopped by its token")
        if name not in {
            app.name for app in jupyterhub_services.apps(self.settings_of_lab, self.paths)
        }:
            raise web.HTTPError(404, "There is no such app")
        try:
            if action == "start":
                await asyncio.to_thread(self.runtime.start, name)
            elif action == "stop":
                await asyncio.to_thread(self.runtime.stop, name)
            status = await asyncio.to_thread(self.runtime.status, name)
        except AppRuntimeError as error:
            self.log.warning("%s", error)
            status = AppStatus()
        self.write({"state": status.state})

    @web.authenticated
    async def get(self, name: str) -> None:
        """Return its state."""
        await self._ask(name, "look")

    @web.authenticated
    async def post(self, name: str) -> None:
        """Start it."""
        await self._ask(name, "start")

    @web.authenticated
    async def delete(self, name: str) -> None:
        """Stop it."""
        await self._ask(name, "stop")


class Thumbnail(BaseHandler):
    """``/hub/app-picture/NAME``: the picture on an app's card."""

    def initialize(self, settings: Settings, paths: Paths) -> None:
        """Remember the lab file and the portal's app_paths."""
        self.settings_of_lab = settings
        self.paths = paths

    @web.authenticated
    async def get(self, name: str) -> None:
        """Answer with the picture, to who may open the app."""
        apps = {app.name: app for app in jupyterhub_services.apps(self.settings_of_lab, self.paths)}
        app = apps.get(name)
        wanted = {"access:services", f"access:services!service={name}"}
        file = thumbnail_of(app.service, app.folder) if app else None
        if file is None or not wanted & set(self.expanded_scopes):
            raise web.HTTPError(404)
        kind = _PICTURES.get(file.suffix.lower())
        if kind is None or file.stat().st_size > _PICTURE_BYTES:
            raise web.HTTPError(404)
        self.set_header("Content-Type", kind)
        self.set_header(
            "Content-Security-Policy", "sandbox; default-src 'none'; style-src 'unsafe-inline'"
        )
        self.set_header("X-Content-Type-Options", "nosniff")
        self.set_header("Cache-Control", "private, max-age=3600")
        self.finish(await asyncio.to_thread(file.read_bytes))


def handlers(settings: Settings, paths: Paths, runtime: AppRuntime, gate_url: str) -> list[Any]:
    """Return the handlers, for ``JupyterHub.extra_handlers``.

    Parameters
    ----------
    settings : Settings
        The lab file.
    paths : Paths
        Where the portal keeps its state.
    runtime : AppRuntime
        What runs the apps.
    gate_url : str
        Where the proxy reaches the gate.
    """
    known = {"settings": settings, "paths": paths, "runtime": runtime, "gate_url": gate_url}
    name = r"([a-z0-9-]+)"
    return [
        (r"/api/labhub/services", Sync, known),
        (rf"/api/labhub/services/{name}/run", Run, known),
        (rf"/app-picture/{name}", Thumbnail, {"settings": settings, "paths": paths}),
    ]
