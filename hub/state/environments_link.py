"""Where the environments are, said once: the state folder's ``envs`` leads to the shared folder.

Every command, unit and cron line finds them by it, without a variable that one of them forgets.
"""

from __future__ import annotations

import shutil
from pathlib import Path

from hub.state.paths import Paths
from labkit.base.problems import Problem, ProblemsError

_BEFORE = "envs.before"


def is_here(folder: Path) -> bool:
    """Whether a folder is on this machine, or could be made: a part of its path is there."""
    existing = next(place for place in (folder, *folder.parents) if place.exists())
    return existing != Path(folder.anchor)


def link_environments(paths: Paths, folder: Path) -> None:
    """Let the state folder's ``envs`` lead to a folder that the nodes share.

    The hub's own environment moves there: this very program may run from it. Others were made for
    the old place, and are made anew.

    Parameters
    ----------
    paths : Paths
        Where the portal keeps its state.
    folder : Path
        ``slurm.environments``.

    Raises
    ------
    ProblemsError
        It cannot be made or linked.
    """
    link = paths.state / "envs"
    if folder == link:
        return
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if link.is_symlink():
            if link.readlink() == folder:
                return
            link.unlink()
        elif link.is_dir():
            _leave(link, folder)
        paths.state.mkdir(mode=0o711, parents=True, exist_ok=True)
        link.symlink_to(folder)
    except OSError as error:
        text = f"cannot become the folder of the environments: {error.strerror or error}"
        hint = "slurm.environments: a folder that this account may write"
        raise ProblemsError([Problem(str(error.filename or folder), text, hint)]) from None


def _leave(old: Path, folder: Path) -> None:
    hub = old / "hub"
    if hub.exists() and not (folder / "hub").exists():
        shutil.copytree(hub, folder / "hub.new", symlinks=True)
        (folder / "hub.new").rename(folder / "hub")
        shutil.rmtree(hub, ignore_errors=True)
    if any(entry.is_dir() and not entry.name.startswith(".") for entry in old.iterdir()):
        kept = old.with_name(_BEFORE)
        if kept.exists():
            shutil.rmtree(kept)
        old.rename(kept)
    else:
        shutil.rmtree(old)
