"""Count failed attempts and close the door for a while."""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable, Hashable
from dataclasses import dataclass


@dataclass
class _Tries:
    count: int
    until: float


class Lockout:
    """A door for each key: closed for ``wait`` seconds after ``failures`` failed attempts.

    An attempt is counted when it begins, so that a hundred at once are no way around, and
    given back when it succeeds. One at a closed door is not counted: nobody can keep it
    closed by knocking. Kept in memory; a restart of the hub opens all doors.

    Parameters
    ----------
    failures : int
        How many attempts may fail.
    wait : float
        Seconds after the last of them until the door opens again.
    clock : callable
        Returns seconds.
    size : int
        Keys that are kept; beyond it the oldest goes.
    """

    def __init__(
        self,
        failures: int,
        wait: float,
        clock: Callable[[], float] = time.monotonic,
        size: int = 20_000,
    ) -> None:
        self.failures = failures
        self.wait = wait
        self._clock = clock
        self._size = size
        self._tries: OrderedDict[Hashable, _Tries] = OrderedDict()

    def closed_for(self, key: Hashable) -> float:
        """Return the seconds until the door opens; 0 where it is open."""
        tries = self._tries.get(key)
        left = tries.until - self._clock() if tries else 0.0
        if left <= 0:
            self._tries.pop(key, None)
            return 0.0
        return left if tries and tries.count >= self.failures else 0.0

    def begin(self, key: Hashable) -> None:
        """Count an attempt as failed until `give_back` or `forget` says otherwise."""
        tries = self._tries.pop(key, None)
        now = self._clock()
        count = tries.count if tries and tries.until > now else 0
        self._tries[key] = _Tries(count + 1, now + self.wait)
        while len(self._tries) > self._size:
            self._tries.popitem(last=False)

    def give_back(self, key: Hashable) -> None:
        """Take one attempt off: it was none against this door."""
        tries = self._tries.get(key)
        if tries:
            tries.count = max(0, tries.count - 1)

    def forget(self, key: Hashable) -> None:
        """Begin again at zero."""
        self._tries.pop(key, None)
