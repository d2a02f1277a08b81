"""A start whose job does not reach the hub: its own log says so, long before a time-out."""

from __future__ import annotations

import re

from hub.slurm.job.announce import UNREACHED

LASTED = 8  # seconds of failing, to a hub that was there all the while
_LINE = re.compile(rf"^labhub: {UNREACHED} at (\S+) for (\d+) s: (.*)$", re.MULTILINE)


class UnreachedHub:
    """Judges by the log of a starting server whether its node reaches the hub.

    Parameters
    ----------
    resumed : bool
        Whether the start began under an earlier hub: what its log says so far is no wonder.
    """

    def __init__(self, *, resumed: bool = False) -> None:
        self._before: int | None = None if resumed else 0

    def verdict(self, log: str) -> str:
        """Return why the start cannot succeed; empty where that is not certain.

        Parameters
        ----------
        log : str
            The end of the job's log as it is now.
        """
        lines = _LINE.findall(log)
        if not lines:
            return ""
        address, seconds, why = lines[-1]
        if self._before is None:
            self._before = int(seconds)
        if int(seconds) - self._before < LASTED:
            return ""
        return f"its node does not reach the hub at {address}: {why}"
