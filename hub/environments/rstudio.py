"""R for people: which profiles have it, and whether RStudio Server is on this machine.

No package archive has RStudio Server; an administrator installs it. Where it is missing its
tile and its card are left out.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable, Iterator

from hub.labfile.schema import Profile
from labkit.base.problems import Problem

ENVIRONMENT = "r"
_PLACES = ("/usr/lib/rstudio-server/bin", "/usr/lib/rstudio/bin")  # of its packages


def has_r(profiles: Iterable[Profile]) -> bool:
    """Whether one of the profiles has R."""
    return any(profile.environment == ENVIRONMENT for profile in profiles)


def rserver() -> str:
    """Return RStudio Server's program on this machine; empty where there is none."""
    path = os.pathsep.join((os.environ.get("PATH", os.defpath), *_PLACES))
    return shutil.which("rserver", path=path) or ""


def may_be_there(*, on_this_machine: bool) -> bool:
    """Whether user servers have RStudio, so far as the hub can know of other machines.

    Parameters
    ----------
    on_this_machine : bool
        User servers run on the hub's own.
    """
    return not on_this_machine or bool(rserver())


def problems(profiles: Iterable[Profile], *, on_this_machine: bool) -> Iterator[Problem]:
    """Yield what keeps people from RStudio.

    Parameters
    ----------
    profiles : iterable of Profile
        The lab file's.
    on_this_machine : bool
        User servers run on the hub's own.
    """
    if has_r(profiles) and not may_be_there(on_this_machine=on_this_machine):
        text = "RStudio Server is not on this machine: profiles with R come without its tile"
        hint = "install its package from posit.co/download/rstudio-server (docs/how-to/rstudio.md)"
        yield Problem("rstudio", text, hint, warning=True)
