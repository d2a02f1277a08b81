"""What would keep the portal from running, found before anything is started."""

from __future__ import annotations

import os
import pwd
import socket
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from hub import auth, targets
from hub.apps import catalogue
from hub.environments import build
from hub.environments.image_files import PROXY
from hub.labfile.schema import Settings
from hub.runtime import batch
from hub.sandbox import shared_folders
from hub.state import create
from hub.state.database import HubDatabase
from hub.state.paths import Paths
from hub.targets import Target
from labkit.base.problems import Problem, ProblemsError
from labkit.base.units import format_size

# For jobs alone, and built where the machine has what they are compiled with.
COMPILED = ("alignment", "cellprofiler")
_LOGO_BYTES = 2 << 20


def problems(settings: Settings, paths: Paths) -> list[Problem]:
    """Return every problem of a valid lab file on this machine, warnings included.

    Parameters
    ----------
    settings : Settings
        The lab file.
    paths : Paths
        Where the portal keeps its state.
    """
    problems = [
        *create.secret_problems(paths, settings.secrets.mounted),
        *_database(settings, paths),
        *_files(settings),
        *_of_target(settings, paths),
        *_people(settings),
        *batch.problems(settings, paths),
        # An app that cannot be started is no reason to keep the portal from its people.
        *(replace(problem, warning=True) for problem in catalogue.read(settings, paths)[1]),
    ]
    here = servers_run_here(settings, paths)
    if os.geteuid() != 0 or here:
        problems += shared_folders.problems(settings, on_this_machine=here)
    return list(dict.fromkeys(problems))


def servers_run_here(settings: Settings, paths: Paths) -> bool:
    """Return whether user servers run on the hub's own machine; not where there is no target."""
    try:
        return targets.of(settings, paths).on_this_machine
    except ProblemsError:
        return False


def wanted_environments(settings: Settings, paths: Paths) -> list[str]:
    """Return the environments of images/ that a portal needs, hub and proxy first.

    One that the administrator has made is not in images/, and left to them.
    """
    target = targets.of(settings, paths)
    apps = catalogue.read(settings, paths)[0]
    profiles = (profile.environment for profile in settings.profiles)
    named = [
        *(name for name in profiles if not target.brings_environment(name)),
        "cellxgene",
        *compilable(),
    ]
    named += [app.service.environment for app in apps]
    if settings.webapps.groups or any(app.kind == "dash" for app in apps):
        named.append("dash")
    return list(dict.fromkeys(["hub", PROXY, *filter(build.exists, named)]))


def compilable() -> list[str]:
    """Return the environments for jobs that this machine has the compilers for."""
    return [name for name in COMPILED if not build.packages_missing(name)]


def _of_target(settings: Settings, paths: Paths) -> list[Problem]:
    """Return what depends on the target, or that there is no such target."""
    try:
        target = targets.of(settings, paths)
    except ProblemsError as error:
        return list(error.problems)
    return [
        *_environments(target),
        *_ports(target),
        *auth.problems(settings, paths, as_one_account=target.as_one_account),
        *target.problems(),
    ]


def _database(settings: Settings, paths: Paths) -> list[Problem]:
    try:
        return HubDatabase.of(settings, paths).problems()
    except ProblemsError as error:
        return list(error.problems)


def _environments(target: Target) -> Iterator[Problem]:
    paths = target.paths
    own = build.Environments(paths)
    for profile in target.settings.profiles:
        name = profile.environment
        if target.brings_environment(name):
            continue
        if build.exists(name):
            missing = [] if own.is_current(name) else build.packages_missing(name)
            if missing:
                text = f"environment {name!r} needs {', '.join(missing)} from the system"
                hint = f"apt-get install -y {' '.join(missing)}"
                yield Problem(f"profiles.{profile.name}.environment", text, hint)
        elif not paths.env_bin(name, "jupyterhub-singleuser").exists():
            text = f"there is no environment {name!r}"
            hint = f"name one of images/, or put your own at {paths.envs / name}"
            yield Problem(f"profiles.{profile.name}.environment", text, hint)
    for name in COMPILED:
        missing = [] if own.is_current(name) else build.packages_missing(name)
        if missing:
            text = f"left out: its jobs would need {', '.join(missing)} from the system"
            hint = f"for them: apt-get install -y {' '.join(missing)}, then labhub up"
            yield Problem(f"environment {name}", text, hint, warning=True)


def _files(settings: Settings) -> Iterator[Problem]:
    logo = settings.lab.logo
    if logo is not None:
        if not _readable(logo):
            yield Problem("lab.logo", f"{logo} cannot be read", "name a file that is there")
        elif logo.suffix.lower() not in (".svg", ".png"):
            yield Problem("lab.logo", f"{logo} is neither SVG nor PNG")
        elif logo.stat().st_size > _LOGO_BYTES:
            yield Problem(
                "lab.logo", f"{logo} is larger than {format_size(_LOGO_BYTES)}", "make it smaller"
            )
    if settings.tls:
        for key, file in (("certificate", settings.tls.certificate), ("key", settings.tls.key)):
            if not _readable(file):
                yield Problem(f"tls.{key}", f"{file} cannot be read", "name a file that is there")
            elif b"-----BEGIN" not in file.read_bytes():
                yield Problem(f"tls.{key}", f"{file} is no PEM file", "convert it to PEM")
        if _readable(settings.tls.key) and settings.tls.key.stat().st_mode & 0o007:
            hint = f"chmod o= {settings.tls.key}"
            yield Problem("tls.key", f"everybody can read {settings.tls.key}", hint)


def _ports(target: Target) -> Iterator[Problem]:
    settings, addresses = target.settings, target.addresses
    host, port = settings.bind
    wanted = {
        "listen" if settings.listen else "url": (host, port),
        "local.hub_port": addresses.hub_for_portal,
        "local.proxy_api_port": addresses.proxy_api,
        "local.gate_port": addresses.gate,
    }
    seen: dict[int, str] = {}
    for place, (_, number) in wanted.items():
        if number in seen:
            yield Problem(place, f"port {number} is also {seen[number]}", "choose another")
        seen[number] = place
    if port < 1024 and os.geteuid() != 0:
        start = Path("/proc/sys/net/ipv4/ip_unprivileged_port_start")
        if not start.is_file() or port < int(start.read_text()):
            place = "listen" if settings.listen else "url"
            hint = "start the portal as root, or choose a port from 1024 on"
            yield Problem(place, f"port {port} needs root", hint)
            return
    own = set(_own_pids(target.paths))
    for place, (address, number) in wanted.items():
        reason = _taken(address, number)
        if reason and not own & set(_listeners(number)):
            who = ", ".join(_who(pid) for pid in _listeners(number)) or "another program"
            hint = "stop it, or choose another port in the lab file"
            text = f"port {number} of {address} cannot be used: {reason}"
            yield Problem(place, f"{text} ({who})" if reason == "in use" else text, hint)


def _own_pids(paths: Paths) -> list[int]:
    """Return the running programs of this portal: their ports are taken by right."""
    from hub.supervisor.client import Supervisor

    return [program.pid for program in Supervisor(paths).info().values() if program.pid]


def _taken(address: str, port: int) -> str:
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((address, port))
            probe.listen(1)
        except OSError as error:
            return "in use" if error.errno == 98 else str(error.strerror)
    return ""


def _listeners(port: int) -> list[int]:
    import psutil

    return sorted(
        {
            entry.pid
            for entry in psutil.net_connections("tcp")
            if entry.status == psutil.CONN_LISTEN and entry.laddr[1:] == (port,) and entry.pid
        }
    )


def _who(pid: int) -> str:
    import psutil

    try:
        return f"{psutil.Process(pid).name()}, pid {pid}"
    except psutil.Error:
        return f"pid {pid}"


def _people(settings: Settings) -> Iterator[Problem]:
    """Warn of people in the lab file who have no account yet, where accounts are Unix's."""
    if settings.authentication.effective_method != "pam":
        return
    for place, names in (
        ("admins", settings.admins),
        *((f"groups.{group}", members) for group, members in settings.groups.items()),
    ):
        missing = [name for name in names if not _has_account(name)]
        if missing:
            text = f"no account on this machine: {', '.join(missing)}"
            hint = f"labhub user add {missing[0]}"
            yield Problem(place, text, hint, warning=True)


def _has_account(name: str) -> bool:
    try:
        pwd.getpwnam(name)
    except KeyError:
        return False
    return True


def _readable(file: Path) -> bool:
    return file.is_file() and os.access(file, os.R_OK)
