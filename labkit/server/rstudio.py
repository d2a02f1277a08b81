"""RStudio in a person's server: jupyter-rsession-proxy's, where RStudio Server is installed.

That package starts ``rserver`` for one person, on the first request, on a Unix socket in a
folder of theirs alone (0700): ``rserver`` itself asks nobody for a password.
"""

from __future__ import annotations

import importlib
import time
from collections.abc import Callable, Sequence
from contextlib import suppress

import psutil
from jupyter_server_proxy.config import ServerProcess

from labkit.server.activity import Reason
from labkit.server.pages import Page

NAME = "rstudio"  # jupyter-rsession-proxy's: the last part of the address
# Its page asks for this without end, also when nobody looks.
_POLLED = r".*/events/get_events$"
_PACKAGE = "jupyter_rsession_proxy"
_SESSION = "rsession"
_LOOK = 2.0  # seconds: over less, processor time says little
_BUSY = 0.1  # of a core; a session that waits uses next to none


def lacks() -> str:
    """Return why this server has no RStudio, for its user; empty where it has."""
    try:
        package = importlib.import_module(_PACKAGE)
    except ImportError:
        return (
            "This server's profile comes without RStudio. If your lab has one with R, stop this "
            "server on the portal's home page and start it again with that profile."
        )
    try:
        package.get_rstudio_executable("rserver")
    except FileNotFoundError:
        return (
            "RStudio Server is not installed where this server runs. Your administrator can "
            "install it: `labhub doctor` says how. R notebooks in JupyterLab need no RStudio."
        )
    return ""


def adapted(processes: Sequence[ServerProcess]) -> list[ServerProcess]:
    """Return the proxied servers of installed packages, RStudio's as it is run here.

    It is left out where its program is missing. Elsewhere it has a socket and never a port,
    which others of the machine could reach; redirects are confined by the proxy as they
    stream by, not by a function that needs the whole answer; and what its page asks for by
    itself is no use of the server.

    Parameters
    ----------
    processes : sequence of ServerProcess
        As jupyter-server-proxy finds them.
    """
    kept = []
    for process in processes:
        if process.name == NAME:
            if lacks():
                continue
            process.unix_socket = True
            process.rewrite_response = []
            process.exclude_last_activity_patterns = [_POLLED]
        kept.append(process)
    return kept


class NoRStudio(Page):
    """Why there is no RStudio at its address."""

    template = "absent.html"
    status = 404

    def more(self) -> dict[str, str]:
        """Return what the page says."""
        return {"title": "No RStudio here", "advice": lacks()}


class Sessions:
    """Sees whether R computes in RStudio: by the processor time of its sessions.

    Parameters
    ----------
    clock : callable, optional
        Returns seconds.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._looked = clock()
        self._used: dict[int, float] = {}
        self._since: float | None = None

    def reasons(self) -> list[Reason]:
        """Return one reason while a session computes."""
        now = self._clock()
        if now - self._looked >= _LOOK:
            used = _processor_time()
            grown = sum(seconds - self._used.get(pid, seconds) for pid, seconds in used.items())
            if grown < _BUSY * (now - self._looked):
                self._since = None
            elif self._since is None:
                self._since = time.time()
            self._looked, self._used = now, used
        return [] if self._since is None else [Reason("hold", "R computes in RStudio", self._since)]


def _processor_time() -> dict[int, float]:
    """Return the seconds of processor time of each R session below this process, by its pid."""
    found: dict[int, float] = {}
    for process in psutil.Process().children(recursive=True):
        with suppress(psutil.Error):
            if process.name() == _SESSION:
                family = [process, *process.children(recursive=True)]
                found[process.pid] = sum(sum(one.cpu_times()[:4]) for one in family)
    return found
