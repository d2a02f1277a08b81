"""Secrets are files in the secrets folder, readable by the portal alone."""

from __future__ import annotations

import stat

from hub.state.paths import Paths
from labkit.base.problems import Problem, ProblemsError

SAMPLES = frozenset(
    {"change-me", "changeme", "change me", "secret", "client-secret", "password", "xxx", "todo"}
)


def read(paths: Paths, name: str, what: str = "a secret") -> str:
    """Read a secret.

    Parameters
    ----------
    paths : Paths
        Where the portal keeps its state.
    name : str
        The file's name in the secrets folder.
    what : str
        What it is, for the message where it is missing.

    Returns
    -------
    str
        The secret, without white space around it.

    Raises
    ------
    ProblemsError
        It is missing, empty, a sample, or open to other accounts. The text never holds it.
    """
    path = paths.secrets / name
    hint = f"write {what} into this file, then: chmod 600 {path}"
    try:
        mode = path.stat().st_mode
        value = path.read_text(encoding="utf-8").strip()
    except FileNotFoundError:
        raise ProblemsError([Problem(str(path), f"{what} is missing", hint)]) from None
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "it is no UTF-8 text"
        raise ProblemsError([Problem(str(path), f"cannot be read: {reason}", hint)]) from None
    if not stat.S_ISREG(mode):
        raise ProblemsError([Problem(str(path), "is no regular file", hint)])
    if mode & 0o077:
        text = f"other accounts can read it (mode {stat.S_IMODE(mode):o})"
        hint = f"chmod 600 {path}, and make a new secret if other people use this machine"
        raise ProblemsError([Problem(str(path), text, hint)])
    if not value or value.lower() in SAMPLES:
        text = "is empty" if not value else "holds a sample, not a secret"
        raise ProblemsError([Problem(str(path), text, hint)])
    return value
