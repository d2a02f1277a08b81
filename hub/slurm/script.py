"""A user server's job script: made here, every value quoted, no secret in it."""

from __future__ import annotations

import inspect
import json
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from types import ModuleType

from hub.labfile.slurm import Slurm
from hub.slurm.job import announce, broker, connections, launcher, network, node, probe, shim

SERVER = "jupyterhub-singleuser"
_END = "LABHUB_LAUNCHER_ENDS"
_MODULES = """\
for init in /etc/profile.d/lmod.sh /etc/profile.d/modules.sh \\
    /usr/share/lmod/lmod/init/bash /usr/share/modules/init/bash; do
  type module >/dev/null 2>&1 && break
  [ -r "$init" ] && . "$init"
done
type module >/dev/null 2>&1 || fail "there are no environment modules on $(hostname)"
"""
# The launcher's modules import each other by their names; the nodes have none of their files.
_BOOTSTRAP = """\
import sys, types
for package in ("hub", "hub.slurm", "hub.slurm.job"):
    sys.modules[package] = types.ModuleType(package)
    sys.modules[package].__path__ = []
def module(name, text):
    place = sys.modules.setdefault(name, types.ModuleType(name))
    exec(compile(text, name, "exec"), place.__dict__)
"""
_SCRIPT = """\
#!/bin/bash
# A user server of Labhub; made anew for each start.
umask 077
fail() { echo "labhub: $1" >&2; exit 78; }
"""


@dataclass(frozen=True)
class Launch:
    """What the launcher in the job is told; its fields are explained there.

    Attributes
    ----------
    addresses : sequence of str
        Of the hub's host.
    accounts : sequence of int
        Numbers of the accounts there that may connect: the hub's.
    seconds : int
        The time limit.
    """

    addresses: Sequence[str]
    accounts: Sequence[int]
    seconds: int


@cache
def program(main: ModuleType = launcher) -> str:
    """Return a program of the job and the modules that it imports, as one text for ``python -c``.

    Parameters
    ----------
    main : module
        `hub.slurm.job.launcher`, or another of that package that is run.
    """
    parts = [_BOOTSTRAP]
    for module in (node, connections, announce, broker, network, main):
        text = inspect.getsource(module)
        if _END in text or "'''" in text:
            raise ValueError(f"{module.__name__} contains what would end it in the job script")
        name = "__main__" if module is main else module.__name__
        parts.append(f"module({name!r}, r'''{text}''')\n")
    return "".join(parts)


def probe_script(settings: Slurm, environment: str, wanted: Mapping[str, object]) -> str:
    """Return the script of a job that tries what a server needs on its node.

    Parameters
    ----------
    settings : Slurm
        The lab file's section.
    environment : str
        A profile's environment, whose Python is used where it is there.
    wanted : mapping of str to object
        What `hub.slurm.job.probe` is to try.
    """
    python = shlex.quote(str(settings.environments / environment / "bin" / "python"))
    return (
        f"{_SCRIPT}python={python}\n"
        '[ -x "$python" ] || python=$(command -v python3) || fail "there is no python3"\n'
        f"program=$(cat <<'{_END}'\n{program(probe)}{_END}\n)\n"
        f'exec "$python" -I -S -c "$program" {shlex.quote(json.dumps(wanted))}\n'
    )


def server_words(settings: Slurm, environment: str) -> list[str]:
    """Return the command that starts the server in an environment, without arguments."""
    software = settings.software.get(environment)
    if software is None:
        return [str(settings.environments / environment / "bin" / SERVER)]
    return [SERVER]


def render(
    settings: Slurm,
    environment: str,
    arguments: Sequence[str],
    launch: Launch,
    *,
    gpus: bool = False,
) -> str:
    """Return the job script.

    Parameters
    ----------
    settings : Slurm
        The lab file's section.
    environment : str
        The profile's environment.
    arguments : sequence of str
        The server's arguments.
    launch : Launch
        For the launcher.
    gpus : bool
        Whether the server has graphics cards, which an image must be told.
    """
    software = settings.software.get(environment)
    words = [*server_words(settings, environment), *arguments]
    out = [_SCRIPT]
    if software is None:
        out.append(_virtual_environment(settings.environments / environment, words[0]))
    else:
        if software.modules:
            out.append(_MODULES)
            for name in software.modules:
                text = shlex.quote(f"the module {name} cannot be loaded")
                out.append(f"module load {shlex.quote(name)} || fail {text}\n")
        if software.image is not None:
            out.append(_image(software.image))
            container = ["exec", *(["--nv"] if gpus else [])]
            if software.image != settings.environments:
                place = str(settings.environments)
                container += ["--bind", f"{place}:{place}:ro"]
            words = [*container, str(software.image), *words]
        else:
            text = f"the modules bring no {SERVER}"
            out.append(f"command -v {SERVER} >/dev/null || fail {shlex.quote(text)}\n")
        out.append("python=$(command -v python3) || fail 'there is no python3'\n")
    told = {
        "ports": [settings.port_range.start, settings.port_range.stop - 1],
        "network": settings.network,
        "addresses": list(launch.addresses),
        "accounts": list(launch.accounts),
        "seconds": launch.seconds,
        "shim": inspect.getsource(shim),
    }
    out.append(f"launcher=$(cat <<'{_END}'\n{program()}{_END}\n)\n")
    first = '"$container" ' if software is not None and software.image is not None else ""
    out.append(
        f'exec "$python" -I -S -c "$launcher" {shlex.quote(json.dumps(told))}'
        f" {first}{shlex.join(words)}\n"
    )
    return "".join(out)


def _virtual_environment(folder: Path, server: str) -> str:
    missing = f"the environment {folder} is not there, or not whole, on "
    return (
        f'[ -x {shlex.quote(server)} ] || fail {shlex.quote(missing)}"$(hostname)"\n'
        f"python={shlex.quote(str(folder / 'bin' / 'python'))}\n"
        '[ -x "$python" ] || python=$(command -v python3) || fail "there is no python3"\n'
    )


def _image(image: Path) -> str:
    missing = f"the image {image} cannot be read on "
    return (
        "container=$(command -v apptainer || command -v singularity)"
        ' || fail "there is no apptainer on $(hostname)"\n'
        f'[ -r {shlex.quote(str(image))} ] || fail {shlex.quote(missing)}"$(hostname)"\n'
    )
