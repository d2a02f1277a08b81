"""The supervisor's configuration: one section a program, and digests of what it is made from."""

from __future__ import annotations

import hashlib
import shlex
import sys
from collections.abc import Iterable, Sequence
from configparser import RawConfigParser
from io import StringIO
from pathlib import Path

from hub.state.paths import REPOSITORY, Paths

SECTION = "program:"
STOP = 30  # seconds for a program to end
_APP = "app-"


def program_name(app: str) -> str:
    """Return the name of an app's program."""
    return f"{_APP}{app}"


def app_name(program: str) -> str:
    """Return the app that a program is; empty where it is one of the portal's own."""
    return program.removeprefix(_APP) if is_app(program) else ""


def is_app(program: str) -> bool:
    """Return whether a program is an app, which may be stopped for want of use."""
    return program.startswith(_APP)


def section(name: str, module: Sequence[str], digest: str, paths: Paths) -> dict[str, str]:
    """Return what all programs have in common; no secret is in it.

    Parameters
    ----------
    name : str
        The program.
    module : sequence of str
        The module of the portal's Python that becomes the program, and its arguments.
    digest : str
        Of what it is started from: where this changes, it is restarted.
    paths : Paths
        Where the portal keeps its state.
    """
    variables = {
        "PYTHONPATH": str(REPOSITORY),
        "PYTHONUNBUFFERED": "1",
        "LABHUB_STATE": str(paths.state),
        "LABHUB_ENVS": str(paths.envs),
        "LABHUB_CONFIG_DIGEST": digest,
    }
    return {
        "command": shlex.join([sys.executable, "-P", "-m", *module]),
        "directory": "/",
        "environment": ",".join(f'{key}="{value}"' for key, value in variables.items()),
        "stopwaitsecs": str(STOP),
        "redirect_stderr": "true",
        "stdout_logfile": str(paths.log / f"{name}.log"),
    }


def dump(config: RawConfigParser) -> str:
    """Return a configuration as text."""
    out = StringIO()
    out.write("; Written by `labhub up` from the lab file: changes made here are lost.\n")
    config.write(out)
    return out.getvalue()


def digest(parts: Iterable[str]) -> str:
    """Return one digest over all that a program is made from."""
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()


def content(files: Iterable[Path]) -> list[str]:
    """Return files by what is in them, those that are there."""
    return [
        f"{file}={hashlib.sha256(file.read_bytes()).hexdigest()}"
        for file in files
        if file.is_file()
    ]


def ages(files: Iterable[Path]) -> list[str]:
    """Return files by when they were written, those that are there."""
    return [f"{file}={file.stat().st_mtime_ns}" for file in files if file.is_file()]
