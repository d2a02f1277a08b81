"""The apps as the supervisor's programs, and the file from which the gate knows them."""

from __future__ import annotations

import os

from hub.apps import catalogue
from hub.apps.app_paths import KEY, AppPaths, make_readable
from hub.apps.catalogue import App
from hub.environments.build import STAMP
from hub.labfile.schema import Settings
from hub.labfile.slurm import LOOPBACK
from hub.sandbox.network import GATE_PORT
from hub.slurm import certificates
from hub.state import secrets
from hub.state.paths import REPOSITORY, Paths
from hub.supervisor.programs import ages, content, digest, program_name, section
from labkit.base import files
from services.gate import config as gate

# An app that ends is started again by who asks for it next: one that cannot run costs nothing.
_ON_DEMAND = {"autostart": "false", "autorestart": "false", "startsecs": "0"}
_ALWAYS = {"autostart": "true", "autorestart": "true", "startsecs": "10", "startretries": "20"}
_CODE = frozenset({".py", ".R", ".html", ".css", ".js", ".svg"})  # what an app is given to read


def state_word(state: str, status: int = 0) -> str:
    """Return an app's state as people read it, from the supervisor's word and exit status."""
    if state == "RUNNING":
        return "running"
    if state in ("STARTING", "BACKOFF"):
        return "starting"
    return "failed" if state == "FATAL" or (state == "EXITED" and status) else "stopped"


def programs(settings: Settings, paths: Paths) -> dict[str, dict[str, str]]:
    """Return the apps as the supervisor's programs: name -> its section of the configuration."""
    sections = {}
    for app in catalogue.read(settings, paths)[0]:
        name = program_name(app.name)
        made_from = _digest(app, settings, paths)
        sections[name] = {
            **section(name, ["hub.apps.launch", app.name], made_from, paths),
            "priority": "500",
            **(_ALWAYS if app.service.always else _ON_DEMAND),
            "stdout_logfile_maxbytes": "5MB",
            "stdout_logfile_backups": "2",
        }
    return sections


def prepare(settings: Settings, paths: Paths) -> list[App]:
    """Make accounts and folders of all apps, and tell the gate; returns the apps.

    Call it before the gate or an app is started, and after a change. What is there already
    stays.
    """
    app_paths = AppPaths(paths)
    app_paths.make()
    found, _ = catalogue.read(settings, paths)
    for app in found:
        app_paths.make_app(app.name)
        if app.own:
            make_readable(app.folder)  # a restored backup is closed
    write_gate_file(found, settings, paths)
    return found


def write_gate_file(apps: list[App], settings: Settings, paths: Paths) -> None:
    """Tell the gate which apps there are; a gate that runs takes it up by itself."""
    app_paths = AppPaths(paths)
    text = gate.dump(gate_config(apps, settings, paths))
    file = app_paths.gate_file
    if file.exists() and file.read_text(encoding="utf-8") == text:
        return
    files.write_atomic(file, text, mode=0o640, sync=True)
    if os.geteuid() == 0:
        os.chown(file, 0, file.parent.stat().st_gid)


def gate_config(apps: list[App], settings: Settings, paths: Paths) -> gate.Config:
    """Return what the gate is told."""
    import pwd

    root = os.geteuid() == 0
    app_paths = AppPaths(paths)
    local = settings.local
    gateway = f"{local.subnet[1]}:{GATE_PORT}" if root else f"127.0.0.1:{local.gate_port}"
    if settings.target == "slurm" and settings.slurm is not None:
        gateway = f"{settings.slurm.hub_host}:{local.gate_port}"
    portal = gate.Portal(
        lab=settings.lab.name,
        contact=settings.lab.contact or "",
        url=settings.url,
        hub_url=f"http://127.0.0.1:{local.hub_port}/hub",
        own_origins=settings.isolation == "subdomain",
        port=local.gate_port,
        internal_host=gateway,
        account=app_paths.gate_account if root else "",
        **_outside(settings, paths),
    )
    found = {}
    for app in apps:
        service = app.service
        stops = service.stops_after
        on_socket = service.listen == "socket"
        found[app.name] = gate.App(
            name=app.name,
            title=service.title,
            prefix=app.prefix,
            origin=app.origin(settings),
            socket=str(app_paths.socket(app.name)) if on_socket else "",
            address_file="" if on_socket else str(app_paths.address(app.name)),
            uid=pwd.getpwnam(app_paths.account(app.name)).pw_uid if root else os.geteuid(),
            strip_prefix=service.strip_prefix,
            health=service.health,
            start_timeout=service.start_timeout.total_seconds(),
            idle=stops.total_seconds() if stops else None,
            headers=tuple(sorted(name.lower() for name in service.headers)),
        )
    return gate.Config(portal, found)


def _outside(settings: Settings, paths: Paths) -> dict[str, str]:
    """Return where people's servers on other hosts reach the gate, and with which certificate."""
    slurm = settings.slurm
    if settings.target != "slurm" or slurm is None or slurm.bind_address == LOOPBACK:
        return {}
    found = {"outside": slurm.bind_address}
    if slurm.internal_ssl:
        files = certificates.of_gate(paths)
        found |= {
            "key": str(files.key),
            "certificate": str(files.certificate),
            "clients": str(files.authorities),
        }
    return found


def _digest(app: App, settings: Settings, paths: Paths) -> str:
    """Return one digest over all that an app is made from."""
    parts = [app.service.model_dump_json(), app.url(settings), settings.storage.model_dump_json()]
    parts += content([paths.envs / app.service.environment / STAMP])
    parts += ages([secrets.place(paths, KEY, settings.secrets.mounted)])
    code = (p for p in app.folder.rglob("*") if p.is_file() and p.suffix != ".pyc")
    parts += ages(sorted(code))
    given = ["labkit", "services/appkit", *(["services/member_apps"] if app.kind else [])]
    code = (p for name in given for p in (REPOSITORY / name).rglob("*.*"))
    parts += ages(sorted(p for p in code if p.suffix in _CODE))
    return digest(parts)
