"""The supervisor's programs: proxy, gate, hub, culler and the apps, each on its own."""

from __future__ import annotations

import os
import re
import sys
from configparser import RawConfigParser
from pathlib import Path

from hub import targets
from hub.apps import gate_file
from hub.apps.app_paths import KEY
from hub.environments.build import STAMP
from hub.labfile.schema import Settings
from hub.runtime.run import command
from hub.state import secrets
from hub.state.database import keep_variable, password_files
from hub.state.paths import REPOSITORY, Paths
from hub.supervisor.client import Supervisor
from hub.supervisor.programs import SECTION, ages, content, digest, dump, is_app, section
from labkit.base.problems import Problem, ProblemsError

STATIC = REPOSITORY / "hub" / "static"
MESSAGES = REPOSITORY / "labkit" / "server" / "data" / "static" / "messages.js"
_SOCKET_LENGTH = 107  # Linux allows no longer path of a socket
_PLAIN = re.compile(r"[\w./+@:,~=-]+(?: [\w./+@:,~=-]+)*")


def programs(settings: Settings) -> tuple[str, ...]:
    """Return the programs that a lab file asks for, in the order of their start."""
    culling = settings.culling.idle is not None or settings.culling.max_age is not None
    always = ("proxy", "gate", "hub")  # the hub waits for the gate
    return (*always, "culler") if culling else always


def render(settings: Settings, paths: Paths) -> str:
    """Return the supervisor's configuration; no secret is in it.

    Raises
    ------
    ProblemsError
        A path has characters that the supervisor's configuration cannot hold.
    """
    for path in (paths.state, paths.envs, REPOSITORY, Path(sys.executable)):
        if not _PLAIN.fullmatch(str(path)):
            text = "a path of the portal may have letters, digits, single spaces and . / _ - + @ ~"
            raise ProblemsError([Problem(str(path), text, "choose another folder")])
    socket = paths.run / "supervisor.sock"
    if len(os.fsencode(socket)) > _SOCKET_LENGTH - 10:  # the supervisor adds its pid
        text = f"is too long a path for a socket ({_SOCKET_LENGTH - 10} characters)"
        raise ProblemsError([Problem(str(socket), text, "set LABHUB_STATE to a shorter folder")])
    config = RawConfigParser()
    config["unix_http_server"] = {"file": str(socket), "chmod": "0700"}
    config["supervisord"] = {
        "logfile": str(paths.log / "supervisor.log"),
        "logfile_maxbytes": "5MB",
        "logfile_backups": "3",
        "pidfile": str(paths.run / "supervisord.pid"),
        "childlogdir": str(paths.log),
        "identifier": "labhub",
        "umask": "077",
        "minfds": "4096",
    }
    factory = "supervisor.rpcinterface:make_main_rpcinterface"
    config["rpcinterface:supervisor"] = {"supervisor.rpcinterface_factory": factory}
    for priority, name in enumerate(programs(settings), 1):
        made_from = _digest(name, settings, paths)
        config[f"{SECTION}{name}"] = {
            **section(name, ["hub.runtime.run", name], made_from, paths),
            "priority": str(priority),
            "autorestart": "true",
            "startsecs": "2",
            "startretries": "60",
            "stdout_logfile_maxbytes": "20MB",
            "stdout_logfile_backups": "5",
        }
    for name, keys in targets.of(settings, paths).app_runtime.supervised().items():
        config[f"{SECTION}{name}"] = keys
    return dump(config)


def up(settings: Settings, paths: Paths) -> dict[str, str]:
    """Start what is not running, restart what was started from something else.

    Returns
    -------
    dict
        ``started`` or ``restarted``, by program; what is not named was left alone.
    """
    supervisor = Supervisor(paths)
    targets.of(settings, paths).app_runtime.prepare()
    keep_variable(paths)
    supervisor.write(render(settings, paths))
    if not supervisor.running():
        supervisor.launch()
        return dict.fromkeys(programs(settings), "started")
    done = supervisor.take_up(lambda _: True)
    for name, program in supervisor.info().items():
        if is_app(name) and program.state in ("STOPPED", "EXITED"):
            continue  # it is stopped
        if program.state in ("STOPPED", "EXITED", "FATAL", "BACKOFF"):
            supervisor.stop([name])  # a new try, with the count of failures at nought
            supervisor.start([name])
            done.setdefault(name, "started")
    return done


def _digest(name: str, settings: Settings, paths: Paths) -> str:
    """Return one digest over all that a program is made from, secrets by their age alone."""

    def secret(name: str) -> Path:
        return secrets.place(paths, name, settings.secrets.mounted)

    parts = [settings.model_dump_json(), *command(name, settings, paths)]
    if name == "proxy":
        parts = parts[2:]  # nor which Node a shell's PATH has first
        parts += content([paths.envs / "proxy" / STAMP])
        parts += ages([secret("proxy_token")])
        if settings.tls:
            parts += ages([settings.tls.certificate, settings.tls.key])
    elif name == "gate":
        code = (p for n in ("services/gate", "labkit/relay") for p in (REPOSITORY / n).rglob("*"))
        parts = parts[1:] + content(sorted(p for p in code if p.suffix != ".pyc"))
        parts += content([paths.envs / "hub" / STAMP, STATIC / "labhub.css", MESSAGES])
        parts += ages([secret(KEY)])
        # Its apps it takes up by itself, the portal's addresses only at its start.
        addresses = targets.of(settings, paths).addresses
        parts.append(str(gate_file.portal(settings, paths, addresses)))
    elif name == "culler":
        parts = parts[1:]
        parts += content([paths.envs / "hub" / STAMP])
        parts += ages([secret("culler_token")])
    else:
        parts += content([paths.envs / "hub" / STAMP])
        parts += content(sorted((paths.state / "config.d").glob("*.py")))
        code = (p for p in (REPOSITORY / "hub").rglob("*") if p.is_file())
        parts += content(sorted(p for p in code if p.suffix != ".pyc"))
        names = ("cookie_secret", "proxy_token", "crypt_key", "culler_token", "control_token", KEY)
        parts += ages([secret(name) for name in (*names, "oauth_client_secret")])
        parts += ages(password_files(paths, settings.secrets.mounted))
    return digest(parts)
