"""What a core and a GB cost for an hour, where somebody has said so; money before and after.

A lab's own prices stand in ``LABKIT_PRICES`` (the lab file's section ``prices``). Without them only
AWS Batch has a price: the list below.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from labkit.base.units import GB
from labkit.jobs.plan import Plan

_HOUR = 3600.0  # seconds
# AWS's list prices on demand in us-east-1 as of 2024-06: c5.large 0.085 and r5.large 0.126 USD an
# hour have 2 cores each, and 4 and 16 GB.
_DATE = "2024-06"
_LISTED = {"batch": (0.0357, 0.0034)}


@dataclass(frozen=True)
class Prices:
    """Prices of an hour.

    Attributes
    ----------
    currency : str
        E.g. ``"EUR"``.
    core, gb : mapping of str to float
        Backend -> price of a core, and of a GB of memory, that is asked for.
    source : str
        Whose they are, and from when.
    """

    currency: str
    core: Mapping[str, float]
    gb: Mapping[str, float] = field(default_factory=dict)
    source: str = ""

    @classmethod
    def here(cls) -> Prices:
        """Return the lab's prices, else the list's."""
        try:
            own = json.loads(os.environ.get("LABKIT_PRICES") or "{}")
            if own:
                return cls(
                    str(own["currency"]), _numbers(own["core"]), _numbers(own.get("gb", {})),
                    "the lab's prices",
                )  # fmt: skip
        except (ValueError, KeyError, TypeError, AttributeError):
            pass  # a wrong setting costs nobody a job
        return cls(
            "USD",
            {name: core for name, (core, _) in _LISTED.items()},
            {name: gb for name, (_, gb) in _LISTED.items()},
            f"list price on demand of {_DATE}; spot machines are often a third of it",
        )

    def amount(self, backend: str, core_seconds: float, byte_seconds: float) -> float | None:
        """Return what a use costs; None where the backend has no price.

        Parameters
        ----------
        backend : str
            Where it ran.
        core_seconds, byte_seconds : float
            Cores and bytes of memory that were asked for, times seconds.
        """
        if backend not in self.core:
            return None
        hours = core_seconds / _HOUR
        gb_hours = byte_seconds / GB / _HOUR
        return self.core[backend] * hours + self.gb.get(backend, 0.0) * gb_hours

    def show(self, amount: float) -> str:
        """Return an amount for people: two digits, or what is left of a small one."""
        digits = 2 if amount >= 0.1 or amount == 0 else 4
        return f"{amount:,.{digits}f} {self.currency}"


def _numbers(given: Mapping[str, Any]) -> dict[str, float]:
    return {str(name): float(value) for name, value in given.items()}


def before(plan: Plan, backend: str) -> str:
    """Return what a plan may cost, in words; empty where the backend has no price.

    Parameters
    ----------
    plan : Plan
        The plan.
    backend : str
        Where it would run.
    """
    prices = Prices.here()
    if backend not in prices.core:
        return ""
    most = 0.0
    open_ended = []
    for stage in plan.stages:
        asked = stage.resources
        hour = prices.amount(backend, asked.cpu * _HOUR, asked.memory * _HOUR) or 0.0
        if asked.time is None:
            open_ended.append(f"{prices.show(hour)} for each hour of a task of {stage.name}")
        else:
            most += hour * asked.time.total_seconds() / _HOUR * len(stage.tasks)
    parts = [f"at most {prices.show(most)} if each task takes all its time"] if most else []
    return f"Costs {'; '.join([*parts, *open_ended])} ({prices.source})."


def after(used: Iterable[tuple[str, float, float]]) -> str:
    """Return what a job has cost so far, in words; empty where a backend has no price.

    Parameters
    ----------
    used : iterable of (str, float, float)
        Backend, core seconds and byte seconds, of all attempts: failed ones cost as much.
    """
    prices = Prices.here()
    amounts = [prices.amount(*one) for one in used]
    if not amounts or None in amounts:
        return ""
    return f"{prices.show(sum(filter(None, amounts)))} ({prices.source})"
