"""The culler's judgement: a server must look idle for a while, to a culler that was awake.

After the hub was down or the machine asleep, every server looks idle until it has reported
again; the stock rule would then stop the busy ones.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from datetime import timedelta
from typing import Any


class CullPolicy:
    """Cull a server only when it was seen idle for a while, without a pause in the watch.

    Parameters
    ----------
    grace : float
        Seconds for which it must have been seen idle: longer than the time between two
        reports of a server.
    every : float
        Seconds between two rounds; a gap of more than two rounds is a pause in the watch.
    clock : callable, optional
        Returns seconds that only grow.
    """

    def __init__(
        self, grace: float, every: float, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._grace = grace
        self._gap = 2 * every + 1
        self._clock = clock
        self._seen: dict[tuple[str, str], tuple[float, float]] = {}

    def __call__(
        self, *, inactive: timedelta, inactive_limit: float, server: Mapping[str, Any], **_: Any
    ) -> bool:
        """Judge one server, at each of the culler's rounds.

        Parameters
        ----------
        inactive : timedelta
            How long ago the server was used, as the hub knows.
        inactive_limit : float
            Seconds after which a server is idle.
        server : mapping
            The hub's model of the server.

        Returns
        -------
        bool
            Whether to stop it.
        """
        # The name of an unnamed server is "", its address is its own.
        key = (str(server.get("url")), str(server.get("started")))
        now = self._clock()
        if inactive.total_seconds() < inactive_limit:
            self._seen.pop(key, None)
            return False
        first, last = self._seen.get(key, (now, now))
        if now - last > self._gap:
            first = now  # nobody watched meanwhile
        self._seen[key] = (first, now)
        self._forget(now)
        return now - first >= self._grace

    def _forget(self, now: float) -> None:
        for key, (_, last) in list(self._seen.items()):
            if now - last > self._gap:
                del self._seen[key]
