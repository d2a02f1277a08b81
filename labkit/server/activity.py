"""Honest activity: what is really going on in this server, as Jupyter Server counts it.

Jupyter Server takes the latest of all settings whose name ends with ``_last_activity``; the
hub is told that time, and its culler goes by it.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from tornado.ioloop import PeriodicCallback

from labkit.base import activity
from labkit.server.cull_exemption import CullExemption

SETTING = "labkit_last_activity"
_CHECK = 5.0  # seconds between two looks
_SLACK = 120.0  # seconds: an 8 h job can be kept for the 8 h that it has just begun
_REPORT = 300.0  # seconds between two reports to the hub where the portal says nothing


@dataclass(frozen=True)
class Reason:
    """One thing that keeps the server busy.

    Attributes
    ----------
    kind : str
        ``kernel``, ``terminal`` (a command in front of it) or ``hold``.
    text : str
        What the user is shown.
    since : float or None
        Seconds since 1970: a hold's beginning, a kernel's last sign of life.
    """

    kind: str
    text: str
    since: float | None


@dataclass(frozen=True)
class Rules:
    """The portal's rules for this server, in seconds; 0 is "never".

    ``ends`` is when the cluster ends the server's job, in seconds since 1970, whatever it does,
    and ``warn`` how long before that its user is told.
    """

    idle: float = 0.0
    max_age: float = 0.0
    report: float = _REPORT
    ends: float = 0.0
    warn: float = 0.0

    @classmethod
    def from_environment(cls) -> Rules:
        """Read what the spawner has set."""
        return cls(
            idle=_number("LABHUB_CULL_IDLE_SECONDS"),
            max_age=_number("LABHUB_MAX_AGE_SECONDS"),
            report=_number("JUPYTERHUB_ACTIVITY_INTERVAL") or _REPORT,
            ends=_number("LABHUB_ENDS_AT"),
            warn=_number("LABHUB_WARN_SECONDS"),
        )


def _number(name: str) -> float:
    try:
        return max(0.0, float(os.environ.get(name, "0")))
    except ValueError:
        return 0.0


class Activity:
    """Looks again and again whether something is going on, and says so in the settings.

    Parameters
    ----------
    settings : dict
        The web application's.
    keep : CullExemption
        What the user has asked for.
    rules : Rules
        What the portal has set.
    clock : callable, optional
        Returns seconds since 1970.
    more : sequence of callable
        Each returns further reasons.
    """

    def __init__(
        self,
        settings: dict[str, Any],
        keep: CullExemption,
        rules: Rules,
        clock: Callable[[], float] = time.time,
        more: Sequence[Callable[[], list[Reason]]] = (),
    ) -> None:
        self.keep = keep
        self._more = more
        self.rules = rules
        self._settings = settings
        self._clock = clock
        check = min(_CHECK, max(0.2, rules.report / 3))
        self._timer = PeriodicCallback(self.look, check * 1000)

    def start(self) -> None:
        """Begin to look; needs the running event loop."""
        self.look()
        self._timer.start()

    def stop(self) -> None:
        """Stop looking."""
        self._timer.stop()

    def reasons(self, notebooks: Mapping[str, str] | None = None) -> list[Reason]:
        """Return what keeps the server busy now.

        Parameters
        ----------
        notebooks : mapping of str to str, optional
            Which notebook each kernel, by its id, works for.
        """
        held = [Reason("hold", one.reason, one.since) for one in activity.holds()]
        more = [reason for reasons in self._more for reason in reasons()]
        return [*self._kernels(notebooks or {}), *held, *more]

    def look(self) -> None:
        """Note the present as the last activity where something is going on."""
        now = self._clock()
        times = [self._settings[SETTING].timestamp()] if SETTING in self._settings else []
        if self.reasons():
            times.append(now)
        if (until := self.keep.until) is not None:
            # So that an idle server ends when the user said, and not an idle time later.
            times.append(min(now, until - self.rules.idle))
        if times:
            self._settings[SETTING] = datetime.fromtimestamp(max(times), UTC)

    def last(self) -> float:
        """Return when the server was last used, in seconds since 1970, by Jupyter's rules."""
        manager = self._settings["kernel_manager"]
        times = [self._settings["started"], manager.last_kernel_activity]
        times += [v for k, v in self._settings.items() if k.endswith("_last_activity")]
        times += self._settings.get("last_activity_times", {}).values()
        return float(max(t.timestamp() for t in times))

    def stops(self) -> float | None:
        """Return when the server will be stopped if nothing happens; None: never by itself."""
        ends = []
        if self.rules.idle:
            last = self._clock() if self.reasons() else self.last()
            ends.append(max(last + self.rules.idle, self.keep.until or 0.0))
        if self.rules.max_age:
            ends.append(self._settings["started"].timestamp() + self.rules.max_age)
        if self.rules.ends:
            ends.append(self.rules.ends)
        return min(ends) if ends else None

    def keep_most(self) -> float:
        """Return for how many seconds the server can be kept: it may end before, whatever it does.

        A few seconds that have passed since its start do not count.
        """
        now = self._clock()
        ends = [self.rules.ends] if self.rules.ends else []
        if self.rules.max_age:
            ends.append(self._settings["started"].timestamp() + self.rules.max_age)
        return max(0.0, min([self.keep.most, *(end - now + _SLACK for end in ends)]))

    def _kernels(self, notebooks: Mapping[str, str]) -> list[Reason]:
        manager = self._settings["kernel_manager"]
        found = []
        for kernel_id in manager.list_kernel_ids():
            try:
                kernel = manager.get_kernel(kernel_id)
            except KeyError:  # shut down meanwhile
                continue
            if getattr(kernel, "execution_state", "") == "busy":
                name = notebooks.get(kernel_id) or kernel.kernel_name
                since = getattr(kernel, "last_activity", None)
                found.append(Reason("kernel", name, since.timestamp() if since else None))
        return found
