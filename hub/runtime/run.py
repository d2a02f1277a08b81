"""Start one of the portal's programs: its secrets go from files into its environment.

The supervisor runs ``python -m hub.runtime.run <program>``, so that no secret stands in its
configuration or on a command line.
"""

from __future__ import annotations

import contextlib
import os
import resource
import select
import sys
import time
from collections.abc import Callable

from hub import targets
from hub.apps import jupyterhub_services
from hub.apps.app_paths import KEY, AppPaths
from hub.environments.toolchain import BuildError, node_programs
from hub.labfile import read
from hub.labfile.schema import Settings
from hub.portal import control
from hub.state.create import read_secret
from hub.state.database import child_environment
from hub.state.paths import REPOSITORY, Paths
from labkit.base.problems import ProblemsError
from labkit.relay import bounded_server

PROGRAMS = ("proxy", "gate", "hub", "culler")
_FILES = 1 << 16  # open files and connections: 64 for each of a thousand servers
_ROUTES = 60.0  # seconds that a new proxy waits for its routes


def command(program: str, settings: Settings, paths: Paths) -> list[str]:
    """Return what a program is started with; it holds no secret.

    Parameters
    ----------
    program : str
        ``proxy``, ``gate``, ``hub`` or ``culler``.
    settings : Settings
        The lab file.
    paths : Paths
        Where the portal keeps its state.
    """
    if program == "proxy":
        return _proxy(settings, paths)
    if program == "gate":
        file = AppPaths(paths).gate_file
        return [sys.executable, "-P", "-m", "services.gate", str(file)]
    if program == "hub":
        config = REPOSITORY / "hub" / "jupyterhub_config.py"
        return [sys.executable, "-m", "jupyterhub", "-f", str(config)]
    from hub.portal import culling

    return culling.culler_command(settings, targets.of(settings, paths).addresses)


def environment(program: str, settings: Settings, paths: Paths) -> dict[str, str]:
    """Return a program's secrets, as variables.

    Raises
    ------
    ProblemsError
        One is missing, open to other accounts or no secret.
    """

    def secret(name: str) -> str:
        return read_secret(paths, name, settings.secrets.mounted)

    if program == "proxy":
        return {"CONFIGPROXY_AUTH_TOKEN": secret("proxy_token")}
    if program == "culler":
        return {"JUPYTERHUB_API_TOKEN": secret("culler_token")}
    if program == "gate":
        return {jupyterhub_services.TOKEN: secret(KEY)}
    return {
        "CONFIGPROXY_AUTH_TOKEN": secret("proxy_token"),
        "JUPYTERHUB_CRYPT_KEY": secret("crypt_key"),
        "LABHUB_CULLER_TOKEN": secret("culler_token"),
        control.TOKEN: secret("control_token"),
        jupyterhub_services.TOKEN: secret(KEY),
    }


def _proxy(settings: Settings, paths: Paths) -> list[str]:
    node, _ = node_programs(paths)
    package = paths.envs / "proxy" / "node_modules" / "configurable-http-proxy"
    host, port = settings.bind
    target = targets.of(settings, paths)
    api_host, api_port = target.addresses.proxy_api
    # A page of a member's can set as many cookies for the hub as browsers keep: they must pass.
    words = [str(node), f"--max-http-header-size={bounded_server.HEADERS}"]
    words += [str(package / "bin" / "configurable-http-proxy")]
    words += [f"--ip={host}", f"--port={port}", "--log-level=warn"]
    words += [f"--api-ip={api_host}", f"--api-port={api_port}"]
    # By the gate: it has a page of its own while the hub is away.
    words += [f"--error-target={target.addresses.gate_url}/error"]
    if settings.isolation == "subdomain":
        words.append("--host-routing")
    if settings.tls:
        words += [f"--ssl-cert={settings.tls.certificate}", f"--ssl-key={settings.tls.key}"]
    return words + target.proxy_words()


def _later(task: Callable[[], None]) -> None:
    """Run a task in a process of its own that nobody has to wait for."""
    child = os.fork()
    if child:
        os.waitpid(child, 0)
        return
    try:
        os.setsid()
        if os.fork() == 0:
            task()
    finally:
        os._exit(0)


def _bring_routes(settings: Settings, paths: Paths, proxy: int) -> None:
    """Have the hub fill a new proxy: it keeps its routes in memory alone.

    JupyterHub itself looks every five minutes. Ends with the proxy, a pidfd.
    """
    asks = control.Control(settings, paths)
    end = time.monotonic() + _ROUTES
    while time.monotonic() < end and not select.select([proxy], [], [], 0.5)[0]:
        with contextlib.suppress(control.ControlError, ProblemsError):
            asks.check_routes()
            return


def raise_open_files() -> None:
    """Let this process open many files, as far as it may raise its own limit."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    for hard in (max(most, _FILES), most):
        with contextlib.suppress(ValueError, OSError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (min(_FILES, hard), hard))
            return


def main(program: str) -> None:
    """Become a program of the portal; does not return."""
    paths = Paths.from_environment()
    try:
        settings = read.read(paths.lab_file)
        words = command(program, settings, paths)
        secrets = environment(program, settings, paths)
    except (ProblemsError, BuildError) as error:
        sys.exit(f"labhub: {program} cannot start:\n{error}")
    if program != "culler":
        targets.of(settings, paths).prepare()
    if program == "proxy":
        proxy = os.pidfd_open(os.getpid())
        _later(lambda: _bring_routes(settings, paths, proxy))
    # The repository is the hub's and nobody else's to import from: user servers would
    # inherit the variable, but not the working folder.
    env = {k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "LABHUB_CONFIG_DIGEST")}
    if program != "hub":
        env = child_environment(env)
    if program == "gate":
        env["PYTHONPATH"] = str(REPOSITORY)
    raise_open_files()
    os.chdir(REPOSITORY)
    os.execve(words[0], words, {**env, **secrets})  # noqa: S606 - the commands above


if __name__ == "__main__":
    if len(sys.argv) != 2 or sys.argv[1] not in PROGRAMS:
        sys.exit(f"usage: python -m hub.runtime.run {'|'.join(PROGRAMS)}")
    main(sys.argv[1])
