"""The file from which the gate knows the portal and its apps."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable

from hub.apps.app_paths import AppPaths
from hub.apps.catalogue import App
from hub.apps.runtime import AppAddress
from hub.labfile.addresses import Outside, PortalAddresses
from hub.labfile.schema import Settings
from hub.state.paths import Paths
from labkit.base import files
from services.gate import config as gate


def write(config: gate.Config, paths: Paths) -> None:
    """Tell the gate which apps there are; a gate that runs takes it up by itself."""
    text = gate.dump(config)
    file = AppPaths(paths).gate_file
    if file.exists() and file.read_text(encoding="utf-8") == text:
        return
    files.write_atomic(file, text, mode=0o640, sync=True)
    if os.geteuid() == 0:
        os.chown(file, 0, file.parent.stat().st_gid)


def portal(settings: Settings, paths: Paths, addresses: PortalAddresses) -> gate.Portal:
    """Return what the gate is told of the portal.

    Parameters
    ----------
    settings : Settings
        The lab file.
    paths : Paths
        Where the portal keeps its state.
    addresses : PortalAddresses
        Where the programs are.
    """
    outside = addresses.gate_outside or Outside("")
    return gate.Portal(
        lab=settings.lab.name,
        contact=settings.lab.contact or "",
        url=settings.url,
        hub_url=addresses.hub,
        own_origins=settings.isolation == "subdomain",
        port=addresses.gate[1],
        internal_host=addresses.gate_for_servers,
        account=AppPaths(paths).gate_account if os.geteuid() == 0 else "",
        outside=outside.host,
        key=outside.key,
        certificate=outside.certificate,
        clients=outside.clients,
    )


def apps(
    declared: Iterable[App], settings: Settings, address: Callable[[App], AppAddress]
) -> dict[str, gate.App]:
    """Return what the gate is told of the apps, by name.

    Parameters
    ----------
    declared : iterable of App
        Which.
    settings : Settings
        The lab file.
    address : callable
        `hub.apps.runtime.AppRuntime.address`.
    """
    return {app.name: _app(app, settings, address(app)) for app in declared}


def _app(app: App, settings: Settings, address: AppAddress) -> gate.App:
    service = app.service
    stops = service.stops_after
    return gate.App(
        name=app.name,
        title=service.title,
        prefix=app.prefix,
        origin=app.origin(settings),
        socket=address.socket,
        address_file=address.address_file,
        uid=address.uid,
        strip_prefix=service.strip_prefix,
        health=service.health,
        start_timeout=service.start_timeout.total_seconds(),
        idle=stops.total_seconds() if stops else None,
        headers=tuple(sorted(name.lower() for name in service.headers)),
    )
