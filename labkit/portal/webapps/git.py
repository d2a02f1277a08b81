"""Fetch one commit of a git repository, by the system's git, with the user's own rights."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path
from urllib.parse import urlsplit

from labkit.base.problems import Problem, RefusedError

_ADDRESS = re.compile(r"(?:https|ssh|file)://\S+|[\w.-]+@[\w.-]+:\S+", re.ASCII)
_REF = re.compile(r"[A-Za-z0-9][\w./+-]{0,200}", re.ASCII)
_SECONDS = 300


def is_address(source: object) -> bool:
    """Return whether a source is a repository's address."""
    return isinstance(source, str) and _ADDRESS.fullmatch(source) is not None


def shown(address: str) -> str:
    """Return an address without the password or token that may be in it."""
    if "://" not in address:
        return address
    parts = urlsplit(address)
    return parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl()


def fetch(address: str, ref: str, target: Path) -> str:
    """Fetch one commit into an empty folder; returns its hash.

    Nothing of the repository is run: no hooks, no submodules.

    Parameters
    ----------
    address : str
        ``https://``, ``ssh://``, ``git@host:path`` or ``file://``.
    ref : str
        Branch, tag or commit.
    target : Path
        The folder.

    Raises
    ------
    RefusedError
        There is no git, no such repository or no such commit.
    """
    program = shutil.which("git")
    if program is None:
        raise RefusedError([Problem("git", "git is not installed here.", "Clone it elsewhere.")])
    if not _REF.fullmatch(ref) or ".." in ref:
        raise RefusedError([Problem("ref", f"{ref!r} is no branch, tag or commit.")])
    git = [program, "-c", "core.hooksPath=/dev/null", "-c", "advice.detachedHead=false"]
    _run([*git, "init", "--quiet", "--template=", "."], target, address)
    _run([*git, "fetch", "--quiet", "--depth=1", "--no-tags", "--", address, ref], target, address)
    _run([*git, "checkout", "--quiet", "--detach", "FETCH_HEAD"], target, address)
    return _run([*git, "rev-parse", "HEAD"], target, address).strip()


def _run(words: list[str], target: Path, address: str) -> str:
    environment = {
        **os.environ,
        "GIT_TERMINAL_PROMPT": "0",  # a question nobody sees would wait for ever
        "GIT_SSH_COMMAND": os.environ.get("GIT_SSH_COMMAND", "ssh -o BatchMode=yes"),
        "GIT_ALLOW_PROTOCOL": "https:ssh:file",
        "GIT_LFS_SKIP_SMUDGE": "1",
    }
    try:
        done = subprocess.run(
            words,
            cwd=target,
            env=environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=_SECONDS,
            check=False,
        )
    except subprocess.TimeoutExpired:
        text = f"{shown(address)} did not answer within {_SECONDS} s."
        raise RefusedError([Problem("git", text)]) from None
    if done.returncode:
        said = done.stderr.strip().replace(address, shown(address))
        text = (
            f"{shown(address)} cannot be fetched: {said.splitlines()[-1] if said else 'no reason'}."
        )
        raise RefusedError([Problem("git", text, "Look at the address, the ref and your rights.")])
    return done.stdout
