"""Secrets are files in the secrets folder, readable by the portal alone.

Where the lab file names a folder of mounted secrets, those there may be readable by the group.
"""

from __future__ import annotations

import stat
from pathlib import Path

from hub.state.paths import Paths
from labkit.base.problems import Problem, ProblemsError

SAMPLES = frozenset(
    {"change-me", "changeme", "change me", "secret", "client-secret", "password", "xxx", "todo"}
)


def exists(paths: Paths, name: str, mounted: Path | None = None) -> bool:
    """Whether there is a secret of this name."""
    return place(paths, name, mounted).exists()


def place(paths: Paths, name: str, mounted: Path | None = None) -> Path:
    """Return where a secret is or belongs: in the mounted folder if it is there."""
    if mounted is not None and (mounted / name).exists():
        return mounted / name
    return paths.secrets / name


def closed_to(path: Path, mounted: Path | None = None) -> int:
    """Return the mode bits that a secret's file must not have.

    A mounted one belongs to root, and the portal's group is the only way to let it read it.
    """
    return 0o037 if mounted is not None and path.parent == mounted else 0o077


def read(paths: Paths, name: str, what: str = "a secret", mounted: Path | None = None) -> str:
    """Read a secret.

    Parameters
    ----------
    paths : Paths
        Where the portal keeps its state.
    name : str
        The file's name in the secrets folder.
    what : str
        What it is, for the message where it is missing.
    mounted : Path, optional
        The lab file's folder of mounted secrets, whose files the group may read.

    Returns
    -------
    str
        The secret, without white space around it.

    Raises
    ------
    ProblemsError
        It is missing, empty, a sample, or open to other accounts. The text never holds it.
    """
    path = place(paths, name, mounted)
    mode_text = f"{0o777 & ~closed_to(path, mounted) & 0o640:o}"
    hint = f"write {what} into this file, then: chmod {mode_text} {path}"
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
    if mode & closed_to(path, mounted):
        text = f"other accounts can read it (mode {stat.S_IMODE(mode):o})"
        hint = f"chmod {mode_text} {path}, and make a new secret if other people use this machine"
        raise ProblemsError([Problem(str(path), text, hint)])
    if not value or value.lower() in SAMPLES:
        text = "is empty" if not value else "holds a sample, not a secret"
        raise ProblemsError([Problem(str(path), text, hint)])
    return value
