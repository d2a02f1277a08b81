"""The user's own word: keep this server until then, at most so long."""

from __future__ import annotations

import json
import math
import os
import time
from collections.abc import Callable
from pathlib import Path

from labkit.base import activity, files
from labkit.base.units import format_duration

_LOCK_TIMEOUT = 10.0  # seconds

DEFAULT_MOST = 24 * 3600.0  # seconds


class CullExemption:
    """What the user has asked for one server, in ``keep-until.json`` of the user's folder.

    Parameters
    ----------
    server : str
        Name of the server; the unnamed one is "". A user's servers share the home.
    most : float
        Seconds that may be asked for.
    clock : callable, optional
        Returns seconds since 1970.
    """

    def __init__(self, server: str, most: float, clock: Callable[[], float] = time.time) -> None:
        self.most = most
        self._server = server
        self._clock = clock

    @classmethod
    def from_environment(cls) -> CullExemption:
        """Read the server's name and the bound that the portal has set."""
        try:
            most = float(os.environ["LABHUB_KEEP_MAX_SECONDS"])
        except (KeyError, ValueError):
            most = DEFAULT_MOST
        return cls(os.environ.get("JUPYTERHUB_SERVER_NAME", ""), most)

    @property
    def until(self) -> float | None:
        """The time (seconds since 1970) until which the server is kept; None: it is not."""
        now = self._clock()
        until = self._read().get(self._server)
        # Whoever writes the file by hand gets no more than by the page.
        return min(until, now + self.most) if until and until > now else None

    def set(self, seconds: float, left: float = math.inf) -> float:
        """Keep the server for so long from now.

        Parameters
        ----------
        seconds : float
            How long.
        left : float
            Seconds after which it ends anyway: by its job's time limit, or its age.

        Raises
        ------
        ValueError
            It is not more than nothing, more than the portal allows, or more than is left.
        """
        if not 0 < seconds <= self.most:
            raise ValueError(
                f"A server can be kept for at most {format_duration(self.most)}, "
                f"not {format_duration(seconds)}."
            )
        if seconds > left:
            raise ValueError(
                f"This server ends in {format_duration(max(0.0, left))} whatever it does: it "
                f"cannot be kept for {format_duration(seconds)}."
            )
        until = self._clock() + seconds
        self._change(until)
        return until

    def clear(self) -> None:
        """Let the server go when it is idle."""
        self._change(None)

    def _read(self) -> dict[str, float]:
        try:
            fields = json.loads(self._path.read_text(encoding="utf-8"))
            return {str(name): float(until) for name, until in fields["servers"].items()}
        except (OSError, ValueError, TypeError, KeyError, AttributeError):
            return {}

    def _change(self, until: float | None) -> None:
        with files.locked(self._path.with_suffix(".lock"), _LOCK_TIMEOUT, "the list of servers"):
            now = self._clock()
            servers = {name: end for name, end in self._read().items() if end > now}
            servers.pop(self._server, None)
            if until is not None:
                servers[self._server] = until
            files.write_atomic(self._path, json.dumps({"servers": servers}))

    @property
    def _path(self) -> Path:
        return activity.folder() / "keep-until.json"
